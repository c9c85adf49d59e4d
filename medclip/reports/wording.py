"""Numbers and counts in words, as every report writes them."""

from __future__ import annotations


def percent(probability: float) -> str:
    """Write a probability as whole per cent, without claiming certainty."""
    if probability < 0.005:
        return "< 1 %"
    if probability > 0.995:
        return "> 99 %"
    return f"{100 * probability:.0f} %"


def number(value: int) -> str:
    """Write a count with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def count(value: int, noun: str) -> str:
    """Write a count with its noun: 1 file, 2 files, 3 studies."""
    if value == 1:
        return f"1 {noun}"
    return f"{number(value)} {noun[:-1]}ies" if noun.endswith("y") else f"{number(value)} {noun}s"
