"""The recipe of an audit: every option of `medclip audit` by its name, from YAML or from the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from medclip.errors import MedclipError, Reason
from medclip.files.recipes.key_value import key_value, key_values
from medclip.recipe import invalid_recipe, read_yaml
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.auditing.declared.grammar import Declared
    from medclip.auditing.input.options import ReadOptions
    from medclip.auditing.options import AuditOptions

_SUFFIXES = (".yaml", ".yml")
_NOT_ASKED = frozenset({"out", "overwrite", "auditor", "audited_on"})
"""Keys that may be overridden without another question being asked."""
_READ_AS_WRITTEN = (
    *(
        "level",
        "match",
        "repeat_labels",
        "files",
        "uncertain",
        "blank",
        "label_list",
        "separator",
        "no_finding",
        "patient",
    ),
    *("time", "event", "age_bins", "age_unit", "all_pairs"),
)
"""Keys that `ReadOptions` has by the same name, in the same form."""
_CHECKED_AS_WRITTEN = ("model", "images", "modality", "embeddings", "training", "key_file", "study", "date", "attacker")
"""Keys that `ImageChecks` has so."""


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


def _margins(value: Any) -> Any:
    """Take {tpr: {sex: 0.05}} for tpr:sex=0.05."""
    if isinstance(value, Mapping):
        nested = {metric: each if isinstance(each, Mapping) else {"": each} for metric, each in value.items()}
        pairs = {(metric, name): margin for metric, each in nested.items() for name, margin in each.items()}
        value = {f"{metric}:{name}" if name else metric: margin for (metric, name), margin in pairs.items()}
    return _listed(value)


def _hypotheses(value: Any) -> Any:
    """Take {metric, label, attribute} for a sentence."""
    return _listed([_sentence(one) if isinstance(one, Mapping) else one for one in _each(value)])


def _sentence(one: Mapping[str, Any]) -> str:
    about = f" for {one['label']}" if one.get("label") else ""
    return f"{one.get('metric', '')}{about} in {one.get('attribute', '')}"


Listed = Annotated[list[str], BeforeValidator(_listed)]
Joined = Annotated[str | None, BeforeValidator(_joined)]


def _option(default: Any, meaning: str, form: str | None = None, *, least: int | None = None) -> Any:
    """Define a key: its default, the help of its option, how the option's value is called, and the least."""
    return Field(default, description=meaning, title=form, ge=least)


