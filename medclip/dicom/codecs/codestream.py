"""What compressed pixel data says of itself: codec and size in its first bytes; whether a JPEG lasts to its end.

An end marker says little: a transfer that stops may be ended by hand, and a file of the right size may hold zeros.
libjpeg fills what is missing with mid-grey and only warns. Three signs tell, and none needs a walk over Huffman codes:

- Pillow hands its data to libjpeg in pieces. Without an end marker libjpeg waits for more where data is missing, and
  Pillow calls the file truncated; an image that is all there needs no more. So the end marker is left out: no cost.
- Decoders that make data up are given something else behind the data: an image that is all there stays as it is.
  That is a second decode, and only for images whose last pixel is the mid-grey that libjpeg fills in (measured: all
  processes, imagecodecs and GDCM), and for progressive ones in Pillow (libjpeg reads those to the end first).
- Zeros before the end marker must be needed: with 32 fewer, the image has to be another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from medclip.dicom.codecs.transfer_syntax import BASELINE, EXTENDED, JPEG_2000, JPEG_LS, LOSSLESS, RLE

FIRST_ITEM = b"\xfe\xff\x00\xe0"
"""The tag that all compressed pixel data begins with."""
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
    if data[:4] != FIRST_ITEM:
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


_Image = TypeVar("_Image")
END = b"\xff\xd9"
SOI = b"\xff\xd8"
DATA_MISSING = "its compressed data ends before its pixels do"
"""What a stream with an end marker lacks."""
EMPTY_TAIL = 64
"""So many zeros at the end of what is compressed are filling that stands where data belongs."""
OTHER_DATA = bytes(range(1, 200))
"""Stands behind a stream that is decoded a second time."""

_LOOK_AHEAD = b"\xff\x00" * 8
"""libjpeg takes up to eight bytes more than it needs; ones are no code of any table, so they stand for few pixels."""
_NOT_NEEDED = EMPTY_TAIL // 2
_EOI = END[1]
_PERIOD = 12
"""Bytes after which an image of one value repeats itself, for 1 to 4 components of 8 or 16 bits."""
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_JPEG_LS_MARKER = re.compile(rb"\xff+([\x80-\xcf\xd8-\xfe])")
"""Markers in compressed data: a byte FF of the data is followed by 00 (JPEG) or a byte below 80 (JPEG-LS)."""
_SCAN, _JPEG_LS = 0xDA, 0xF7
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), frozenset({0xC2, 0xCA})
_FRAMES = frozenset({*range(0xC0, 0xD0), _JPEG_LS} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8), *range(0x02, 0xC0)})
"""Markers without a segment."""
_COEFFICIENTS = 64
_ARITHMETIC = frozenset(range(0xC9, 0xD0)) - {0xCC}
_LEFT_OUT = bytes(8)
"""Arithmetic coders leave out zeros at the end (ISO 10918-1, D.1.8): a register's worth may be data."""


class DataMissingError(ValueError):
    """A stream whose compressed data ends before its pixels do."""


class JpegStream(NamedTuple):
    """The parts of a JPEG or JPEG-LS stream."""

    data: int
    """Where the first scan's compressed data begins; the length of a stream that ends before, and 0 where bytes are no
    markers up to the end: damaged, and no decoder finds an image there."""
    end: int
    """Where the end marker is, or the bytes FF that fill up to it; -1 without one."""
    is_ls: bool
    bits: int
    """Of a sample, as the frame header states; 0 without one."""
    may_wait: bool
    """Whether libjpeg waits for more where data is missing: sequential, Huffman-coded, all components in one scan."""
    lacks_scans: bool
    """Whether an end marker stands where scans are still to come."""
    is_arithmetic: bool = False

    @property
    def other_data(self) -> bytes:
        """What stands behind its data in a second decode; an image that is all there stays as it is."""
        return _LEFT_OUT + OTHER_DATA if self.is_arithmetic else OTHER_DATA


def read_jpeg(stream: bytes) -> JpegStream:
    """Walk over the markers of a stream that begins with SOI.

    Example:
        >>> read_jpeg(bytes.fromhex("ffd8 ffc0000b08 0001000101 011100 ffda0008 010100003f00 1234 ffd9")).end
        27
    """
    at, frame, is_ls = 2, b"", False
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:  # decoders go on at the next marker
            at = stream.find(b"\xff", at)
            if at < 0:
                return JpegStream(0, -1, is_ls, 0, may_wait=False, lacks_scans=False)
            continue
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        after = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            is_ls |= marker == _JPEG_LS
            frame = stream[at + 1 : after]
        elif marker == _SCAN:
            return _scans(stream, frame, at, after, is_ls=is_ls)
        at = after
    return JpegStream(len(stream), -1, is_ls, 0, may_wait=False, lacks_scans=False)


