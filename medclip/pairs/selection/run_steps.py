"""Run the steps of a selection one after the other, each over the pairs that those before it kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medclip.errors import MedclipError, Reason, did_you_mean, refuse_missing
from medclip.files.tables.table import TextForm
from medclip.lazy import import_name
from medclip.pairs.pile import Pile
from medclip.pairs.selection.pack_vectors import need_pack
from medclip.pairs.selection.steps import FILTERS, Context, FilterSettings, Verdict
from medclip.progress import Progress, Silent
from medclip.recipe import invalid_recipe, read_yaml
from medclip.result import Result, named_counts
from medclip.settings import Settings
from medclip.shards.selection import Selection, selection_of
from medclip.wording import count, list_of, number, percent_of

GROUPED_BY = ("modality", "source", "split")
"""Columns by whose values it is counted what is kept."""
_FILE = "a file of steps"


class _StepsFile(BaseModel):
    """A file of steps, as it is written."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(default=0, ge=0)
    steps: list[dict[str, dict[str, Any]]] = Field(min_length=1)

    @field_validator("steps", mode="before")
    @classmethod
    def _without_settings(cls, steps: Any) -> Any:
        """Take a name alone for a step without settings."""
        if not isinstance(steps, list):
            return steps
        named = ({step: {}} if isinstance(step, str) else step for step in steps)
        return [{k: {} if v is None else v for k, v in s.items()} if isinstance(s, dict) else s for s in named]


@dataclass(frozen=True)
class Steps:
    """Steps in their order, understood."""

    steps: tuple[tuple[str, FilterSettings], ...]
    seed: int = 0
    folder: Path = Path()
    """Folder that relative paths of the settings are relative to."""

    def to_dict(self) -> dict[str, Any]:
        """Return the steps as plain values of JSON, with every setting that is no default."""
        steps = [{name: settings.model_dump(mode="json", exclude_defaults=True)} for name, settings in self.steps]
        return {"seed": self.seed, "steps": steps}


@dataclass(frozen=True)
class StepReport:
    """What one step did."""

    name: str
    num_rows: int
    """Pairs that it was asked about."""
    num_kept: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def num_dropped(self) -> int:
        """Return how many it dropped."""
        return self.num_rows - self.num_kept


