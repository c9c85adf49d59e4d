"""One table in every disguise that the one reader takes: text of all kinds, Parquet, packed, data frames."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Columns = Mapping[str, Sequence[Any]]


def csv_bytes(
    columns: Columns, delimiter: str = ",", coding: str = "utf-8", newline: str = "\n", *, quote_all: bool = False
) -> bytes:
    """Write a table as text; missing cells are empty."""
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline, quoting=quoting)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode(coding)


def _parquet(columns: Columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), sink)
    return sink.getvalue()


def _polars(columns: Columns) -> Any:
    import polars as pl

    return pl.from_arrow(pa.table(dict(columns)))


_FILES: Mapping[str, tuple[str, Callable[[Columns], bytes]]] = {
    "comma": (".csv", csv_bytes),
    "semicolon": (".csv", lambda c: csv_bytes(c, ";")),
    "tab": (".tsv", lambda c: csv_bytes(c, "\t")),
    "tab named csv": (".csv", lambda c: csv_bytes(c, "\t")),
    "windows with byte order mark": (".csv", lambda c: csv_bytes(c, ";", "utf-8-sig", "\r\n")),
    "utf-16": (".txt", lambda c: csv_bytes(c, "\t", "utf-16")),
    "blanks in the header": (".csv", lambda c: csv_bytes({f" {name} ": cells for name, cells in c.items()})),
    "gzip": (".csv.gz", lambda c: gzip.compress(csv_bytes(c))),
    "gzip without its suffix": (".csv", lambda c: gzip.compress(csv_bytes(c, ";"))),
    "parquet": (".parquet", _parquet),
    "parquet named csv": (".csv", _parquet),
    "csv named parquet": (".parquet", csv_bytes),
    "no suffix": ("", csv_bytes),
}
FILES = tuple(_FILES)
_FRAMES: Mapping[str, Callable[[Columns], Any]] = {
    "pandas": lambda c: pa.table(dict(c)).to_pandas(),
    "polars": _polars,
    "polars, lazy": lambda c: _polars(c).lazy(),
    "arrow": lambda c: pa.table(dict(c)),
}
DISGUISES = (*FILES, *_FRAMES)


def disguised(columns: Columns, disguise: str, folder: Path, name: str) -> Any:
    """Return a table as the path of a file in `folder`, or as a data frame."""
    if disguise in _FRAMES:
        return _FRAMES[disguise](columns)
    suffix, write = _FILES[disguise]
    path = folder / f"{name}{suffix}"
    path.write_bytes(write(columns))
    return path
