"""A figure with its interval, and a difference of two figures with its interval and test."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEVEL = 0.95
"""Coverage of every interval, unless asked otherwise."""
NUM_RESAMPLES = 2000
"""Resamples of patients behind every interval, unless asked otherwise: the same for each verb, so that the same rows
have the same interval."""
DECIMALS = 4
"""Of figures that are kept."""


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


@dataclass(frozen=True)
class Figure:
    """One figure with its 95 % interval, as shares from 0 to 1, rounded to four decimals."""

    value: float
    low: float | None = None
    """None where the data cannot say: a class of which too few patients are there."""
    high: float | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> Figure:
        """Round an estimate."""
        if not estimate.has_interval:
            return cls(round(estimate.value, DECIMALS))
        return cls(*(round(end, DECIMALS) for end in (estimate.value, estimate.low, estimate.high)))


@dataclass(frozen=True)
class Change:
    """A paired difference of two figures of the same patients."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """Two-sided, of its being 0."""

    @classmethod
    def of(cls, apart: Difference) -> Change:
        """Round a difference."""
        ends = (apart.low, apart.high) if apart.has_interval else ()
        p = None if math.isnan(apart.p) else float(f"{apart.p:.2g}")
        return cls(*(round(end, DECIMALS) + 0.0 for end in (apart.value, *ends)), p=p)


def _short(number: float) -> str:
    return f"{number:.2f}".replace("-0.00", "0.00").replace("-", "−")
