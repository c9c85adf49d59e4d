"""Days of examinations, as tables and headers write them. They never leave: only the days between two of them do."""

from __future__ import annotations

import re
from datetime import date

_FORM = re.compile(r"(?P<year>\d{4})-?(?P<month>\d\d)(?:-?(?P<day>\d\d))?(?:[T ].*)?")
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
