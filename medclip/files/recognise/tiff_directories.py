"""Just enough of TIFF to tell a whole-slide image from a plain one: the first directories' tags."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

_WIDTH, _HEIGHT, _ACROSS, _DOWN, _UNIT = 256, 257, 282, 283, 296
_DESCRIPTION, _MAKE, _SOFTWARE, _TILE_WIDTH, _SUB_IFDS, _NDPI = 270, 271, 305, 322, 330, 65420
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_VENDOR_WORDS = (b"aperio", b"hamamatsu", b"dpufsimport", b"<iscan", b"leica-microsystems", b"<encodeinfo", b"trestle")
_OME_WORDS = (b"<ome", b"ome.xsd")
_MAX_DIRECTORIES = 3
_LARGE_PIXELS = 64_000_000
"""A single image in tiles is a slide from this size on: no camera makes one, and 8,000 x 8,000 px are 2 x 2 mm."""
_MICROSCOPE_PIXELS = 16_000_000
_MICROSCOPE_UM = (0.05, 5.0)
"""With a pixel of this size it is a slide from 4,000 x 4,000 px on; smaller ones are tiles cut from a slide."""

_STORED = ((273, 279), (324, 325))
"""Places and lengths of strips, and of tiles."""
_PLACES = frozenset({_SUB_IFDS, *(tag for pair in _STORED for tag in pair)})
_WHOLE = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of whole numbers that places have."""
_MOST_DIRECTORIES = 4096

_Tags = dict[int, bytes]


def is_slide(file: BinaryIO) -> bool:
    """Return whether an open TIFF is a whole-slide image.

    A slide is a TIFF that names a slide vendor (Aperio, Hamamatsu, OME, Philips, Ventana, Leica), that is stored in
    tiles with more than one resolution, or a single image in tiles that is larger than images are. A smaller one is
    an ordinary TIFF. Damaged directories count as ordinary: reading them gives the reason.
    """
    try:
        return _is_slide(file)
    except (struct.error, OSError, OverflowError, ValueError):
        return False


def is_vendors(file: BinaryIO) -> bool:
    """Return whether an open TIFF is in a vendor's own format (SVS, NDPI, SCN, BIF, Philips, Trestle): levels and scale
    lie where only a reader of that format looks.
    """
    try:
        return any(_names(tags, _VENDOR_WORDS) or _NDPI in tags for tags, _ in _directories(file))
    except (struct.error, OSError, OverflowError, ValueError):
        return False


def ends_early(file: BinaryIO) -> bool:
    """Return whether an open TIFF was cut: a directory, or a strip or tile of one, reaches beyond the end of the file.

    Directories that cannot be parsed for another reason count as whole: reading them gives the reason.
    """
    size = file.seek(0, io.SEEK_END)
    try:
        endian, big, offset = _start(file)
        waiting = [offset]
        for _ in range(_MOST_DIRECTORIES):
            offset = waiting.pop() if waiting else 0
            if not offset:
                return False
            if offset >= size:
                return True
            tags, following = _directory(file, offset, endian, big=big, places=True)
            if _NDPI in tags and size >= 1 << 32:  # its pointers of 32 bits point anywhere
                return False
            for places, lengths in _STORED:
                pairs = zip(_numbers(tags, places), _numbers(tags, lengths), strict=False)
                if any(at + count > size for at, count in pairs if at and count):
                    return True
            waiting += [following, *_numbers(tags, _SUB_IFDS)]
    except struct.error:  # the file ended
        return True
    except (OSError, OverflowError, ValueError):
        return False
    return False


def _numbers(tags: _Tags, tag: int) -> tuple[int, ...]:
    """Read whole numbers that `_directory` brought to eight bytes."""
    value = tags.get(tag, b"")
    return struct.unpack(f"<{len(value) // 8}Q", value) if len(value) % 8 == 0 else ()


def _is_slide(file: BinaryIO) -> bool:
    tiled, first, levels = 0, None, 0
    for tags, endian in _directories(file):
        levels += 1
        first = first or (tags, endian)
        tiled += _TILE_WIDTH in tags
        if _NDPI in tags or _names(tags, _VENDOR_WORDS) or _names(tags, _OME_WORDS):
            return True
        if _TILE_WIDTH in tags and _SUB_IFDS in tags:
            return True
    return tiled > 0 and (levels > 1 or (first is not None and _is_large(*first)))


