"""Turn a table of labels into a table of captions: the conversion that makes image-text pairs of label-only sets.

Follows UniMed-CLIP (several descriptions per label, written once, one of them drawn at each read: modality, finding or
anatomy, varied wording and pattern, no facts of the patient). The sentences have patterns of our own over the task
vocabularies, or are written by a function of your own and checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.files.tables.read_table import read_table
from medclip.pairs.sources.captioned_table import (
    CAPTIONS,
    FILE,
    CaptionsForm,
    CaptionsReport,
    generator_of,
    moved_files,
)
from medclip.pairs.words.caption_writer import CaptionWriter, CheckedWriter, facts_of
from medclip.progress import Progress
from medclip.shards.writing.table import ShardRow, read_shard_table
from medclip.text.captions.record import (
    VIEW_TASK,
    CaptionRecord,
    image_names,
    labelled,
    pick,
    true_nouns,
    view_names,
    weighted,
    without_outcomes,
)
from medclip.text.checks.caption_check import check_caption
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import without_article
from medclip.text.vocabulary.task import Task
from medclip.wording import list_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.random import Generator


def captions_of_labels(
    source: Path, form: CaptionsForm, progress: Progress, *, writer: CaptionWriter | None = None
) -> tuple[pa.Table, CaptionsReport]:
    """Return a copy of a table of labels with captions, which say what the labels of each row say.

    Captions stand behind the texts that the column held. All other columns, and the order of the rows, are as they
    were; only where the new table lies in another folder, relative paths in `file` become relative to it. The captions
    of a row depend on the seed, its file, modality, view and labels, and on nothing else in the table.
    """
    read = read_table(source).with_names((FILE, CAPTIONS))
    rows = read_shard_table(read, folder=form.images, patient_from=FILE).rows  # no splits are made: nobody is named
    writing = CheckedWriter(form.num_captions, writer)
    added: list[tuple[str, ...]] = []
    progress.stage("Rows", len(rows))
    for row in rows:
        added.append(_captions(row, form, writing))
        progress.step()
    files = moved_files([row.file for row in rows], form.images or source.parent, form.out.parent)
    lengths = [len(a) for a in added if a]
    report = CaptionsReport(
        out=form.out,
        num_rows=len(rows),
        num_captioned=len(lengths),
        num_without_labels=len(rows) - len(lengths),
        num_captions=sum(lengths),
        num_short=sum(length < form.num_captions for length in lengths),
        num_by_writer=writing.num_by_writer,
        rejected_by_reason=dict(sorted(writing.rejected.items())),
        num_moved=sum(f is not None for f in files),
    )
    return _with_captions(read.arrow, added, files), report


def _captions(row: ShardRow, form: CaptionsForm, writing: CheckedWriter) -> tuple[str, ...]:
    record = row.record
    if record.generic or not record.labels:
        return ()
    ours = distinct_sentences(_in_order(record), form.num_captions, _rng(row, form.seed))
    return writing.captions(ours, facts_of(record), partial(check_caption, record=record))


def _in_order(record: CaptionRecord) -> CaptionRecord:
    """Sort the labels, so that the order of the table's columns decides nothing."""
    ordered = {
        name: label if isinstance(label, str) else dict(sorted(label.items()))
        for name, label in sorted(record.labels.items())
    }
    return replace(record, labels=ordered)


def _rng(row: ShardRow, seed: int) -> np.random.Generator:
    r = row.record
    return generator_of([row.file, r.modality, r.view, r.labels], seed)


def _with_captions(table: pa.Table, added: Sequence[Sequence[str]], files: Sequence[str | None]) -> pa.Table:
    """Add captions behind the texts that the table holds, and replace the paths that moved."""
    import pyarrow as pa

    at = table.column_names.index(CAPTIONS) if CAPTIONS in table.column_names else None
    held = [None] * table.num_rows if at is None else table.column(at).to_pylist()
    column = pa.array([_joined(_as_list(c), new) for c, new in zip(held, added, strict=True)], pa.list_(pa.string()))
    name: Any = pa.field(CAPTIONS, column.type)
    changed = table.append_column(name, column) if at is None else table.set_column(at, name, column)
    if any(files):
        where = table.column_names.index(FILE)
        paths = [new or old for new, old in zip(files, table.column(where).to_pylist(), strict=True)]
        moved = pa.array(paths, pa.string()).cast(table.schema.field(where).type)
        changed = changed.set_column(where, table.schema.field(where), moved)
    return changed


def _as_list(cell: Any) -> list[str]:
    return [] if cell is None else str(cell).split("\n") if isinstance(cell, str) else [str(c) for c in cell]


def _joined(held: Sequence[str], captions: Sequence[str]) -> list[str]:
    """Append captions to the texts that a cell holds; one that it holds already is not written again."""
    return list(dict.fromkeys(t for t in [*(h.strip() for h in held), *captions] if t))


MAX_FINDINGS = 4
"""Findings that one sentence combines; an image with more is given different ones each time."""
DENIAL_SHARE = 0.3
VIEW_SHARE = 0.2
_TRIES = 40
"""Draws for each sentence that is wanted, before the wordings are taken to be used up."""

