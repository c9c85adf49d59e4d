"""How an audit writes its numbers: two or three digits, the interval in words, no false precision."""

from __future__ import annotations

import math
from typing import Any

from medclip.auditing.result import Row
from medclip.reports.few_shot.words import chance

NONE = "–"
"""Stands where there is no number."""


def real(value: Any) -> float | None:
    """Give a finite number, or None."""
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def figure(value: Any, *, signed: bool = False, decimals: int | None = None) -> str:
    """Write a number: 0.83, 0.041, 12.4, −0.12; a dash for none."""
    number = real(value)
    if number is None:
        return NONE
    places = _decimals(number) if decimals is None else decimals
    rounded = round(number, places) + 0.0  # no minus zero
    return (f"{rounded:+.{places}f}" if signed else f"{rounded:.{places}f}").replace("-", "−")


def interval(low: Any, high: Any, *, signed: bool = False, decimals: int | None = None) -> str:
    """Write an interval: 0.79 to 0.87."""
    a, b = real(low), real(high)
    if a is None or b is None:
        return "no interval"
    places = _places(a, b) if decimals is None else decimals
    return f"{figure(a, signed=signed, decimals=places)} to {figure(b, signed=signed, decimals=places)}"


def parts(row: Row, *, signed: bool = False) -> tuple[str, str]:
    """Give the value of a row and its interval with the same decimals; two blanks where there is no value."""
    value, low, high = (real(row.get(name)) for name in ("value", "low", "high"))
    if value is None:
        return NONE, ""
    places = _decimals(value) if low is None or high is None else _places(low, high)
    return (
        figure(value, signed=signed, decimals=places),
        interval(low, high, signed=signed, decimals=places),
    )


def with_interval(row: Row, *, signed: bool = False) -> str:
    """Write 0.83 (0.79 to 0.87)."""
    value, around = parts(row, signed=signed)
    return f"{value} ({around})" if around else value


def p_value(p: Any) -> str:
    """Write a p-value: <0.001, 0.012, 0.42; a dash for none."""
    number = real(p)
    return NONE if number is None else chance(number).replace(" ", "")


def whole(value: Any) -> str:
    """Write a count with thin spaces between thousands; a dash for none."""
    number = real(value)
    return NONE if number is None else f"{round(number):,}".replace(",", "\u202f")


def listed(words: list[str] | tuple[str, ...], most: int = 6) -> str:
    """Write a, b and c; of many, the first and how many more."""
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def _decimals(number: float) -> int:
    size = abs(number)
    if size >= 100:
        return 0
    if size >= 10:
        return 1
    return 2 if size >= 0.1 or size == 0 else 3


def _places(low: float, high: float) -> int:
    """Choose decimals that tell the ends of the interval apart."""
    width = high - low
    if max(abs(low), abs(high)) >= 10:
        return 1 if width >= 0.2 else 2
    return 2 if width >= 0.02 else 3
