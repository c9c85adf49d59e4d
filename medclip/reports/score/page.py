"""What a score report shows, as plain data: picked from the ledger, nothing computed anew."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from medclip.errors import printable
from medclip.reports.model_card import CardView, modality_title, task_title
from medclip.runs.ledger import Ledger
from medclip.runs.rows import FileRow, ScoreRow
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.prompts import AD_HOC, ad_hoc_task
from medclip.text.vocabulary.task import Task
from medclip.wording import capital, list_of

MAX_STUDIES = 200
_MAX_THUMBNAILS = 4
_MAX_CLASSES = 5
_MAX_MESSAGES = 50
_MAX_NAMES = 300

_SOURCES = {
    "header": "the file's header",
    "table": "the table",
    "option": "the option --modality",
    "inferred": "the model",
}
_GROUPING = {
    "uid": "one DICOM study",
    "table": "tied by the table",
    "folder": "one folder",
    "file": "a file of its own",
}
_FORMATS = {"dicom": "DICOM", "dicomdir": "DICOMDIR", "png": "PNG", "jpeg": "JPEG", "tiff": "TIFF", "csv": "table"}


@dataclass(frozen=True)
class ThumbnailView:
    """One thumbnail."""

    label: str
    data: str
    """Base64 of a JPEG; empty where it is withheld."""


@dataclass(frozen=True)
class ClassData:
    """One bar."""

    title: str
    probability: float
    top: bool
    note: str = ""
    """What a prompt is compared with."""


@dataclass(frozen=True)
class TaskData:
    """One task of one study."""

    title: str
    classes: tuple[ClassData, ...]
    note: str


@dataclass(frozen=True)
class StudyData:
    """One study."""

    key: str
    modality: str
    modality_note: str
    grouping: str
    num_images: int
    failed_note: str
    """Which of its files are missing in the score; empty where none is."""
    thumbnails: tuple[ThumbnailView, ...]
    num_more_images: int
    tasks: tuple[TaskData, ...]


@dataclass(frozen=True)
class MessageData:
    """One sentence and the files it is about."""

    text: str
    files: str


@dataclass(frozen=True)
class ProblemData:
    """One reason."""

    title: str
    status: str
    num_files: int
    messages: tuple[MessageData, ...]
    num_more_messages: int


@dataclass(frozen=True)
class TreatmentData:
    """What was done to the files of one adapter."""

    adapter: str
    num_files: int
    steps: str
    decoder: str
    preprocessing: str


@dataclass(frozen=True)
class PageData:
    """The whole report."""

    version: str
    counts: Mapping[str, int]
    prompts: tuple[tuple[str, str], ...]
    """Each with what it is compared with."""
    modalities: tuple[tuple[str, int], ...]
    sources: tuple[tuple[str, int], ...]
    studies: tuple[StudyData, ...]
    num_hidden: int
    problems: tuple[ProblemData, ...]
    treatments: tuple[TreatmentData, ...]
    pack_hash: str
    show_paths: bool


def collect(ledger: Ledger, card: CardView, *, show_paths: bool, max_studies: int = MAX_STUDIES) -> PageData:
    """Pick what the report shows.

    Args:
        ledger: A ledger with all chunks committed.
        card: The model's card.
        show_paths: Show relative paths where files are named; otherwise row numbers and formats.
        max_studies: Studies shown at most.
    """
    identity: dict[str, Any] = ledger.get("identity") or {}
    tasks = {name: load_task(name) for name in task_names()}
    prompts: list[tuple[str, str]] = []
    if identity.get("prompts"):
        prompt_task = ad_hoc_task(identity["prompts"], identity["against"])
        tasks[prompt_task.name] = prompt_task
        prompts = [(c.name, c.negative_prompts[0]) for c in prompt_task.classes]
    counts = ledger.counts()
    keys = ledger.studies(max_studies)
    problems, treatments = _problems_and_treatments(ledger.files(), show_paths)
    return PageData(
        version=str(identity.get("version", "")),
        counts=counts,
        prompts=tuple(prompts),
        modalities=tuple((modality_title(name), n) for name, n in ledger.counts_by("modality").items()),
        sources=tuple((_SOURCES.get(name, name), n) for name, n in ledger.counts_by("modality_source").items()),
        studies=tuple(_study(ledger, key, tasks, card, show_paths) for key in keys),
        num_hidden=counts["studies"] - len(keys),
        problems=problems,
        treatments=treatments,
        pack_hash=str(identity.get("pack", "")).split(" ")[-1],
        show_paths=show_paths,
    )


def file_label(row: FileRow, show_paths: bool) -> str:
    """Name a file without giving away its name: "file 12 (DICOM)"."""
    if show_paths:
        return printable(row.path)
    kind = _FORMATS.get(row.format or "", (row.format or "not opened").replace("_", " "))
    return f"file {row.row} ({kind})"


def ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers as ranges: 1-3, 7."""
    parts = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}–{members[-1]}")
    return ", ".join(parts)


