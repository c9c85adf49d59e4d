"""The recipe of an audit: every option of `medclip audit` by its name, from YAML or from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from medclip.auditing.disclosure.small_cells import Policy
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.options import AuditOptions, Pictures, Shortcuts, Thresholds
from medclip.errors import MedclipError, Reason
from medclip.files.recipe import read_yaml, recipe_faults

_SUFFIXES = (".yaml", ".yml")


def _listed(value: Any) -> Any:
    """Take one value for a list of one, and a mapping for its KEY=VALUE pairs; a value may be a list, too."""
    if isinstance(value, Mapping):
        return [f"{name}={one}" for name, several in value.items() for one in _each(several)]
    return [] if value is None else [str(one) for one in _each(value)]


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _joined(value: Any) -> Any:
    """Take a list for its values with commas between them."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _edges(value: Any) -> Any:
    return _listed({name: _joined(edges) for name, edges in value.items()} if isinstance(value, Mapping) else value)


def _meanings(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = {
            f"{column}:{cell}": meaning
            for column, cells in value.items()
            for cell, meaning in (cells.items() if isinstance(cells, Mapping) else ())
        }
    return _listed(value)


Listed = Annotated[list[str], BeforeValidator(_listed)]
Joined = Annotated[str | None, BeforeValidator(_joined)]


class AuditRecipe(BaseModel):
    """What `medclip audit` is asked; a key is the name of an option, and `medclip audit --help` says what each means.

    Lists may be written as lists, and pairs as mappings: `where: {split: test}`, `bins: {bmi: [18.5, 25]}`,
    `value: {sex: {0: M, 1: F}}`, `compare: {other: other.csv}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scores: Path
    labels: Path | None = None
    by: Listed = []
    label: Listed = []
    patient: str | None = None
    out: Path | None = None
    score: Listed = []
    long: Joined = None
    scores_are: str = "probabilities"
    key: Listed = []
    match: str = "auto"
    repeat_labels: bool = False
    files: Path | None = None
    rows_are_patients: bool = False
    where: Listed = []
    score_where: Listed = []
    uncertain: str = "ignore"
    blank: str = "ignore"
    label_list: str | None = None
    separator: str = "|"
    no_finding: Listed = []
    time: str | None = None
    event: str | None = None
    horizon: float | None = None
    age_bins: Joined = None
    age_unit: str = "years"
    bins: Annotated[list[str], BeforeValidator(_edges)] = []
    value: Annotated[list[str], BeforeValidator(_meanings)] = []
    all_pairs: bool = False
    min_cell: int = 10
    exact_counts: bool = False
    threshold: float | None = None
    thresholds: Path | None = None
    choose_on: Listed = []
    choose_labels: Path | None = None
    choose_where: Listed = []
    policy: str | None = None
    name: str | None = None
    compare: Listed = []
    dataset: str | None = None
    device_column: Listed = []
    masked: Path | None = None
    reweight: Listed = []
    model: str | None = None
    images: Path | None = None
    modality: str | None = None
    embeddings: Path | None = None
    training: Listed = []
    key_file: Path | None = None
    study: str | None = None
    drift: Listed = []
    date: str | None = None
    attacker: bool = False
    num_resamples: int = 2000
    permutations: int | None = None
    seed: int = 0

    def arguments(self) -> dict[str, Any]:
        """Return what `medclip.audit` takes.

        Raises:
            MedclipError: WRONG_USE for a value that has another form, MISSING_FILE.
        """
        return {
            "scores": self.scores,
            "labels": self.labels,
            "by": self.by,
            "label": self.label or None,
            "out": self.out,
            "name": self.name or "",
            "compare": _sources(self.compare, "") or {},
            "reading": self._reading(),
            "options": self._options(),
        }

    def _reading(self) -> ReadOptions:
        return ReadOptions(
            key=self.key or None,
            match=self.match,
            repeat_labels=self.repeat_labels,
            files=self.files,
            score=_pairs(self.score, "--score"),
            long=_two(self.long),
            scores=self.scores_are,  # pyright: ignore[reportArgumentType] - checked there
            where=_lists(self.where, "--where"),
            score_where=_lists(self.score_where, "--score-where"),
            uncertain=self.uncertain,  # pyright: ignore[reportArgumentType]
            blank=self.blank,  # pyright: ignore[reportArgumentType]
            label_list=self.label_list,
            separator=self.separator,
            no_finding=self.no_finding,
            patient=self.patient,
            patients="rows" if self.rows_are_patients else "column",
            time=self.time,
            event=self.event,
            age_bins=self.age_bins,
            age_unit=self.age_unit,  # pyright: ignore[reportArgumentType]
            bins={column: _numbers(edges) for column, edges in _pairs(self.bins, "--bins").items()},
            values=_values(self.value),
            all_pairs=self.all_pairs,
        )

    def _options(self) -> AuditOptions:
        few = self.min_cell
        return AuditOptions(
            dataset=self.dataset or "",
            num_resamples=self.num_resamples,
            permutations=self.permutations,
            seed=self.seed,
            horizon=self.horizon,
            small_cells=Policy(few, few, few, few, exact_counts=self.exact_counts),
            thresholds=Thresholds(
                self.threshold,
                self.thresholds,
                _sources(self.choose_on, self.name or self.scores.stem),
                self.choose_labels,
                _lists(self.choose_where, "--choose-where"),
                self.policy,
            ),
            shortcuts=Shortcuts(self.device_column, self.masked, self.reweight),
            pictures=Pictures(
                model=self.model,
                images=self.images,
                modality=self.modality,
                embeddings=self.embeddings,
                training=self.training,
                key_file=self.key_file,
                study=self.study,
                sites=self.drift,
                date=self.date,
                attacker=self.attacker,
            ),
        )


def is_recipe(scores: Any) -> bool:
    """Return whether what was named as scores is a recipe: a path that ends in .yaml or .yml."""
    return isinstance(scores, str | Path) and Path(scores).suffix.lower() in _SUFFIXES


def audit_recipe(scores: str | Path, changes: Mapping[str, Any] | None = None) -> AuditRecipe:
    """Read a recipe, or make one of a path of scores; paths in it are relative to the current folder.

    Args:
        scores: A YAML file, or scores.
        changes: Options that override the recipe, by name.

    Raises:
        MedclipError: MISSING_FILE; RECIPE_INVALID naming the key, and the one that was perhaps meant.
    """
    path = Path(scores) if is_recipe(scores) else None
    values: Any = {"scores": scores} if path is None else read_yaml(path)
    if not isinstance(values, dict):
        raise MedclipError(Reason.RECIPE_INVALID, "a recipe is a YAML mapping of options.", where=path)
    named = {str(key).replace("-", "_"): value for key, value in values.items()}
    try:
        return AuditRecipe.model_validate({**named, **(changes or {})})
    except ValidationError as e:
        sentence, hint = recipe_faults(e, AuditRecipe)
        raise MedclipError(Reason.RECIPE_INVALID, sentence, where=path, hint=hint) from e


def _refuse(option: str, form: str) -> MedclipError:
    return MedclipError(Reason.WRONG_USE, f"{option} takes {form}.")


def _pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """Read NAME=VALUE of a repeated option."""
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise _refuse(option, "NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def _lists(given: Sequence[str], option: str) -> dict[str, list[str]]:
    """Read COLUMN=VALUE of a repeated option; the same column again adds a value."""
    lists: dict[str, list[str]] = {}
    for text in given:
        for name, value in _pairs([text], option).items():
            lists.setdefault(name, []).append(value)
    return lists


def _sources(given: Sequence[str], first: str) -> dict[str, Path] | None:
    """Read [NAME=]PATH; a path without a name is that of the audited model (`first`), or is named by its file."""
    sources: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        is_path = not equals or Path(text).exists()  # a path may hold "=" itself
        source = Path(text if is_path else path)
        name = (first or source.stem) if is_path else name
        if name in sources:
            raise _refuse(
                "--compare or --choose-on", f"each model once, and {name!r} is there twice: write NAME=SCORES"
            )
        if not source.exists():
            raise MedclipError(Reason.MISSING_FILE, "there is no such file or folder of scores.", where=source)
        sources[name] = source
    return sources or None


def _values(given: Sequence[str]) -> dict[str, dict[str, str]]:
    values: dict[str, dict[str, str]] = {}
    for name, meaning in _pairs(given, "--value").items():
        column, colon, value = name.partition(":")
        if not colon:
            raise _refuse("--value", "COLUMN:VALUE=MEANING, such as sex:0=M")
        values.setdefault(column, {})[value] = meaning
    return values


def _two(text: str | None) -> tuple[str, str] | None:
    if not text:
        return None
    first, comma, second = text.partition(",")
    if not (comma and first.strip() and second.strip()):
        raise _refuse("--long", "two columns with a comma between them: the label's, the score's")
    return first.strip(), second.strip()


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as e:
        raise _refuse("--bins", "numbers with commas between them") from e
