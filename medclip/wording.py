"""Numbers, counts and lists in words, as every page, note, error and line on a terminal writes them.

It belongs to no room: notes of an audit, errors of a table, lines of a command and pages of a report count alike.
Thousands are parted by commas, which every terminal and every file can hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

NONE = "–"
"""Stands where there is no number."""


def real(value: Any) -> float | None:
    """Return a finite number, or None."""
    if value is None:
        return None
    read = float(value)
    return read if math.isfinite(read) else None


def number(value: Any) -> str:
    """Write a whole number with commas between thousands; a dash for none.

    Example:
        >>> number(2000), number(None)
        ('2,000', '–')
    """
    read = real(value)
    return NONE if read is None else f"{round(read):,}"


def count(value: int, noun: str, plural: str = "") -> str:
    """Write a count with its noun, which takes "s" or "ies" where no plural is named.

    Example:
        >>> count(1, "file"), count(2000, "study"), count(2, "class", "classes")
        ('1 file', '2,000 studies', '2 classes')
    """
    if value == 1:
        return f"1 {noun}"
    ends_in_y = noun.endswith("y") and not noun.endswith(("ay", "ey", "oy"))
    return f"{number(value)} {plural or (noun[:-1] + 'ies' if ends_in_y else noun + 's')}"


def list_of(words: Sequence[str], last: str = "and", *, most: int | None = None) -> str:
    """Write a list as a person would; of many, the first and how many more.

    Example:
        >>> list_of(["a", "b", "c"]), list_of(["a", "b"], "or"), list_of(["a", "b", "c"], most=1)
        ('a, b and c', 'a or b', 'a and 2 more')
    """
    if most is not None and len(words) > most:
        return f"{', '.join(words[:most])} and {number(len(words) - most)} more"
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def capital(text: str) -> str:
    """Write the first letter large; the others stay as they are.

    Example:
        >>> capital("chest X-ray")
        'Chest X-ray'
    """
    return text[:1].upper() + text[1:]


def in_markdown(text: str, *, one_line: bool = False) -> str:
    r"""Write text so that Markdown, and a cell of its tables, takes it as text.

    Args:
        text: Plain text.
        one_line: Write any run of white space, also of line ends, as one blank.

    Example:
        >>> print(in_markdown("a_b | c"))
        a\_b \| c
    """
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()) if one_line else text)


def percent(share: float) -> str:
    """Write a share as whole per cent, without claiming certainty.

    Example:
        >>> percent(0.123), percent(0.001), percent(0.999)
        ('12 %', '< 1 %', '> 99 %')
    """
    if share < 0.005:
        return "< 1 %"
    if share > 0.995:
        return "> 99 %"
    return f"{100 * share:.0f} %"


def told_apart(value: float, other: float, *, is_share: bool = False) -> tuple[str, str]:
    """Write two values with the decimals that show that they differ; alike ones as they are written by themselves.

    Args:
        value: Value.
        other: Value that it is held against.
        is_share: Whether both are shares, written as per cent.

    Example:
        >>> told_apart(0.102, 0.098, is_share=True), told_apart(0.832, 0.828), told_apart(0.3, 0.1, is_share=True)
        (('10.2 %', '9.8 %'), ('0.832', '0.828'), ('30 %', '10 %'))
    """
    if is_share:
        texts = percent(value), percent(other)
        longer = ([f"{100 * x:.{places}f} %" for x in (value, other)] for places in range(1, 5))
    else:
        texts = figure(value), figure(other)
        longer = ([figure(x, decimals=places) for x in (value, other)] for places in range(3, 7))
    if texts[0] != texts[1] or value == other:
        return texts
    return next(((a, b) for a, b in longer if a != b), texts)


def percent_of(num: int, total: int) -> str:
    """Write some of a counted whole as whole per cent; all of it is 100 %, since nothing is claimed beyond the count.

    Example:
        >>> percent_of(87, 87), percent_of(999, 1000), percent_of(1, 8)
        ('100 %', '> 99 %', '12 %')
    """
    return "100 %" if num == total else "0 %" if num == 0 else percent(num / total)


def figure(value: Any, *, signed: bool = False, decimals: int | None = None) -> str:
    """Write a measured value with a true minus sign and no false precision; a dash for none.

    Example:
        >>> figure(0.8312), figure(0.0412), figure(12.44), figure(-0.12), figure(0.1, signed=True, decimals=3)
        ('0.83', '0.041', '12.4', '−0.12', '+0.100')
    """
    read = real(value)
    if read is None:
        return NONE
    places = _decimals(read) if decimals is None else decimals
    rounded = round(read, places) + 0.0  # no minus zero
    return (f"{rounded:+.{places}f}" if signed else f"{rounded:.{places}f}").replace("-", "−")


def interval(low: Any, high: Any, *, signed: bool = False, decimals: int | None = None) -> str:
    """Write an interval, with decimals that tell its ends apart.

    Example:
        >>> interval(0.79, 0.87), interval(0.7901, 0.7951), interval(None, 1)
        ('0.79 to 0.87', '0.790 to 0.795', 'no interval')
    """
    a, b = real(low), real(high)
    if a is None or b is None:
        return "no interval"
    places = _places(a, b) if decimals is None else decimals
    return f"{figure(a, signed=signed, decimals=places)} to {figure(b, signed=signed, decimals=places)}"


def value_and_interval(value: Any, low: Any, high: Any, *, signed: bool = False) -> tuple[str, str]:
    """Write a value and its interval with the same decimals; a dash and a blank where there is no value."""
    read, a, b = real(value), real(low), real(high)
    if read is None:
        return NONE, ""
    places = _decimals(read) if a is None or b is None else _places(a, b)
    return figure(read, signed=signed, decimals=places), interval(a, b, signed=signed, decimals=places)


def estimate(value: Any, low: Any, high: Any, *, decimals: int = 3) -> str:
    """Write a value with its interval behind it, where it has one.

    Example:
        >>> estimate(0.8123, 0.7501, 0.86), estimate(0.5, None, None, decimals=2)
        ('0.812 (0.750 to 0.860)', '0.50')
    """
    around = "" if real(low) is None or real(high) is None else f" ({interval(low, high, decimals=decimals)})"
    return f"{figure(value, decimals=decimals)}{around}"


def by_reason(counts: Mapping[str, int]) -> str:
    """Write how many have which reason, the most first.

    Example:
        >>> by_reason({"too_large": 1, "empty_file": 2000})
        'empty file 2,000, too large 1'
    """
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason.replace('_', ' ')} {number(num)}" for reason, num in ordered)


def p_value(p: Any) -> str:
    """Write a p-value without false precision; a dash for none.

    Example:
        >>> p_value(0.00001), p_value(0.0123), p_value(0.423)
        ('<0.001', '0.012', '0.42')
        >>> p_value(0.0496), p_value(0.0504)  # a verdict at 0.05 can be read from it
        ('0.0496', '0.0504')
    """
    read = real(p)
    if read is None:
        return NONE
    if 0.0495 <= read < 0.0505 and read != 0.05:
        return "<0.05" if 0.04995 <= read < 0.05 else ">0.05" if 0.05 < read < 0.05005 else f"{read:.4f}"
    return "<0.001" if read < 0.001 else f"{read:.3f}" if read < 0.1 else f"{read:.2f}"


def duration(seconds: float) -> str:
    """Write a time span in the unit a person would use.

    Example:
        >>> duration(0.2), duration(200), duration(9000)
        ('1 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def _decimals(value: float) -> int:
    size = abs(value)
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