_PRESENT = (
    "this {image} shows {findings}",
    "{image} with {findings}",
    "{image} demonstrating {findings}",
    "there is evidence of {findings} on this {image}",
    "findings of {findings} on this {image}",
    "the {image} reveals {findings}",
    "{findings} can be seen on this {image}",
    "on this {image} one recognises {findings}",
    "the appearances on this {image} are those of {findings}",
    "{image} in which {findings} can be made out",
)
_ABSENT = (
    "no {findings} on this {image}",
    "this {image} shows no {findings}",
    "there is no {findings} on this {image}",
    "{image} without {findings}",
    "no evidence of {findings} on this {image}",
    "the {image} gives no sign of {findings}",
    "on this {image} there is no {findings}",
)
_OF_THE_IMAGE = (VIEW_TASK, "modality")
"""Tasks whose answer names the image rather than what it shows."""
_AS_READ = (
    "{image}: {findings}",
    "reading of this {image}: {findings}",
    "this {image} was read as follows: {findings}",
    "the answer that this {image} gives: {findings}",
    "what this {image} shows: {findings}",
)
"""For wordings that may be whole clauses."""


def distinct_sentences(record: CaptionRecord, n: int, rng: Generator) -> tuple[str, ...]:
    """Write `n` different sentences of what the labels say.

    Args:
        record: Record, of which labels, modality and view are used; age, sex, side and texts are not.
        n: Number of sentences that are wanted.
        rng: Source of chance.

    Returns:
        At most `n` sentences, no two alike; fewer where the wordings of the labels do not give more, none without
        labels.

    Raises:
        MedclipError: NO_TASK or TABLE_INVALID when a label names an unknown task or class.

    Example:
        >>> import numpy as np
        >>> record = CaptionRecord(None, labels={"fundus_cataract": {"cataract": 0}})
        >>> len(distinct_sentences(record, 10, np.random.default_rng(0)))
        10
    """
    record, sentences = without_outcomes(record), dict[str, None]()
    for _ in range(n * _TRIES if record.labels else 0):
        sentence = draw_sentence(record, rng)
        if sentence:
            sentences[sentence] = None
        if len(sentences) == n:
            break
    return tuple(sentences)


def draw_sentence(record: CaptionRecord, rng: Generator) -> str | None:
    """Write one sentence that combines what the labels say is there, or says that nothing is.

    Returns:
        The sentence, or None when no wording of the labels is true of the image.
    """
    image = without_article(pick(rng, [n for n in image_names(record) if not n.startswith("one ")]))
    tasks = [t for t in record.labels if t not in _OF_THE_IMAGE]
    views = view_names(record)
    if not tasks:
        return _closed(pick(rng, _AS_READ), image, pick(rng, views)) if views else None
    if views and rng.random() < VIEW_SHARE:
        image = f"{image}, {pick(rng, views)},"
    name = pick(rng, tasks)
    task, label = load_task(name), record.labels[name]
    if isinstance(label, str):
        return _closed(pick(rng, _AS_READ), image, pick(rng, task.class_named(label).prompts))
    return _findings(task, label, image, rng)


def _findings(task: Task, label: Mapping[str, int], image: str, rng: Generator) -> str | None:
    present, absent = _nouns(task, label, 1), _nouns(task, label, 0)
    denied = _denied(task, absent, rng)
    if present:
        chosen = [present[name] for name in _some(list(present), MAX_FINDINGS, rng)]
        findings = list_of([pick(rng, nouns) for nouns in chosen], "and")
        if denied and rng.random() < DENIAL_SHARE:
            return _closed(pick(rng, _PRESENT[:3]), image, f"{findings}, without {denied}")
        return _closed(pick(rng, _PRESENT), image, findings)
    if task.none_prompts and task.denies_all(label) and rng.random() < 0.7:
        return _closed(pick(rng, _AS_READ), image, pick(rng, task.none_prompts))
    return _closed(pick(rng, _ABSENT), image, denied) if denied else None


def _nouns(task: Task, label: Mapping[str, int], value: int) -> dict[str, tuple[str, ...]]:
    return {c.name: w for c in labelled(task, label, value) if (w := true_nouns(task, c, label, value))}


def _denied(task: Task, absent: Mapping[str, Sequence[str]], rng: Generator) -> str:
    """Name one or two classes that are not there, the ones that reports deny most often first."""
    remaining, chosen = list(absent), []
    for _ in range(min(len(remaining), 1 + int(rng.integers(2)))):
        chosen.append(remaining.pop(weighted(rng, [task.class_named(name).denial_weight for name in remaining])))
    return list_of([without_article(pick(rng, absent[name])) for name in chosen], "or")


def _some(names: Sequence[str], most: int, rng: Generator) -> list[str]:
    return [names[int(i)] for i in rng.permutation(len(names))[:most]]


def _closed(pattern: str, image: str, findings: str) -> str:
    sentence = pattern.format(image=image, findings=findings).replace(",:", ":").rstrip(",")
    return f"{sentence[0].upper()}{sentence[1:]}."
