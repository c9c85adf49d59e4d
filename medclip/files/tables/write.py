"""Result tables: rows of a dataclass, or Arrow tables, as Parquet and CSV; equal rows give equal bytes."""

from __future__ import annotations

import re
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
    """Write rows of a dataclass as Parquet, some at a time."""
    import pyarrow.parquet as pq

    schema = schema_of(row_type)
    with new_file(path) as draft, pq.ParquetWriter(draft, schema, compression="zstd", version="2.6") as writer:
        for batch in batches(rows):
            writer.write_table(table_of(batch, row_type, schema))


def write_as_csv(path: Path, parquet: Path) -> None:
    """Write what a Parquet file holds as CSV, some rows at a time; texts are defused as by `csv_bytes`."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv

    with new_file(path) as draft, pq.ParquetFile(parquet) as source:
        empty = _defused(source.schema_arrow.empty_table())
        with csv.CSVWriter(draft, empty.schema) as writer:
            for batch in source.iter_batches(_ROWS_PER_GROUP):
                writer.write_table(_defused(pa.Table.from_batches([batch])))


def parquet_bytes(table: pa.Table, *, compression: str = "zstd") -> bytes:
    """Return a table as the bytes of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression=compression)
    return buffer.getvalue().to_pybytes()


_STARTS_FORMULA = "^[=+\\-@\\t\\r\\n＝＋－＠]"
"""First characters by which a spreadsheet takes a cell for a formula, or drops them and looks at the next; the wide
ones of East Asian input are taken alike. https://owasp.org/www-community/attacks/CSV_Injection"""
_IS_HARMLESS = r"^(-+|[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?%?)$"
"""A dash for no value, and a number with its sign, stay. Both patterns mean the same to Python and to Arrow's RE2."""


def csv_bytes(table: pa.Table) -> bytes:
    """Return a table as CSV; texts that a spreadsheet would run as a formula have an apostrophe before them."""
    import pyarrow as pa
    from pyarrow import csv

    buffer = pa.BufferOutputStream()
    csv.write_csv(_defused(table), buffer)
    return buffer.getvalue().to_pybytes()


def defused_text(text: str) -> str:
    """Write an apostrophe before a text that a spreadsheet would run as a formula; return any other as it is.

    Example:
        >>> defused_text("=1+1"), defused_text("-0.5"), defused_text("pneumonia")
        ("'=1+1", '-0.5', 'pneumonia')
    """
    return f"'{text}" if re.search(_STARTS_FORMULA, text) and not re.search(_IS_HARMLESS, text) else text


def _defused(table: pa.Table) -> pa.Table:
    """Defuse the texts and the names of columns: groups, classes, files and columns may be called anything."""
    import pyarrow as pa
    from pyarrow import compute as pc

    for i, column in enumerate(table.schema):
        cells: Any = table.column(i)
        if pa.types.is_dictionary(column.type):
            cells = cells.cast(column.type.value_type)
        if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
            starts = pc.match_substring_regex(cells, _STARTS_FORMULA)  # pyright: ignore[reportAttributeAccessIssue]
            harmless = pc.match_substring_regex(cells, _IS_HARMLESS)  # pyright: ignore[reportAttributeAccessIssue]
            hot = pc.and_not(starts, harmless)  # pyright: ignore[reportAttributeAccessIssue]
            nothing, mark = (pa.scalar(text, cells.type) for text in ("", "'"))
            marked = pc.binary_join_element_wise(mark, cells, nothing)  # pyright: ignore[reportAttributeAccessIssue]
            table = table.set_column(i, column.name, pc.if_else(hot, marked, cells))  # pyright: ignore
    return table.rename_columns([defused_text(name) for name in table.column_names])
