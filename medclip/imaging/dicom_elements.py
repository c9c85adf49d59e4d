"""Plain values of DICOM elements, quick and without exceptions.

pydicom converts an element on first access with all checks of its VR. Pixels need some forty elements of each file,
most of them missing; asking for the tag first and decoding the simple ones here takes a fifth of the time.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

_NUMBERS = {"Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"}
"""Elements of VR US."""


@cache
def _tag(keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


def present(dataset: Any, keyword: str) -> bool:
    """Say whether an element is there."""
    return _tag(keyword) in dataset._dict  # the data set's own test is ten times as slow


def value(dataset: Any, keyword: str) -> Any:
    """Give an element's value as pydicom has it; None where it is missing or cannot be converted."""
    if not present(dataset, keyword):
        return None
    try:
        return dataset.get(keyword)
    except Exception:
        return None


def texts(dataset: Any, keyword: str) -> tuple[str, ...]:
    """Give an element's values as text, stripped; () where it is missing."""
    raw: Any = dataset._dict.get(_tag(keyword))
    if raw is None:
        return ()
    if getattr(raw, "is_raw", False) and isinstance(raw.value, bytes) and len(raw.value) < 1024:
        if keyword in _NUMBERS or raw.VR == "US":
            order = "little" if raw.is_little_endian else "big"
            pairs = range(0, len(raw.value) - 1, 2)
            return tuple(str(int.from_bytes(raw.value[at : at + 2], order)) for at in pairs)
        if raw.VR in (None, "CS", "DS", "IS", "UI") and raw.value.isascii():
            found = raw.value.decode("ascii").split("\\")
            return tuple(text for item in found if (text := item.strip(" \0\t\r\n")))
    found = value(dataset, keyword)
    if found is None:
        return ()
    items = [found] if isinstance(found, str) or not hasattr(found, "__iter__") else list(found)
    return tuple(text for item in items if (text := str(item).strip(" \0\t\r\n")))


def text(dataset: Any, keyword: str) -> str:
    """Give an element's first value as text, "" where there is none."""
    found = texts(dataset, keyword)
    return found[0] if found else ""


def whole(dataset: Any, keyword: str, default: int) -> int:
    """Give an element's first value as an integer."""
    found = texts(dataset, keyword)
    try:
        return int(found[0]) if found else default
    except ValueError:
        pass
    try:
        return int(float(found[0]))
    except (ValueError, OverflowError):
        return default


def floats(dataset: Any, keyword: str) -> tuple[float, ...] | None:
    """Give an element's numbers, () where it is missing, None where one cannot be read or is not finite."""
    try:
        numbers = tuple(float(item) for item in texts(dataset, keyword))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
