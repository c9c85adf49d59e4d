"""Values of single DICOM elements as plain Python: what is missing or cannot be converted is empty, never an error.

pydicom converts an element on first access with all checks of its VR. Pixels need some forty elements of each file,
most of them missing; asking for the tag first and decoding the simple ones here takes a fifth of the time. `quiet`
keeps reading libraries from talking to the terminal: what matters becomes a row.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_TAGS: dict[int, Any] = {}


@cache
def _tag(keyword: str) -> Any:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return known_tag(tag)


@cache
def _vr(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(_tag(keyword))


def known_tag(number: int) -> Any:
    """Return pydicom's form of a tag, the same object for the same standard tag.

    A dictionary finds an object that is the very same without asking pydicom's slow comparison.
    """
    tag = _TAGS.get(number)
    if tag is None:
        from pydicom.datadict import dictionary_has_tag
        from pydicom.tag import BaseTag

        tag = BaseTag(number)
        if dictionary_has_tag(number):  # there is no end of others
            _TAGS[number] = tag
    return tag


def present(dataset: Any, keyword: str) -> bool:
    """Return whether an element is there."""
    return dataset is not None and _tag(keyword) in dataset._dict  # the data set's own test is ten times as slow


def value(dataset: Any, keyword: str) -> Any:
    """Return an element's value as pydicom has it; None where it is missing or cannot be converted."""
    if not present(dataset, keyword):
        return None
    try:
        return dataset.get(keyword)
    except Exception:
        return None


def raw_bytes(dataset: Any, keyword: str) -> bytes | memoryview:
    """Return the bytes of a binary element without pydicom's conversion, b"" where it is missing.

    Pixels may be a view of the file; `own_bytes` replaces it by bytes, which pydicom needs.
    """
    element = dataset._dict.get(_tag(keyword))
    return b"" if element is None or element.value is None else element.value


def own_bytes(dataset: Any, keyword: str) -> None:
    """Let an element hold bytes of its own where it is a view of the file."""
    tag = _tag(keyword)
    element = dataset._dict.get(tag)
    if element is not None and isinstance(element.value, memoryview):
        dataset._dict[tag] = element._replace(value=bytes(element.value))


def texts(dataset: Any, keyword: str) -> tuple[str, ...]:
    """Return an element's values as text, stripped; () where it is missing."""
    raw: Any = None if dataset is None else dataset._dict.get(_tag(keyword))
    if raw is None:
        return ()
    if getattr(raw, "is_raw", False) and isinstance(raw.value, bytes) and len(raw.value) < 1024:
        if (raw.VR or _vr(keyword)) == "US":
            order = "little" if raw.is_little_endian else "big"
            pairs = range(0, len(raw.value) - 1, 2)
            return tuple(str(int.from_bytes(raw.value[at : at + 2], order)) for at in pairs)
        if (raw.VR or _vr(keyword)) in ("CS", "DS", "IS", "UI") and raw.value.isascii():
            content = raw.value.decode("ascii").split("\\")
            return tuple(text for item in content if (text := item.strip(" \0\t\r\n")))
    content = value(dataset, keyword)
    if content is None:
        return ()
    items = [content] if isinstance(content, str) or not hasattr(content, "__iter__") else list(content)
    return tuple(text for item in items if (text := str(item).strip(" \0\t\r\n")))


def text(dataset: Any, keyword: str) -> str:
    """Return an element's first value as text, "" where there is none."""
    values = texts(dataset, keyword)
    return values[0] if values else ""


def upper(dataset: Any, keyword: str) -> str:
    """Return the first text of an element in capitals, as code strings are defined."""
    return text(dataset, keyword).upper()


def flag(dataset: Any, keyword: str) -> bool | None:
    """Read YES and NO; None for anything else."""
    return {"YES": True, "NO": False}.get(upper(dataset, keyword))


def integer(dataset: Any, keyword: str, default: int) -> int:
    """Return an element's first value as an integer."""
    values = texts(dataset, keyword)
    try:
        return int(values[0]) if values else default
    except ValueError:
        pass
    try:
        return int(float(values[0]))
    except (ValueError, OverflowError):
        return default


def maybe_whole(dataset: Any, keyword: str) -> int | None:
    """Return a whole number, or None."""
    exact = number(dataset, keyword)
    return None if exact is None else int(exact)


def number(dataset: Any, keyword: str) -> float | None:
    """Return a finite number, or None."""
    try:
        converted = float(text(dataset, keyword))
    except ValueError:
        return None
    return converted if math.isfinite(converted) else None


def floats(dataset: Any, keyword: str) -> tuple[float, ...] | None:
    """Return an element's numbers, () where it is missing, None where one cannot be read or is not finite."""
    try:
        numbers = tuple(float(item) for item in texts(dataset, keyword))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers, or None."""
    read = floats(dataset, keyword)
    return read if read is not None and len(read) == count else None


def three(values: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    """Return the three numbers as a triple for the type checker."""
    return None if values is None else (values[0], values[1], values[2])


def items(dataset: Any, keyword: str) -> list[Any]:
    """Return the items of a sequence; none where it is missing or cannot be read."""
    try:
        return list(value(dataset, keyword) or ())
    except Exception:
        return []


def spacing(dataset: Any, keyword: str) -> tuple[float, float] | None:
    """Return row and column spacing in millimetres where both are plausible."""
    values = numbers(dataset, keyword, 2)
    if values is None or not all(1e-3 < side < 100 for side in values):
        return None
    return values[0], values[1]


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
    "L": "L",
    "LEFT": "L",
    "R": "R",
    "RIGHT": "R",
    "B": "B",
    "BOTH": "B",
    "BILATERAL": "B",
    "U": "U",
    "UNPAIRED": "U",
}


def side_of(text: str) -> str:
    """Return the letter of a side: L, R, B (both) or U (unpaired); "" for any other text."""
    return _SIDES.get(text.strip().upper(), "")


@contextmanager
def quiet(logger_name: str) -> Iterator[None]:
    """Silence Python warnings and one logger for a while.

    Vendor files break their standards in a hundred harmless ways. The libraries warn of each, some with the value
    itself; damage that matters raises, or is recorded as a step.

    Args:
        logger_name: The library's logger, such as "pydicom".
    """

    def silent(record: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger(logger_name)
    logger.addFilter(silent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(silent)
