"""Figures of a page of the docs: an HTML comment behind a number says where its commands write it.

`0.78<!-- figure: audit/metrics.csv value metric=auroc group=F -->` is the column `value` of the one row of that table
(CSV or Parquet) with these cells; `70 %` is 0.70 in the table. A figure with decimals may be off by two of its last
digit, since processors and libraries round otherwise; a count may not.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as parquet

_FIGURE = re.compile(r"(?P<number>[−-]?\d[\d,]*(?:\.\d+)?)(?P<percent> %)?\**<!-- figure: (?P<place>[^>]*?) -->")
_LAST_DIGITS = 2


@dataclass(frozen=True)
class Figure:
    """A number of a page, and the cell of a table that it is about."""

    text: str
    """The number as it is written, such as "0.78", "−0.2" or "70 %"."""
    table: str
    column: str
    cells: tuple[tuple[str, str], ...]
    """Column and value of the cells that its row has."""

    def measured(self, folder: Path) -> float:
        """Return the value that the commands wrote below a folder."""
        path = folder / self.table
        table = parquet.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
        rows = [row for row in table.to_pylist() if all(str(row[name]) == value for name, value in self.cells)]
        assert len(rows) == 1, f"{self.table}: {len(rows)} rows are {dict(self.cells)}"
        return float(rows[0][self.column])

    def is_off(self, measured: float) -> bool:
        """Return whether the number is not what was measured."""
        digits = self.text.removesuffix(" %").replace(",", "").replace("−", "-")
        if self.text.endswith("%"):
            measured *= 100
        decimals = len(digits.partition(".")[2])
        tolerance = _LAST_DIGITS / 10**decimals if decimals or self.text.endswith("%") else 0
        return abs(float(digits) - round(measured, decimals)) > tolerance + 1e-9


def figures(text: str) -> list[Figure]:
    """Return the figures of a page that say where they stand."""
    found = []
    for match in _FIGURE.finditer(text):
        table, column, *cells = shlex.split(match["place"])
        pairs = (cell.partition("=") for cell in cells)
        number = match["number"] + (match["percent"] or "")
        found.append(Figure(number, table, column, tuple((name, value) for name, _, value in pairs)))
    assert len(found) == text.count("<!-- figure:"), "a comment of a figure that stands behind no number"
    return found
