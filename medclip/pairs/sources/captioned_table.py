"""The table of image-text pairs that is written of any source: its captions, and where its files lie."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_file, new_file
from medclip.files.tables.column_maps import ColumnMap
from medclip.files.tables.table import cell_text
from medclip.lazy import import_name
from medclip.pairs.sources.caption_sources import CAPTION_SOURCES
from medclip.progress import Progress
from medclip.result import Result, named_counts

if TYPE_CHECKING:
    import pyarrow as pa

CAPTIONS, FILE = "captions", "file"
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

    dataset: str | None = None
    """Set whose columns the table has; this and what follows is None where the source counts no such thing."""
    num_source_rows: int | None = None
    """Rows of the set's table: several of one image are one row of the new table."""
    num_reports: int | None = None
    """Rows with a report of the set's own: a radiologist's, or one of an ECG that stays, cleaned, as first caption."""
    set_aside: Mapping[str, int] | None = None
    """Images that are no view of an exam, by reason."""
    left_out: Mapping[str, int] | None = None
    """Reports that do not stay, by reason."""
    languages: Mapping[str, int] | None = None
    """Reports that stay, by language; "unknown" where it cannot be told."""
    min_likelihood: float | None = None
    """Likelihood below which a diagnosis counts as absent."""
    notes: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    """What a command says of the source, before the counts that all sources have."""

    def _facts(self) -> dict[str, object]:
        num_rows = self.num_rows if self.num_source_rows is None else self.num_source_rows
        stated: dict[str, object] = {
            "set": None if self.dataset is None else f"{self.dataset}, {num_rows} rows",
            "captions": f"{self.num_captions} for {self.num_captioned} of {self.num_rows} rows",
            "notes": " ".join(self.notes) or None,
            "set aside": _named(self.set_aside),
            "own reports": self.num_reports,
            "of these": _named(self.languages),
            "reports left out": _named(self.left_out),
            "rows without labels": self.num_without_labels,
            "rows with fewer": self.num_short,
            "by the writer": self.num_by_writer,
            "replaced": named_counts(self.rejected_by_reason),
            "table": self.out,
        }
        return {name: value for name, value in stated.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the counts of this source as plain data for JSON."""
        values = asdict(self)
        del values["lines"]
        if not self.dataset:
            del values["notes"]
        return {name: value for name, value in (values | {"out": str(self.out)}).items() if value is not None}


def _named(counts: Mapping[str, int] | None) -> str | None:
    return None if counts is None else named_counts(counts)


@dataclass(frozen=True)
class CaptionsForm:
    """How captions are written, and where."""

    out: Path
    num_captions: int
    """For each row."""
    seed: int = 0
    images: Path | None = None
    """Folder that relative files are relative to; the table's own where None."""
    overwrite: bool = False


def write_captions(
    name: str, source: Path, form: CaptionsForm, progress: Progress, options: Mapping[str, Any]
) -> CaptionsReport:
    """Write a table of pairs of the table of one of `CAPTION_SOURCES`; see `medclip.api.captions.captions`."""
    _check_output(source, form)
    pairs, report = import_name(CAPTION_SOURCES[name].target)(source, form, progress, **options)
    save_table(pairs, form.out)
    return report


def _check_output(source: Path, form: CaptionsForm) -> None:
    """Refuse an output that cannot be written, before anything is read."""
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


def generator_of(content: object, seed: int) -> np.random.Generator:
    """Return a source of chance that depends on values of JSON and a seed alone."""
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode("utf-8"), digest_size=16).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "big")])


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
