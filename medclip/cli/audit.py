"""`medclip audit SCORES --labels TABLE --by sex --out DIR`: does a model work for every patient group?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

LEAKAGE = 1
CAUTION = "CAUTION"


def audit(
    scores: Annotated[
        Path,
        typer.Argument(help="Folder of medclip score, or a CSV, TSV or Parquet table of scores.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for page and tables.", show_default=False)],
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="TABLE", help="Truths, patients and groups. Default: the scores' own table."),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", metavar="GROUP", help="sex, age, race, site, scanner, view, any column, sex*age; again."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="SCORE=COLUMN", help="What is audited; again. Default: all that match."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="SCORES=LABELS", help="Column that joins the tables; again where it takes two."),
    ] = None,
    match: Annotated[str, typer.Option("--match", help="How keys are compared: auto, exact, stem, ...")] = "auto",
    repeat_labels: Annotated[
        bool, typer.Option("--repeat-labels", help="One row of labels (a study) serves several rows of scores.")
    ] = False,
    files: Annotated[
        Path | None, typer.Option("--files", help="files.parquet of the scores. Default: beside them.")
    ] = None,
    score_where: Annotated[
        list[str] | None,
        typer.Option("--score-where", metavar="COLUMN=VALUE", help="Rows of the table of scores; again."),
    ] = None,
    score: Annotated[
        list[str] | None, typer.Option("--score", metavar="LABEL=COLUMN", help="Column of scores of a label; again.")
    ] = None,
    long: Annotated[
        str, typer.Option("--long", metavar="LABEL,SCORE", help="Columns of a table with one row for each label.")
    ] = "",
    kind: Annotated[
        str, typer.Option("--scores-are", metavar="KIND", help="probabilities, logits or any (higher: likelier).")
    ] = "probabilities",
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Rows of the label table that are audited; again."),
    ] = None,
    uncertain: Annotated[
        str, typer.Option("--uncertain", help="What -1 means: ignore, zero or one (U-Ignore, U-Zero, U-One).")
    ] = "ignore",
    blank: Annotated[str, typer.Option("--blank", help="What an empty label means: ignore or zero.")] = "ignore",
    label_list: Annotated[
        str, typer.Option("--label-list", metavar="COLUMN", help="Column that lists the findings: Pneumonia|Effusion.")
    ] = "",
    separator: Annotated[str, typer.Option("--separator", help="Between two findings of such a list.")] = "|",
    no_finding: Annotated[
        list[str] | None, typer.Option("--no-finding", metavar="LABEL", help="Label that means healthy; again.")
    ] = None,
    patient: Annotated[str, typer.Option("--patient", metavar="COLUMN", help="Column that names the patient.")] = "",
    rows_are_patients: Annotated[
        bool, typer.Option("--rows-are-patients", help="There is no such column: each row is a patient of its own.")
    ] = False,
    time: Annotated[str, typer.Option("--time", metavar="COLUMN", help="Time to the event.")] = "",
    event: Annotated[str, typer.Option("--event", metavar="COLUMN", help="Whether the event was seen.")] = "",
    horizon: Annotated[
        float | None, typer.Option("--horizon", metavar="T", help="Also audit: had the event by then.")
    ] = None,
    age_bins: Annotated[
        str, typer.Option("--age-bins", metavar="0,20,40", help="Lower edges in years, or cxr.", show_default=False)
    ] = "",
    age_unit: Annotated[str, typer.Option("--age-unit", help="Of plain numbers: years, months or days.")] = "years",
    bins: Annotated[
        list[str] | None, typer.Option("--bins", metavar="COLUMN=A,B,C", help="Edges of a column of numbers; again.")
    ] = None,
    value: Annotated[
        list[str] | None, typer.Option("--value", metavar="sex:0=M", help="What a value of a column means; again.")
    ] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Also every pair of groups.")] = False,
    name: Annotated[str, typer.Option("--name", help="Of the model. Default: of folder or file.")] = "",
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", metavar="[NAME=]SCORES", help="Scores of another model on the same patients; again."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="For every label, given by hand.", show_default=False)
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option("--thresholds", help="thresholds.json of another audit.", show_default=False)
    ] = None,
    choose_on: Annotated[
        list[str] | None,
        typer.Option(
            "--choose-on", metavar="[NAME=]SCORES", help="Scores of other patients, to choose thresholds on; again."
        ),
    ] = None,
    choose_labels: Annotated[
        Path | None, typer.Option("--choose-labels", help="Their label table. Default: --labels.", show_default=False)
    ] = None,
    choose_where: Annotated[
        list[str] | None,
        typer.Option("--choose-where", metavar="COLUMN=VALUE", help="Rows of the label table to choose on; again."),
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", help="youden (default), f1, sensitivity=0.9, specificity=0.95.")
    ] = "",
    device_column: Annotated[
        list[str] | None,
        typer.Option("--device-column", metavar="COLUMN", help="Device in the image, 1 or 0: shortcut tests; again."),
    ] = None,
    masked: Annotated[
        Path | None, typer.Option("--masked", help="Scores of the same images, device masked.", show_default=False)
    ] = None,
    reweight: Annotated[
        list[str] | None,
        typer.Option("--reweight", metavar="GROUP", help="Measure gaps again with the same mix of this; again."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="PACK", help="The audited model's pack: training lists, encoder.")
    ] = "",
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the label table's files: read them.", show_default=False)
    ] = None,
    modality: Annotated[str, typer.Option("--modality", help="Of these images. Default: the pack's only one.")] = "",
    embeddings: Annotated[
        Path | None, typer.Option("--embeddings", help="Vectors of the rows, Parquet or npz.", show_default=False)
    ] = None,
    training: Annotated[
        list[Path] | None, typer.Option("--training", help="Shards or table that the model was trained on; again.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="Key that training patients were hashed with.", show_default=False)
    ] = None,
    study: Annotated[str, typer.Option("--study", metavar="COLUMN", help="Study or visit of a row.")] = "",
    drift: Annotated[
        list[str] | None, typer.Option("--drift", metavar="GROUP", help="Do embeddings drift between these? Again.")
    ] = None,
    date: Annotated[str, typer.Option("--date", metavar="COLUMN", help="Drift of embeddings between months.")] = "",
    attacker: Annotated[
        bool, typer.Option("--attacker", help="Also train a re-identification attacker on the embeddings.")
    ] = False,
    min_cell: Annotated[
        int, typer.Option("--min-cell", min=1, help="Rows, patients, positives, negatives that a group needs.")
    ] = 10,
    exact_counts: Annotated[
        bool, typer.Option("--exact-counts", help="Do not round counts; small groups stay hidden.")
    ] = False,
    dataset: Annotated[str, typer.Option("--dataset", help="Name of the audit set.")] = "",
    num_resamples: Annotated[int, typer.Option("--num-resamples", min=100, help="Resamples of patients.")] = 2000,
    permutations: Annotated[
        int | None,
        typer.Option("--permutations", min=100, help="Shuffles of groups. Default: 1,000, more for many tests."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> int:
    """Measure a model in every patient group, with intervals that resample patients; write a page and tables.

    Exit code: 0 done, 1 done and training and audit share something that they must not (the page's red box), 2 refused.
    """
    from medclip.api.audit import audit as run
    from medclip.auditing.disclosure.small_cells import Policy
    from medclip.auditing.input.options import ReadOptions
    from medclip.auditing.options import AuditOptions, Pictures, Shortcuts, Thresholds
    from medclip.cli.progress import progress, say
    from medclip.errors import printable

    reading = ReadOptions(
        key=key or None,
        match=match,
        repeat_labels=repeat_labels,
        files=files,
        score=_pairs(score, "--score"),
        long=_two(long),
        scores=kind,  # pyright: ignore[reportArgumentType] - checked there
        where=_lists(where, "--where"),
        score_where=_lists(score_where, "--score-where"),
        uncertain=uncertain,  # pyright: ignore[reportArgumentType]
        blank=blank,  # pyright: ignore[reportArgumentType]
        label_list=label_list or None,
        separator=separator,
        no_finding=no_finding or (),
        patient=patient or None,
        patients="rows" if rows_are_patients else "column",
        time=time or None,
        event=event or None,
        age_bins=age_bins or None,
        age_unit=age_unit,  # pyright: ignore[reportArgumentType]
        bins={column: _numbers(edges) for column, edges in _pairs(bins, "--bins").items()},
        values=_values(value),
        all_pairs=all_pairs,
    )
    options = AuditOptions(
        dataset=dataset,
        num_resamples=num_resamples,
        permutations=permutations,
        seed=seed,
        horizon=horizon,
        small_cells=Policy(min_cell, min_cell, min_cell, min_cell, exact_counts=exact_counts),
        thresholds=Thresholds(
            threshold,
            thresholds,
            _sources(choose_on, name or scores.stem),
            choose_labels,
            _lists(choose_where, "--choose-where"),
            policy or None,
        ),
        shortcuts=Shortcuts(device_column or (), masked, reweight or ()),
        pictures=Pictures(
            pack=model or None,
            folder=images,
            modality=modality or None,
            embeddings=embeddings,
            training=training or (),
            key_file=key_file,
            study=study or None,
            sites=drift or (),
            date=date or None,
            attacker=attacker,
        ),
    )
    with progress(quiet=as_json) as shown:
        found = run(
            scores,
            labels,
            by=by or (),
            label=label or None,
            out=out,
            name=name,
            compare=_sources(compare, "") or {},
            reading=reading,
            options=options,
            progress=shown,
        )
    for note in found.notes:
        if CAUTION in note:
            say(printable(note))
    if as_json:
        print(found.to_json(), end="")
    else:
        from medclip.reports.audit.summary_words import summary

        for said in summary(found):
            print(f"{said.head}: {' '.join(said.all)}")
        print(f"Page: {printable(str(out / 'report.html'))}")
    return LEAKAGE if found.leaks else 0


def _refuse(option: str, form: str) -> Any:
    from medclip.errors import MedclipError, Reason

    return MedclipError(Reason.WRONG_USE, f"{option} takes {form}.")


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """Read NAME=VALUE of a repeated option."""
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise _refuse(option, "NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def _lists(given: list[str] | None, option: str) -> dict[str, list[str]]:
    """Read COLUMN=VALUE of a repeated option; the same column again adds a value."""
    found: dict[str, list[str]] = {}
    for text in given or ():
        for name, value in _pairs([text], option).items():
            found.setdefault(name, []).append(value)
    return found


def _sources(given: list[str] | None, first: str) -> dict[str, Path] | None:
    """Read [NAME=]PATH; a path without a name is that of the audited model (`first`), or is named by its file."""
    from medclip.errors import MedclipError, Reason

    found: dict[str, Path] = {}
    for text in given or ():
        name, equals, path = text.partition("=")
        whole = not equals or Path(text).exists()  # a path may hold "=" itself
        source = Path(text if whole else path)
        name = (first or source.stem) if whole else name
        if name in found:
            raise _refuse(
                "--compare or --choose-on", f"each model once, and {name!r} is there twice: write NAME=SCORES"
            )
        if not source.exists():
            raise MedclipError(Reason.MISSING_FILE, "there is no such file or folder of scores.", where=source)
        found[name] = source
    return found or None


def _values(given: list[str] | None) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, meaning in _pairs(given, "--value").items():
        column, colon, value = name.partition(":")
        if not colon:
            raise _refuse("--value", "COLUMN:VALUE=MEANING, such as sex:0=M")
        found.setdefault(column, {})[value] = meaning
    return found


def _two(text: str) -> tuple[str, str] | None:
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
