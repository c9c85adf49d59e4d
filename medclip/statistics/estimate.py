"""A figure with its interval, and a difference of two figures with its interval and test."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEVEL = 0.95
"""Coverage of every interval, unless asked otherwise."""
NUM_RESAMPLES = 2000
"""Resamples of patients behind every interval, unless asked otherwise: the same for each verb, so that the same rows
have the same interval."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; NaN where there is none."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return not math.isnan(self.low + self.high)

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high < 0

    def __str__(self) -> str:
        """Write "0.14 (95 % interval 0.10 to 0.18)"."""
        if not self.has_interval:
            return f"{_short(self.value)} (no interval)"
        return f"{_short(self.value)} (95 % interval {_short(self.low)} to {_short(self.high)})"


@dataclass(frozen=True)
class Difference(Estimate):
    """Two figures compared, or a change; NaN throughout where one of them is not defined."""

    standard_error: float = float("nan")
    degrees_of_freedom: float = float("nan")
    p: float = float("nan")
    """Two-sided, of its being 0."""


def _short(number: float) -> str:
    return f"{number:.2f}".replace("-0.00", "0.00").replace("-", "−")