def _study(ledger: Ledger, key: str, tasks: Mapping[str, Task], card: CardView, show_paths: bool) -> StudyData:
    files, scores = ledger.files_of(key), ledger.scores_of(key)
    thumbnails = []
    for row in files[:_MAX_THUMBNAILS]:
        kept = ledger.thumbnail(row.row)
        if kept is not None:  # of files that are read together the first has it
            data = base64.b64encode(kept.thumbnail).decode()
            thumbnails.append(ThumbnailView(_image_label(row, show_paths), data))
    return StudyData(
        key=key,
        modality=modality_title(scores[0].modality),
        modality_note=_modality_note(files),
        grouping=_GROUPING.get(files[0].grouping or "", files[0].grouping or ""),
        num_images=max(score.num_images for score in scores),
        failed_note=_failed_note(len(files), scores[0].num_failed, ledger.files_of(key, "failed"), show_paths),
        thumbnails=tuple(thumbnails),
        num_more_images=max(0, len(files) - _MAX_THUMBNAILS),
        tasks=tuple(
            _task(tasks.get(name), name, list(rows), card)
            for name, rows in groupby(scores, key=lambda score: score.task)
        ),
    )


def _failed_note(num_scored: int, num_failed: int, failed: Sequence[FileRow], show_paths: bool) -> str:
    if not num_failed:
        return ""
    named = f" ({_names(failed, show_paths)})" if failed else ""
    return f"{num_failed} of {num_scored + num_failed} files of this study could not be read{named}"


def _image_label(row: FileRow, show_paths: bool) -> str:
    return ", ".join(part for part in (file_label(row, show_paths), row.laterality, row.view) if part)


def _modality_note(files: Sequence[FileRow]) -> str:
    sources = list(dict.fromkeys(row.modality_source or "" for row in files))
    if sources != ["inferred"]:
        return f"from {list_of([_SOURCES.get(source, source) for source in sources])}"
    least = min(row.modality_probability or 0.0 for row in files)
    if least >= 0.995:  # a model is never certain
        return "inferred, p > 0.99"
    return f"inferred, p = {least:.2f}" if len(files) == 1 else f"inferred, p ≥ {int(least * 100) / 100:.2f}"


def _task(task: Task | None, name: str, scores: Sequence[ScoreRow], card: CardView) -> TaskData:
    known = {entry.name: entry for entry in card.tasks}
    own = known.get(name)
    titles = {c.name: c.title for c in task.classes} if task is not None else {}
    title = task.title if task is not None else task_title(name)
    if own is not None and own.adapted:
        titles, title = dict(own.class_titles), own.title
    is_prompt = name == AD_HOC
    ordered = sorted(scores, key=lambda score: -score.probability)
    shown = ordered if len(ordered) <= _MAX_CLASSES + 1 else ordered[:_MAX_CLASSES]
    is_choice = scores[0].kind == "multiclass"
    note = own.summary if own is not None else "nobody has measured how good the model is at this"
    if len(shown) < len(ordered):
        note = f"{len(ordered) - len(shown)} more below these · {note}"
    return TaskData(
        title="In your own words" if is_prompt else title,
        classes=tuple(
            ClassData(
                titles.get(score.class_, score.class_.replace("_", " ")),
                score.probability,
                top=index == 0 if is_choice else score.probability > 0.5,
                note=f"against “{score.against}”" if is_prompt else "",
            )
            for index, score in enumerate(shown)
        ),
        note=note,
    )


def _problems_and_treatments(
    rows: Iterable[FileRow], show_paths: bool
) -> tuple[tuple[ProblemData, ...], tuple[TreatmentData, ...]]:
    """Group the files that were not scored by reason and sentence, and the scored ones by what was done to them."""
    problems: dict[tuple[str, str], dict[str, list[FileRow]]] = {}
    treatments: dict[tuple[str, str, str, str], int] = {}
    for row in rows:
        if row.reason is not None:
            problems.setdefault((row.status, row.reason), {}).setdefault(row.message or "", []).append(row)
        else:
            steps = " → ".join(name.replace("_", " ") for name, _ in json.loads(row.steps or "[]"))
            kind = (row.adapter or "", steps or "none", row.decoder or "", row.preprocessing or "")
            treatments[kind] = treatments.get(kind, 0) + 1
    # Failed before skipped, then the most frequent reason first.
    ordered = sorted(problems.items(), key=lambda kv: (kv[0][0], -sum(map(len, kv[1].values())), kv[0][1]))
    return (
        tuple(_problem(status, reason, messages, show_paths) for (status, reason), messages in ordered),
        tuple(
            TreatmentData(adapter, n, steps, decoder, preprocessing)
            for (adapter, steps, decoder, preprocessing), n in sorted(
                treatments.items(), key=lambda kv: (kv[0][0], -kv[1], kv[0])
            )
        ),
    )


def _problem(status: str, reason: str, messages: Mapping[str, list[FileRow]], show_paths: bool) -> ProblemData:
    ordered = sorted(messages.items(), key=lambda kv: (-len(kv[1]), kv[1][0].row))
    return ProblemData(
        title=capital(reason.replace("_", " ")),
        status=status,
        num_files=sum(len(rows) for rows in messages.values()),
        messages=tuple(MessageData(text, _names(rows, show_paths)) for text, rows in ordered[:_MAX_MESSAGES]),
        num_more_messages=max(0, len(ordered) - _MAX_MESSAGES),
    )


def _names(rows: Sequence[FileRow], show_paths: bool) -> str:
    names = [printable(row.path) for row in rows] if show_paths else ranges([row.row for row in rows]).split(", ")
    more = f" and more, see files.parquet ({len(rows)} files)" if len(names) > _MAX_NAMES else ""
    prefix = "" if show_paths else "files " if len(rows) > 1 else "file "
    return f"{prefix}{', '.join(names[:_MAX_NAMES])}{more}"
