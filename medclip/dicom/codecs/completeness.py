"""Does a compressed image hold all of itself? A walk over its markers, without decoding.

Most decoders take what there is and fill the rest with grey: of streams cut at 50 % libjpeg-turbo (imagecodecs) decodes
all JPEG processes, OpenJPH (imagecodecs) HTJ2K, and OpenJPEG reads JPEG 2000 whose second half is zeros. So a frame
counts only with its end marker, and JPEG 2000 with all parts of all tiles (ISO 15444-1, A.4.2). What follows the end
marker is filling. Streams of other codecs are left to their decoders, which refuse cut ones (measured: RLE, JPEG XL).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from medclip.dicom.codecs.codestream import siz_of

_Image = TypeVar("_Image")
NO_END = "it has no end marker"
"""What an unterminated stream lacks; its data may be all there."""
UNTERMINATED_HINT = "Where a device writes no end markers, --accept-unterminated reads what is otherwise all there."
UNTERMINATED = "no end marker; the data was all there"
"""What is said of an image that was read without one."""
EMPTY_TAIL = 64
"""So many zeros at the end of what is compressed are filling that stands where data belongs."""

_END = b"\xff\xd9"
_SOI = b"\xff\xd8"
_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_JPEG_LS_MARKER = re.compile(rb"\xff+([\x80-\xcf\xd8-\xfe])")
"""Markers in compressed data: a byte FF of the data is followed by 00 (JPEG) or a byte below 80 (JPEG-LS)."""
_SCAN, _JPEG_LS, _TILE_PART = 0xDA, 0xF7, 0x90
_ALONE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8), *range(0x02, 0xC0)})
"""Markers without a segment."""
_OTHER_DATA = bytes(range(1, 200))
"""Stands behind a stream that is decoded a second time."""


def lacks(stream: bytes) -> str:
    """Return what a compressed image lacks.

    Args:
        stream: JPEG (all processes), JPEG-LS, JPEG 2000 or HTJ2K, bare or in JP2 boxes.

    Returns:
        "" for one that is all there, and for other codecs; `NO_END` where only the end marker is missing as far as a
        look at the markers tells; else what is missing in words.

    Example:
        >>> lacks(bytes.fromhex("ffd8 ffda0002 1234 ffd9 0000")), lacks(bytes.fromhex("ffd8 ffda0002 1234 0000"))
        ('', 'it has no end marker')
    """
    start = siz_of(stream)
    if start is not None:
        return _jpeg_2000(stream, start)
    return _jpeg(stream) if stream[:2] == _SOI else ""


def decode_unterminated(
    stream: bytes, decode: Callable[[bytes], _Image], pixels: Callable[[_Image], bytes] = bytes
) -> _Image:
    """Decode a stream that lacks its end marker and nothing else.

    A decoder that runs out of data makes some up. It is told by what it makes of two streams that go on differently:
    equal images need none of what follows. JPEG 2000 is told by its tile-parts, and JPEG-LS by its decoder.

    Args:
        stream: A stream of which `lacks` says `NO_END`.
        decode: Decodes it.
        pixels: Takes the pixels out of what `decode` returns.

    Raises:
        ValueError: Where data is missing, too.
    """
    start = siz_of(stream)
    if start is not None:
        body = stream[: _tile_parts(stream, start)[1]]
        if not body.endswith(bytes(EMPTY_TAIL)):  # else zeros stand where data was
            return decode(body + _END)
        raise ValueError("the stream ends before its data does")
    # Zeros at the end may be filling or data: JPEG data ends in few, filling in any number.
    body = stream.rstrip(b"\0")
    zeros = len(stream) - len(body)
    tried = [zeros] if zeros < EMPTY_TAIL else []
    for number in [*tried, *range(min(zeros, 3))]:
        ended = body + bytes(number)
        try:
            decoded = decode(ended + _END)
            if _jpeg_head(stream)[1] or pixels(decode(ended + _OTHER_DATA + _END)) == pixels(decoded):
                return decoded
        except Exception:  # noqa: S112 - each codec has an error type of its own
            continue
    raise ValueError("the stream ends before its data does")


def _jpeg_head(stream: bytes) -> tuple[int, bool]:
    """Return the place behind the first scan's header, and whether the stream is JPEG-LS.

    The place is 0 where bytes are no markers up to the end: damaged, and no decoder finds an image there.
    """
    at, is_ls = 2, False
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:  # decoders go on at the next marker
            at = stream.find(b"\xff", at)
            if at < 0:
                return 0, is_ls
            continue
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        is_ls |= marker == _JPEG_LS
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker == _SCAN:
            return at, is_ls
    return len(stream), is_ls


def _jpeg(stream: bytes) -> str:
    if stream.rstrip(b"\0").endswith(_END):  # neither compressed data nor the headers between scans hold this
        return ""
    at, is_ls = _jpeg_head(stream)
    if at >= len(stream):
        return "it ends inside its header"
    if not at:
        return ""
    pattern = _JPEG_LS_MARKER if is_ls else _JPEG_MARKER
    while (match := pattern.search(stream, at)) is not None:
        marker, at = match[1][0], match.end()
        if marker == _END[1]:
            return ""
        if marker not in _ALONE:
            at += int.from_bytes(stream[at : at + 2], "big")
    return NO_END


def _jpeg_2000(stream: bytes, start: int) -> str:
    lacking, end = _tile_parts(stream, start)
    return lacking or ("" if stream[end : end + 2] == _END else NO_END)


def _tile_parts(stream: bytes, start: int) -> tuple[str, int]:
    """Walk from tile-part to tile-part by their lengths; return what is missing among them, and where they end."""
    siz = start + 8
    width, height, _, _, tile_width, tile_height, left, top = (
        int.from_bytes(stream[siz + at : siz + at + 4], "big") for at in range(0, 32, 4)
    )
    if len(stream) < siz + 32 or not tile_width or not tile_height:
        return "it ends inside its header", 0
    tiles = -(-(width - left) // tile_width) * -(-(height - top) // tile_height)
    at = start + 2
    while stream[at : at + 2] != b"\xff\x90":
        if at + 4 > len(stream) or stream[at] != 0xFF:
            return "it ends inside its header", 0
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    parts: dict[int, int] = {}
    stated: dict[int, int] = {}
    while stream[at : at + 2] == b"\xff\x90" and len(stream) >= at + 12:
        tile, length, count = (
            int.from_bytes(stream[at + first : at + last], "big") for first, last in ((4, 6), (6, 10), (11, 12))
        )
        parts[tile] = parts.get(tile, 0) + 1
        stated[tile] = max(stated.get(tile, 0), count)
        if not length:  # the last one goes as far as the end marker, which its data cannot hold
            at = stream.find(_END, at)
            if at < 0:
                return "its last tile-part has no end", 0
            break
        if length < 14 or at + length > len(stream):
            return "it ends inside a tile-part", 0
        at += length
    if len(parts) < tiles:
        return f"{tiles - len(parts)} of its {tiles} tiles are missing", at
    if any(parts[tile] < stated[tile] for tile in parts):
        return "parts of its tiles are missing", at
    return "", at
