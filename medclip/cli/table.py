"""Tables and paragraphs on standard output: drawn and wrapped on a terminal, plain aligned lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

from medclip.errors import printable


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with its head: by rich on a terminal, as aligned lines elsewhere; no cell drives a terminal."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in aligned([head, *rows]):
            print(line)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Write rows as lines with the cells of a column below each other, two blanks apart.

    Example:
        >>> list(aligned([("name", "size"), ("medclip-mini", "14.7 MB")]))
        ['name          size', 'medclip-mini  14.7 MB']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def print_paragraph(lead: str, text: str) -> None:
    """Print a text after its lead; on a terminal wrapped between words, further lines as far in as the text."""
    text = printable(text)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    if width <= len(lead) + 20:
        print(f"{lead}{text}")
        return
    print(textwrap.fill(text, width, initial_indent=lead, subsequent_indent=" " * len(lead), break_long_words=False))
