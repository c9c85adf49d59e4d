"""Turn a table of labels into a table of captions: the conversion that makes image-text pairs of label-only sets.

Follows UniMed-CLIP (n wordings for each label, written once, one of them drawn at each read); the wordings are composed
from the task vocabularies, or written by a function of your own and checked.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_file, new_file
from medclip.files.tables.column_maps import ColumnMap
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import cell_text
from medclip.pairs.words.caption_writer import CaptionFacts, CaptionWriter, ask_writer, facts_of
from medclip.pairs.words.label_sentences import distinct_sentences
from medclip.progress import Progress
from medclip.result import Result, named_counts
from medclip.shards.writing.table import ShardRow, read_shard_table
from medclip.text.checks.caption_check import check_caption

if TYPE_CHECKING:
    import pyarrow as pa

    from medclip.text.captions.record import CaptionRecord

CAPTIONS, FILE = "captions", "file"
MIN_WORDS = 3
"""Words that a writer's caption must have."""
Check = Callable[[str], Sequence[str]]
"""Returns the problems of a caption, none for one that may be used."""
_PARQUET, _TEXT = (".parquet", ".pq"), {".csv": ",", ".tsv": "\t"}
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, repr=False)
class CaptionsReport(Result):
    """What became of a table."""

    out: Path
    num_rows: int
    num_captioned: int
    """Rows that were given captions."""
    num_without_labels: int
    """Rows that have no label to speak of: they keep what they had."""
    num_captions: int
    num_short: int
    """Rows that were given fewer than asked, because their labels have no more wordings."""
    num_by_writer: int = 0
    """Captions of the writer that passed the check."""
    rejected_by_reason: Mapping[str, int] = field(default_factory=dict)
    """Captions of the writer that were replaced: by the kind of problem, `missing` where it gave too few, `failed`
    where it raised an error. A caption with two problems counts under both."""
    num_moved: int = 0
    """Relative paths in `file` that were rewritten, because the new table lies in another folder."""

    def _facts(self) -> dict[str, object]:
        return {
            "captions": f"{self.num_captions} for {self.num_captioned} of {self.num_rows} rows",
            "rows without labels": self.num_without_labels,
            "rows with fewer": self.num_short,
            "by the writer": self.num_by_writer,
            "replaced": named_counts(self.rejected_by_reason),
            "table": self.out,
        }


@dataclass(frozen=True)
class CaptionsForm:
    """How captions are written, and where."""

    out: Path
    num_captions: int = 10
    """For each row."""
    seed: int = 0
    writer: CaptionWriter | None = None
    """Writes captions in the place of medclip's own, where they pass the check."""
    images: Path | None = None
    """Folder that relative files are relative to; the table's own where None."""
    overwrite: bool = False


def write_captions(source: Path, form: CaptionsForm, progress: Progress) -> CaptionsReport:
    """Write a copy of a table of labels with captions; see `medclip.api.captions.captions_from_labels`."""
    check_output(source, form)
    read = read_table(source).with_names((FILE, CAPTIONS))
    rows = read_shard_table(read, folder=form.images, patient_from=FILE).rows  # no splits are made: nobody is named
    asked = AskedWriter(form.num_captions, form.writer)
    added: list[tuple[str, ...]] = []
    progress.stage("Rows", len(rows))
    for row in rows:
        added.append(_captions(row, form, asked))
        progress.step()
    files = moved_files([row.file for row in rows], form.images or source.parent, form.out.parent)
    save_table(_with_captions(read.arrow, added, files), form.out)
    lengths = [len(a) for a in added if a]
    return CaptionsReport(
        out=form.out,
        num_rows=len(rows),
        num_captioned=len(lengths),
        num_without_labels=len(rows) - len(lengths),
        num_captions=sum(lengths),
        num_short=sum(length < form.num_captions for length in lengths),
        num_by_writer=asked.num_by_writer,
        rejected_by_reason=dict(sorted(asked.rejected.items())),
        num_moved=sum(f is not None for f in files),
    )


class AskedWriter:
    """Puts what a writer of one's own wrote before medclip's own captions, where it passes a check, and counts.

    Args:
        n: Captions for each row.
        writer: Writer of one's own; None: medclip's own captions stay alone.
    """

    def __init__(self, n: int, writer: CaptionWriter | None) -> None:
        self._n, self._writer = n, writer
        self._written: dict[CaptionFacts, tuple[str, ...]] = {}
        self.num_by_writer = 0
        self.rejected: Counter[str] = Counter()

    def captions(self, ours: tuple[str, ...], facts: CaptionFacts, check: Check) -> tuple[str, ...]:
        """Return `n` captions of a row: those of the writer that pass, then `ours`; none where `ours` are none."""
        if self._writer is None or not ours:
            return ours
        theirs = self._checked(self._writer, facts, check)
        self.num_by_writer += len(theirs)
        return tuple(dict.fromkeys([*theirs, *ours]))[: self._n]

    def _checked(self, writer: CaptionWriter, facts: CaptionFacts, check: Check) -> list[str]:
        if facts not in self._written:
            self._written[facts] = self._ask(writer, facts)
        fit = []
        for caption in self._written[facts]:
            problems = list(check(caption))
            if len(caption.split()) < MIN_WORDS:
                problems.append(f"form: the caption has fewer than {MIN_WORDS} words")
            self.rejected.update({p.split(":")[0] for p in problems})
            if not problems:
                fit.append(caption)
        missing = self._n - len(self._written[facts])
        if missing > 0:
            self.rejected["missing"] += missing
        return fit

    def _ask(self, writer: CaptionWriter, facts: CaptionFacts) -> tuple[str, ...]:
        try:
            return ask_writer(writer, facts, self._n)
        except MedclipError:
            if not self._written:
                raise
            self.rejected["failed"] += 1
            return ()


