"""The size that a compressed tile or strip claims for itself, compared with its place in the file before it is decoded.

A TIFF states the size of its tiles, and each tile that is a JPEG, JPEG 2000, PNG, WebP, JPEG XL, JPEG XR or LERC
stream states one of its own. Decoders believe the stream: 300 bytes in a tile of 256 x 256 pixels can claim
40,000 x 40,000 and take gigabytes. Deflate, LZMA, LZW, zstd and PackBits state none; their decoders fill the tile and
stop.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping

from medclip.dicom.codecs.codestream import size_of
from medclip.errors import MedclipError, Reason

_PADDING_PX = 16
"""A stream may be larger than its place by filling up to the codec's blocks."""
_JXL_BITS = (9, 13, 18, 30)
_JXL_START = 16
"""Bytes that hold the signature and a size of the longest form."""


def check_stated_size(stream: bytes, rows: int, columns: int) -> None:
    """Refuse a compressed tile or strip that claims to be larger than its place.

    Args:
        stream: Bytes of the tile or strip.
        rows: Rows of its place, in pixels.
        columns: Columns of its place, in pixels.

    Raises:
        MedclipError: CORRUPT.
    """
    size = stated_size(stream)
    if size is not None and (size[0] > rows + _PADDING_PX or size[1] > columns + _PADDING_PX):
        raise MedclipError(
            Reason.CORRUPT,
            f"a stored part of {rows} x {columns} pixels claims to hold {size[0]} x {size[1]}; it is not decoded.",
        )


def stated_size(stream: bytes) -> tuple[int, int] | None:
    """Return rows and columns that a compressed stream claims; None for codecs that state none."""
    reader = next((read for start, read in _READERS.items() if stream.startswith(start)), size_of)
    try:
        return reader(stream)
    except (struct.error, IndexError, ValueError):  # ends within its header; its decoder says so
        return None


def _png(stream: bytes) -> tuple[int, int] | None:
    columns, rows = struct.unpack_from(">II", stream, 16)
    return rows, columns


def webp_size(stream: bytes) -> tuple[int, int] | None:
    """Return rows and columns as a WebP's first chunk states them (RFC 9649); None if it is no VP8, VP8L or VP8X."""
    chunk, body = stream[12:16], stream[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[7:10], "little"), 1 + int.from_bytes(body[4:7], "little")
    if chunk == b"VP8L" and body[0] == 0x2F:
        packed = int.from_bytes(body[1:5], "little")
        return 1 + (packed >> 14 & 0x3FFF), 1 + (packed & 0x3FFF)
    if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[8:10], "little") & 0x3FFF, int.from_bytes(body[6:8], "little") & 0x3FFF
    return None


def _jpeg_xr(stream: bytes) -> tuple[int, int] | None:
    """Read the directory (ITU-T T.832, A.7): tags BC80 and BC81, of 16 or 32 bits."""
    (start,) = struct.unpack_from("<I", stream, 4)
    sizes: dict[int, int] = {}
    for i in range(struct.unpack_from("<H", stream, start)[0]):
        tag, kind = struct.unpack_from("<HH", stream, start + 2 + 12 * i)
        sizes[tag] = struct.unpack_from("<H" if kind == 3 else "<I", stream, start + 10 + 12 * i)[0]
    return (sizes[0xBC81], sizes[0xBC80]) if {0xBC80, 0xBC81} <= sizes.keys() else None


def _lerc(stream: bytes) -> tuple[int, int] | None:
    """Read the header of LERC 2: version, a check sum from version 3 on, rows, columns."""
    (version,) = struct.unpack_from("<i", stream, 6)
    rows, columns = struct.unpack_from("<ii", stream, 14 if version >= 3 else 10)
    return rows, columns


def _jpeg_xl(stream: bytes) -> tuple[int, int] | None:
    """Read the SizeHeader (ISO/IEC 18181-1, D.2), bits from the lowest of each byte on."""
    head = int.from_bytes(stream[2:16], "little")

    def take(count: int) -> int:
        nonlocal head
        value, head = head & ((1 << count) - 1), head >> count
        return value

    def side(*, small: bool) -> int:
        return (take(5) + 1) * 8 if small else take(_JXL_BITS[take(2)]) + 1

    small = bool(take(1))
    rows = side(small=small)
    ratio = take(3)
    parts = ((0, 1), (1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    return rows, side(small=small) if not ratio else rows * parts[0] // parts[1]


def _jpeg_xl_boxes(stream: bytes) -> tuple[int, int] | None:
    """Find the start of the codestream among the boxes of a JPEG XL file; it may be cut into any parts (jxlp)."""
    file, start = io.BytesIO(stream), b""
    while len(start) < _JXL_START and len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if length == 1:
            length = int.from_bytes(file.read(8), "big") - 8
        if length == 0:  # up to the end
            length = len(stream)
        if length < 8:
            break
        end = file.tell() + length - 8
        if kind in (b"jxlc", b"jxlp"):
            body = file.read(min(length - 8, 4 + _JXL_START))
            start += body[4 if kind == b"jxlp" else 0 :]
        file.seek(min(end, len(stream)))
    return _jpeg_xl(start) if start.startswith(b"\xff\x0a") else None


_READERS: Mapping[bytes, Callable[[bytes], tuple[int, int] | None]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"RIFF": webp_size,
    b"II\xbc": _jpeg_xr,
    b"Lerc2 ": _lerc,
    b"\xff\x0a": _jpeg_xl,
    b"\x00\x00\x00\x0cJXL \r\n\x87\n": _jpeg_xl_boxes,
}
