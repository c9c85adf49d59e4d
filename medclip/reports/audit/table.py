"""A table of the page as plain text: heads, rows, cells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Td:
    """A cell: what it says, what stands small below, and how it looks."""

    text: str
    small: tuple[str, ...] = ()
    css: str = ""
    """"words" for text that wraps, "h0" to "h4" for a shade."""


@dataclass(frozen=True)
class Tr:
    """A row; without cells it is the heading of those that follow."""

    head: str
    cells: tuple[Td, ...] = ()
    is_sentence: bool = False
    """Whether the head is all of it, and no heading: a sentence over the whole width."""


@dataclass(frozen=True)
class Grid:
    """A table with a caption."""

    caption: str
    heads: tuple[str, ...]
    """Of all columns, that of the row heads first."""
    rows: tuple[Tr, ...]
    dense: bool = False
    note: str = ""
    """Stands beside the caption where the table is folded."""

    def words(self, column: int) -> bool:
        """Whether a column holds words, so that its head stands at the left."""
        first = next((row for row in self.rows if row.cells), None)
        return column == 0 or (first is not None and first.cells[column - 1].css == "words")

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return any(row.cells or row.is_sentence for row in self.rows)


def said(text: str) -> Td:
    """Make a cell of words."""
    return Td(text, css="words")
