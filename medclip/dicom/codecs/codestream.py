"""What compressed pixel data says of itself in its first bytes: the codec and the size of the image."""

from __future__ import annotations

from collections.abc import Iterator

from medclip.dicom.codecs.transfer_syntax import BASELINE, EXTENDED, JPEG_2000, JPEG_LS, LOSSLESS, RLE

_FIRST_ITEM = b"\xfe\xff\x00\xe0"
_JPEG = b"\xff\xd8"
_JPEG_2000 = b"\xff\x4f\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  "
_CODESTREAM_BOX = b"jp2c"
_SYNTAX_OF = {
    0xC0: BASELINE,
    0xC1: EXTENDED,
    0xC3: LOSSLESS,
    0xF7: JPEG_LS,
}
_SIZES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Markers of a frame header; the three that are left out stand for tables and extensions."""


def syntax_of(data: bytes) -> str:
    """Return the transfer syntax of encapsulated pixel data by its first fragment; "" where it is none that is known.

    Args:
        data: The pixel data from its first item on, or enough of it.
    """
    if data[:4] != _FIRST_ITEM:
        return ""
    frame = data[8 + int.from_bytes(data[4:8], "little") + 8 :]
    if siz_of(frame) is not None:
        return JPEG_2000[1]
    if frame[:2] == _JPEG:
        return next((_SYNTAX_OF[marker] for marker, _ in _segments(frame) if marker in _SYNTAX_OF), "")
    return RLE if 1 <= int.from_bytes(frame[:4], "little") <= 15 else ""


def size_of(frame: bytes) -> tuple[int, int] | None:
    """Return rows and columns that a compressed frame claims, so that a small file cannot ask for all memory there is.

    Args:
        frame: JPEG, JPEG-LS, JPEG 2000 or HTJ2K.

    Returns:
        None where it says none: other codecs, and JPEGs that state their height at the end.
    """
    siz = siz_of(frame)
    if siz is not None:
        # Xsiz, Ysiz, XOsiz, YOsiz (ISO 15444-1, A.5.1)
        right, bottom, left, top = (int.from_bytes(frame[siz + at : siz + at + 4], "big") for at in (8, 12, 16, 20))
        return bottom - top, right - left
    if frame[:2] != _JPEG:
        return None
    for marker, body in _segments(frame):
        if marker in _SIZES and len(body) >= 5:
            rows, columns = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            return (rows, columns) if rows and columns else None
    return None


def siz_of(frame: bytes) -> int | None:
    """Return the place of a JPEG 2000 codestream: at the start, or behind the boxes of a JP2 file; None without one."""
    if frame[:4] == _JPEG_2000:
        return 0
    if frame[:8] != _JP2:
        return None
    at = 0
    while at + 16 <= len(frame):
        length, head = int.from_bytes(frame[at : at + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(frame[at + 8 : at + 16], "big"), 16
        if frame[at + 4 : at + 8] == _CODESTREAM_BOX:
            at += head
            return at if frame[at : at + 4] == _JPEG_2000 else None
        if length < head:
            return None
        at += length
    return None


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and body of the segments before the first scan."""
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        length = int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xDA or length < 2:
            return
        yield marker, frame[at + 4 : at + 2 + length]
        at += 2 + length
