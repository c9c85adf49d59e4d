"""Result tables: rows of a dataclass, or Arrow tables, as Parquet and CSV; equal rows give equal bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.files.output import new_file

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_PER_GROUP = 20_000
"""Rows held in memory while a table is written from an iterator."""


def schema_of(row_type: type, *, integer: str = "int64") -> pa.Schema:
    """Return the Arrow schema of a dataclass of texts and numbers; a name's trailing underscore is left out.

    Args:
        row_type: The dataclass; its annotations are texts ("int | None").
        integer: Arrow type of whole numbers.
    """
    import pyarrow as pa

    kinds = {"int": pa.type_for_alias(integer), "float": pa.float64(), "str": pa.string()}
    return pa.schema([(f.name.rstrip("_"), kinds[str(f.type).split(" ")[0]]) for f in fields(row_type)])


def table_of(rows: Iterable[Any], row_type: type, schema: pa.Schema) -> pa.Table:
    """Return rows of a dataclass as an Arrow table."""
    import pyarrow as pa

    rows = list(rows)
    return pa.table([[getattr(row, f.name) for row in rows] for f in fields(row_type)], schema=schema)


def batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield rows in lists that are small beside a table."""
    source = iter(rows)
    while batch := list(islice(source, _ROWS_PER_GROUP)):
        yield batch


def write_rows(path: Path, row_type: type, rows: Iterable[Any]) -> None:
    """Write rows of a dataclass as Parquet, some at a time.

    Raises:
        MedclipError: As `medclip.files.output.disk_errors`.
    """
    import pyarrow.parquet as pq

    schema = schema_of(row_type)
    with new_file(path) as draft, pq.ParquetWriter(draft, schema, compression="zstd", version="2.6") as writer:
        for batch in batches(rows):
            writer.write_table(table_of(batch, row_type, schema))


def parquet_bytes(table: pa.Table, *, compression: str = "zstd") -> bytes:
    """Return a table as the bytes of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression=compression)
    return buffer.getvalue().to_pybytes()


def csv_bytes(table: pa.Table) -> bytes:
    """Return a table as CSV; texts that a spreadsheet would run as a formula have an apostrophe before them."""
    import pyarrow as pa
    from pyarrow import csv

    buffer = pa.BufferOutputStream()
    csv.write_csv(_defused(table), buffer)
    return buffer.getvalue().to_pybytes()


def _defused(table: pa.Table) -> pa.Table:
    """Put an apostrophe before texts that a spreadsheet would run as a formula: groups may be called anything."""
    import pyarrow as pa
    from pyarrow import compute as pc

    for i, column in enumerate(table.schema):
        if pa.types.is_string(column.type):
            cells = pc.replace_substring_regex(table.column(i), r"^([=+@\t\r])", r"'\1")  # pyright: ignore
            table = table.set_column(i, column, cells)
    return table
