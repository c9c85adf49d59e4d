"""Does an image file go on to its end? Each format says where that is; decoders do not always look.

Pillow reads a PNG without its last chunk, a GIF without its trailer, a WebP whose second half is zeros and a tile of a
TIFF that ends behind the file. What a format cannot tell (zeros among uncompressed pixels) is not looked for.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from medclip.dicom.codecs.codestream import (
    DATA_MISSING,
    EMPTY_TAIL,
    END,
    SOI,
    DataMissingError,
    decode_waiting,
    size_of,
)
from medclip.dicom.codecs.completeness import NO_END, UNTERMINATED_HINT, decode_unterminated, lacks
from medclip.dicom.pixels.decoded import check_size
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format
from medclip.settings import Settings

if TYPE_CHECKING:
    from PIL import Image


# The size that a compressed tile or strip claims for itself, compared with its place in the file before it is
# decoded.
#
# A TIFF states the size of its tiles, and each tile that is a JPEG, JPEG 2000, PNG, WebP, JPEG XL, JPEG XR or LERC
# stream states one of its own. Decoders believe the stream: 300 bytes in a tile of 256 x 256 pixels can claim 40,000
# x 40,000 and take gigabytes. Deflate, LZMA, LZW, zstd and PackBits state none; their decoders fill the tile and
# stop.

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


def _png_size(stream: bytes) -> tuple[int, int] | None:
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
    b"\x89PNG\r\n\x1a\n": _png_size,
    b"RIFF": webp_size,
    b"II\xbc": _jpeg_xr,
    b"Lerc2 ": _lerc,
    b"\xff\x0a": _jpeg_xl,
    b"\x00\x00\x00\x0cJXL \r\n\x87\n": _jpeg_xl_boxes,
}


_STRIPS, _TILES = (273, 279), (324, 325)
"""Tags of the places and lengths of what a TIFF stores."""
WITH_END = frozenset({7, 33003, 33004, 33005, 34712})
"""TIFF compressions whose streams have an end marker: JPEG, and JPEG 2000 by its several numbers."""
_MAY_END_IN_ZEROS = frozenset({1, 2, 3, 4, 32773, *WITH_END})
"""TIFF compressions whose data may well end in zeros: none, CCITT, PackBits, and streams with filling."""
_DEFLATE = frozenset({8, 32946})
_STATES_NO_SIZE = frozenset({1, 2, 3, 4, 5, 6, 8, 32773, 32946, 34925, 50000})
"""TIFF compressions whose decoders fill the strip or tile and stop: none, CCITT, LZW, deflate, PackBits, LZMA, zstd;
and the old JPEG, whose strips are pieces of one stream that libtiff compares with the image."""
_PIECE_BYTES = 1 << 20
_COMPRESSION, _JPEG_TABLES = 259, 347
_WIDTH, _HEIGHT, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 278, 322, 323
_PNG_SAMPLES = {2: 3, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Left, top and steps of the passes of an interlaced PNG."""
_LOSSY = b"VP8 "
_NOT_NEEDED = EMPTY_TAIL // 2
_WRONG_SUM = "the check sum of its pixels is wrong"


def file_lacks(file: BinaryIO, fmt: Format) -> str:
    """Return what a file lacks, as `completeness.lacks` does; its position is back at the start.

    Args:
        file: An open file.
        fmt: Format of the file; of one without an end marker ("BMP", "TIFF") nothing is said.
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


def tiff_segments(tags: Mapping[int, Any]) -> tuple[Sequence[int], Sequence[int], int, bytes, tuple[int, int]]:
    """Return offsets and lengths of a TIFF directory's strips or tiles, compression, JPEG tables and their size."""
    offsets, counts = _TILES if _TILES[0] in tags else _STRIPS
    height, width = tags.get(_HEIGHT, 0), tags.get(_WIDTH, 0)
    place = min(tags.get(_ROWS_PER_STRIP) or height, height), width
    if offsets == _TILES[0]:
        place = tags.get(_TILE_HEIGHT, height), tags.get(_TILE_WIDTH, width)
    return tags.get(offsets, ()), tags.get(counts, ()), tags.get(_COMPRESSION, 1), tags.get(_JPEG_TABLES, b""), place


def check_segments(
    file: BinaryIO,
    offsets: Sequence[int],
    counts: Sequence[int],
    compression: int,
    tables: bytes,
    place: tuple[int, int],
    settings: Settings,
) -> None:
    """Refuse a TIFF whose strips or tiles lie beyond the file, claim to be larger than they are, or end early.

    Args:
        file: The TIFF; its position is back at the start.
        offsets: Offsets in bytes at which strips or tiles begin.
        counts: Lengths of the strips or tiles in bytes.
        compression: Compression as its tag states.
        tables: JPEG tables that its segments leave out; empty without.
        place: Rows and columns of a strip or tile.
        settings: Settings that say whether segments may lack their end markers, and limit their size.

    Raises:
        MedclipError: TRUNCATED; CORRUPT for a claim.
    """
    size = file.seek(0, io.SEEK_END)
    for offset, count in zip(offsets, counts, strict=False):
        if offset + count > size:
            raise MedclipError(Reason.TRUNCATED, "the TIFF image ends before its pixels do.")
        if count > EMPTY_TAIL:
            file.seek(offset + count - EMPTY_TAIL)
            if ends_in_zeros(file.read(EMPTY_TAIL), compression):
                raise MedclipError(Reason.TRUNCATED, "the TIFF image holds zeros where its compressed pixels go on.")
        file.seek(offset)
        if compression in _DEFLATE and (lacking := _deflated_lacks(file.read(count))):
            raise cut(Format.TIFF, lacking)
        if compression in _STATES_NO_SIZE:
            continue
        segment = file.read(count)
        check_stated_size(segment, *place)
        if compression in WITH_END:
            _check_stream(segment, tables, settings)
    file.seek(0)


