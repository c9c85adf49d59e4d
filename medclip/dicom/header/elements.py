"""Values of single DICOM elements as plain Python: what is missing or cannot be converted is empty, never an error."""

from __future__ import annotations

import math
from typing import Any


def value(dataset: Any, keyword: str) -> Any:
    """Return an element's value, or None where it is missing or cannot be converted."""
    if dataset is None:
        return None
    try:
        return dataset.get(keyword)
    except Exception:
        return None


def text(dataset: Any, keyword: str) -> str:
    """Return the first text of an element without its padding; "" where there is none."""
    found = texts(dataset, keyword)
    return found[0] if found else ""


def texts(dataset: Any, keyword: str) -> tuple[str, ...]:
    """Return all texts of an element that are not empty."""
    found = value(dataset, keyword)
    if found is None:
        return ()
    values = [found] if isinstance(found, str) or not hasattr(found, "__iter__") else list(found)
    return tuple(stripped for item in values if (stripped := str(item).strip(" \0\t\r\n")))


def upper(dataset: Any, keyword: str) -> str:
    """Return the first text of an element in capitals, as code strings are defined."""
    return text(dataset, keyword).upper()


def flag(dataset: Any, keyword: str) -> bool | None:
    """Read YES and NO; None for anything else."""
    return {"YES": True, "NO": False}.get(upper(dataset, keyword))


def whole(dataset: Any, keyword: str, default: int) -> int:
    """Return a whole number, or the default."""
    try:
        return int(float(text(dataset, keyword) or default))
    except (ValueError, OverflowError):
        return default


def maybe_whole(dataset: Any, keyword: str) -> int | None:
    """Return a whole number, or None."""
    found = number(dataset, keyword)
    return None if found is None else int(found)


def number(dataset: Any, keyword: str) -> float | None:
    """Return a finite number, or None."""
    try:
        found = float(text(dataset, keyword))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers, or None."""
    try:
        found = tuple(float(item) for item in texts(dataset, keyword))
    except ValueError:
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def three(found: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    """Return the three numbers as a triple for the type checker."""
    return None if found is None else (found[0], found[1], found[2])


def items(dataset: Any, keyword: str) -> list[Any]:
    """Return the items of a sequence; none where it is missing or cannot be read."""
    try:
        return list(value(dataset, keyword) or ())
    except Exception:
        return []


def spacing(dataset: Any, keyword: str) -> tuple[float, float] | None:
    """Return row and column spacing in millimetres where both are plausible."""
    found = numbers(dataset, keyword, 2)
    if found is None or not all(1e-3 < side < 100 for side in found):
        return None
    return found[0], found[1]


def aspect(dataset: Any) -> tuple[int, int] | None:
    """Return vertical and horizontal size of a pixel where they differ."""
    found = numbers(dataset, "PixelAspectRatio", 2)
    if found is None or min(found) < 1 or found[0] == found[1]:
        return None
    return int(found[0]), int(found[1])


def frame_time(dataset: Any) -> float | None:
    """Return the time between frames in milliseconds: FrameTime, or what CineRate comes to."""
    stated, rate = number(dataset, "FrameTime"), number(dataset, "CineRate")
    if stated is not None and stated > 0:
        return stated
    return 1000 / rate if rate is not None and rate > 0 else None


def age_in_years(age: str) -> float | None:
    """Read a DICOM age string (PS3.5: 018M, 034Y, 003W, 010D); 90 and above give 90.

    Example:
        >>> age_in_years("018M"), age_in_years("102Y"), age_in_years("")
        (1.5, 90.0, None)
    """
    per_year = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}
    unit = age[-1:].upper()
    # isdigit() alone lets superscripts through, which float() refuses.
    if not (age[:-1].isascii() and age[:-1].isdigit()) or unit not in per_year:
        return None
    return min(float(age[:-1]) / per_year[unit], 90.0)


_SIDES = {
    "L": "L", "LEFT": "L", "R": "R", "RIGHT": "R", "B": "B", "BOTH": "B", "BILATERAL": "B", "U": "U", "UNPAIRED": "U",
}  # fmt: skip


def side_of(text: str) -> str:
    """Return the letter of a side: L, R, B (both) or U (unpaired); "" for any other text."""
    return _SIDES.get(text.strip().upper(), "")
