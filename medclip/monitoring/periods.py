"""Periods of a run's units and studies: weeks or months of the examinations, or the runs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

NUM_FIRST = 4
"""Periods at the beginning that are the reference, where no other is named."""
_WEEKS_SHOWN = 3


@dataclass(frozen=True)
class Periods:
    """How time is divided."""

    by: str
    names: tuple[str, ...]
    """In order; those of the watched runs."""

    def codes(self, week_N: NDArray[Any], run_N: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the period of each row, as an index into `names`; −1 where it has none."""
        if self.by == "run":
            return np.asarray(run_N, np.int64)
        number = {name: place for place, name in enumerate(self.names)}
        weeks, places = np.unique(np.asarray(week_N, str), return_inverse=True)
        codes = np.array([number.get(_named(week, self.by), -1) for week in weeks.tolist()], np.int64)
        return codes[places]


def periods_of(week_N: NDArray[Any], runs: Sequence[str], by: str | None) -> Periods:
    """Choose how time is divided.

    Args:
        week_N: ISO week of each unit; "" where its run wrote none.
        runs: Names of the runs.
        by: Unit of time: week, month or run; None: weeks where at least half of the units have one, else the runs.

    Raises:
        MedclipError: WRONG_USE for weeks where no unit has one.

    Example:
        >>> periods_of(np.array(["2024-W05", "2024-W06", ""]), ["a"], "month").names
        ('2024-02',)
    """
    weeks = np.asarray(week_N, str)
    known = weeks != ""
    if by in ("week", "month") and not known.any():
        raise MedclipError(
            Reason.WRONG_USE,
            f"no file of these results has a {by}.",
            hint="Score with --weeks, which writes the week of each examination; or watch --period run.",
        )
    chosen = by or ("week" if len(known) and known.mean() >= 0.5 else "run")
    if chosen == "run":
        return Periods(chosen, _distinct(runs))
    return Periods(chosen, tuple(sorted({_named(week, chosen) for week in np.unique(weeks[known]).tolist()})))


def missing_weeks(names: Sequence[str]) -> list[str]:
    """Return the weeks between the first and the last that have no file.

    Example:
        >>> missing_weeks(["2024-W51", "2025-W02"])
        ['2024-W52', '2025-W01']
    """
    days = [_monday(name) for name in names]
    missing, day = [], min(days, default=date.min)
    while days and day < max(days):
        if day not in days:
            year, week, _ = day.isocalendar()
            missing.append(f"{year}-W{week:02}")
        day += timedelta(days=7)
    return missing


def _named(week: str, by: str) -> str:
    """Return the name of the period that a week lies in: a month has the weeks whose Thursday it has."""
    if by == "week" or not week:
        return week
    return (_monday(week) + timedelta(days=3)).strftime("%Y-%m")


def _monday(week: str) -> date:
    return date.fromisocalendar(int(week[:4]), int(week[6:]), 1)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that are told apart: two folders may be called alike."""
    return tuple(name if names.count(name) == 1 else f"{place}. {name}" for place, name in enumerate(names, 1))
