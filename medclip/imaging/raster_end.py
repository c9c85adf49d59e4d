"""Does an image file go on to its end? Each format says where that is; decoders do not always look.

Pillow reads a PNG without its last chunk, a GIF without its trailer, a WebP whose second half is zeros and a tile of a
TIFF that ends behind the file. What a format cannot tell (zeros among uncompressed pixels) is not looked for.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from medclip.dicom.codecs.codestream import DATA_MISSING, EMPTY_TAIL, END, SOI, DataMissingError, decode_waiting
from medclip.dicom.codecs.completeness import NO_END, UNTERMINATED_HINT, decode_unterminated, lacks
from medclip.dicom.pixels.decoded import check_size
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format
from medclip.imaging.stated_size import check_stated_size
from medclip.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

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
