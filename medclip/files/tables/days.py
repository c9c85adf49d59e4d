"""Days of examinations, as tables and headers write them. They never leave: only the days between two of them
do, and the week of one where somebody asks for it.
"""

from __future__ import annotations

import re
from datetime import date

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


def days_before(own: str, days: dict[str, date]) -> tuple[tuple[str, int], ...]:
    """Return which of a patient's examinations came before one of them, and by how many days, the latest first.

    Args:
        own: Name of the examination.
        days: Day of each examination whose day is known.

    Example:
        >>> days_before("b", {"a": date(2023, 3, 1), "b": date(2024, 3, 1), "c": date(2025, 3, 1)})
        (('a', 366),)
    """
    if own not in days:
        return ()
    before = ((name, (days[own] - day).days) for name, day in days.items() if day < days[own])
    return tuple(sorted(before, key=lambda exam: exam[1]))