def _is_large(tags: _Tags, endian: str) -> bool:
    """Return whether an image is larger than others are, or large with a microscope's pixels."""
    pixels = _whole(tags, _WIDTH, endian) * _whole(tags, _HEIGHT, endian)
    if pixels < _MICROSCOPE_PIXELS or pixels >= _LARGE_PIXELS:
        return pixels >= _LARGE_PIXELS
    unit_um = {2: 25400.0, 3: 10000.0}.get(_whole(tags, _UNIT, endian) if _UNIT in tags else 2, 0.0)
    sides = [_ratio(tags, tag, endian) for tag in (_ACROSS, _DOWN)]
    low, high = _MICROSCOPE_UM
    return all(side > 0 and low <= unit_um / side <= high for side in sides)


def _names(tags: _Tags, words: tuple[bytes, ...]) -> bool:
    text = b" ".join(tags.get(tag, b"") for tag in (_DESCRIPTION, _MAKE, _SOFTWARE)).lower()
    return any(word in text for word in words)


def _whole(tags: _Tags, tag: int, endian: str) -> int:
    """Read a whole number of 2, 4 or 8 bytes; 0 where there is none."""
    value = tags.get(tag, b"")
    return int.from_bytes(value, "little" if endian == "<" else "big") if len(value) in (2, 4, 8) else 0


def _ratio(tags: _Tags, tag: int, endian: str) -> float:
    """Read a rational; 0 where there is none."""
    value = tags.get(tag, b"")
    if len(value) != 8:
        return 0.0
    top, bottom = struct.unpack(f"{endian}II", value)
    return top / bottom if bottom else 0.0


def _start(file: BinaryIO) -> tuple[str, bool, int]:
    """Read byte order, whether places have 64 bits (BigTIFF), and the place of the first directory."""
    file.seek(0)
    start = file.read(16)
    endian = "<" if start[:2] == b"II" else ">"
    big = struct.unpack_from(f"{endian}H", start, 2)[0] == 43
    (offset,) = struct.unpack_from(f"{endian}Q", start, 8) if big else struct.unpack_from(f"{endian}I", start, 4)
    return endian, big, offset


def _directories(file: BinaryIO) -> Iterator[tuple[_Tags, str]]:
    """Read the first directories, each with the byte order."""
    endian, big, offset = _start(file)
    for _ in range(_MAX_DIRECTORIES):
        if not offset:
            return
        tags, offset = _directory(file, offset, endian, big=big)
        yield tags, endian


def _directory(file: BinaryIO, offset: int, endian: str, *, big: bool, places: bool = False) -> tuple[_Tags, int]:
    """Read one directory: tag -> its bytes (of texts, sizes and resolution), and the next directory's offset.

    With `places`, where pixels and further directories lie is read in full, eight bytes (little endian) for each.
    """
    file.seek(offset)
    count_format, entry_size, pointer = (f"{endian}Q", 20, f"{endian}Q") if big else (f"{endian}H", 12, f"{endian}I")
    (count,) = struct.unpack(count_format, file.read(struct.calcsize(count_format)))
    if count > 4096:
        raise ValueError("implausible number of tags")
    block = file.read(count * entry_size)
    (following,) = struct.unpack(pointer, file.read(struct.calcsize(pointer)))
    inline = 8 if big else 4
    tags: _Tags = {}
    for at in range(0, count * entry_size, entry_size):
        tag, kind = struct.unpack_from(f"{endian}HH", block, at)
        (length,) = struct.unpack_from(pointer, block, at + 4)
        value = block[at + entry_size - inline : at + entry_size]
        size = length * _SIZES.get(kind, 1)
        if places and tag in _PLACES and kind in _WHOLE:
            if size > inline:
                file.seek(struct.unpack(pointer, value)[0])
                value = file.read(size)
            numbers = struct.unpack(f"{endian}{length}{_WHOLE[kind]}", value[:size])
            value = struct.pack(f"<{length}Q", *numbers)
        elif size <= inline:
            value = value[:size]
        elif tag in (_DESCRIPTION, _MAKE, _SOFTWARE, _ACROSS, _DOWN):
            file.seek(struct.unpack(pointer, value)[0])
            value = file.read(min(size, 8192))
        tags[tag] = value
    return tags, following
