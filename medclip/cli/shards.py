"""`medclip shards build`, `medclip shards index` and `medclip shards check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medclip.cli import options
from medclip.exit_codes import ExitCode
from medclip.wording import count, number

if TYPE_CHECKING:
    from medclip.shards.writing.summary import ShardPlan


def build(
    table: Annotated[
        Path, typer.Argument(help="CSV, TSV or Parquet, whatever its suffix: file, patient, modality and more.")
    ],
    out: options.OutFolder,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the table holds; read no image.")] = False,
    max_side: Annotated[int, typer.Option(help="Longest side of stored images, in pixels.")] = 288,
    samples_per_shard: Annotated[int, typer.Option(help="Samples in one tar.")] = 500,
    stored: Annotated[str, typer.Option("--format", help="How images are stored: png or jpeg.")] = "png",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of JPEG, 1 to 100.")] = 95,
    splits: options.Splits = options.SPLITS,
    seed: options.Seed = 0,
    images: options.Images = None,
    patient: options.Patient = None,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Store volumes and loops whole, for models of volumes; reject images.")
    ] = False,
    signals: Annotated[
        bool, typer.Option("--signals", help="Store the twelve leads of ECGs, for models of ECGs; reject the rest.")
    ] = False,
    group: Annotated[
        str | None,
        typer.Option(help="Mammograms of an exam, or of a breast, make one sample: exam or breast."),
    ] = None,
    key_file: options.KeyFile = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    as_json: options.Json = False,
) -> int:
    """Turn a table of images into shards, split by patient.

    Rows that cannot be used are listed in rejects.parquet and do not change the exit code.

    Exit code: 0 done, 3 with --dry-run and no file of the table there, 2 wrong use or refused.
    """
    from medclip.cli.progress import progress
    from medclip.files.pseudonyms import load_key
    from medclip.settings import Settings
    from medclip.shards.writing.build import build_shards

    settings = Settings().on_machine(workers, memory)
    if dry_run:
        from medclip.shards.writing.summary import plan_shards

        key = _key_of_plan(key_file)
        plan = plan_shards(
            table,
            splits=options.shares(splits),
            seed=seed,
            key=key,
            images=images,
            patient=patient,
            group=_group(group),
        )
        _print_plan(plan, table, images, as_json)
        return ExitCode.SOME_FAILED if plan.num_missing_files == plan.num_files else ExitCode.COMPLETE
    stored_as, grouped = _format(stored), _group(group)
    with progress(quiet=as_json) as shown:
        report = build_shards(
            table,
            out,
            max_side=max_side,
            samples_per_shard=samples_per_shard,
            stored=stored_as,
            quality=quality,
            splits=options.shares(splits),
            seed=seed,
            key=load_key(settings, path=key_file),
            settings=settings,
            images=images,
            patient=patient,
            volumes=volumes,
            signals=signals,
            group=grouped,
            progress=shown,
        )
    samples, rejected = count(report.num_samples, "sample"), sum(report.counts_by_reason.values())
    _print(report, as_json, f"{out}: {samples} written, {count(rejected, 'row')} rejected.")
    if report.num_duplicates_across_splits:
        typer.echo(
            f"medclip: warning: {count(report.num_duplicates_across_splits, 'sample')} with a copy in another split, "
            "byte for byte, under another patient: training would see what is measured. Give equal files the same "
            "patient.",
            err=True,
        )
    return 0


def check(
    path: Annotated[
        str, typer.Argument(help="A shard folder or its URL; or a table, before shards are built from it.")
    ],
    splits: options.Splits = options.SPLITS,
    seed: options.Seed = 0,
    images: options.Images = None,
    patient: options.Patient = None,
    key_file: options.KeyFile = None,
    as_json: options.Json = False,
) -> int:
    """Check a shard folder: hashes, counts, splits. Or say what a table is understood to hold; nothing is written.

    Options other than --json are for tables.

    Exit code: 0 all is well, 3 something is wrong with the folder or files of the table are not there, 2 wrong use.
    """
    from medclip.shards.check_shards import check as check_path
    from medclip.shards.reading.check_folder import ShardCheck

    result = check_path(
        path, splits=options.shares(splits), seed=seed, key=_key_of_plan(key_file), images=images, patient=patient
    )
    if isinstance(result, ShardCheck):
        verdict = "all is well" if result.ok else count(len(result.problems), "problem")
        _print(result, as_json, f"{path}: {count(result.num_samples, 'sample')}, {verdict}.")
    else:
        _print_plan(result, Path(path), images, as_json)
    return ExitCode.COMPLETE if result.ok else ExitCode.SOME_FAILED


def index(
    folder: Annotated[
        str, typer.Argument(help="Folder of WebDataset tars, or its URL: an image with a txt or json each.")
    ],
    source: Annotated[str, typer.Option(help="Name of the set.")],
    license_: Annotated[str, typer.Option("--license", help="Its licence, as stated by those who gave it.")],
    modality: Annotated[str | None, typer.Option(help="What all images are (default: as each json says).")] = None,
    split: Annotated[str, typer.Option(help="The split that all samples are put in.")] = "train",
    out: Annotated[Path | None, typer.Option(help="Where the index goes (default: beside the tars).")] = None,
    patient: Annotated[
        str | None, typer.Option(help="Field of the json that names the patient (default: every sample is one).")
    ] = None,
    words: Annotated[
        bool, typer.Option(help="Leave out images without a text; --no-words keeps them, to train without words.")
    ] = True,
    key_file: options.KeyFile = None,
    as_json: options.Json = False,
) -> int:
    """Make WebDataset tars of others ready to train on, where they lie: hash every tar, find every sample.

    Exit code: 0 done (samples that are left out are counted by reason), 2 wrong use or refused.
    """
    from medclip.cli.progress import progress
    from medclip.files.pseudonyms import load_key
    from medclip.runs.planning.options import parse_modality
    from medclip.settings import Settings
    from medclip.shards.reading.index_tars import index_shards

    key = load_key(Settings(), path=key_file)
    with progress(quiet=as_json) as shown:
        report = index_shards(
            folder,
            source=source,
            license=license_,
            modality=parse_modality(modality),
            split=split,
            out=out,
            patient=patient,
            words=words,
            key=key,
            progress=shown,
        )
    left_out = number(sum(report.counts_by_reason.values()))
    _print(report, as_json, f"{report.folder}: {count(report.num_samples, 'sample')} indexed, {left_out} left out.")
    for num_repeated, what in (
        (report.num_duplicate_keys, "with a key that another one has; they are kept, as samples of their own"),
        (report.num_duplicate_images, "with the image of another one, byte for byte; they are kept"),
    ):
        if num_repeated:
            typer.echo(f"medclip: warning: {count(num_repeated, 'sample')} {what}.", err=True)
    return 0


def _key_of_plan(key_file: Path | None) -> bytes:
    """Return the key that patients are counted with; none where none is named, for nothing is written."""
    from medclip.files.pseudonyms import load_key
    from medclip.settings import Settings

    return load_key(Settings(), path=key_file) if key_file else b""


def _print_plan(plan: ShardPlan, table: Path, images: Path | None, as_json: bool) -> None:
    """Print what a table is understood to hold, missing files first."""
    counts = f"{count(plan.num_rows, 'row')} of {count(plan.num_patients, 'patient')}; nothing was written."
    headline = f"{table}: {counts}"
    if plan.num_missing_files:
        missing = f"{number(plan.num_missing_files)} of {count(plan.num_files, 'file')}"
        verb = "is" if plan.num_missing_files == 1 else "are"
        headline = (
            f"{table}: {missing} {verb} not there, such as {plan.missing_files[0]}. Relative files are looked for in "
            f"{images or table.parent}; --images names another folder.\n{counts}"
        )
    _print(plan, as_json, headline)


def _format(text: str) -> Any:
    from medclip.errors import MedclipError, Reason, did_you_mean
    from medclip.shards.stored_image import STORED_AS

    if text.lower() not in STORED_AS:
        raise MedclipError(
            Reason.WRONG_USE, f"--format {text!r} is not known.", hint=did_you_mean(text, STORED_AS, "It is one of")
        )
    return text.lower()


def _group(text: str | None) -> Any:
    from medclip.errors import MedclipError, Reason, did_you_mean
    from medclip.shards.sample_views import GROUPS

    if text is not None and text.lower() not in GROUPS:
        raise MedclipError(
            Reason.WRONG_USE, f"--group {text!r} is not known.", hint=did_you_mean(text, GROUPS, "It is one of")
        )
    return text and text.lower()


def _print(value: Any, as_json: bool, headline: str) -> None:
    """Print a result as JSON, or its headline and a line for each of `_LINES` that it has something for."""
    from dataclasses import asdict

    values = asdict(value)
    if as_json:
        import json

        typer.echo(json.dumps(values, default=str, indent=2))
        return
    from medclip.errors import printable

    lines = (line for field, name in _LINES.items() for line in _lines(name, values.get(field)))
    for line in (*headline.splitlines(), *(f"  {line}" for line in lines)):
        typer.echo(printable(line))


_LINES = {
    "problems": "problem",
    "missing_files": "not there",
    "columns": "columns",
    "ignored_columns": "columns not used",
    "patient_from": "patients from",
    "num_studies": "studies",
    "num_shards": "tars",
    "rows_by_split": "rows by split",
    "samples_by_views": "samples by number of views",
    "rows_set_aside": "rows set aside",
    "counts_by_split": "samples by split",
    "patients_by_split": "patients by split",
    "rows_by_modality": "rows by modality",
    "counts_by_modality": "samples by modality",
    "counts_by_views": "samples by number of views",
    "rows_by_source": "rows by source",
    "counts_by_source": "samples by source",
    "rows_by_license": "rows by licence",
    "rows_by_view": "rows by view",
    "rows_by_view_kind": "rows by view kind",
    "rows_by_laterality": "rows by laterality",
    "rows_by_sex": "rows by sex",
    "rows_by_age": "rows by age",
    "not_understood": "not understood in",
    "labels": "label",
    "num_with_text": "rows with a caption",
    "num_with_report": "rows with a report",
    "counts_by_reason": "rejected",
    "num_duplicates_across_splits": "copies in another split",
}
"""What is printed of a result, in this order, and how it is called. What the headline has said, and hashes, are not."""


def _lines(name: str, value: Any) -> Iterator[str]:
    """Write one value: a mapping of mappings in a line each, problems in a line each; nothing for what is empty."""
    if not value:
        return
    if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
        for key, inner in value.items():
            yield from _lines(f"{name} {key}", inner)
    elif isinstance(value, Mapping):
        counts = (f"{'(blank)' if key in ('', 'None') else key} {number(n)}" for key, n in value.items())
        yield f"{name}: {', '.join(counts)}"
    elif isinstance(value, str | int):
        yield f"{name}: {number(value) if isinstance(value, int) else value}"
    elif name == "problem":
        yield from (f"{name}: {sentence}" for sentence in value)
    else:
        yield f"{name}: {', '.join(value)}"
