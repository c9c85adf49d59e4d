"""The options of an audit, in groups; `medclip.api.audit` makes one class of them.

A value that is a list of texts, or of KEY=VALUE pairs, may be named as such, as one text, or as a mapping; all of them
become the texts that the command takes and that `audit.json` holds (`medclip.auditing.shapes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.auditing import shapes
from medclip.options import excludes, needs, option, options, options_of

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model

Edges = Sequence[float]
"""Edges between groups, in one value."""


@options
class Columns:
    """Which column is what, and which rows count."""

    heading = "Which column is what"

    score: Mapping[str, str] | Sequence[str] | str = option(
        "Column that holds the scores of a label.", default=(), form="LABEL=COLUMN", read=shapes.pairs
    )
    long: str | tuple[str, str] | None = option(
        "Columns of label and score, in a table with one row for each label.",
        default=None,
        form="LABEL,SCORE",
        read=shapes.joined,
    )
    scores_are: str = option(
        "What scores are: logits are turned into probabilities; any number is higher for more likely.",
        default="probabilities",
        form="KIND",
        choices=("probabilities", "logits", "any"),
    )
    key: Mapping[str, str] | Sequence[str] | str = option(
        "Column that joins the tables; two columns where it takes two. Default: the only name of a key column that "
        "both have (file, image, study, ...).",
        default=(),
        form="SCORES=LABELS",
        read=shapes.pairs,
    )
    match: str = option(
        "How keys are compared: auto, exact, case, suffix, name, stem, zeros or loose. `stem` is the file name without "
        "folders and suffix; `auto` is exact, and for the file names of `medclip score` also by the end of the path.",
        default="auto",
        form="HOW",
    )
    repeat_labels: bool = option(
        "Let one row of labels (a study) serve several rows of scores (its images).", default=False
    )
    files: Any = option(
        "The files.parquet of scores of `medclip score`. Default: the one beside them.",
        default=None,
        kind=Path,
        place=True,
    )
    level: str | None = option(
        "What a row is, of scores of `medclip score --exam`: an exam, a breast or a view (an image).",
        default=None,
        form="LEVEL",
        choices=("exam", "breast", "view"),
    )
    rows_are_patients: bool = option(
        "Take each row for a patient of its own, where no column names the patient. Intervals are too narrow where "
        "that is not true.",
        default=False,
    )
    where: Mapping[str, Any] | Sequence[str] | str = option(
        "Rows of the label table that are audited.", default=(), form="COLUMN=VALUE", often=True, read=shapes.pairs
    )
    score_where: Mapping[str, Any] | Sequence[str] | str = option(
        "Rows of the table of scores that are audited, such as one model of several.",
        default=(),
        form="COLUMN=VALUE",
        read=shapes.pairs,
    )


@options
class Meaning:
    """What values of tables mean."""

    heading = "What labels mean"

    uncertain: str = option(
        "What -1 and `uncertain` mean: not known (U-Ignore), negative (U-Zero) or positive (U-One).",
        default="ignore",
        choices=("ignore", "zero", "one"),
    )
    blank: str = option(
        "What an empty label means: not known, or negative.", default="ignore", choices=("ignore", "zero")
    )
    encoding: str = option(
        "Encoding of tables that are no UTF-8: cp1252, latin-1, utf-16-le.", default="utf-8", form="NAME"
    )
    decimal: str = option("What parts the decimals in tables: point or comma.", default="point")
    label_list: str | None = option("Column that lists the findings: Pneumonia|Effusion.", default=None, form="COLUMN")
    separator: str = option("What parts the findings of such a list.", default="|")
    ordinal: Mapping[str, Any] | Sequence[str] | str = option(
        "Label in ordered classes, the lowest first: kappa, agreement, errors up and down. COLUMN:PREDICTED names the "
        "column of predicted classes, where it is not found by its name.",
        default=(),
        form="COLUMN=A,B,C",
        read=shapes.edges,
    )
    grade: str = option(
        "Class of probabilities: argmax (the likeliest) or expected (nearest to the mean).",
        default="argmax",
        choices=("argmax", "expected"),
    )
    risk: Mapping[str, Any] | Sequence[str] | str = option(
        "Risk by the end of each year: concordance, AUROC and calibration by year. The labels have event_months and "
        "followup_months.",
        default=(),
        form="NAME[=YEAR1,YEAR2]",
        read=shapes.edges,
    )
    no_finding: Sequence[str] | str = option(
        "Label that means healthy. `No Finding` and the like are known.", default=(), form="LABEL", read=shapes.listed
    )
    time: str | None = option(
        "Column of the time to the event, or to the end of follow-up, which makes labels times to events.",
        default=None,
        form="COLUMN",
    )
    event: str | None = option(
        "Column that says whether the event was seen, where it is not the label's own.", default=None, form="COLUMN"
    )
    horizon: float | None = option(
        "Time within which the event comes, which is then audited, too.", default=None, form="T"
    )

    rules = (
        excludes("risk", "scores_are", "a risk by year is a probability.", hint="Leave --scores-are out, or --risk."),
    )


@options
class PatientGroups:
    """How patients are divided."""

    heading = "Groups"

    age_bins: str | Edges | None = option(
        "Lower edges of the bands of age in years, or cxr for those of the published chest X-ray audit.",
        default=None,
        form="0,20,40",
        kind=str,
        read=shapes.joined,
    )
    age_unit: str = option("Unit of ages that are plain numbers.", default="years", choices=("years", "months", "days"))
    bins: Mapping[str, Any] | Sequence[str] | str = option(
        "Edges that divide a column of numbers into groups.", default=(), form="COLUMN=A,B,C", read=shapes.edges
    )
    value: Mapping[str, Any] | Sequence[str] | str = option(
        "What a value of a column means.", default=(), form="sex:0=M", read=shapes.meanings
    )
    all_pairs: bool = option("Compare every pair of groups, too.", default=False)
    reference: Any = option(
        "Table of the groups that the model is meant for: attribute, group, share or count.",
        default=None,
        form="TABLE",
        kind=Path,
        place=True,
    )
    tolerance: float = option(
        "Tolerance of rates over those of the largest group: 0.8 means 0.8 to 1.25 times.",
        default=0.8,
        least=0.01,
        most=1,
    )
    min_cell: int = option("Rows, patients, positives and negatives that a group needs.", default=10, least=1)
    exact_counts: bool = option("Leave counts unrounded; small groups stay hidden.", default=False)


@options
class ThresholdSources:
    """Where thresholds come from: a number, a file, or other patients."""

    heading = "Where thresholds come from"

    threshold: float | None = option(
        "One threshold for every label, chosen by hand. Default: 0.5 for probabilities.", default=None, often=True
    )
    thresholds: str | Path | None = option(
        "The thresholds.json of another audit.", default=None, form="FILE", place=True
    )
    choose_on: Mapping[str, Any] | Sequence[str] | Any = option(
        "Scores of other patients, to choose thresholds on. In Python also a data frame, or one for each model.",
        default=(),
        form="[NAME=]SCORES",
        kind=str,
        place=True,
        read=shapes.sources,
    )
    choose_labels: Any = option(
        "Label table of those. Default: that of the audit.", default=None, form="TABLE", kind=Path, place=True
    )
    choose_where: Mapping[str, Any] | Sequence[str] | str = option(
        "Rows of the label table to choose thresholds on.",
        default=(),
        form="COLUMN=VALUE",
        often=True,
        read=shapes.pairs,
    )
    policy: str | None = option(
        "Rule for thresholds: youden (default), f1, sensitivity=0.9 or specificity=0.95.", default=None, form="RULE"
    )

    rules = (
        *(
            excludes(
                name,
                others,
                "thresholds come from a number, from a file or from other patients, not from two of them.",
            )
            for name, others in (
                ("threshold", ("thresholds", "choose_on", "choose_where")),
                ("thresholds", ("choose_on", "choose_where")),
            )
        ),
        needs(
            ("policy", "choose_labels"),
            ("choose_on", "choose_where"),
            "a policy for thresholds, or their label table, needs other patients to choose on.",
            hint="Name their scores (choose_on), or their rows of the label table (choose_where).",
        ),
    )


@options
class Beforehand:
    """What was declared before the data was seen."""

    heading = "Declared beforehand"

    require: Sequence[str] | str = option(
        "What a model has to fulfil, declared beforehand: met, not met or undecided.",
        default=(),
        form='"tpr>=0.8 in each sex"',
        read=shapes.listed,
    )
    margins: Mapping[str, Any] | Sequence[str] | str = option(
        "Margin within which a metric of every two groups has to lie.",
        default=(),
        form="tpr:sex=0.05",
        read=shapes.margins,
    )
    primary: Sequence[str | Mapping[str, str]] | Mapping[str, str] | str = option(
        "Gap that the audit is made to test; these are adjusted among themselves.",
        default=(),
        form='"tpr for flu in sex"',
        read=shapes.hypotheses,
    )
    confidence: float = option("Confidence of what is required, one-sided.", default=0.95, least=0.5, most=1)
    declared: Mapping[str, str] | None = option(
        "By whom and when a recipe was written, which is worth something only in the file that was written beforehand.",
        default=None,
        kind=dict,
        of_call=True,
        read=shapes.declared,
    )


@options
class Models:
    """What the audited model is called, and what it is compared with."""

    heading = "Models"

    name: str | None = option("Name of the model. Default: that of its folder or file.", default=None)
    compare: Mapping[str, Any] | Sequence[str] | str = option(
        "Scores of another model on the same patients. In Python also data frames by the names of their models.",
        default=(),
        form="[NAME=]SCORES",
        often=True,
        place=True,
        read=shapes.sources,
    )
    dataset: str | None = option("Name of the audit set.", default=None)


@options
class Shortcuts:
    """What else than the disease a model may go by."""

    heading = "Shortcuts"

    device_column: Sequence[str] | str = option(
        "Column that says whether a device is in the image, 1 or 0: shortcut tests.",
        default=(),
        form="COLUMN",
        read=shapes.listed,
    )
    site: str | None = option(
        "Column that says where an image comes from, and whether the score follows it. Default: source, site or "
        "hospital in --by.",
        default=None,
        form="COLUMN",
    )
    masked: Any = option(
        "Scores of the same images with the device masked or painted over.",
        default=None,
        form="SCORES",
        kind=Path,
        place=True,
    )
    reweight: Sequence[str] | str = option(
        "Attribute, such as age or view, whose mix is made alike in all groups before gaps are measured again.",
        default=(),
        form="GROUP",
        read=shapes.listed,
    )

    rules = (
        needs(
            "masked",
            "device_column",
            "scores of masked copies need the column that says where the device is.",
            hint="Name it (device_column).",
        ),
    )


@options
class ImagesAndTraining:
    """The images of the audit, and what the model was trained on."""

    heading = "Images, embeddings and leakage"

    model: str | Path | Model | None = option(
        "Pack of the audited model: its training lists and its encoder.",
        default=None,
        form="PACK",
        kind=str,
        place=True,
    )
    images: str | Path | None = option(
        "Folder that the files of the label table are in, which are read for leaks, embeddings and masks.",
        default=None,
        form="DIR",
        place=True,
    )
    show_images: bool = option(
        "Show on the page, behind a click, small images of the worst errors of each group that is shown.",
        default=False,
    )
    modality: str | None = option("Modality of the images. Default: the pack's only one.", default=None, form="M")
    embeddings: str | Path | Embeddings | None = option(
        "Embeddings of the images: what `medclip embed` wrote, or a table or .npz of keys and vectors.",
        default=None,
        place=True,
    )
    training: Sequence[Any] | str | Path = option(
        "Shards, or table with sha256, patient or file, that the model was trained on.",
        default=(),
        form="PATH",
        kind=str,
        place=True,
        read=shapes.listed,
    )

    rules = (
        needs("show_images", "images", "there are no images that could be shown.", hint="Name their folder: --images."),
    )


@options
class EmbeddingQuestions:
    """What is asked of embeddings."""

    heading = "Images, embeddings and leakage"

    study: str | None = option("Column that names the study or visit.", default=None, form="COLUMN")
    drift: Sequence[str] | str = option(
        "Attribute between whose groups drift of embeddings is measured.", default=(), form="GROUP", read=shapes.listed
    )
    date: str | None = option(
        "Column of dates, between whose months drift of embeddings is measured.", default=None, form="COLUMN"
    )
    attacker: bool = option(
        "Train a re-identification attacker on the embeddings of half of the patients, too.", default=False
    )


@options
class Stressing:
    """What images are shown to the model."""

    heading = "Stress"

    task: str | Path | None = option(
        "Task of the pack, or task file, that the images are scored by; SCORES is then the label table alone.",
        default=None,
        form="NAME|FILE",
        kind=str,
        place=True,
    )
    stress: bool = option("Score the images with corruptions, too, and measure what each group loses.", default=False)
    corruption: Sequence[str] | str = option(
        "Corruption of the images. Default: five of the modality.", default=(), form="NAME", read=shapes.listed
    )
    num_stress_images: int = option("Number of images of a group that are corrupted.", default=500, least=1)
    context_temperature: float = option(
        "Temperature of the view, device, quality, sex and age that are inferred from an image for its prompts: above "
        "1 they are trusted less. Choose it on other data.",
        default=1.0,
        least=0.1,
    )

    rules = (
        needs(
            ("corruption", "num_stress_images", "context_temperature"),
            "stress",
            "{names} would do nothing.",
            hint="Add --stress.",
        ),
        excludes(
            "task",
            ("labels", "compare"),
            "with a task to score the images by, there is one table, of labels, and nothing to compare with.",
            hint="Leave the task out where there are scores, or the scores where images are to be scored.",
        ),
    )


@options
class Resampling:
    """How sure figures are."""

    heading = "Resamples"

    num_resamples: int = option("Number of resamples of patients.", default=2000, least=100)
    num_permutations: int | None = option(
        "Number of shuffles of groups. Default: 1,000, more for many tests.", default=None, least=100
    )


@options
class Pages:
    """What stands on the page, and what is written beside it."""

    heading = "Output"

    auditor: str | None = option(
        "Who audits, which stands on the page and in its block of signatures.", default=None, form="NAME"
    )
    question: str | None = option("What is asked of the audit, which stands on the page.", default=None)
    audited_on: str | None = option("Date that stands on the page. Default: today, in UTC.", default=None, form="DATE")
    as_: Sequence[str] | str = option(
        "Other form that is written, too: chai (model card of the Coalition for Health AI), tripod or claim (filled "
        "checklists).",
        default=(),
        form="FORM",
        read=shapes.listed,
    )
    changed_inputs: bool = option(
        "Run an audit.json again, though its inputs have changed.", default=False, of_call=True
    )


_GROUPS = (
    *(Columns, Meaning, PatientGroups, ThresholdSources, Beforehand, Models, Shortcuts),
    *(ImagesAndTraining, EmbeddingQuestions, Stressing, Resampling),
)
DEFAULTS: Mapping[str, Any] = {name: one.default for group in _GROUPS for name, one in options_of(group).items()}
"""What an option is where a recipe does not name it."""
