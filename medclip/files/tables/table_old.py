"""A table as text: columns and cells of a CSV, TSV or Parquet file or a data frame, before anything is understood."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.tables.manifest import refuse_twins

MAX_CELL = 16 * 2**20
"""Most characters of one cell of a text table."""


def load_cells(table: Any, where: Path | None) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table as text.

    Args:
        table: Path of a CSV, TSV or Parquet file, or any data frame that narwhals knows.
        where: Its path; None for a data frame.

    Returns:
        The columns, and the cells of each row by column; empty cells are "".

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID.
    """
    if where is None:
        return _from_frame(table)
    if not os.path.isfile(where):  # unlike Path.is_file, this takes any name
        raise MedclipError(Reason.MISSING_FILE, "there is no such table.", where=where)
    if where.suffix.lower() in (".parquet", ".pq"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            refuse_twins(pq.read_schema(where).names, where)
            return _from_frame(pq.read_table(where))
        except pa.ArrowException as e:
            raise MedclipError(Reason.TABLE_INVALID, "this is not a Parquet file.", where=where) from e
    return _from_text(where)


def _from_text(where: Path) -> tuple[list[str], list[dict[str, str]]]:
    csv.field_size_limit(MAX_CELL)
    cells: list[dict[str, str]] = []
    try:
        with where.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f, delimiter="\t" if where.suffix.lower() == ".tsv" else ",", restval="")
            header = list(reader.fieldnames or ())
            refuse_twins(header, where)
            for number, row in enumerate(reader, 1):
                if None in row:  # csv.DictReader's key for surplus cells
                    raise MedclipError(
                        Reason.TABLE_INVALID,
                        f"row {number} has more cells than there are columns.",
                        where=where,
                        hint="Put texts that hold the delimiter in double quotes.",
                    )
                cells.append({k: (v or "").strip() for k, v in row.items()})
            return header, cells
    except (UnicodeDecodeError, csv.Error) as e:
        if "field limit" in str(e):
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"row {len(cells) + 1} has a cell of more than {MAX_CELL:,} characters.",
                where=where,
                hint="Is a double quote missing? Else shorten the text.",
            ) from e
        raise MedclipError(
            Reason.TABLE_INVALID,
            "the table is not UTF-8 text in CSV form.",
            where=where,
            hint="Save it as CSV, TSV or Parquet.",
        ) from e


def _from_frame(frame: Any) -> tuple[list[str], list[dict[str, str]]]:
    import narwhals as nw

    try:
        data = nw.from_native(frame, eager_only=True)
        columns = list(data.columns)
    except nw.exceptions.DuplicateError as e:
        raise MedclipError(
            Reason.TABLE_INVALID, f"two columns have the same name ({' '.join(str(e).split())})."
        ) from None
    return columns, [{k: _cell(v) for k, v in row.items()} for row in data.iter_rows(named=True)]


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) in ("<NA>", "NaT"):
        return ""
    if isinstance(value, list | tuple):
        return "\n".join(str(v) for v in value)
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
