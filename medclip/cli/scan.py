"""`medclip scan PATH`: list every file of a folder and what would be scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from medclip.files.scan import Scan


def scan(
    path: Annotated[Path, typer.Argument(help="File or folder to look at.", show_default=False)],
    table: Annotated[
        Path | None,
        typer.Option("--table", help="CSV, TSV or Parquet with a column 'file' and study, patient, modality."),
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(
            "--modality", metavar="M", help="Modality of files that neither the table nor their header names."
        ),
    ] = None,
    group_by: Annotated[
        str, typer.Option("--group-by", help="How files become studies: auto, folder or file.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> int:
    """List every file of a folder and what would be scored, without decoding pixels.

    Exit code: 0 all could be scored or are skipped, 3 some failed, 2 wrong use or nothing to look at.
    """
    from medclip.files.scan import scan as run

    found = run(path, table=table, modality=modality, group_by=group_by)
    if not found.files:
        raise MedclipError(
            Reason.NOTHING_TO_DO, "there is no file in this folder.", where=path, hint="Name another folder."
        )
    print(json.dumps(found.to_dict()) if as_json else _text(found))
    return 3 if found.counts("status").get("failed") else 0


def _text(found: Scan) -> str:
    """Give the counts, then each file that would not be scored, alike ones in one line."""
    from medclip.errors import printable

    lines = [f"{_number(len(found.files), 'file', 'files')}, {_number(len(found.studies), 'study', 'studies')}"]
    for title, what in (("status", "status"), ("format", "format"), ("modality", "modality"), ("reason", "reason")):
        counts = found.counts(what)
        if counts:
            lines.append(f"{title:<9} " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    alike: dict[tuple[str, str], list[str]] = {}
    for file in found.files:
        if file.problem is not None:
            alike.setdefault((file.status, file.problem.message), []).append(file.ref.name)
    for (status, message), names in sorted(alike.items(), key=lambda item: (item[0][0], -len(item[1]))):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"{status}: {printable(names[0])}{more}\n         {message}")
    return "\n".join(lines)


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
