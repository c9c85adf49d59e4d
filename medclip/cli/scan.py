"""`medclip scan PATH`: list what a folder holds, how it would be read, and the problems."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from medclip.files.scan import Scan
    from medclip.sample import Kind, Modality, Study, Unit

_SHOWN = 3
"""Names that stand for a group of files that are alike."""
_LONG = 60
"""Letters of a name; the end of a longer one is shown where it stands beside others."""


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
    """List what a folder holds, how it would be read and the problems, without decoding pixels.

    Exit code: 0 all could be scored or are skipped, 3 some failed, 2 wrong use or nothing to look at.
    """
    from medclip.files.scan import scan as run

    found = run(path, table=table, modality=modality, group_by=group_by)
    if not found.files:
        raise MedclipError(
            Reason.NOTHING_TO_DO, "there is no file in this folder.", where=path, hint="Name another folder."
        )
    print(json.dumps(_json(found)) if as_json else _text(found))
    return 3 if found.counts("status").get("failed") else 0


@cache
def _reading(modality: Modality | None, kind: Kind) -> tuple[str, str] | None:
    """Give name and sentence of the adapter that reads a kind of a modality; None if there is none."""
    from medclip.adapters.registry import get_adapter

    try:
        adapter = get_adapter(modality)
    except MedclipError:
        return None
    return (adapter.name, adapter.describe(kind)) if kind in adapter.kinds else None


def _of(found: Scan) -> dict[str, tuple[Modality | None, str | None]]:
    """Give for each file the modality of its study, and what it is where no adapter reads it."""
    from medclip.files.support import other_modality

    return {
        file.ref.name: (file.modality, other_modality(file.facts.header) if file.facts.header else None)
        for file in found.files
    }


def _json(found: Scan) -> dict[str, Any]:
    """Add to the scan what each unit would be read as."""
    data, facts = found.to_dict(), _of(found)
    for entry, study in zip(data["studies"], found.studies, strict=True):
        for item, unit in zip(entry["units"], study.units, strict=True):
            _, other = facts[unit.files[0].name]
            adapter = None if other or unit.problem else _reading(study.modality, unit.kind)
            item["adapter"], item["gives"] = adapter or (None, None)
            item["other_modality"] = other
    return data


def _text(found: Scan) -> str:
    """Give the counts, then what would be read and what not, alike ones in one entry."""
    lines = [f"{_number(len(found.files), 'file', 'files')}, {_number(len(found.studies), 'study', 'studies')}"]
    for title, what in (("status", "status"), ("format", "format"), ("modality", "modality"), ("reason", "reason")):
        counts = found.counts(what)
        if counts:
            lines.append(f"{title:<9} " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    sections = (
        ("what would be read", _readings(found)),
        ("mammography examinations", _exams(found)),
        ("notes", _notes(found)),
        ("not read", _problems(found)),
    )
    for title, block in sections:
        listed = list(block)
        if listed:
            lines += ["", title, *(f"  {line}" for line in listed)]
    return "\n".join(lines)


def _readings(found: Scan) -> Iterator[str]:
    """Count the units that are read alike."""
    facts = _of(found)
    alike: dict[tuple[str, str], list[tuple[Study, Unit]]] = {}
    for study in found.studies:
        for unit in study.units:
            if unit.problem is None:
                alike.setdefault(_heading(study, unit, facts[unit.files[0].name][1]), []).append((study, unit))
    for (heading, sentence), members in sorted(alike.items(), key=lambda item: (-len(item[1]), item[0])):
        files = sum(len(unit.files) for _, unit in members)
        studies = len({study.key for study, _ in members})
        counted = f"{_number(files, 'file', 'files')}, {_number(studies, 'study', 'studies')}"
        yield f"{len(members):>5} x {heading} ({counted}): {_names(unit.files[0].name for _, unit in members)}"
        yield f"        {sentence}"


def _heading(study: Study, unit: Unit, other: str | None) -> tuple[str, str]:
    """Give what a unit is and what becomes of it."""
    from medclip.sample import spoken

    if other is not None:
        return f"{other.partition(' ')[2]} ({unit.kind})", "no task of a pack is about these; skipped when scoring"
    what = "modality not stated" if study.modality is None else spoken(study.modality)
    heading = f"{what} {unit.kind}" if study.modality is not None else f"{unit.kind}, {what}"
    if study.modality is None and str(unit.kind) == "volume":
        return heading, "name it with --modality ct or --modality mri"
    reading = _reading(study.modality, unit.kind)
    if reading is None:
        return heading, "no adapter reads this kind of the modality"
    name, sentence = reading
    tail = "; the modality is inferred from the picture" if study.modality is None else ""
    return heading, f"{name} adapter: {sentence}{tail}"


def _exams(found: Scan) -> Iterator[str]:
    """Count the examinations of the same make-up."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for study in found.studies:
        exam = found.exams.get(study.key)
        if exam is None:
            continue
        have = ", ".join(slot for slot, _ in exam.views) or "none of the four views"
        parts = [f"has {have}", f"missing {', '.join(exam.missing)}" if exam.missing else "complete"]
        if exam.extra:
            parts.append(f"{len(exam.extra)} more: {', '.join(_extra(exam.extra))}")
        alike.setdefault((*parts, *exam.notes), []).append(study.files[0].name)
    for parts, names in sorted(alike.items(), key=lambda item: (-len(item[1]), item[0])):
        yield f"{len(names):>5} x {'; '.join(parts)}: {_names(names)}"


def _extra(views: Iterable[Any]) -> list[str]:
    counts = Counter(f"{view.side or '?'}-{view.view or '?'}" for view in views)
    return [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]


def _notes(found: Scan) -> Iterator[str]:
    alike: dict[str, list[str]] = {}
    for study in found.studies:
        for unit in study.units:
            if unit.problem is None:
                for note in unit.notes:
                    alike.setdefault(note, []).append(unit.files[0].name)
    for note, names in sorted(alike.items(), key=lambda item: (-len(item[1]), item[0])):
        yield f"{len(names):>5} x {note}: {_names(names)}"


def _problems(found: Scan) -> Iterator[str]:
    alike: dict[tuple[str, str], list[str]] = {}
    for file in found.files:
        if file.problem is not None:
            alike.setdefault((file.status, file.problem.message), []).append(file.ref.name)
    for (status, message), names in sorted(alike.items(), key=lambda item: (item[0][0], -len(item[1]), item[0])):
        yield f"{len(names):>5} x {status}: {_names(names)}"
        yield f"        {message}"


def _names(names: Iterable[str]) -> str:
    """Give a few names that stand for all; what could drive the terminal is escaped."""
    from medclip.errors import printable

    listed = [printable(name) for name in names]
    more = len(listed) - _SHOWN
    if len(listed) > 1:
        listed = [name if len(name) <= _LONG else f"...{name[3 - _LONG :]}" for name in listed[:_SHOWN]]
    return ", ".join(listed) + (f" and {more} more" if more > 0 else "")


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
