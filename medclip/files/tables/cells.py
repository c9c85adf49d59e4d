"""Single cells of tables: days, which never leave, and what may be said of a cell that was not understood."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date

# Days of examinations, as tables and headers write them. They never leave: only the days between two of them do, and
# the week of one where somebody asks for it.

_FORM = re.compile(r"(?P<year>\d{4})-?(?P<month>\d\d)(?:-?(?P<day>\d\d))?(?:[T ].*)?")
_FIRST_YEAR = 1970
DAYS_EXPECTED = "2024-03-01 or 20240301; 2024-03 stands for the first of the month"


def day_of(text: str) -> date | None:
    """Read a day.

    Args:
        text: 2024-03-01, 20240301, 2024-03 or 202403, and whatever time stands behind a day.

    Returns:
        The day; None for an empty text.

    Raises:
        ValueError: It is no day.

    Example:
        >>> (day_of("20240301") - day_of("2023-03")).days
        366
    """
    if not text:
        return None
    parts = _FORM.fullmatch(text)
    if parts is None:
        raise ValueError(text)
    return date(int(parts["year"]), int(parts["month"]), int(parts["day"] or 1))


def iso_week(text: str) -> str | None:
    """Return the ISO 8601 week of a day, such as "2024-W05"; None for what is no day, or lies before 1970.

    1900-01-01 and the like stand in headers where nobody knew the date.

    Example:
        >>> iso_week("20240131"), iso_week("2021-01-03"), iso_week("19000101"), iso_week("202401")
        ('2024-W05', '2020-W53', None, None)
    """
    try:
        day = day_of(text.strip())
    except ValueError:
        return None
    if day is None or day.year < _FIRST_YEAR or len(re.sub(r"\D", "", text)) < len("20240131"):
        return None
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02}"


def days_before(exam: str, days: dict[str, date]) -> tuple[tuple[str, int], ...]:
    """Return which of a patient's examinations came before one of them, and by how many days, the latest first.

    Args:
        exam: Name of the examination.
        days: Day of each examination whose day is known.

    Example:
        >>> days_before("b", {"a": date(2023, 3, 1), "b": date(2024, 3, 1), "c": date(2025, 3, 1)})
        (('a', 366),)
    """
    if exam not in days:
        return ()
    before = ((name, (days[exam] - day).days) for name, day in days.items() if day < days[exam])
    return tuple(sorted(before, key=lambda exam: exam[1]))


# Cells of a table that were not understood: what may be said of them, and how they are counted.

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