class AuditRecipe(BaseModel):
    """What `medclip audit` is asked: each key is an option of the command, which is made of these fields.

    Lists may be written as lists, and pairs as mappings: `where: {split: test}`, `bins: {bmi: [18.5, 25]}`,
    `value: {sex: {0: M, 1: F}}`, `compare: {other: other.csv}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scores: Path
    labels: Path | None = _option(
        None, "CSV, TSV or Parquet, whatever its suffix: truths, patients, groups. Default: the scores.", "TABLE"
    )
    by: Listed = _option(
        [], "What divides patients: sex, age, race, site, scanner, view, any column, sex*age.", "GROUP"
    )
    label: Listed = _option([], "What is audited. Default: all that match.", "SCORE=COLUMN")
    patient: str | None = _option(None, "Column that names the patient.", "COLUMN")
    out: Path | None = _option(None, "Folder for page and tables: new, empty, or of this same audit.")
    score: Listed = _option([], "Column that holds the scores of a label.", "LABEL=COLUMN")
    long: Joined = _option(None, "Columns of a table with one row for each label.", "LABEL,SCORE")
    scores_are: str = _option("probabilities", "probabilities, logits or any (higher: likelier).", "KIND")
    key: Listed = _option([], "Column that joins the tables; two columns where it takes two.", "SCORES=LABELS")
    match: str = _option("auto", "How keys are compared: auto, exact, case, suffix, name, stem, zeros or loose.", "HOW")
    repeat_labels: bool = _option(False, "One row of labels (a study) serves several rows of scores.")
    files: Path | None = _option(None, "files.parquet of the scores. Default: beside them.")
    level: str | None = _option(
        None, "Of medclip score --exam: a row is an exam, a breast or a view (an image).", "LEVEL"
    )
    rows_are_patients: bool = _option(False, "No column names the patient: each row is a patient of its own.")
    where: Listed = _option([], "Rows of the label table that are audited.", "COLUMN=VALUE")
    score_where: Listed = _option([], "Rows of the table of scores that are audited.", "COLUMN=VALUE")
    uncertain: str = _option("ignore", "What -1 means: ignore, zero or one (U-Ignore, U-Zero, U-One).")
    blank: str = _option("ignore", "What an empty label means: ignore or zero.")
    encoding: str = _option("utf-8", "Of tables that are no UTF-8: cp1252, latin-1, utf-16-le.", "NAME")
    decimal: str = _option("point", "What parts the decimals in tables: point or comma.")
    label_list: str | None = _option(None, "Column that lists the findings: Pneumonia|Effusion.", "COLUMN")
    separator: str = _option("|", "What parts the findings in --label-list.")
    ordinal: Annotated[list[str], BeforeValidator(_edges)] = _option(
        [], "Label in ordered classes, the lowest first: kappa, agreement, errors up and down.", "COLUMN=A,B,C"
    )
    grade: str = _option("argmax", "Class of probabilities: argmax (the likeliest) or expected (nearest to the mean).")
    risk: Annotated[list[str], BeforeValidator(_edges)] = _option(
        [],
        "Risk by the end of each year: concordance, AUROC and calibration by year. The labels have event_months "
        "and followup_months.",
        "NAME[=YEAR1,YEAR2]",
    )
    no_finding: Listed = _option([], "Label that means healthy.", "LABEL")
    time: str | None = _option(None, "Time to the event.", "COLUMN")
    event: str | None = _option(None, "Whether the event was seen.", "COLUMN")
    horizon: float | None = _option(None, "Also audit whether the event came within this time.", "T")
    age_bins: Joined = _option(None, "Lower edges in years, or cxr.", "0,20,40")
    age_unit: str = _option("years", "Unit of ages that are plain numbers: years, months or days.")
    bins: Annotated[list[str], BeforeValidator(_edges)] = _option(
        [], "Edges that divide a column of numbers into groups.", "COLUMN=A,B,C"
    )
    value: Annotated[list[str], BeforeValidator(_meanings)] = _option([], "What a value of a column means.", "sex:0=M")
    all_pairs: bool = _option(False, "Also compare every pair of groups.")
    reference: Path | None = _option(
        None, "Groups that the model is meant for: attribute, group, share or count.", "TABLE"
    )
    min_cell: int = _option(10, "Rows, patients, positives, negatives that a group needs.", least=1)
    exact_counts: bool = _option(False, "Do not round counts; small groups stay hidden.")
    threshold: float | None = _option(None, "One threshold for every label, chosen by hand.")
    thresholds: Path | None = _option(None, "thresholds.json of another audit.")
    choose_on: Listed = _option([], "Scores of other patients, to choose thresholds on.", "[NAME=]SCORES")
    choose_labels: Path | None = _option(None, "Label table of --choose-on. Default: --labels.")
    choose_where: Listed = _option([], "Rows of the label table to choose thresholds on.", "COLUMN=VALUE")
    policy: str | None = _option(
        None, "Rule for thresholds: youden (default), f1, sensitivity=0.9 or specificity=0.95.", "RULE"
    )
    require: Listed = _option(
        [], "What a model has to fulfil, declared beforehand: met, not met or undecided.", '"tpr>=0.8 in each sex"'
    )
    margins: Annotated[list[str], BeforeValidator(_margins)] = _option(
        [], "Margin within which a metric of every two groups has to lie.", "tpr:sex=0.05"
    )
    primary: Annotated[list[str], BeforeValidator(_hypotheses)] = _option(
        [], "Gap that the audit is made to test; these are adjusted among themselves.", '"tpr for flu in sex"'
    )
    confidence: float = _option(0.95, "Of what is required, one-sided.")
    name: str | None = _option(None, "Name of the model. Default: that of its folder or file.")
    compare: Listed = _option([], "Scores of another model on the same patients.", "[NAME=]SCORES")
    dataset: str | None = _option(None, "Name of the audit set.")
    device_column: Listed = _option([], "Whether a device is in the image, 1 or 0: shortcut tests.", "COLUMN")
    site: str | None = _option(
        None,
        "Where an image comes from: does the score follow it? Default: source, site or hospital in --by.",
        "COLUMN",
    )
    masked: Path | None = _option(None, "Scores of the same images with the device masked.")
    reweight: Listed = _option([], "Measure gaps as if every group had the same mix of this, too.", "GROUP")
    model: str | None = _option(None, "Pack of the audited model: its training lists and its encoder.", "PACK")
    images: Path | None = _option(
        None, "Folder of the label table's files, read for leaks and embeddings; or of their embeddings."
    )
    modality: str | None = _option(None, "Modality of --images. Default: the pack's only one.")
    embeddings: Path | None = _option(None, "Embeddings of the images: CSV, TSV, Parquet (whatever its suffix) or npz.")
    training: Listed = _option([], "Shards or table that the model was trained on.", "PATH")
    key_file: Path | None = _option(None, "Key that training patients were hashed with.")
    study: str | None = _option(None, "Column that names the study or visit.", "COLUMN")
    drift: Listed = _option([], "Measure drift of embeddings between these groups.", "GROUP")
    date: str | None = _option(None, "Column of dates: measure drift of embeddings between months.", "COLUMN")
    attacker: bool = _option(False, "Also train a re-identification attacker on the embeddings.")
    task: str | None = _option(
        None, "Score --images by this task of --model: SCORES is then the label table alone.", "NAME|FILE"
    )
    stress: bool = _option(False, "Also score --images with corruptions, and measure what each group loses.")
    corruption: Listed = _option([], "Corruption of --stress. Default: five of the modality.", "NAME")
    stress_images: int = _option(500, "Images of a group that --stress takes.", least=1)
    num_resamples: int = _option(2000, "Resamples of patients.", least=100)
    permutations: int | None = _option(None, "Shuffles of groups. Default: 1,000, more for many tests.", least=100)
    seed: int = _option(0, "Seed of resamples and shuffles.", least=0)
    auditor: str | None = _option(None, "Who audits: stands on the page and in its block of signatures.", "NAME")
    question: str | None = _option(None, "What is asked of the audit: stands on the page.")
    audited_on: str | None = _option(None, "Date that stands on the page. Default: today, in UTC.", "DATE")
    format: Listed = _option(
        [], "Also write chai (model card of the Coalition for Health AI), tripod or claim (filled checklists).", "NAME"
    )
    overwrite: bool = _option(False, "Replace another audit in the folder.")
    changed_inputs: bool = _option(False, "Run an audit.json again, though its inputs have changed.")
    declared: dict[str, str] | None = Field(None, description="In a recipe: by whom and when it was written.")
    """Not an option: it is worth something only in the file that was written beforehand."""
    _file: Mapping[str, Any] | None = PrivateAttr(None)

    @field_validator("declared", mode="before")
    @classmethod
    def _by_and_date(cls, value: Any) -> Any:
        """Take YAML's dates for texts, and nothing but a date and a name."""
        if isinstance(value, Mapping):
            if unknown := set(value) - {"date", "by"}:
                raise ValueError(f"declared has a date and a name (by), and no {list_of(sorted(map(str, unknown)))}")
            value = {str(name): str(text) for name, text in value.items()}
        return value

    def with_file(self, file: Mapping[str, Any] | None) -> AuditRecipe:
        """Return the same recipe with the file that it was read from: name, SHA-256, keys that were overridden."""
        recipe = self.model_copy()
        recipe._file = file
        return recipe

    def file_of_its_own(self) -> Mapping[str, Any] | None:
        """Return the file that it was read from; None for options of a command."""
        return self._file

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
            "overwrite": self.overwrite,
            "name": self.name or "",
            "compare": _sources(self.compare, "") or {},
            "reading": self.reading(),
            "options": self.options(),
        }

    def reading(self) -> ReadOptions:
        """Return how tables are read."""
        from medclip.auditing.input.options import ReadOptions  # numpy: not for the options of --help
        from medclip.files.tables.table import TextForm

        same = {name: getattr(self, name) for name in _READ_AS_WRITTEN}
        return ReadOptions(
            **same,
            key=self.key or None,
            score=key_values(self.score, "--score", "LABEL=COLUMN"),
            long=_two(self.long),
            scores=self.scores_are,  # pyright: ignore[reportArgumentType] - checked there
            where=_lists(self.where, "--where"),
            score_where=_lists(self.score_where, "--score-where"),
            patients="rows" if self.rows_are_patients else "column",
            ordinal=_classes(self.ordinal),
            risk={name: [c.strip() for c in columns.split(",") if c.strip()] for name, columns in _risks(self.risk)},
            grade=self.grade,  # pyright: ignore[reportArgumentType] - checked there
            bins={c: _numbers(edges) for c, edges in key_values(self.bins, "--bins", "COLUMN=A,B,C").items()},
            values=_values(self.value),
            text=TextForm(self.encoding, self.decimal),
        )

    def requirements(self) -> Declared:
        """Return what was declared beforehand."""
        from medclip.auditing.declared.grammar import declared

        margins = key_values(self.margins, "--margins", "METRIC:ATTRIBUTE=MARGIN, such as tpr:sex=0.05")
        return declared(self.require, margins, self.primary, self.confidence)

    def options(self) -> AuditOptions:
        """Return what is measured, and how surely."""
        from medclip.auditing.disclosure.small_cells import Policy
        from medclip.auditing.options import AuditOptions, ImageChecks, Shortcuts, Stress, Thresholds

        unused = sorted({"corruption", "stress_images"} & self.model_fields_set)
        if unused and not self.stress:
            names = list_of([f"--{name.replace('_', '-')}" for name in unused])
            raise MedclipError(Reason.WRONG_USE, f"{names} would do nothing.", hint="Add --stress.")
        few = self.min_cell
        return AuditOptions(
            dataset=self.dataset or "",
            num_resamples=self.num_resamples,
            permutations=self.permutations,
            seed=self.seed,
            horizon=self.horizon,
            small_cells=Policy(few, few, few, few, exact_counts=self.exact_counts),
            reference=self.reference,
            declared=self.requirements(),
            thresholds=Thresholds(
                self.threshold,
                self.thresholds,
                _sources(self.choose_on, self.name or self.scores.stem),
                self.choose_labels,
                _lists(self.choose_where, "--choose-where"),
                self.policy,
            ),
            shortcuts=Shortcuts(self.device_column, self.masked, self.site, self.reweight),
            image_checks=ImageChecks(sites=self.drift, **{name: getattr(self, name) for name in _CHECKED_AS_WRITTEN}),
            task=self.task,
            stress=Stress(self.corruption, self.stress_images) if self.stress else None,
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
        recipe = AuditRecipe.model_validate({**named, **(changes or {})})
    except ValidationError as e:
        raise invalid_recipe(e, AuditRecipe, path, "a recipe" if path else "an audit") from e
    if path is None:
        return recipe
    overridden = sorted(set(changes or {}) - _NOT_ASKED)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return recipe.with_file({"name": path.name, "sha256": digest, "overridden": overridden})


def _refuse(option: str, form: str) -> MedclipError:
    return MedclipError(Reason.WRONG_USE, f"{option} takes {form}.")


def _lists(texts: Sequence[str], option: str) -> dict[str, list[str]]:
    """Read COLUMN=VALUE of a repeated option; the same column again adds a value."""
    values: dict[str, list[str]] = {}
    for text in texts:
        column, value = key_value(text, option, "COLUMN=VALUE")
        values.setdefault(column, []).append(value)
    return values


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


def _values(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    form = "COLUMN:VALUE=MEANING, such as sex:0=M"
    meanings: dict[str, dict[str, str]] = {}
    for name, meaning in key_values(texts, "--value", form).items():
        column, colon, value = name.partition(":")
        if not colon:
            raise _refuse("--value", form)
        meanings.setdefault(column, {})[value] = meaning
    return meanings


def _classes(texts: Sequence[str]) -> dict[str, list[str]]:
    pairs = key_values(texts, "--ordinal", "COLUMN=A,B,C, the lowest first").items()
    return {column: [part.strip() for part in classes.split(",")] for column, classes in pairs}


def _risks(texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(name.strip(), columns) for name, _, columns in (text.partition("=") for text in texts)]


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
