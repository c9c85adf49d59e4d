"""`medclip shards build` and `medclip shards check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

_SPLITS = "train=0.7,val=0.1,test=0.2"


def build(
    table: Annotated[Path, typer.Argument(help="CSV, TSV or Parquet; at least the columns file, patient, modality.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the table holds; read no image.")] = False,
    max_side: Annotated[int, typer.Option(help="Longest side of stored images, in pixels.")] = 288,
    samples_per_shard: Annotated[int, typer.Option(help="Samples in one tar.")] = 500,
    splits: Annotated[str, typer.Option(help="Shares by patient; a split column goes before them.")] = _SPLITS,
    seed: Annotated[int, typer.Option(help="Decides the splits and the order inside shards.")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="What relative files are relative to [the table's folder].")
    ] = None,
    patient_from: Annotated[
        str | None, typer.Option(help="Column that names the patient; `file` if every file is a patient of its own.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="Key for patient hashes [your identity key].")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Reading processes [one per core].")] = None,
    json_out: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Turn a table of images into shards, split by patient."""
    from dataclasses import replace

    from medclip.files.identity import load_key
    from medclip.settings import Settings
    from medclip.shards.build import build_shards
    from medclip.shards.plan import plan_shards

    shares = _shares(splits)
    settings = Settings() if workers is None else replace(Settings(), workers=workers)
    if dry_run:
        key = load_key(settings, path=key_file) if key_file else b""
        plan = plan_shards(table, splits=shares, seed=seed, key=key, folder=folder, patient_from=patient_from)
        _print(plan, json_out, f"{table}: {plan.num_rows} rows of {plan.num_patients} patients; nothing was written.")
        return 0
    with _progress(quiet=json_out) as advance:
        report = build_shards(
            table,
            out,
            max_side=max_side,
            samples_per_shard=samples_per_shard,
            splits=shares,
            seed=seed,
            key=load_key(settings, path=key_file),
            settings=settings,
            folder=folder,
            patient_from=patient_from,
            progress=advance,
        )
    rejected = sum(report.counts_by_reason.values())
    _print(report, json_out, f"{out}: {report.num_samples} samples written, {rejected} rows rejected.")
    if report.num_duplicates_across_splits:
        typer.echo(
            f"medclip: warning: {report.num_duplicates_across_splits} samples lie in another split too, byte for byte, "
            "under another patient: training would see what is measured. Give equal files the same patient.",
            err=True,
        )
    return 0


def check(
    folder: Annotated[Path, typer.Argument(help="What `medclip shards build` made.")],
    json_out: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Check a shard folder: hashes, counts, splits. Exit code 1 when something is wrong."""
    from medclip.shards.check import check_shards

    result = check_shards(folder)
    verdict = "all is well" if result.ok else f"{len(result.problems)} problems"
    _print(result, json_out, f"{folder}: {result.num_samples} samples, {verdict}.")
    return 0 if result.ok else 1


def _shares(text: str) -> dict[str, float]:
    from medclip.errors import MedclipError, Reason

    shares: dict[str, float] = {}
    try:
        for part in text.split(","):
            name, share = part.split("=")
            shares[name.strip()] = float(share)
    except ValueError:
        raise MedclipError(
            Reason.WRONG_USE, f"--splits {text!r} cannot be read.", hint=f"Write it like {_SPLITS}."
        ) from None
    return shares


def _print(value: Any, json_out: bool, headline: str) -> None:
    from dataclasses import asdict

    if json_out:
        import json

        typer.echo(json.dumps(asdict(value), default=str, indent=2))
        return
    from medclip.errors import printable

    typer.echo(printable(headline))
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


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    import sys

    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