def _check_stream(segment: bytes, tables: bytes, settings: Settings) -> None:
    """Refuse a JPEG or JPEG 2000 stream of a TIFF that is not all there: libtiff and its decoders make up the rest."""
    lacking = lacks(segment)
    if lacking and not (lacking == NO_END and settings.policy.accept_unterminated):
        raise cut(Format.TIFF, lacking)
    if segment[:2] != SOI:
        return
    stream = tables.removesuffix(END) + segment[2:] if tables else segment
    try:
        (decode_unterminated if lacking else decode_waiting)(stream, lambda data: _decode_jpeg(data, settings))
    except DataMissingError as error:
        raise cut(Format.TIFF, str(error)) from None
    except MedclipError:
        raise
    except Exception:
        return  # whether it is a JPEG at all says the decoder of the TIFF


def _deflated_lacks(deflated: bytes) -> str:
    """Return what deflated data lacks: libtiff stops at the last pixel and looks at no sum behind it."""
    unpacked = zlib.decompressobj()
    try:
        while deflated and not unpacked.eof:
            unpacked.decompress(deflated, _PIECE_BYTES)
            deflated = unpacked.unconsumed_tail
    except zlib.error:
        return _WRONG_SUM
    return "" if unpacked.eof else DATA_MISSING


def _decode_jpeg(stream: bytes, settings: Settings) -> bytes:
    from PIL import JpegImagePlugin

    image = JpegImagePlugin.JpegImageFile(io.BytesIO(stream))
    check_size(*image.size, settings)
    return image.tobytes()


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


def check_png_rows(file: BinaryIO, image: Image.Image) -> None:
    """Refuse a decoded PNG whose compressed data ends well but before its last row: Pillow leaves the rest empty.

    Raises:
        MedclipError: TRUNCATED.
    """
    width, height = image.size
    first = image.getpixel((0, height - 1))
    is_flat = all(image.getpixel((column, height - 1)) == first for column in range(1, width))
    if is_flat or image.info.get("interlace"):
        file.seek(0)
        if _lacks_rows(file.read()):
            raise cut(Format.PNG, DATA_MISSING)


def _lacks_rows(png: bytes) -> bool:
    """Return whether a PNG's data is fewer bytes than its rows: a filter byte and its pixels each (ISO 15948, 7.2)."""
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    bits = png[24] * _PNG_SAMPLES.get(png[25], 1)
    needed = 0
    for left, top, across, down in _ADAM7 if png[28] else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        needed += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    unpacked, at, num_bytes = zlib.decompressobj(), 8, 0
    while at + 12 <= len(png) and num_bytes < needed:
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            num_bytes += len(unpacked.decompress(png[at + 8 : end - 4], needed - num_bytes))
        at = end
    return num_bytes < needed


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
    """Look at the ends of compressed images: flat lossy ones may end in zeros, which are data."""
    data = file.read()
    end = 8 + int.from_bytes(data[4:8], "little")
    if len(data) < end:
        return "it is shorter than it states"
    for kind, body in _webp_images(data[12:end]):
        lacking = body.endswith(bytes(EMPTY_TAIL)) and (kind != _LOSSY or _decodes(_webp_of(kind, body[:-_NOT_NEEDED])))
        if lacking or not any(kind):
            return "it holds zeros where its compressed pixels go on"
    return ""


def _webp_images(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of the chunks that hold images, also of those inside frames, and of empty ones."""
    at = 0
    while at + 8 <= len(data):
        kind, after = data[at : at + 4], at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == b"ANMF":
            yield from _webp_images(data[at + 24 : after])
        elif kind in (_LOSSY, b"VP8L", b"ALPH") or not any(kind):
            yield kind, data[at + 8 : after]
        at = after + after % 2


def _webp_of(kind: bytes, body: bytes) -> bytes:
    size = len(body) + len(body) % 2
    parts = (b"RIFF", (size + 12).to_bytes(4, "little"), b"WEBP", kind, len(body).to_bytes(4, "little"), body)
    return b"".join(parts) + bytes(len(body) % 2)


def _decodes(webp: bytes) -> bool:
    """Return whether a WebP decodes; libwebp refuses one whose data ends early."""
    from PIL import WebPImagePlugin

    try:
        WebPImagePlugin.WebPImageFile(io.BytesIO(webp)).load()
    except OSError:
        return False
    return True


_WALKS: Mapping[Format, Callable[[BinaryIO], str]] = {
    Format.JPEG: _stream,
    Format.JPEG2000: _stream,
    Format.PNG: _png,
    Format.GIF: _gif,
    Format.WEBP: _webp,
}
