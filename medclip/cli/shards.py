"""`medclip shards build`, `medclip shards index` and `medclip shards check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from medclip.api import shards as verbs
from medclip.cli.derive import derive
from medclip.exit_codes import ExitCode
from medclip.wording import count, number


def print_built(report: Any, as_json: bool, named: Any) -> int:
    """Print what was built, or what a dry run found in the table."""
    if report.planned is not None:
        plan = report.planned
        _print_plan(plan, Path(named["table"]), named.get("images"), as_json)
        return ExitCode.SOME_FAILED if plan.num_missing_files == plan.num_files else ExitCode.COMPLETE
    samples, rejected = count(report.num_samples, "sample"), sum(report.counts_by_reason.values())
    _print(report, as_json, f"{report.folder}: {samples} written, {count(rejected, 'row')} rejected.")
    if report.num_duplicates_across_splits:
        typer.echo(
            f"medclip: warning: {count(report.num_duplicates_across_splits, 'sample')} with a copy in another split, "
            "byte for byte, under another patient: training would see what is measured. Give equal files the same "
            "patient.",
            err=True,
        )
    return ExitCode.COMPLETE


def print_checked(result: Any, as_json: bool, named: Any) -> int:
    """Print what is wrong with a shard folder, or what a table holds."""
    if hasattr(result, "problems"):
        verdict = "all is well" if result.ok else count(len(result.problems), "problem")
        _print(result, as_json, f"{result.folder}: {count(result.num_samples, 'sample')}, {verdict}.")
    else:
        _print_plan(result, Path(named["path"]), named.get("images"), as_json)
    return ExitCode.COMPLETE if result.ok else ExitCode.SOME_FAILED


def print_indexed(report: Any, as_json: bool, _: Any) -> None:
    """Print what an index holds."""
    left_out = number(sum(report.counts_by_reason.values()))
    _print(report, as_json, f"{report.folder}: {count(report.num_samples, 'sample')} indexed, {left_out} left out.")
    for num_repeated, what in (
        (report.num_duplicate_keys, "with a key that another one has; they are kept, as samples of their own"),
        (report.num_duplicate_images, "with the image of another one, byte for byte; they are kept"),
    ):
        if num_repeated:
            typer.echo(f"medclip: warning: {count(num_repeated, 'sample')} {what}.", err=True)


def _print_plan(plan: Any, table: Path, images: Path | None, as_json: bool) -> None:
    """Print what a table is understood to hold, missing files first."""
    counts = f"{count(plan.num_rows, 'row')} of {count(plan.num_patients, 'patient')}; nothing was written."
    headline = f"{table}: {counts}"
    if plan.num_missing_files:
        missing = f"{number(plan.num_missing_files)} of {count(plan.num_files, 'file')}"
        verb = "is" if plan.num_missing_files == 1 else "are"
        headline = (
            f"{table}: {missing} {verb} not there, such as {plan.missing_files[0]}. Relative files are looked for "
            f"in {images or table.parent}; --images names another folder.\n{counts}"
        )
    _print(plan, as_json, headline)


def _print(value: Any, as_json: bool, headline: str) -> None:
    """Print a result as JSON, or its headline and a line for each of `_LINES` that it has something for."""
    from dataclasses import asdict

    values = {name: one for name, one in asdict(value).items() if name != "planned"}
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


build = derive(verbs.build, print_built, exit_codes="0 done, 3 with --dry-run and no file of the table there")
check = derive(
    verbs.check,
    print_checked,
    exit_codes="0 all is well, 3 something is wrong with the folder or files of the table are not there",
    is_lookup=True,
)
index = derive(verbs.index, print_indexed, exit_codes="0 done (samples that are left out are counted by reason)")
