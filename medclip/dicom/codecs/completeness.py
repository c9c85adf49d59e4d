"""Does a compressed image hold all of itself? A walk over its markers, without decoding.

Most decoders take what there is and fill the rest with grey: of streams cut at 50 % libjpeg-turbo (imagecodecs) decodes
all JPEG processes, OpenJPH (imagecodecs) HTJ2K, and OpenJPEG reads JPEG 2000 whose second half is zeros. So a frame
counts only with its end marker, and JPEG 2000 with all parts of all tiles (ISO 15444-1, A.4.2), none of which ends in
zeros. What follows the end marker is filling. Whether the data before the end marker of a JPEG suffices is seen while
it is decoded (codestream). Streams of other codecs are left to their decoders, which refuse cut ones (measured: RLE,
JPEG-LS, JPEG XL).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from medclip.dicom.codecs.codestream import EMPTY_TAIL, END, SOI, JpegStream, read_jpeg, siz_of

_Image = TypeVar("_Image")
NO_END = "it has no end marker"
"""What an unterminated stream lacks; its data may be all there."""
UNTERMINATED_HINT = (
    "Where a device writes no end markers, --reading accept_unterminated=true reads what is otherwise all there."
)
UNTERMINATED = "no end marker; the data was all there"
"""What is said of an image that was read without one."""

_COD, _SOT = b"\xff\x52", b"\xff\x90"


def lacks(stream: bytes, jpeg: JpegStream | None = None) -> str:
    """Return what a compressed image lacks.

    Args:
        stream: JPEG (all processes), JPEG-LS, JPEG 2000 or HTJ2K, bare or in JP2 boxes.
        jpeg: The parts of a JPEG or JPEG-LS, where they are known.

    Returns:
        "" for one that is all there, and for other codecs; `NO_END` where only the end marker is missing as far as a
        look at the markers tells; else what is missing in words.

    Example:
        >>> lacks(bytes.fromhex("ffd8 ffda0002 1234 ffd9 0000")), lacks(bytes.fromhex("ffd8 ffda0002 1234 0000"))
        ('', 'it has no end marker')
    """
    if stream[:2] == SOI:
        return _jpeg(stream, jpeg or read_jpeg(stream))
    start = siz_of(stream)
    return "" if start is None else _jpeg_2000(stream, start)


def decode_unterminated(
    stream: bytes, decode: Callable[[bytes], _Image], pixels: Callable[[_Image], bytes] = bytes
) -> _Image:
    """Decode a stream that lacks its end marker and nothing else.

    A decoder that runs out of data makes some up. It is told by what it makes of two streams that go on differently:
    equal images need none of what follows. JPEG 2000 is told by its tile-parts, and JPEG-LS by its decoder.

    Args:
        stream: A stream of which `lacks` says `NO_END`.
        decode: Decoder of the stream.
        pixels: Function that takes the pixels out of what `decode` returns.

    Raises:
        ValueError: Where data is missing, too.
    """
    start = siz_of(stream)
    if start is not None:
        return decode(stream[: _tile_parts(stream, start)[1]] + END)
    # Zeros at the end may be filling or data: JPEG data ends in few, filling in any number.
    body = stream.rstrip(b"\0")
    zeros = len(stream) - len(body)
    jpeg = read_jpeg(stream)
    tried = [zeros] if zeros < EMPTY_TAIL else []
    for number in [*tried, *range(min(zeros, 3))]:
        ended = body + bytes(number)
        if not jpeg.is_ls:  # an FF that no zero follows is no data, and would make a marker of the next byte
            ended = ended.rstrip(b"\xff")
        try:
            decoded = decode(ended + END)
            if jpeg.is_ls or pixels(decode(ended + jpeg.other_data + END)) == pixels(decoded):
                return decoded
        except Exception:  # noqa: S112 - each codec has an error type of its own
            continue
    raise ValueError("the stream ends before its data does")


def _jpeg(stream: bytes, jpeg: JpegStream) -> str:
    if jpeg.data >= len(stream) and not stream.endswith(END):
        return "it ends inside its header"
    if jpeg.lacks_scans:
        return "its last scans are missing"
    return NO_END if 0 < jpeg.data < len(stream) and jpeg.end < 0 else ""


def _jpeg_2000(stream: bytes, start: int) -> str:
    lacking, end = _tile_parts(stream, start)
    return lacking or ("" if stream[end : end + 2] == END else NO_END)


def _tile_parts(stream: bytes, start: int) -> tuple[str, int]:
    """Walk from tile-part to tile-part by their lengths; return what is missing among them, and where they end."""
    tiles, empty_packets, at = _main_header(stream, start)
    if not tiles:
        return "it ends inside its header", 0
    zeros = bytes(min(EMPTY_TAIL + empty_packets, len(stream)))
    parts: dict[int, int] = {}
    stated: dict[int, int] = {}
    while stream[at : at + 2] == _SOT and len(stream) >= at + 12:
        tile, length, count = (
            int.from_bytes(stream[at + first : at + last], "big") for first, last in ((4, 6), (6, 10), (11, 12))
        )
        parts[tile] = parts.get(tile, 0) + 1
        stated[tile] = max(stated.get(tile, 0), count)
        if not length:  # the last one goes as far as the end marker, which its data cannot hold
            end = stream.find(END, at)
            if end < 0:
                return "its last tile-part has no end", 0
        else:
            end = at + length
        if end < at + 14 or end > len(stream):
            return "it ends inside a tile-part", 0
        if stream.endswith(zeros, at + 14, end):
            return "a tile-part holds zeros where its compressed data goes on", 0
        at = end
        if not length:
            break
    if len(parts) < tiles:
        return f"{tiles - len(parts)} of its {tiles} tiles are missing", at
    if any(parts[tile] < stated[tile] for tile in parts):
        return "parts of its tiles are missing", at
    return "", at


def _main_header(stream: bytes, start: int) -> tuple[int, int, int]:
    """Return the number of tiles, the most packets that a tile can have, and where the first tile-part begins.

    All are 0 where the header is cut.
    """
    siz = start + 8
    width, height, left, top, tile_width, tile_height = (
        int.from_bytes(stream[siz + at : siz + at + 4], "big") for at in (0, 4, 24, 28, 16, 20)
    )
    if len(stream) < siz + 34 or not tile_width or not tile_height:
        return 0, 0, 0
    at, style = start + 2, b""
    while stream[at : at + 2] != _SOT:
        if at + 4 > len(stream) or stream[at] != 0xFF:
            return 0, 0, 0
        after = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at : at + 2] == _COD:
            style = stream[at + 4 : after]
        at = after
    components = int.from_bytes(stream[siz + 32 : siz + 34], "big")
    packets = components * _num_packets(style, min(tile_width, width - left), min(tile_height, height - top))
    return -(-(width - left) // tile_width) * -(-(height - top) // tile_height), packets, at


def _num_packets(style: bytes, width: int, height: int) -> int:
    """Return the packets of one component of a tile: an empty one is a byte of zeros (ISO 15444-1, A.6.1 and B)."""
    if len(style) < 10:
        return 0
    layers, levels = int.from_bytes(style[2:4], "big"), style[5]
    sizes = style[10:] if style[0] & 1 else b""
    number = 0
    for resolution in range(levels + 1):
        size = sizes[resolution] if resolution < len(sizes) else 0xFF
        shrunk = levels - resolution
        number += ((width >> shrunk + (size & 0x0F)) + 2) * ((height >> shrunk + (size >> 4)) + 2)
    return layers * number
