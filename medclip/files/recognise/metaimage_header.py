"""The text at the beginning of a MetaImage: what its voxels are, how they lie, and where they are.

Fields as ITK's MetaIO reads and writes them. What else stands in the text (ITK copies DICOM elements into it, names of
patients among them) is not kept.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

from medclip.errors import MedclipError, Reason

MOST_BYTES = 4 * 1024**2
"""A longer text is none; a list of 20,000 names of slices has half of it."""
MOST_FILES = 20_000
_USUAL_BYTES = 4096
_TYPES = {
    "CHAR": "i1",
    "UCHAR": "u1",
    "SHORT": "i2",
    "USHORT": "u2",
    "INT": "i4",
    "UINT": "u4",
    "LONG": "i4",
    "ULONG": "u4",
    "LONG_LONG": "i8",
    "ULONG_LONG": "u8",
    "FLOAT": "f4",
    "DOUBLE": "f8",
}
"""ElementType without MET_ -> numpy's name. MetaIO's long has four bytes, whatever the machine."""
_FIRST = re.compile(rb"\s*(?:ObjectType|NDims|Comment|ObjectSubType)[ \t]*=")
_AXES = re.compile(rb"^[ \t]*NDims[ \t]*=[ \t]*\d", re.MULTILINE)
_LAST = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*)(?:\r?\n|\Z)", re.MULTILINE)
_MOST_AXES = 10
_MOST_LENGTH = 2**31


@dataclass(frozen=True)
class MetaImageHeader:
    """What a MetaImage states."""

    shape: tuple[int, ...]
    """Lengths of the axes, the fastest (columns) first."""
    dtype: str
    """numpy's name with the byte order."""
    channels: int
    compressed: bool
    spacing: tuple[float, ...] | None
    """Of each axis in mm; None where it is not stated."""
    directions: tuple[tuple[float, ...], ...] | None
    """Direction of each axis in LPS; None where it is not stated."""
    origin: tuple[float, ...]
    """Middle of the first voxel in LPS millimetres."""
    skipped_bytes: int
    """Bytes before the voxels in each file of them; -1 for voxels at its end."""
    files: tuple[str, ...]
    """Names of the files of voxels, in the header's folder; empty where they lie behind the header."""
    header_bytes: int

    @property
    def is_image(self) -> bool:
        """Return whether there is one slice: an image, not a volume."""
        return math.prod(self.shape[2:]) == 1


def is_metaimage(head: bytes) -> bool:
    """Recognise a MetaImage by its first bytes."""
    return _FIRST.match(head) is not None and _AXES.search(head) is not None


def read_metaimage_header(file: BinaryIO) -> MetaImageHeader:
    """Read the text at the beginning of a MetaImage.

    Raises:
        MedclipError: CORRUPT, TRUNCATED (no ElementDataFile); NOT_SUPPORTED_YET for values written as text and for
            types of value that are none of numbers; MISSING_FILE for voxels in another folder.
    """
    head = file.read(_USUAL_BYTES)
    last = _LAST.search(head)
    if last is None or b"\n" not in last[0]:
        head += file.read(MOST_BYTES)
        last = _LAST.search(head)
    if last is None:
        raise MedclipError(
            Reason.TRUNCATED, "the MetaImage header does not say where the voxels are; its end is missing."
        )
    fields = _fields(head[: last.start()])
    shape = _shape(fields)
    data = last[1].decode("utf-8", "replace").strip()
    listing = head[last.end() :]
    if data.upper().split(" ")[0] == "LIST":
        listing += file.read(MOST_BYTES)
    return MetaImageHeader(
        shape,
        _dtype(fields),
        _integer(fields, 1, "ElementNumberOfChannels"),
        _is_true(fields, "CompressedData"),
        _numbers(fields, len(shape), "ElementSpacing", "ElementSize"),
        _directions(fields, len(shape)),
        _numbers(fields, len(shape), "Offset", "Position", "Origin") or (0.0,) * len(shape),
        _integer(fields, 0, "HeaderSize"),
        _files(data, listing),
        last.end(),
    )