def _captions(row: ShardRow, form: CaptionsForm, asked: AskedWriter) -> tuple[str, ...]:
    record = row.record
    if record.generic or not record.labels:
        return ()
    ours = distinct_sentences(_in_order(record), form.num_captions, _rng(row, form.seed))
    return asked.captions(ours, facts_of(record), partial(check_caption, record=record))


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


def generator_of(content: object, seed: int) -> np.random.Generator:
    """Return a source of chance that depends on values of JSON and a seed alone."""
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode("utf-8"), digest_size=16).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "big")])


def check_output(source: Path, form: CaptionsForm) -> None:
    """Refuse an output that cannot be written before anything is read.

    Raises:
        MedclipError: WRONG_USE, OUTPUT_IN_USE.
    """
    target = form.out
    if source.exists() and os.path.exists(target) and target.samefile(source):
        raise MedclipError(Reason.WRONG_USE, "the output is the table itself.", where=target, hint="Name another.")
    if target.suffix.lower() not in (*_PARQUET, *_TEXT):
        raise MedclipError(
            Reason.WRONG_USE,
            f"tables are written as CSV, TSV or Parquet, and the suffix {target.suffix!r} names none of them.",
            where=target,
            hint="Name a file that ends in .csv, .tsv or .parquet.",
        )
    claim_file(target, overwrite=form.overwrite)


def moved_files(files: Sequence[str], base: Path, new_base: Path) -> list[str | None]:
    """Rewrite relative paths so that they are relative to another folder; None for what may stay as it is."""
    old, new = os.path.realpath(base), os.path.realpath(new_base)
    if old == new:
        return [None] * len(files)
    try:
        way = os.path.relpath(old, new)
    except ValueError:  # another drive
        way = old
    return [None if Path(f).is_absolute() else (Path(way) / f).as_posix() for f in files]


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


def set_table(
    rows: Sequence[Any],
    captions: Sequence[Sequence[str]],
    moved: Sequence[str | None],
    first: Sequence[str],
    column_map: ColumnMap,
) -> pa.Table:
    """Make the table for shards of the rows of a known set.

    Args:
        rows: Rows with `cells()`, `texts` that they had already, and the set's own row in `source`.
        captions: New captions of each row.
        moved: New paths, see `moved_files`.
        first: Columns in their order, before labels and `report`; those that no row fills are left out.
        column_map: Map of the set: its title and licence stand in `source` and `license` where the table has none.
    """
    import pyarrow as pa

    cells: list[Mapping[str, str]] = [
        row.cells() | {FILE: new or row.file} for row, new in zip(rows, moved, strict=True)
    ]
    labels = sorted({name for row in cells for name in row if name.startswith("label:")})
    used = [name for name in (*first, *labels, "report") if any(row.get(name) for row in cells)]
    columns = {name: pa.array([row.get(name, "") for row in cells], pa.string()) for name in used}
    texts = [list(dict.fromkeys([*row.texts, *new])) for row, new in zip(rows, captions, strict=True)]
    columns[CAPTIONS] = pa.array(texts, pa.list_(pa.string()))
    columns["source"] = pa.array([row.source.get("source", "") or column_map.title for row in rows], pa.string())
    licence = [row.source.get("license", "") or column_map.licence for row in rows]
    if any(licence):
        columns["license"] = pa.array(licence, pa.string())
    return pa.table(columns)


def save_table(table: pa.Table, target: Path) -> None:
    """Write a table in the form that the suffix names, with lists of texts as lines of one cell in CSV and TSV."""
    suffix = target.suffix.lower()
    with new_file(target) as draft:
        if suffix in _PARQUET:
            import pyarrow.parquet as pq

            pq.write_table(table, draft)
        else:
            _write_text(table, draft, _TEXT[suffix])


def _write_text(table: pa.Table, draft: Path, delimiter: str) -> None:
    with draft.open("w", newline="", encoding="utf-8") as new:
        writer = csv.writer(new, delimiter=delimiter, lineterminator="\n")
        writer.writerow(table.column_names)
        for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
            columns = [[c if isinstance(c, str) else cell_text(c) for c in column.to_pylist()] for column in batch]
            writer.writerows(zip(*columns, strict=True))


def _as_list(cell: Any) -> list[str]:
    return [] if cell is None else str(cell).split("\n") if isinstance(cell, str) else [str(c) for c in cell]


def _joined(held: Sequence[str], captions: Sequence[str]) -> list[str]:
    """Put captions behind the texts that a cell holds; one that it holds already is not written again."""
    return list(dict.fromkeys(t for t in [*(h.strip() for h in held), *captions] if t))