def _scans(stream: bytes, frame: bytes, at: int, data: int, *, is_ls: bool) -> JpegStream:
    """Find the end marker, which neither compressed data nor headers between scans hold, and look at the scans.

    `frame` is the frame header from its marker's second byte on, `at` and `data` begin and end the scan's header.
    """
    process, bits = (frame[0], frame[3]) if len(frame) > 8 else (0, 0)
    is_sequential, is_progressive = process in _SEQUENTIAL, process in _PROGRESSIVE
    is_arithmetic = process in _ARITHMETIC
    if not is_progressive and stream[at + 4 : at + 5] == frame[8:9]:
        end = _end_marker(stream, data)
        return JpegStream(data, end, is_ls, bits, is_sequential, lacks_scans=False, is_arithmetic=is_arithmetic)
    exact: dict[int, set[int]] = {component: set() for component in frame[9::3][: frame[8]]} if process else {}
    _note_scan(stream[at + 4 : data], exact, is_progressive=is_progressive)
    pattern, at, end = _JPEG_LS_MARKER if is_ls else _MARKER, data, -1
    while end < 0 and (match := pattern.search(stream, at)) is not None:
        marker, at = match[1][0], match.end()
        if marker == _EOI:
            end = match.start()
        elif marker not in _ALONE:
            after = at + int.from_bytes(stream[at : at + 2], "big")
            if marker == _SCAN:
                _note_scan(stream[at + 2 : after], exact, is_progressive=is_progressive)
            at = after
    needed = _COEFFICIENTS if is_progressive else 1
    lacks_scans = end >= 0 and any(len(numbers) < needed for numbers in exact.values())
    return JpegStream(data, end, is_ls, bits, may_wait=False, lacks_scans=lacks_scans, is_arithmetic=is_arithmetic)


def _end_marker(stream: bytes, data: int) -> int:
    """Return where the end marker, or the bytes FF that fill up to it, begin; -1 without one.

    `bytes.find` and a few steps back: a regular expression took 7 times as long, a quarter of reading a patch.
    """
    end = stream.find(END, data)
    while end > data and stream[end - 1] == END[0]:
        end -= 1
    return end


def _note_scan(header: bytes, exact: dict[int, set[int]], *, is_progressive: bool) -> None:
    """Note which coefficients of which components a scan brings to their last bit."""
    components = header[1 : 1 + 2 * header[0] : 2] if header else b""
    first, last, bits = header[1 + 2 * len(components) :][:3].ljust(3, b"\xff")
    for component in components:
        if not is_progressive:
            exact.setdefault(component, set()).add(0)
        elif not bits & 0x0F:
            exact.setdefault(component, set()).update(range(first, min(last, _COEFFICIENTS - 1) + 1))


def decode_waiting(
    stream: bytes, decode: Callable[[bytes], _Image], pixels: Callable[[_Image], bytes] = bytes
) -> _Image:
    """Decode a JPEG with a decoder that raises OSError where a stream without end marker does not suffice: Pillow.

    Args:
        stream: A JPEG with an end marker.
        decode: Decoder of the stream.
        pixels: Function that takes the pixels out of what `decode` returns.

    Raises:
        DataMissingError: If its data ends before its pixels do.
    """
    jpeg = read_jpeg(stream)
    if not jpeg.may_wait:
        return decode_compared(stream, decode, pixels)
    data = stream[: jpeg.end]
    try:
        with strict():
            decoded = decode(data + _LOOK_AHEAD)
    except OSError as error:
        if "truncated" in str(error):
            raise DataMissingError(DATA_MISSING) from None
        raise
    if data.endswith(bytes(EMPTY_TAIL)):
        try:
            with strict():
                decode(data[:-_NOT_NEEDED] + _LOOK_AHEAD)
        except OSError:
            return decoded
        raise DataMissingError(DATA_MISSING)
    return decoded


def decode_compared(
    stream: bytes, decode: Callable[[bytes], _Image], pixels: Callable[[_Image], bytes] = bytes
) -> _Image:
    """Decode a JPEG twice, with different bytes behind its data; arguments and errors as of `decode_waiting`."""
    jpeg = read_jpeg(stream)
    decoded = decode(stream)
    if jpeg.end < 0:
        return decoded
    data, expected = stream[: jpeg.end], pixels(decoded)
    if pixels(decode(data + jpeg.other_data + END)) != expected:
        raise DataMissingError(DATA_MISSING)
    if not data.endswith(bytes(EMPTY_TAIL)):
        return decoded
    is_flat = expected[_PERIOD:] == expected[:-_PERIOD]  # its table may have one code only, and any data decodes alike
    if not is_flat and pixels(decode(data[:-_NOT_NEEDED] + jpeg.other_data + END)) == expected:
        raise DataMissingError(DATA_MISSING)
    return decoded


def may_be_made_up(stream: bytes, last: NDArray[Any], jpeg: JpegStream | None = None) -> bool:
    """Return whether an image that libjpeg decoded ends as one that it made up: in mid-grey, or in zeros of the data.

    Args:
        stream: Any stream; of what is no JPEG libjpeg makes up nothing.
        last: Last pixel of the image, one value for each component.
        jpeg: Parts of the stream, where they are known.
    """
    if stream[:2] != SOI:
        return False
    jpeg = jpeg or read_jpeg(stream)
    zeros = jpeg.end >= EMPTY_TAIL and stream.endswith(bytes(EMPTY_TAIL), 0, jpeg.end)
    return zeros or (jpeg.bits > 0 and bool((last == 1 << (jpeg.bits - 1)).all()))


@contextmanager
def strict() -> Iterator[None]:
    """Let Pillow refuse files that end early, whatever the program around us told it (LOAD_TRUNCATED_IMAGES)."""
    from PIL import ImageFile

    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
