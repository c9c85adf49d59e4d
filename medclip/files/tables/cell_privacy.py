"""Cells of a table that were not understood: what may be said of them, and how they are counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

NOT_SHOWN = "(not shown)"
_LONGEST = 12
_MOST_DIGITS = 3
_MOST_DIGITS_OF_NAME = 4
_MOST_VALUES = 5


def shown(value: str) -> str:
    """Quote a cell for a message. A column that slipped may hold a name or a number of a patient: such cells, long ones
    and ones with blanks, "^" or many digits, are not shown.

    Example:
        >>> shown("cxr"), shown("Doe^John"), shown("7700123")
        ("'cxr'", '(not shown)', '(not shown)')
    """
    plain = value.replace("_", "").replace("-", "").replace(".", "")
    harmless = len(value) <= _LONGEST and plain.isalnum() and sum(c.isdigit() for c in plain) <= _MOST_DIGITS
    return repr(value) if harmless else NOT_SHOWN


def shown_name(name: str) -> str:
    """Quote the name of a column for a message. A table without a header has a row of cells there: names with "^" or
    "@" and those of many digits are not shown.

    Example:
        >>> shown_name("label:chest_xray_findings:mass"), shown_name("7700123")
        ("'label:chest_xray_findings:mass'", '(not shown)')
    """
    harmless = not re.search(r"[\^@]", name) and sum(c.isdigit() for c in name) <= _MOST_DIGITS_OF_NAME
    return repr(name) if harmless else NOT_SHOWN


def counts_of_strange(cells: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Count values that were not understood.

    Args:
        cells: Column and value of each cell.

    Returns:
        Per column the most frequent values with their counts; the others together, as "(others)".
    """
    counts: dict[str, Counter[str]] = {}
    for column, value in cells:
        counts.setdefault(column, Counter())[shown(value).strip("'")] += 1
    return {column: _most(counts[column]) for column in sorted(counts)}


def _most(values: Mapping[str, int]) -> dict[str, int]:
    ranked = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(n for _, n in ranked[_MOST_VALUES:])
    return dict(ranked[:_MOST_VALUES]) | ({"(others)": rest} if rest else {})
