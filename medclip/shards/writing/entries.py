"""What is written of a row, or of the rows of an examination: a sample's key, members and facts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medclip.adapters.registry import slot
from medclip.errors import Problem
from medclip.files.pseudonyms import keyed_hash
from medclip.sample import VIEW_KINDS
from medclip.shards.folder import Stored as StoredKind
from medclip.shards.sample_json import VIEW_KIND, VIEWS, Group, to_json
from medclip.shards.stored_arrays import EXTENSION
from medclip.shards.stored_image import STORED_AS, Format
from medclip.shards.writing.exam_groups import ExamSample, ReadResult, StoredView, read_exam
from medclip.shards.writing.table import GENERIC, ShardRow
from medclip.text.captions.draw import draw_caption
from medclip.text.captions.record import CaptionRecord
from medclip.text.vocabulary.task import Task

Reject = tuple[ShardRow, ReadResult, Problem]
_Seen = Counter[tuple[str, bool, int]]


@dataclass(frozen=True)
class Form:
    """How samples are written."""

    max_side: int = 288
    """Longest side of stored images in pixels."""
    samples_per_shard: int = 500
    stored: Format = "png"
    quality: int = 95
    seed: int = 0
    """Decides splits, the order inside shards and the captions in the .txt members."""
    key: bytes = b""
    """For patient hashes; the identity key of the settings where it is empty."""
    stores: StoredKind = "images"
    """Volumes and ECGs are stored whole: voxels as the adapters read them, leads in microvolts at their own rate."""
    group: Group | None = None
    tasks: tuple[Task, ...] = ()
    """Those of the labels that the vocabulary does not have; captions say nothing of them."""


@dataclass(frozen=True)
class Entry:
    """One sample, ready to be written."""

    way: str
    """Whose preprocessing it had: a modality, or `generic`."""
    name: str
    sha256: str
    """Of the source file; of several views those of all, with a blank between."""
    meta: Mapping[str, Any]
    record: CaptionRecord
    members: Sequence[tuple[str, bytes]]
    num_views: int = 1
    stratum: str = ""
    """What it is drawn by, beside its source."""


def entries_of(
    rows: Sequence[ShardRow],
    results: Sequence[ReadResult],
    form: Form,
    seen: _Seen,
    earlier: Mapping[int, Sequence[tuple[str, int]]],
) -> tuple[list[Entry], list[Reject]]:
    """Make samples of rows that were read together: a row alone, or the mammograms of an examination.

    Args:
        rows: The rows.
        results: Result of reading each row.
        form: Form in which samples are written.
        seen: Counts of how often a content was met before, which tell apart the keys of equal ones.
        earlier: Earlier examinations of each row's patient, from `earlier_exams`.

    Returns:
        Samples, and the rows that are in none of them with their reasons.
    """
    if form.group is None:
        (row,), (result,) = rows, results
        rejects = [(row, result, result.problem)] if result.problem is not None else []
        return [_single(row, result, view, seen, form) for view in result.views], rejects
    exam = read_exam(rows, results, form.group, form.stored, form.tasks)
    entries = [_several(sample, seen, form, earlier.get(sample.rows[0].number, ())) for sample in exam.samples]
    return entries, list(exam.rejects)


def _single(row: ShardRow, result: ReadResult, view: StoredView, seen: _Seen, form: Form) -> Entry:
    """Return the sample of one image, volume, loop or ECG."""
    generic = row.record.generic
    index = result.views.index(view)
    name = _new_key(seen, result.sha256, generic, index)
    record = row.record if row.record.view or generic else replace(row.record, view=view.position)
    extension = STORED_AS[form.stored] if view.facts is None else EXTENSION
    way = slot(None if generic else record.modality, result.kind)
    meta = _meta(name, result.sha256, row, result, view.burned_in, form)
    if row.view_kind != VIEW_KINDS[0]:
        meta[VIEW_KIND] = row.view_kind
    members = [(extension, view.image), ("json", to_json(record, meta, view.facts)), _caption(name, record, form)]
    return Entry(way, name, result.sha256, meta, record, members, stratum=row.stratum)


def _several(sample: ExamSample, seen: _Seen, form: Form, earlier: Sequence[tuple[str, int]]) -> Entry:
    """Return the sample of several views."""
    row, first = sample.rows[0], sample.results[0]
    sha256 = " ".join(view.sha256 for view in sample.views)
    name = _new_key(seen, f"{form.group}\0{sha256}", False, 0)
    burned_in = [result.views[0].burned_in for result in sample.results]
    way = slot(sample.record.modality, first.kind)
    meta = _meta(name, sha256, row, first, any(burned_in) if None not in burned_in else None, form)
    if earlier:
        meta["earlier"] = [{"study": keyed_hash("study", exam, form.key), "days": days} for exam, days in earlier]
    views = {VIEWS: [view.to_dict() for view in sample.views]}
    images = [(v.member, result.views[0].image) for v, result in zip(sample.views, sample.results, strict=True)]
    members = [*images, ("json", to_json(sample.record, meta, views)), _caption(name, sample.record, form)]
    return Entry(way, name, sha256, meta, sample.record, members, len(sample.views), row.stratum)


def _new_key(seen: _Seen, content: str, generic: bool, index: int) -> str:
    occurrence = seen[content, generic, index]
    seen[content, generic, index] += 1
    return sample_key(content, generic=generic, view=index, occurrence=occurrence)


def _meta(
    name: str, sha256: str, row: ShardRow, result: ReadResult, burned_in: bool | None, form: Form
) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "key": name,
        "sha256": sha256,
        "patient": keyed_hash("patient", row.patient, form.key),
        "adapter": result.adapter,
        "preprocessing": result.preprocessing,
        "source": row.source,
        "license": row.license,
        "burned_in": burned_in,
    }
    if row.exam:
        meta["study"] = keyed_hash("study", row.exam, form.key)
    return meta


def _caption(name: str, record: CaptionRecord, form: Form) -> tuple[str, bytes]:
    """Return the text member: one caption, for other people's tools."""
    unsaid = {task.name for task in form.tasks}
    captioned = replace(record, labels={task: label for task, label in record.labels.items() if task not in unsaid})
    caption = draw_caption(captioned, np.random.default_rng([form.seed, int(name, 16)]))
    return "txt", caption.encode("utf-8")


def sample_key(sha256: str, *, generic: bool, view: int = 0, occurrence: int = 0) -> str:
    """Return a sample's key: a hash of the file's content and the rendering, so it survives renaming and moving.

    `occurrence` tells apart rows whose files have the same bytes.
    """
    content = f"{sha256}\0{GENERIC if generic else ''}\0{view}\0{occurrence}"
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