def _fields(text: bytes) -> dict[str, str]:
    lines = (line.partition("=") for line in text.decode("latin-1").splitlines())
    return {name.strip(): value.strip() for name, mark, value in lines if mark}


def _first(fields: dict[str, str], *names: str) -> str | None:
    return next((fields[name] for name in names if fields.get(name)), None)


def _integer(fields: dict[str, str], default: int, name: str) -> int:
    value = _first(fields, name)
    try:
        return default if value is None else int(value)
    except ValueError:
        raise _senseless(name) from None


def _is_true(fields: dict[str, str], *names: str) -> bool:
    return (_first(fields, *names) or "").lower()[:1] in ("t", "1", "y")


def _shape(fields: dict[str, str]) -> tuple[int, ...]:
    axes = _integer(fields, 0, "NDims")
    lengths = _numbers(fields, axes, "DimSize") if 2 <= axes <= _MOST_AXES else None
    if lengths is None or any(length != int(length) or not 1 <= length < _MOST_LENGTH for length in lengths):
        raise _senseless("DimSize")
    return tuple(int(length) for length in lengths)


def _dtype(fields: dict[str, str]) -> str:
    if _first(fields, "BinaryData") is not None and not _is_true(fields, "BinaryData"):
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET, "the MetaImage holds its values as text; write it with binary data, or as NIfTI."
        )
    kind = (_first(fields, "ElementType") or "").upper().removeprefix("MET_").removesuffix("_ARRAY")
    if kind not in _TYPES:
        raise MedclipError(Reason.NOT_SUPPORTED_YET, "the MetaImage holds a type of value that medclip does not read.")
    order = ">" if _is_true(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
    return order + _TYPES[kind]


def _numbers(fields: dict[str, str], count: int, *names: str) -> tuple[float, ...] | None:
    value = _first(fields, *names)
    if value is None:
        return None
    try:
        numbers = tuple(float(word) for word in value.split())
    except ValueError:
        raise _senseless(names[0]) from None
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise _senseless(names[0])
    return numbers


def _directions(fields: dict[str, str], axes: int) -> tuple[tuple[float, ...], ...] | None:
    numbers = _numbers(fields, axes * axes, "TransformMatrix", "Rotation", "Orientation")
    if numbers is None:
        return None
    return tuple(numbers[axis * axes : (axis + 1) * axes] for axis in range(axes))


def _files(data: str, listing: bytes) -> tuple[str, ...]:
    """Return the names of the files of voxels: none (LOCAL), one, a list, or a pattern with first, last and step."""
    words = data.split()
    if data.upper() == "LOCAL":
        return ()
    if words and words[0].upper() == "LIST":
        names = [line.strip() for line in listing.decode("utf-8", "replace").splitlines() if line.strip()]
    elif len(words) >= 3 and "%" in words[0]:
        names = _numbered(words)
    else:
        names = [data]
    names = [name[2:] if name.startswith(("./", ".\\")) else name for name in names]
    if not names or not all(names) or len(names) > MOST_FILES:
        raise _senseless("ElementDataFile")
    if any(PurePath(name).name != name or "\\" in name or "\0" in name for name in names):
        raise MedclipError(
            Reason.MISSING_FILE,
            "the MetaImage header says that its voxels lie in another folder, which is not looked into.",
            hint="Put them beside the header, and name them there without a folder.",
        )
    return tuple(names)


def _numbered(words: list[str]) -> list[str]:
    match = re.fullmatch(r"([^%]*)%(0?\d{0,2})[du]([^%]*)", words[0])
    try:
        first, last, step = (int(word) for word in (*words[1:4], "1")[:3])
    except ValueError:
        raise _senseless("ElementDataFile") from None
    if match is None or step < 1 or not 0 <= first <= last or (last - first) // step >= MOST_FILES:
        raise _senseless("ElementDataFile")
    return [f"{match[1]}{number:{match[2]}d}{match[3]}" for number in range(first, last + 1, step)]


def _senseless(name: str) -> MedclipError:
    return MedclipError(Reason.CORRUPT, f"the MetaImage header makes no sense ({name}).")
