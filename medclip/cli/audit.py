"""`medclip audit SCORES --labels TABLE --by sex --out DIR`: does a model work for every patient group?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LEAKAGE = 1
CAUTION = "CAUTION"
COMMON = "Common options"
COLUMNS = "Which column is what"
MEANING = "What labels mean"
GROUPS = "Groups"
THRESHOLDS = "Where thresholds come from"
MODELS = "Models"
SHORTCUTS = "Shortcuts"
IMAGES = "Images, embeddings and leakage"
NUMBERS = "Resamples"
OUTPUT = "Output"


def audit(
    ctx: typer.Context,
    scores: Annotated[
        Path,
        typer.Argument(
            metavar="SCORES|RECIPE",
            help="Folder of medclip score; CSV, TSV or Parquet, whatever its suffix; or a recipe (.yaml).",
            show_default=False,
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            rich_help_panel=COMMON,
            metavar="TABLE",
            help="CSV, TSV or Parquet, whatever its suffix: truths, patients, groups. Default: the scores.",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            rich_help_panel=COMMON,
            metavar="GROUP",
            help="sex, age, race, site, scanner, view, any column, sex*age; again.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            rich_help_panel=COMMON,
            metavar="SCORE=COLUMN",
            help="What is audited; again. Default: all that match.",
        ),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option("--patient", rich_help_panel=COMMON, metavar="COLUMN", help="Column that names the patient."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", rich_help_panel=COMMON, help="Folder for page and tables.", show_default=False),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            "--score", rich_help_panel=COLUMNS, metavar="LABEL=COLUMN", help="Column of scores of a label; again."
        ),
    ] = None,
    long: Annotated[
        str | None,
        typer.Option(
            "--long",
            rich_help_panel=COLUMNS,
            metavar="LABEL,SCORE",
            help="Columns of a table with one row for each label.",
        ),
    ] = None,
    scores_are: Annotated[
        str,
        typer.Option(
            "--scores-are",
            rich_help_panel=COLUMNS,
            metavar="KIND",
            help="probabilities, logits or any (higher: likelier).",
        ),
    ] = "probabilities",
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            rich_help_panel=COLUMNS,
            metavar="SCORES=LABELS",
            help="Column that joins the tables; again where it takes two.",
        ),
    ] = None,
    match: Annotated[
        str, typer.Option("--match", rich_help_panel=COLUMNS, help="How keys are compared: auto, exact, stem, ...")
    ] = "auto",
    repeat_labels: Annotated[
        bool,
        typer.Option(
            "--repeat-labels",
            rich_help_panel=COLUMNS,
            help="One row of labels (a study) serves several rows of scores.",
        ),
    ] = False,
    files: Annotated[
        Path | None,
        typer.Option("--files", rich_help_panel=COLUMNS, help="files.parquet of the scores. Default: beside them."),
    ] = None,
    rows_are_patients: Annotated[
        bool,
        typer.Option(
            "--rows-are-patients",
            rich_help_panel=COLUMNS,
            help="There is no such column: each row is a patient of its own.",
        ),
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            rich_help_panel=COLUMNS,
            metavar="COLUMN=VALUE",
            help="Rows of the label table that are audited; again.",
        ),
    ] = None,
    score_where: Annotated[
        list[str] | None,
        typer.Option(
            "--score-where", rich_help_panel=COLUMNS, metavar="COLUMN=VALUE", help="Rows of the table of scores; again."
        ),
    ] = None,
    uncertain: Annotated[
        str,
        typer.Option(
            "--uncertain", rich_help_panel=MEANING, help="What -1 means: ignore, zero or one (U-Ignore, U-Zero, U-One)."
        ),
    ] = "ignore",
    blank: Annotated[
        str, typer.Option("--blank", rich_help_panel=MEANING, help="What an empty label means: ignore or zero.")
    ] = "ignore",
    label_list: Annotated[
        str | None,
        typer.Option(
            "--label-list",
            rich_help_panel=MEANING,
            metavar="COLUMN",
            help="Column that lists the findings: Pneumonia|Effusion.",
        ),
    ] = None,
    separator: Annotated[
        str, typer.Option("--separator", rich_help_panel=MEANING, help="Between two findings of such a list.")
    ] = "|",
    no_finding: Annotated[
        list[str] | None,
        typer.Option("--no-finding", rich_help_panel=MEANING, metavar="LABEL", help="Label that means healthy; again."),
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", rich_help_panel=MEANING, metavar="COLUMN", help="Time to the event.")
    ] = None,
    event: Annotated[
        str | None,
        typer.Option("--event", rich_help_panel=MEANING, metavar="COLUMN", help="Whether the event was seen."),
    ] = None,
    horizon: Annotated[
        float | None,
        typer.Option("--horizon", rich_help_panel=MEANING, metavar="T", help="Also audit: had the event by then."),
    ] = None,
    age_bins: Annotated[
        str | None,
        typer.Option(
            "--age-bins",
            rich_help_panel=GROUPS,
            metavar="0,20,40",
            help="Lower edges in years, or cxr.",
            show_default=False,
        ),
    ] = None,
    age_unit: Annotated[
        str, typer.Option("--age-unit", rich_help_panel=GROUPS, help="Of plain numbers: years, months or days.")
    ] = "years",
    bins: Annotated[
        list[str] | None,
        typer.Option(
            "--bins", rich_help_panel=GROUPS, metavar="COLUMN=A,B,C", help="Edges of a column of numbers; again."
        ),
    ] = None,
    value: Annotated[
        list[str] | None,
        typer.Option(
            "--value", rich_help_panel=GROUPS, metavar="sex:0=M", help="What a value of a column means; again."
        ),
    ] = None,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", rich_help_panel=GROUPS, help="Also every pair of groups.")
    ] = False,
    min_cell: Annotated[
        int,
        typer.Option(
            "--min-cell", rich_help_panel=GROUPS, min=1, help="Rows, patients, positives, negatives that a group needs."
        ),
    ] = 10,
    exact_counts: Annotated[
        bool,
        typer.Option("--exact-counts", rich_help_panel=GROUPS, help="Do not round counts; small groups stay hidden."),
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", rich_help_panel=THRESHOLDS, help="For every label, given by hand.", show_default=False
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(
            "--thresholds", rich_help_panel=THRESHOLDS, help="thresholds.json of another audit.", show_default=False
        ),
    ] = None,
    choose_on: Annotated[
        list[str] | None,
        typer.Option(
            "--choose-on",
            rich_help_panel=THRESHOLDS,
            metavar="[NAME=]SCORES",
            help="Scores of other patients, to choose thresholds on; again.",
        ),
    ] = None,
    choose_labels: Annotated[
        Path | None,
        typer.Option(
            "--choose-labels",
            rich_help_panel=THRESHOLDS,
            help="Their label table. Default: --labels.",
            show_default=False,
        ),
    ] = None,
    choose_where: Annotated[
        list[str] | None,
        typer.Option(
            "--choose-where",
            rich_help_panel=THRESHOLDS,
            metavar="COLUMN=VALUE",
            help="Rows of the label table to choose on; again.",
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", rich_help_panel=THRESHOLDS, help="youden (default), f1, sensitivity=0.9, specificity=0.95."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", rich_help_panel=MODELS, help="Of the model. Default: of folder or file.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            rich_help_panel=MODELS,
            metavar="[NAME=]SCORES",
            help="Scores of another model on the same patients; again.",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", rich_help_panel=MODELS, help="Name of the audit set.")
    ] = None,
    device_column: Annotated[
        list[str] | None,
        typer.Option(
            "--device-column",
            rich_help_panel=SHORTCUTS,
            metavar="COLUMN",
            help="Device in the image, 1 or 0: shortcut tests; again.",
        ),
    ] = None,
    masked: Annotated[
        Path | None,
        typer.Option(
            "--masked", rich_help_panel=SHORTCUTS, help="Scores of the same images, device masked.", show_default=False
        ),
    ] = None,
    reweight: Annotated[
        list[str] | None,
        typer.Option(
            "--reweight",
            rich_help_panel=SHORTCUTS,
            metavar="GROUP",
            help="Measure gaps again with the same mix of this; again.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", rich_help_panel=IMAGES, metavar="PACK", help="The audited model's pack: training lists, encoder."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", rich_help_panel=IMAGES, help="Folder of the label table's files: read them.", show_default=False
        ),
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option("--modality", rich_help_panel=IMAGES, help="Of these images. Default: the pack's only one."),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            "--embeddings",
            rich_help_panel=IMAGES,
            help="Vectors: CSV, TSV or Parquet, whatever its suffix; or npz.",
            show_default=False,
        ),
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(
            "--training", rich_help_panel=IMAGES, help="Shards or table that the model was trained on; again."
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            rich_help_panel=IMAGES,
            help="Key that training patients were hashed with.",
            show_default=False,
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", rich_help_panel=IMAGES, metavar="COLUMN", help="Study or visit of a row.")
    ] = None,
    drift: Annotated[
        list[str] | None,
        typer.Option(
            "--drift", rich_help_panel=IMAGES, metavar="GROUP", help="Do embeddings drift between these? Again."
        ),
    ] = None,
    date: Annotated[
        str | None,
        typer.Option("--date", rich_help_panel=IMAGES, metavar="COLUMN", help="Drift of embeddings between months."),
    ] = None,
    attacker: Annotated[
        bool,
        typer.Option(
            "--attacker", rich_help_panel=IMAGES, help="Also train a re-identification attacker on the embeddings."
        ),
    ] = False,
    num_resamples: Annotated[
        int, typer.Option("--num-resamples", rich_help_panel=NUMBERS, min=100, help="Resamples of patients.")
    ] = 2000,
    permutations: Annotated[
        int | None,
        typer.Option(
            "--permutations",
            rich_help_panel=NUMBERS,
            min=100,
            help="Shuffles of groups. Default: 1,000, more for many tests.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", rich_help_panel=NUMBERS, help="Of resamples and shuffles.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print one JSON object and nothing else.")
    ] = False,
) -> int:
    """Measure a model in every patient group, with intervals that resample patients; write a page and tables.

    A recipe is a YAML file with the names of these options as keys; options on the command line override it.

    Exit code: 0 done, 1 done and training and audit share something that they must not (the page's red box), 2 refused.
    """
    from medclip.api.audit import audit as run
    from medclip.auditing.recipe import audit_recipe
    from medclip.cli.progress import progress, say
    from medclip.errors import MedclipError, Reason, printable

    # By name: typer brings a click of its own, whose ParameterSource is another class than click's.
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    named = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    recipe = audit_recipe(scores, {name: ctx.params[name] for name in named - {"scores", "as_json"}})
    if recipe.out is None:
        raise MedclipError(Reason.WRONG_USE, "there is no folder for page and tables.", hint="Name it: --out FOLDER.")
    with progress(quiet=as_json) as shown:
        audited = run(recipe, progress=shown)
    for note in audited.notes:
        if CAUTION in note:
            say(printable(note))
    if as_json:
        print(audited.to_json(), end="")
    else:
        from medclip.reports.audit.summary_words import summary

        for words in summary(audited):
            print(f"{words.head}: {' '.join(words.all)}")
        print(f"Page: {printable(str(recipe.out / 'report.html'))}")
    return LEAKAGE if audited.leaks else 0
