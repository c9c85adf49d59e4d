"""What `medclip scan` says of a folder: alike things in one entry, counted, as text or as JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import Any, TypeVar

from medclip.adapters.registry import adapter_names, get_adapter
from medclip.errors import MedclipError, printable
from medclip.files.grouping.mammography_exam import ExamView
from medclip.files.recognise.inspect import other_modality
from medclip.files.scan import Scan
from medclip.modalities import MODALITIES
from medclip.sample import Kind, Modality, Study, Unit, spoken
from medclip.wording import count, list_of

_K = TypeVar("_K")
_V = TypeVar("_V")
_MOST = 20
"""Entries of a section; what a folder has more of is counted. --json has all."""
_SHOWN = 3
"""Names that stand for a group of files that are alike."""
_LONG = 60
"""Letters of a name; the end of a longer one is shown where it stands beside others."""


@cache
def _reading(modality: Modality | None, kind: Kind, other: str | None) -> tuple[str | None, str]:
    """Return the adapter that would read a kind of a modality, and what it gives; None and why, if nothing would."""
    if other is not None:
        return None, "no task of a pack is about these; skipped when scoring"
    if modality is None and kind != "image":
        # Only images tell by themselves what they show.
        adapters = adapter_names()
        options = [f"--modality {name}" for name in MODALITIES if name in adapters and kind in get_adapter(name).kinds]
        return None, f"skipped when scoring unless named: {list_of(options, 'or') or '--modality M'}"
    try:
        adapter = get_adapter(modality)
    except MedclipError:
        return None, "no adapter reads this modality"
    if kind not in adapter.kinds:
        return None, f"the {adapter.name} adapter does not read this kind of file"
    return adapter.name, adapter.describe(kind)


def _of(scanned: Scan) -> dict[str, tuple[Modality | None, str | None]]:
    """Return for each file the modality of its study, and what it is where no adapter reads it."""
    return {
        file.ref.name: (file.modality, other_modality(file.facts.header) if file.facts.header else None)
        for file in scanned.files
    }


def scan_json(scanned: Scan) -> dict[str, Any]:
    """Add to the scan what each unit would be read as."""
    data, facts = scanned.to_dict(), _of(scanned)
    for entry, study in zip(data["studies"], scanned.studies, strict=True):
        for item, unit in zip(entry["units"], study.units, strict=True):
            _, other = facts[unit.files[0].name]
            name, reading = (None, None) if unit.problem else _reading(study.modality, unit.kind, other)
            item["adapter"], item["gives"] = name, reading if name else None
            item["not_read_because"] = None if name or unit.problem else reading
            item["other_modality"] = other
    return data


def scan_text(scanned: Scan) -> str:
    """Return the counts, then what would be read and what not, alike ones in one entry."""
    counted = f"{count(len(scanned.files), 'file')}, {count(len(scanned.studies), 'study')}"
    lines = [f"{counted} (from headers; no pixels were decoded)"]
    for title, what in (("status", "status"), ("format", "format"), ("modality", "modality"), ("reason", "reason")):
        counts = scanned.counts(what)
        if counts:
            lines.append(f"{title:<9} " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    sections = (
        ("what the studies hold", _studies(scanned)),
        ("what would be read", _readings(scanned)),
        ("mammography examinations", _exams(scanned)),
        ("text in the pixels: look before you share", _burned_in(scanned)),
        ("failed: should be readable and is not", _problems(scanned, "failed")),
        ("skipped: nothing wrong, but nothing to read", _problems(scanned, "skipped")),
        ("notes", _notes(scanned)),
    )
    for title, block in sections:
        entries = list(block)
        if entries:
            lines += ["", title, *(f"  {line}" for entry in entries[:_MOST] for line in entry)]
        if len(entries) > _MOST:
            lines.append(f"        and {len(entries) - _MOST} more entries; --json has all")
    return "\n".join(lines)


_Entry = tuple[str, ...]
"""Lines of one entry of a section."""


def _studies(scanned: Scan) -> Iterator[_Entry]:
    """Count the studies that hold the same."""
    facts = _of(scanned)
    alike: dict[str, list[str]] = {}
    for study in scanned.studies:
        held: dict[str, Counter[str]] = {}
        for unit in study.units:
            held.setdefault(_named(study.modality, facts[unit.files[0].name][1]), Counter())[str(unit.kind)] += 1
        parts = [f"{what}: {_kinds(kinds)}" for what, kinds in held.items()]
        alike.setdefault(", ".join(parts), []).append(study.files[0].name)
    for what, names in _by_count(alike):
        yield (f"{len(names):>5} x {what}",)


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(count(num, kind) for kind, num in sorted(counts.items()))


def _named(modality: Modality | None, other: str | None) -> str:
    """Name a modality; one that no adapter reads by what its object is: "a PET image" is PET."""
    return _spoken(modality) if other is None else other.partition(" ")[2].removesuffix(" image")


def _readings(scanned: Scan) -> Iterator[_Entry]:
    """Count the units that are read alike; those that no adapter reads come last."""
    facts = _of(scanned)
    alike: dict[tuple[bool, str, str], list[tuple[Study, Unit]]] = {}
    for study in scanned.studies:
        for unit in study.units:
            if unit.problem is None:
                other = facts[unit.files[0].name][1]
                what = _named(study.modality, other)
                name, reading = _reading(study.modality, unit.kind, other)
                tail = "; the modality is inferred from the image" if name and study.modality is None else ""
                sentence = f"{name} adapter: {reading}{tail}" if name else f"not read: {reading}"
                alike.setdefault((name is None, f"{what} ({unit.kind})", sentence), []).append((study, unit))
    for (_, heading, sentence), members in sorted(alike.items(), key=lambda item: (item[0][0], -len(item[1]), item[0])):
        files = sum(len(unit.files) for _, unit in members)
        studies = len({study.key for study, _ in members})
        counted = f"{count(files, 'file')}, {count(studies, 'study')}"
        names = _names(unit.files[0].name for _, unit in members)
        yield f"{len(members):>5} x {heading}, {counted}: {names}", f"        {sentence}"


def _spoken(modality: Modality | None) -> str:
    return "modality not stated" if modality is None else spoken(modality)


def _exams(scanned: Scan) -> Iterator[_Entry]:
    """Count the examinations of the same make-up, and name folders whose views lie in studies of their own."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for study in scanned.studies:
        exam = scanned.exams.get(study.key)
        if exam is None:
            continue
        have = ", ".join(slot for slot, _ in exam.views) or "none of the four views"
        parts = [f"has {have}", f"missing {', '.join(exam.missing)}" if exam.missing else "complete"]
        if exam.set_aside:
            parts.append(f"{len(exam.set_aside)} more: {', '.join(_extra(view for view, _ in exam.set_aside))}")
        alike.setdefault((*parts, *exam.notes), []).append(study.files[0].name)
    for parts, names in _by_count(alike):
        yield (f"{len(names):>5} x {'; '.join(parts)}: {_names(names)}",)
    days = [exam.earlier[0][1] for exam in scanned.exams.values() if exam.earlier]
    if days:
        span = f"{min(days)}" if min(days) == max(days) else f"{min(days)} to {max(days)}"
        yield (f"{len(days):>5} x an earlier examination of the same patient, {span} days before",)
    torn = _torn(scanned)
    if torn:
        sentence = "folder whose views lie in studies or patients of their own; if they are one examination"
        yield (f"{len(torn):>5} x {sentence}, use --group-by folder: {_names(torn)}",)