@dataclass(frozen=True, repr=False)
class SelectionReport(Result):
    """What a selection keeps."""

    num_pairs: int
    num_kept: int
    steps: tuple[StepReport, ...]
    by: Mapping[str, Mapping[str, tuple[int, int]]]
    """Pairs, and those of them that are kept, by the values of each column of `GROUPED_BY`."""
    cautions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    out: Path | None = None
    """File of the selection."""
    selection: Selection | None = None

    def _facts(self) -> dict[str, object]:
        facts: dict[str, object] = {} if not self.cautions else {"caution": " ".join(self.cautions)}
        facts["kept"] = f"{number(self.num_kept)} of {count(self.num_pairs, 'pair')}"
        dropped: Counter[str] = Counter()
        for step in self.steps:
            dropped[step.name] += step.num_dropped
        facts["dropped"] = named_counts(dropped)
        for column, counts in self.by.items():
            facts[f"kept by {column}"] = ", ".join(
                f"{name or '(blank)'} {percent_of(kept, num)}" for name, (num, kept) in counts.items()
            )
        return facts | ({} if self.out is None else {"file": self.out})

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [
            {"by": column, "value": name, "pairs": num, "kept": kept, "share": kept / num}
            for column, counts in self.by.items()
            for name, (num, kept) in counts.items()
        ][:most]

    def _caution(self, row: Mapping[str, Any]) -> str:
        return "" if row["kept"] else "nothing is kept"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a caution stands first."""
        steps = [
            {"step": s.name, "pairs": s.num_rows, "kept": s.num_kept, "facts": dict(s.facts), "notes": list(s.notes)}
            for s in self.steps
        ]
        by = {
            column: {name: {"pairs": num, "kept": kept} for name, (num, kept) in counts.items()}
            for column, counts in self.by.items()
        }
        counts = {"num_pairs": self.num_pairs, "num_kept": self.num_kept, "steps": steps, "by": by}
        digest = {} if self.selection is None else {"digest": self.selection.digest, "pile": self.selection.pile}
        out = None if self.out is None else str(self.out)
        return {"cautions": list(self.cautions), **counts, "notes": list(self.notes), "out": out, **digest}


def read_steps(source: Path | Mapping[str, Any]) -> Steps:
    """Read a file of steps.

    Args:
        source: YAML file with the keys `seed` and `steps`, a list of steps with their settings; or what it holds.

    Raises:
        MedclipError: MISSING_FILE; RECIPE_INVALID for an unknown step, and for settings that a step does not take.
    """
    path = None if isinstance(source, Mapping) else Path(source)
    try:
        parsed = _StepsFile.model_validate(source if path is None else read_yaml(path))
    except ValidationError as e:
        raise invalid_recipe(e, _StepsFile, path, _FILE) from None
    steps = tuple(_step(one, place, path) for place, one in enumerate(parsed.steps, 1))
    return Steps(steps, parsed.seed, Path() if path is None else path.parent)


def _step(step: Mapping[str, Mapping[str, Any]], place: int, path: Path | None) -> tuple[str, FilterSettings]:
    if len(step) != 1:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"step {place} names {list_of([repr(name) for name in step]) or 'nothing'}; a step is one name with its "
            "settings.",
            where=path,
            hint="Begin each with a dash, such as - basic: {} in a line of its own.",
        )
    ((name, settings),) = step.items()
    if name not in FILTERS:
        hint = did_you_mean(name, FILTERS, "Steps are")
        raise MedclipError(Reason.RECIPE_INVALID, f"there is no step named {name!r}.", where=path, hint=hint)
    kind: type[FilterSettings] = import_name(FILTERS[name].settings)
    try:
        return name, kind.model_validate(settings)
    except ValidationError as e:
        raise invalid_recipe(e, kind, path, f"the step {name}") from None


def run_steps(
    pile: Pile,
    steps: Steps,
    *,
    form: TextForm | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> SelectionReport:
    """Ask the steps, one after the other, about the pairs that those before them kept.

    Args:
        pile: The N pairs.
        steps: The steps.
        form: Form of the text of tables that steps name, where the user can say so.
        settings: Limits of what is read.
        progress: Object that is told how far they are.

    Returns:
        The selection, with one row for each pair, and what each step did. A step that is handed no pair is not asked.

    Raises:
        MedclipError: MISSING_FILE and PACK_NOT_FOUND before the first step, for what any of them names and is not
            there; what a step raises.
    """
    _need_all(steps)
    context = Context(steps.seed, steps.folder, settings or Settings(), progress or Silent(), form)
    dropped_by = np.full(len(pile), "", object)
    value_N, weight_N = np.full(len(pile), np.nan), np.ones(len(pile))
    rows_M, reports = np.arange(len(pile)), []
    for place, (name, chosen) in enumerate(steps.steps, 1):
        if not len(rows_M):
            reports.append(StepReport(name, 0, 0))
            continue
        verdict: Verdict = import_name(FILTERS[name].target)(pile, rows_M, chosen, context, place)
        kept_M, measured_M, weights_M = _checked(name, verdict, len(rows_M))
        # A value is that of the step that dropped the pair, also where it measured nothing, or of the last that did.
        if measured_M is None:
            value_N[rows_M[~kept_M]] = np.nan
        else:
            value_N[rows_M] = np.where(kept_M & np.isnan(measured_M), value_N[rows_M], measured_M)
        if weights_M is not None:
            weight_N[rows_M] *= np.where(kept_M, weights_M, 1)
        dropped_by[rows_M[~kept_M]] = name
        reports.append(StepReport(name, len(rows_M), int(kept_M.sum()), verdict.facts, verdict.notes))
        rows_M = rows_M[kept_M]
    keys, splits = pile.table.column("key"), pile.table.column("split")
    selection = selection_of(keys, splits, dropped_by, value_N, weight_N, pile.digest, steps.to_dict())
    by = {column: _kept_by(pile.cells(column), selection.kept_N) for column in GROUPED_BY}
    notes = tuple(f"{step.name}: {note}" for step in reports for note in step.notes)
    cautions = _cautions(pile, by, dropped_by)
    return SelectionReport(len(pile), len(rows_M), tuple(reports), by, cautions, notes, selection=selection)


def _need_all(steps: Steps) -> None:
    """Refuse what a step names and is not there: the first one may take hours."""
    for _, chosen in steps.steps:
        for place in chosen.places():
            if "://" not in str(place):
                refuse_missing(steps.folder / place)
        for pack in chosen.packs():
            need_pack(pack, steps.folder)


def report_of(selection: Selection) -> SelectionReport:
    """Return what a selection keeps, as far as it says itself: by split."""
    by = {"split": _kept_by(selection.table.column("split").to_pylist(), selection.kept_N)}
    num_kept = int(selection.kept_N.sum())
    dropped_by = selection.table.column("dropped_by").to_numpy()
    cautions = () if num_kept else (f"Nothing is kept: {_by_step(dropped_by)}.",)
    return SelectionReport(len(selection), num_kept, (), by, cautions, selection=selection)


def _checked(
    name: str, verdict: Verdict, num: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return what a step answered as arrays; ValueError for what no step may answer."""
    kept = np.asarray(verdict.kept_M)
    values = None if verdict.value_M is None else np.asarray(verdict.value_M, np.float64)
    weights = None if verdict.weight_M is None else np.asarray(verdict.weight_M, np.float64)
    is_form = kept.dtype == bool and all(one is None or one.shape == (num,) for one in (kept, values, weights))
    if not is_form or not (weights is None or (np.isfinite(weights).all() and (weights >= 0).all())):
        raise ValueError(f"the step {name!r} must answer a bool, and a finite weight of 0 and more, for each of {num}")
    return kept, values, weights


def _kept_by(cells: Sequence[str], kept_N: NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    """Count the pairs of each value of a column, and those that are kept, the most frequent first."""
    every, kept = Counter(cells), Counter(cell for cell, is_kept in zip(cells, kept_N, strict=True) if is_kept)
    return {name: (num, kept[name]) for name, num in sorted(every.items(), key=lambda kv: (-kv[1], kv[0]))}


def _cautions(
    pile: Pile, by: Mapping[str, Mapping[str, tuple[int, int]]], dropped_by: NDArray[np.object_]
) -> tuple[str, ...]:
    """Return what nobody should overlook: everything is dropped, or all pairs of a modality."""
    if (dropped_by != "").all():
        return (f"Nothing is kept: {_by_step(dropped_by)}.",)
    modalities = np.asarray(pile.cells("modality"), object)
    return tuple(
        f"Every pair of the modality {name or '(blank)'} is dropped: {_by_step(dropped_by[modalities == name])}."
        for name, (_, kept) in by["modality"].items()
        if not kept
    )


def _by_step(dropped_by: NDArray[np.object_]) -> str:
    return list_of([f"{number(num)} by {name}" for name, num in Counter(dropped_by.tolist()).most_common()])
