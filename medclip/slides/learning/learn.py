"""`medclip slides learn`: a head for whole slides from a store of vectors and a table of labels, measured and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.output import claim_folder, in_use, new_folder, write_file
from medclip.files.pseudonyms import load_key
from medclip.files.recipes.key_value import Overrides, read_overrides
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.models.scores.class_vectors import probabilities
from medclip.progress import Progress, Silent
from medclip.result import Result
from medclip.settings import Settings
from medclip.slides.learning.cross_validate import Compared, cross_validate
from medclip.slides.learning.head_file import CARD, HeadCard, SlideHead, write_head
from medclip.slides.learning.labels import LabelledSlides, read_slide_labels
from medclip.slides.learning.train import SlideRecipe, held_back, train_slides
from medclip.slides.store.slide_features import SlideFeatures
from medclip.slides.store.slide_store import SlideStore, open_slide_store
from medclip.statistics.estimate import NUM_RESAMPLES, Estimate
from medclip.text.vocabulary.task import Task
from medclip.wording import count, estimate

if TYPE_CHECKING:
    import pyarrow as pa

FIGURES, OUT_OF_FOLD = "figures.csv", "out_of_fold"
_OWN = ("pooling",)
"""Fields of the recipe that have an argument of their own."""


@dataclass(frozen=True, eq=False, repr=False)
class LearnedSlides(Result):
    """A head that learned from slides, and what cross-validation says of its like."""

    head: SlideHead
    compared: Compared
    num_slides: int
    num_patients: int
    notes: tuple[str, ...]
    out: Path

    @property
    def figures(self) -> Mapping[str, Estimate]:
        """Out-of-fold figures of the head's own pooling, by metric."""
        return self.compared.poolings[self.head.card.shape.pooling].figures

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        card = self.head.card
        return {
            "out": str(self.out),
            "label": card.label,
            "names": list(card.names),
            "pooling": card.shape.pooling,
            "slides": self.num_slides,
            "patients": self.num_patients,
            "figures": self._rows(),
            "notes": list(self.notes),
        }

    def _facts(self) -> dict[str, object]:
        card = self.head.card
        return {
            "label": f"{card.label}: {', '.join(card.names)}",
            "learned from": f"{count(self.num_slides, 'slide')} of {count(self.num_patients, 'patient')}",
            "pooling": card.shape.pooling,
            **{f"{name}, left-out patients": estimate(e.value, e.low, e.high) for name, e in self.figures.items()},
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return _figure_rows(self.compared)[:most]


def learn(
    store: SlideStore | str | Path,
    labels: Any,
    label: str | Sequence[str] = (),
    *,
    out: str | Path,
    pooling: str = "abmil",
    against: str | Sequence[str] = (),
    patient: str | None = None,
    task: Task | str | Path | None = None,
    years: int = 0,
    folds: int = 5,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    overrides: Overrides = (),
    key_file: str | Path | None = None,
    overwrite: bool = False,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> LearnedSlides:
    """Learn to answer a question of whole slides, and measure on patients that were left out how well that goes.

    Cross-validation by patient measures; the head that is kept learned from all slides, in the same way.

    Args:
        store: What `medclip slides embed` wrote.
        labels: Table with a column `slide` (or file, key), one of patients, and those of the labels.
        label: One column of classes, or columns of 0 and 1.
        out: Folder of the head.
        pooling: mean, abmil or acmil. ACMIL keeps its branches apart, so that it misses lesions of a few patches.
        against: Another pooling, or several, that are measured on the same folds.
        patient: Column of patients; "file" where every slide is a patient of its own.
        task: A task of the vocabulary or a task file; made of the table where None.
        years: K: learn the risk of an event by the end of year 1 to K, from the columns `event_months` and
            `followup_months`; 0: learn the labels.
        folds: Of the cross-validation, at most so many.
        seed: Of folds, held-back patients and training.
        num_resamples: Of patients, for intervals.
        overrides: Fields of `SlideRecipe`: `{"epochs": 100}` or `["epochs=100"]`.
        key_file: Key that patients are hashed with; the identity key of `settings` where None.
        overwrite: Replace a head that is in `out`.
        settings: For the identity key.
        progress: Told of each fold.

    Returns:
        The head with its figures.

    Raises:
        MedclipError: WRONG_USE, OUTPUT_IN_USE, TABLE_INVALID, NOTHING_TO_DO; what opening the store raises.
    """
    settings, progress, folder = settings or Settings(), progress or Silent(), Path(out)
    opened = store if isinstance(store, SlideStore) else open_slide_store(store)
    recipe = recipe_of(pooling, overrides)
    columns = (label,) if isinstance(label, str) else tuple(label)
    if bool(columns) == bool(years):
        raise MedclipError(
            Reason.WRONG_USE,
            "either columns of labels are learned or the risk of an event.",
            hint="Name columns with --label, or years with --years.",
        )
    _claim(folder, opened.folder, overwrite)
    key = load_key(settings, path=None if key_file is None else Path(key_file))
    slides = read_slide_labels(opened, labels, columns, patient=patient, task=task, years=years, key=key)
    bags = slides.bags
    others = (against,) if isinstance(against, str) else against
    poolings = [recipe.pooling, *(name for name in others if name != recipe.pooling)]
    compared = cross_validate(
        bags, recipe, poolings=poolings, num_folds=folds, seed=seed, num_resamples=num_resamples, progress=progress
    )
    rows, back = held_back(bags, recipe.val_share, seed)
    val = bags.select(back) if len(back) else None
    learned = train_slides(bags.select(rows), recipe, seed=seed, val=val)
    notes = (*slides.notes, *compared.poolings[recipe.pooling].notes)
    first = opened.read(bags.keys[0])
    head = SlideHead(
        _card(slides, first, recipe, seed, compared, learned.epoch, notes, learned.model.shape), learned.model
    )
    with new_folder(folder) as draft:
        write_head(draft, head)
        write_file(draft / FIGURES, csv_bytes(_table(_figure_rows(compared))))
        answers = _table(_answers(slides, compared, {row.key: row.file for row in opened.rows}))
        write_file(draft / f"{OUT_OF_FOLD}.parquet", parquet_bytes(answers))
        write_file(draft / f"{OUT_OF_FOLD}.csv", csv_bytes(answers))
    return LearnedSlides(head, compared, len(bags), bags.num_patients, notes, folder)


def recipe_of(pooling: str, overrides: Overrides) -> SlideRecipe:
    """Make a recipe of settings.

    Raises:
        MedclipError: WRONG_USE for a setting that there is not, or a value of another type.
    """
    known = {field.name: type(field.default) for field in fields(SlideRecipe) if field.name not in _OWN}
    values = {key.replace("-", "_"): value for key, value in read_overrides(overrides).items()}
    for name, value in values.items():
        if name not in known:
            raise MedclipError(
                Reason.WRONG_USE,
                f"slide heads have no setting {name!r}.",
                hint=did_you_mean(name, known, "Settings are"),
            )
        if isinstance(value, bool) or not isinstance(value, (known[name], int)):
            raise MedclipError(
                Reason.WRONG_USE, f"{name} is {value!r}.", hint=f"It is a number, such as {getattr(SlideRecipe, name)}."
            )
    return SlideRecipe(pooling=pooling, **values)


def _claim(folder: Path, store: Path, overwrite: bool) -> None:
    holds = claim_folder(folder, "slide head", marks=(CARD,), inputs={"the store of slides": store}, in_one_step=True)
    if holds and not overwrite:
        remedy = "Name another folder, or replace it with --overwrite."
        raise in_use(folder, "this folder holds a slide head already", remedy)


def _card(
    slides: LabelledSlides,
    features: SlideFeatures,
    recipe: SlideRecipe,
    seed: int,
    compared: Compared,
    epoch: int,
    notes: Sequence[str],
    shape: Any,
) -> HeadCard:
    bags = slides.bags
    return HeadCard(
        label=slides.title,
        names=bags.names,
        kind=bags.kind,
        shape=shape,
        pack=features.pack,
        size_px=features.size_px,
        mpp_um=features.mpp_um,
        grid=features.grid,
        record={
            "recipe": recipe.to_dict(),
            "seed": seed,
            "slides": len(bags),
            "patients": bags.num_patients,
            "epoch": epoch,
            "out_of_fold": [row for row in _figure_rows(compared) if row["pooling"] == recipe.pooling],
            "notes": list(notes),
        },
    )


def _figure_rows(compared: Compared) -> list[dict[str, Any]]:
    """One row for each figure, and for each paired difference."""
    rows: list[dict[str, Any]] = []
    for name, answer in compared.poolings.items():
        for metric, figure in answer.figures.items():
            rows.append({"pooling": name, "minus": None, "metric": metric, **_ends(figure), "p": None})
    for (metric, one, other), apart in compared.differences.items():
        rows.append({"pooling": other, "minus": one, "metric": metric, **_ends(apart), "p": _number(apart.p)})
    return rows


def _ends(figure: Estimate) -> dict[str, float | None]:
    return {name: _number(getattr(figure, name)) for name in ("value", "low", "high")}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _answers(slides: LabelledSlides, compared: Compared, files: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for each slide and pooling: its fold, what is true, and the probabilities."""
    bags, rows = slides.bags, []
    for name, answer in compared.poolings.items():
        chances = probabilities(answer.logits_SC, bags.kind)
        for i, key in enumerate(bags.keys):
            truth = bags.targets[i]
            written = bags.names[int(truth)] if bags.kind == "multiclass" else json.dumps(_plain(truth))
            row: dict[str, Any] = {"slide": key, "file": files[key], "patient": bags.patients[i], "pooling": name}
            row["fold"] = int(answer.fold_S[i])
            values = {f"p_{n}": float(p) for n, p in zip(bags.names, chances[i], strict=True)}
            rows.append({**row, "truth": written, **values})
    return rows


def _plain(values: Any) -> list[float | None]:
    return [_number(float(value)) for value in values]


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows])
