"""Just enough of TIFF to tell a whole-slide image from a picture: the first directories' tags."""

from __future__ import annotations

import struct
from typing import BinaryIO

_DESCRIPTION, _MAKE, _SOFTWARE, _TILE_WIDTH, _SUB_IFDS, _NDPI = 270, 271, 305, 322, 330, 65420
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_VENDOR_WORDS = (b"aperio", b"<ome", b"ome.xsd", b"dpufsimport", b"<iscan", b"leica-microsystems", b"<encodeinfo")
_MAX_DIRECTORIES = 3


def is_slide(file: BinaryIO) -> bool:
    """Say whether an open TIFF is a whole-slide image.

    A slide is a TIFF that names a slide vendor (Aperio, Hamamatsu, OME, Philips, Ventana, Leica), or that is stored in
    tiles with more than one resolution. A single tiled picture is an ordinary TIFF. Damaged directories count as
    ordinary: reading them gives the reason.
    """
    try:
        return _is_slide(file)
    except (struct.error, OSError, OverflowError, ValueError):
        return False


def _is_slide(file: BinaryIO) -> bool:
    file.seek(0)
    start = file.read(16)
    endian = "<" if start[:2] == b"II" else ">"
    big = struct.unpack_from(f"{endian}H", start, 2)[0] == 43
    (offset,) = struct.unpack_from(f"{endian}Q", start, 8) if big else struct.unpack_from(f"{endian}I", start, 4)
    tiled = 0
    directories = 0
    while offset and directories < _MAX_DIRECTORIES:
        tags, offset = _directory(file, offset, endian, big=big)
        directories += 1
        tiled += _TILE_WIDTH in tags
        words = b" ".join(tags.get(tag, b"") for tag in (_DESCRIPTION, _MAKE, _SOFTWARE)).lower()
        if _NDPI in tags or b"hamamatsu" in words or any(word in words for word in _VENDOR_WORDS):
            return True
        if _TILE_WIDTH in tags and _SUB_IFDS in tags:
            return True
    return tiled > 0 and directories > 1


def _directory(file: BinaryIO, offset: int, endian: str, *, big: bool) -> tuple[dict[int, bytes], int]:
    """Read one directory: tag -> its bytes (texts only, others empty), and the next directory's offset."""
    file.seek(offset)
    count_format, entry_size, pointer = (f"{endian}Q", 20, f"{endian}Q") if big else (f"{endian}H", 12, f"{endian}I")
    (count,) = struct.unpack(count_format, file.read(struct.calcsize(count_format)))
    if count > 4096:
        raise ValueError("implausible number of tags")
    block = file.read(count * entry_size)
    (following,) = struct.unpack(pointer, file.read(struct.calcsize(pointer)))
    inline = 8 if big else 4
    tags: dict[int, bytes] = {}
    for at in range(0, count * entry_size, entry_size):
        tag, kind = struct.unpack_from(f"{endian}HH", block, at)
        (length,) = struct.unpack_from(pointer, block, at + 4)
        value = block[at + entry_size - inline : at + entry_size]
        size = length * _SIZES.get(kind, 1)
        if tag in (_DESCRIPTION, _MAKE, _SOFTWARE) and size > inline:
            file.seek(struct.unpack(pointer, value)[0])
            value = file.read(min(size, 8192))
        tags[tag] = value
    return tags, following