def _torn(scanned: Scan) -> list[str]:
    """Name the folders whose mammograms lie in several studies, no view twice.

    Some archives give every view a study or a patient number of its own. A folder with a view twice holds two women.
    """
    places: dict[str, list[list[str]]] = {}
    for study in scanned.studies:
        exam = scanned.exams.get(study.key)
        if exam is not None:
            folder = str(PurePosixPath(study.files[0].name).parent)
            places.setdefault(folder, []).append([slot for slot, _ in exam.views])
    return [
        folder
        for folder, slots in places.items()
        if len(slots) > 1 and max(Counter(slot for part in slots for slot in part).values(), default=2) == 1
    ]


def _burned_in(scanned: Scan) -> Iterator[_Entry]:
    """Count the files that may show a name: those whose header says so, and ultrasound whose header says nothing."""
    lines: list[str] = []
    silent: list[str] = []
    for file in scanned.files:
        if file.burned_in:  # also of what is not read: who shares the folder shares that, too
            lines.append(file.ref.name)
        elif file.burned_in is None and file.modality == "ultrasound" and file.facts.header and file.problem is None:
            silent.append(file.ref.name)
    if lines:
        yield (f"{len(lines):>5} x the header says that text is burned into the pixels: {_names(lines)}",)
    if silent:
        yield (
            f"{len(silent):>5} x ultrasound, where text is usual, and the header says nothing of it: {_names(silent)}",
        )


def _extra(views: Iterable[ExamView]) -> list[str]:
    counts = Counter(f"{view.view.side or '?'}-{view.view.position or '?'}" for view in views)
    return [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]


def _notes(scanned: Scan) -> Iterator[_Entry]:
    alike: dict[str, list[tuple[str, str]]] = {}
    for study in scanned.studies:
        for unit in study.units:
            if unit.problem is None:
                for note in unit.notes:
                    alike.setdefault(_pattern(note), []).append((note, unit.files[0].name))
    for _, members in _by_count(alike):
        yield (f"{len(members):>5} x {_example(members)}: {_names(name for _, name in members)}",)


def _problems(scanned: Scan, status: str) -> Iterator[_Entry]:
    alike: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for file in scanned.files:
        if file.problem is not None and file.status == status:
            what = str(file.problem.reason), _pattern(file.problem.message)
            alike.setdefault(what, []).append((file.problem.message, file.ref.name))
    for (reason, _), members in _by_count(alike):
        names = _names(name for _, name in members)
        yield f"{len(members):>5} x {reason}: {names}", f"        {_example(members)}"


def _pattern(text: str) -> str:
    """Return a text without its numbers: a thousand series with a gap at another place each are one entry."""
    return re.sub(r"-?[0-9][0-9.,]*", "#", text)


def _example(members: Iterable[tuple[str, str]]) -> str:
    """Return the first text; say so where the others have other numbers."""
    texts = [text for text, _ in members]
    return texts[0] + (" (the numbers are those of the first)" if len(set(texts)) > 1 else "")


def _by_count(alike: Mapping[_K, list[_V]]) -> list[tuple[_K, list[_V]]]:
    return sorted(alike.items(), key=lambda item: (-len(item[1]), str(item[0])))


def _names(names: Iterable[str]) -> str:
    """Return a few names that stand for all; what could drive the terminal is escaped."""
    listed = [printable(name) for name in names]
    more = len(listed) - _SHOWN
    if len(listed) > 1:
        listed = [name if len(name) <= _LONG else f"...{name[3 - _LONG :]}" for name in listed[:_SHOWN]]
    return ", ".join(listed) + (f" and {more} more" if more > 0 else "")
