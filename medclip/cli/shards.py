"""`medclip shards build`, `medclip shards index` and `medclip shards check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medclip.cli import options

if TYPE_CHECKING:
    from medclip.shards.writing.summary import ShardPlan

CHECK_FAILED = 1
_SPLITS = "train=0.7,val=0.1,test=0.2"


def build(
    table: Annotated[
        Path, typer.Argument(help="CSV, TSV or Parquet, whatever its suffix: file, patient, modality and more.")
    ],
    out: options.OutFolder,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the table holds; read no image.")] = False,
    max_side: Annotated[int, typer.Option(help="Longest side of stored images, in pixels.")] = 288,
    samples_per_shard: Annotated[int, typer.Option(help="Samples in one tar.")] = 500,
    stored: Annotated[str, typer.Option("--format", help="How images are stored: png or jpeg.")] = "png",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG.")] = 95,
    splits: options.Splits = _SPLITS,
    seed: options.Seed = 0,
    images: options.Images = None,
    patient: options.Patient = None,
    key_file: options.KeyFile = None,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> int:
    """Turn a table of images into shards, split by patient."""
    from dataclasses import replace

    from medclip.cli.progress import progress
    from medclip.files.pseudonyms import load_key
    from medclip.settings import Settings
    from medclip.shards.writing.build import build_shards
    from medclip.wording import count

    settings = Settings() if workers is None else replace(Settings(), workers=workers)
    if dry_run:
        plan = _print_plan(table, splits, seed, images, patient, key_file, as_json)
        return CHECK_FAILED if plan.num_missing_files == plan.num_files else 0
    stored_as = _format(stored)
    with progress(quiet=as_json) as shown:
        report = build_shards(
            table,
            out,
            max_side=max_side,
            samples_per_shard=samples_per_shard,
            stored=stored_as,
            quality=quality,
            splits=_shares(splits),
            seed=seed,
            key=load_key(settings, path=key_file),
            settings=settings,
            images=images,
            patient=patient,
            progress=shown,
        )
    rejected = sum(report.counts_by_reason.values())
    _print(report, as_json, f"{out}: {count(report.num_samples, 'sample')} written, {count(rejected, 'row')} rejected.")
    if report.num_duplicates_across_splits:
        typer.echo(
            f"medclip: warning: {report.num_duplicates_across_splits} samples lie in another split too, byte for byte, "
            "under another patient: training would see what is measured. Give equal files the same patient.",
            err=True,
        )
    return 0


def check(
    path: Annotated[Path, typer.Argument(help="A shard folder; or a table, before shards are built from it.")],
    splits: options.Splits = _SPLITS,
    seed: options.Seed = 0,
    images: options.Images = None,
    patient: options.Patient = None,
    key_file: options.KeyFile = None,
    as_json: options.Json = False,
) -> int:
    """Check a shard folder: hashes, counts, splits. Or say what a table is understood to hold; nothing is written.

    Exit code 1 when something is wrong with the folder, or files of the table are not there. Options other than --json
    are for tables.
    """
    import os

    from medclip.shards.reading.check_folder import check_shards
    from medclip.wording import count

    if os.path.isfile(path):  # unlike Path.is_file, this takes any name
        plan = _print_plan(path, splits, seed, images, patient, key_file, as_json)
        return CHECK_FAILED if plan.num_missing_files else 0
    result = check_shards(path)
    verdict = "all is well" if result.ok else count(len(result.problems), "problem")
    _print(result, as_json, f"{path}: {result.num_samples} samples, {verdict}.")
    return 0 if result.ok else CHECK_FAILED


def index(
    folder: Annotated[Path, typer.Argument(help="Folder of WebDataset tars: a picture with a txt or json each.")],
    source: Annotated[str, typer.Option(help="Name of the set.")],
    license_: Annotated[str, typer.Option("--license", help="Its licence, as stated by those who gave it.")],
    modality: Annotated[str | None, typer.Option(help="What all images are (default: as each json says).")] = None,
    split: Annotated[str, typer.Option(help="The split that all samples are put in.")] = "train",
    out: Annotated[Path | None, typer.Option(help="Where the index goes (default: beside the tars).")] = None,
    patient: Annotated[
        str | None, typer.Option(help="Field of the json that names the patient (default: every sample is one).")
    ] = None,
    key_file: options.KeyFile = None,
    as_json: options.Json = False,
) -> int:
    """Make WebDataset tars of others ready to train on, where they lie: hash every tar, find every sample."""
    from medclip.cli.progress import progress
    from medclip.files.pseudonyms import load_key
    from medclip.runs.options import parse_modality
    from medclip.settings import Settings
    from medclip.shards.reading.index_tars import index_shards
    from medclip.wording import count

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
            key=key,
            progress=shown,
        )
    left_out = sum(report.counts_by_reason.values())
    _print(report, as_json, f"{report.folder}: {count(report.num_samples, 'sample')} indexed, {left_out:,} left out.")
    for num, what in (
        (report.num_duplicate_keys, "samples have a key that stands before; they are kept, as samples of their own"),
        (report.num_duplicate_images, "samples show a picture that stands before, byte for byte; they are kept"),
    ):
        if num:
            typer.echo(f"medclip: warning: {num:,} {what}.", err=True)
    return 0


def _print_plan(
    table: Path,
    splits: str,
    seed: int,
    images: Path | None,
    patient: str | None,
    key_file: Path | None,
    as_json: bool,
) -> ShardPlan:
    """Print what a table is understood to hold, missing files first."""
    from medclip.files.pseudonyms import load_key
    from medclip.settings import Settings
    from medclip.shards.writing.summary import plan_shards

    key = load_key(Settings(), path=key_file) if key_file else b""
    plan = plan_shards(table, splits=_shares(splits), seed=seed, key=key, images=images, patient=patient)
    headline = f"{table}: {plan.num_rows} rows of {plan.num_patients} patients; nothing was written."
    if plan.num_missing_files:
        headline = (
            f"{table}: {plan.num_missing_files} of {plan.num_files} files are not there, such as "
            f"{plan.missing_files[0]}. Relative files are looked for in {images or table.parent}; --images names "
            f"another.\n{plan.num_rows} rows of {plan.num_patients} patients; nothing was written."
        )
    _print(plan, as_json, headline)
    return plan


def _format(text: str) -> Any:
    from medclip.errors import MedclipError, Reason, did_you_mean
    from medclip.shards.stored_image import STORED_AS

    if text.lower() not in STORED_AS:
        raise MedclipError(
            Reason.WRONG_USE, f"--format {text!r} is not known.", hint=did_you_mean(text, STORED_AS, "It is one of")
        )
    return text.lower()


def _shares(text: str) -> dict[str, float]:
    from medclip.errors import MedclipError, Reason
    from medclip.files.key_value import key_values

    try:
        return {name: float(share) for name, share in key_values(text.split(","), "--splits", _SPLITS).items()}
    except ValueError:
        raise MedclipError(Reason.WRONG_USE, f"--splits takes {_SPLITS}, which {text!r} is not.") from None


def _print(value: Any, as_json: bool, headline: str) -> None:
    from dataclasses import asdict

    if as_json:
        import json

        typer.echo(json.dumps(asdict(value), default=str, indent=2))
        return
    from medclip.errors import printable

    for line in headline.splitlines():
        typer.echo(printable(line))
    for name, said in asdict(value).items():
        for line in _lines(name.replace("_", " "), said):
            typer.echo(f"  {printable(line)}")


def _lines(name: str, said: Any) -> Iterator[str]:
    if isinstance(said, Mapping) and any(isinstance(v, Mapping) for v in said.values()):
        for key, inner in said.items():
            yield from _lines(f"{name} {key}", inner)
    elif isinstance(said, Mapping):
        if said:
            yield f"{name}: {', '.join(f'{k} {v}' for k, v in said.items())}"
    elif isinstance(said, list | tuple) and name == "problems":
        yield from (f"problem: {s}" for s in said)
    elif isinstance(said, list | tuple):
        yield f"{name}: {', '.join(map(str, said)) or 'none'}"
    else:
        yield f"{name}: {said}"
