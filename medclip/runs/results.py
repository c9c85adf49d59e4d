"""Turn a finished ledger into files.parquet, scores.parquet and run.json: the same ledger gives the same bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from medclip.files.output import disk_errors
from medclip.runs.ledger import Ledger
from medclip.runs.rows import FileRow, ScoreRow

FILES = "files.parquet"
SCORES = "scores.parquet"
RUN = "run.json"
_ROWS_PER_GROUP = 20_000
"""Rows held in memory while writing."""


def write_results(ledger: Ledger, folder: Path, run: dict[str, Any]) -> None:
    """Write the tables and run.json, each complete or not at all.

    Args:
        ledger: The run's ledger, all chunks committed.
        folder: The output folder.
        run: What run.json says besides the counts: version, pack, options. No path, no time.

    Raises:
        MedclipError: DISK_FULL.
    """
    _write_table(folder / FILES, FileRow, ledger.files())
    _write_table(folder / SCORES, ScoreRow, ledger.scores())
    text = json.dumps({**run, "counts": ledger.counts()}, indent=2, sort_keys=True, ensure_ascii=False)
    write_bytes(folder / RUN, f"{text}\n".encode())


def write_bytes(path: Path, body: bytes) -> None:
    """Put a file in place in one step: a reader, or a kill, sees the old one or the new one, never a part.

    Raises:
        MedclipError: DISK_FULL.
    """
    draft = path.with_name(f".{path.name}.part")
    with disk_errors(path.parent):
        with draft.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)


def _write_table(path: Path, row_type: type, rows: Iterable[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [field.name.rstrip("_") for field in fields(row_type)]
    schema = pa.schema(
        [pa.field(name, _arrow_type(pa, str(f.type))) for name, f in zip(names, fields(row_type), strict=True)]
    )
    draft = path.with_name(f".{path.name}.part")
    with disk_errors(path.parent):
        with pq.ParquetWriter(draft, schema, compression="zstd", version="2.6") as writer:
            for batch in _batches(rows, _ROWS_PER_GROUP):
                columns = [[getattr(row, f.name) for row in batch] for f in fields(row_type)]
                writer.write_table(pa.table(columns, schema=schema))
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)


def _batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    source = iter(rows)
    while batch := list(islice(source, size)):
        yield batch


def _arrow_type(pa: Any, annotation: str) -> Any:
    kinds = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}
    return kinds[annotation.split(" ")[0]]
