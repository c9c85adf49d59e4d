"""Does an image file go on to its end? Each format says where that is; decoders do not always look.

Pillow reads a PNG without its last chunk, a GIF without its trailer, a WebP whose second half is zeros and a tile of a
TIFF that ends behind the file. What a format cannot tell (zeros among uncompressed pixels) is not looked for.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from medclip.dicom.codecs.completeness import NO_END, UNTERMINATED_HINT, lacks
from medclip.dicom.codecs.jpeg_stream import EMPTY_TAIL
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format

_STRIPS, _TILES = (273, 279), (324, 325)
"""Tags of the places and lengths of what a TIFF stores."""
_MAY_END_IN_ZEROS = frozenset({1, 2, 3, 4, 32773})
"""TIFF compressions whose data may well end in zeros: none, CCITT and PackBits."""
_COMPRESSION = 259
_WRONG_SUM = "the check sum of its pixels is wrong"


def file_lacks(file: BinaryIO, fmt: Format) -> str:
    """Return what a file lacks, as `completeness.lacks` does; its position is back at the start.

    Args:
        file: An open file.
        fmt: Its format; of one without an end marker ("BMP", "TIFF") nothing is said.
    """
    walk = _WALKS.get(fmt)
    if walk is None:
        return ""
    file.seek(0)
    try:
        return walk(file)
    finally:
        file.seek(0)


def cut(fmt: Format, lacking: str) -> MedclipError:
    """Return the refusal of a file that lacks something."""
    if lacking == _WRONG_SUM:
        return MedclipError(Reason.CORRUPT, f"the {fmt.upper()} image is damaged: {lacking}.")
    hint = UNTERMINATED_HINT if lacking == NO_END else ""
    return MedclipError(Reason.TRUNCATED, f"the {fmt.upper()} image ends before its pixels do: {lacking}.", hint=hint)


def tiff_segments(tags: Mapping[int, Any]) -> tuple[Sequence[int], Sequence[int], int]:
    """Return offsets and lengths of a TIFF directory's strips or tiles, and its compression, from Pillow's tags."""
    offsets, counts = _TILES if _TILES[0] in tags else _STRIPS
    return tags.get(offsets, ()), tags.get(counts, ()), tags.get(_COMPRESSION, 1)


def check_segments(file: BinaryIO, offsets: Sequence[int], counts: Sequence[int], compression: int) -> None:
    """Refuse a TIFF whose strips or tiles do not lie wholly in the file, or end in zeros where compressed data ends.

    Raises:
        MedclipError: TRUNCATED.
    """
    size = file.seek(0, io.SEEK_END)
    for offset, count in zip(offsets, counts, strict=False):
        if offset + count > size:
            raise MedclipError(Reason.TRUNCATED, "the TIFF image ends before its pixels do.")
        if count > EMPTY_TAIL:
            file.seek(offset + count - EMPTY_TAIL)
            if ends_in_zeros(file.read(EMPTY_TAIL), compression):
                raise MedclipError(Reason.TRUNCATED, "the TIFF image holds zeros where its compressed pixels go on.")
    file.seek(0)


def ends_in_zeros(segment: bytes, compression: int) -> bool:
    """Return whether a strip or tile of a TIFF ends in zeros where its compressed data would end otherwise."""
    return compression not in _MAY_END_IN_ZEROS and segment.endswith(bytes(EMPTY_TAIL))


def _stream(file: BinaryIO) -> str:
    return lacks(file.read())


def _png(file: BinaryIO) -> str:
    """Walk from chunk to chunk (length, type, body, check sum) to IEND. Pillow leaves the sums of pixels aside."""
    data = memoryview(file.read())
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = bytes(data[at + 4 : at + 8])
        if kind == b"IEND":
            return ""
        stated = int.from_bytes(data[end - 4 : end], "big")
        if kind == b"IDAT" and end <= len(data) and zlib.crc32(data[at + 4 : end - 4]) != stated:
            return _WRONG_SUM
        at = end
    return NO_END if at <= len(data) else "it ends inside a chunk"


def _gif(file: BinaryIO) -> str:
    """Walk over blocks to the trailer."""
    data = file.read()
    at = 13 + _colours(data[10:11])
    while at < len(data):
        kind = data[at : at + 1]
        if kind == b";":
            return ""
        if kind == b"!":
            at += 2
        elif kind == b",":
            at += 11 + _colours(data[at + 9 : at + 10])
        else:
            break
        while at < len(data) and data[at]:
            at += 1 + data[at]
        if at >= len(data):
            return "it ends inside a block"
        at += 1
    return NO_END


def _colours(flags: bytes) -> int:
    """Return the bytes of a GIF's colour table."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _webp(file: BinaryIO) -> str:
    end = 8 + int.from_bytes(file.read(8)[4:], "little")
    if file.seek(0, io.SEEK_END) < end:
        return "it is shorter than it states"
    file.seek(max(0, end - EMPTY_TAIL))
    return "" if any(file.read(EMPTY_TAIL)) else "it holds zeros where its compressed pixels go on"


_WALKS: Mapping[Format, Callable[[BinaryIO], str]] = {
    Format.JPEG: _stream,
    Format.JPEG2000: _stream,
    Format.PNG: _png,
    Format.GIF: _gif,
    Format.WEBP: _webp,
}
