"""Plain values of DICOM elements, quick and without exceptions.

pydicom converts an element on first access with all checks of its VR. Pixels need some forty elements of each file,
most of them missing; asking for the tag first and decoding the simple ones here takes a fifth of the time.
"""

from __future__ import annotations

import math
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
    found = _TAGS.get(number)
    if found is None:
        from pydicom.datadict import dictionary_has_tag
        from pydicom.tag import BaseTag

        found = BaseTag(number)
        if dictionary_has_tag(number):  # there is no end of others
            _TAGS[number] = found
    return found


def present(dataset: Any, keyword: str) -> bool:
    """Return whether an element is there."""
    return _tag(keyword) in dataset._dict  # the data set's own test is ten times as slow


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
    found = dataset._dict.get(_tag(keyword))
    return b"" if found is None or found.value is None else found.value


def own_bytes(dataset: Any, keyword: str) -> None:
    """Let an element hold bytes of its own where it is a view of the file."""
    tag = _tag(keyword)
    found = dataset._dict.get(tag)
    if found is not None and isinstance(found.value, memoryview):
        dataset._dict[tag] = found._replace(value=bytes(found.value))


def texts(dataset: Any, keyword: str) -> tuple[str, ...]:
    """Return an element's values as text, stripped; () where it is missing."""
    raw: Any = dataset._dict.get(_tag(keyword))
    if raw is None:
        return ()
    if getattr(raw, "is_raw", False) and isinstance(raw.value, bytes) and len(raw.value) < 1024:
        if (raw.VR or _vr(keyword)) == "US":
            order = "little" if raw.is_little_endian else "big"
            pairs = range(0, len(raw.value) - 1, 2)
            return tuple(str(int.from_bytes(raw.value[at : at + 2], order)) for at in pairs)
        if (raw.VR or _vr(keyword)) in ("CS", "DS", "IS", "UI") and raw.value.isascii():
            found = raw.value.decode("ascii").split("\\")
            return tuple(text for item in found if (text := item.strip(" \0\t\r\n")))
    found = value(dataset, keyword)
    if found is None:
        return ()
    items = [found] if isinstance(found, str) or not hasattr(found, "__iter__") else list(found)
    return tuple(text for item in items if (text := str(item).strip(" \0\t\r\n")))


def text(dataset: Any, keyword: str) -> str:
    """Return an element's first value as text, "" where there is none."""
    found = texts(dataset, keyword)
    return found[0] if found else ""


def whole(dataset: Any, keyword: str, default: int) -> int:
    """Return an element's first value as an integer."""
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
    """Return an element's numbers, () where it is missing, None where one cannot be read or is not finite."""
    try:
        numbers = tuple(float(item) for item in texts(dataset, keyword))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
