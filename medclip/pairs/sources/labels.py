"""Turn a table of labels into a table of captions: the conversion that makes image-text pairs of label-only sets.

Follows UniMed-CLIP (n wordings for each label, written once, one of them drawn at each read); the wordings are composed
from the task vocabularies, or written by a function of your own and checked.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from medclip.pairs.words.label_sentences import distinct_sentences
from medclip.progress import Progress
from medclip.shards.writing.table import ShardRow, read_shard_table
from medclip.text.checks.caption_check import check_caption

if TYPE_CHECKING:
    import pyarrow as pa

    from medclip.text.captions.record import CaptionRecord


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
    """Put captions behind the texts that a cell holds; one that it holds already is not written again."""
    return list(dict.fromkeys(t for t in [*(h.strip() for h in held), *captions] if t))
