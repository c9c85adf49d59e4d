"""Parse a DICOM file once, without a copy of its pixels, and name the transfer syntax that fits them.

The quick way into a plain file finds elements by their lengths, and their values stay where they are. Most files write
no undefined lengths but that of compressed pixels. For those this takes a fraction of pydicom's time and gives the same
raw elements, without patient and private ones, which no image needs. Whatever is unusual is left to pydicom, which
knows what to do about it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from struct import Struct, unpack
from typing import Any, BinaryIO, cast

from medclip.dicom.codecs import decoders as dicom_codecs
from medclip.dicom.codecs.codestream import syntax_of
from medclip.dicom.codecs.decoders import COMPRESSED
from medclip.dicom.header.deflated import UID, DeflatedError, Guarded, Inflated, restore
from medclip.dicom.header.elements import known_tag, present, raw_bytes

_EXPLICIT = "1.2.840.10008.1.2.1"
_BIG = "1.2.840.10008.1.2.2"
_IMPLICIT = "1.2.840.10008.1.2"
_SHORT = {
    vr.encode(): vr
    for vr in "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # noqa: SIM905
}
_LONG_VRS = {vr.encode(): vr for vr in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()}  # noqa: SIM905
_HEAD, _LENGTH = Struct("<HH2sH").unpack_from, Struct("<L").unpack_from
_BIG_HEAD, _BIG_LENGTH = Struct(">HH2sH").unpack_from, Struct(">L").unpack_from
_IMPLICIT_HEAD = Struct("<HHL").unpack_from
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_SYNTAX = 0x00020010
_CHARACTERS = 0x00080005
_CLOSING = (0xFFFA, 0xFFFC)
_CHARACTER_SETS = (b"", b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 192")
_PATIENT = 0x0010


def scanned(data: bytes) -> Any:
    """Return the data set of a plain file, None for one that is not.

    Returns:
        A pydicom data set with its transfer syntax; the pixel data is a view of `data` (see `elements`).
    """
    if data[128:132] != b"DICM":
        return None
    try:
        syntax, at = _meta(data)
        if syntax in (_EXPLICIT, _BIG) or syntax in COMPRESSED:
            elements = _explicit(data, at, little=syntax != _BIG)
        elif syntax == _IMPLICIT:
            elements = _implicit(data, at)
        else:
            return None
    except Exception:  # cut short, or not what it says
        return None
    if not elements or (elements[known_tag(_PIXEL_DATA)].length == _UNDEFINED) != (syntax in COMPRESSED):
        return None
    return _as_dataset(elements, syntax)


def _meta(data: bytes) -> tuple[str, int]:
    """Return the transfer syntax and the position behind the meta information; "" where that is odd."""
    syntax, at, last = "", 132, 0
    while True:
        group, number, vr, length = _HEAD(data, at)
        if group != 2:
            return syntax, at
        if vr in _LONG_VRS:
            length = _LENGTH(data, at + 8)[0]
            at += 4
        elif vr not in _SHORT:
            return "", at
        if number < last:
            return "", at
        if number == _SYNTAX & 0xFFFF:
            syntax = data[at + 8 : at + 8 + length].rstrip(b"\0 ").decode("ascii")
        last = number + 1
        at += 8 + length


def _explicit(data: bytes, at: int, *, little: bool) -> dict[Any, Any] | None:
    from pydicom.dataelem import RawDataElement

    read_head, read_length = (_HEAD, _LENGTH) if little else (_BIG_HEAD, _BIG_LENGTH)
    elements: dict[Any, Any] = {}
    last, end = 0, len(data)
    while True:
        group, number, code, length = read_head(data, at)
        at += 8
        vr = _SHORT.get(code)
        if vr is None:
            vr = _LONG_VRS.get(code)
            if vr is None:
                return None
            length = read_length(data, at)[0]
            at += 4
        tag = group << 16 | number
        if tag <= last or (length == _UNDEFINED and tag != _PIXEL_DATA):
            return None
        last = tag
        if tag >= _PIXEL_DATA - 8:
            return _with_pixels(elements, data, at, (tag, vr, length), little=little)
        if at + length > end:
            return None
        if not group & 1 and group != _PATIENT:
            key = known_tag(tag)
            value = data[at : at + length]
            elements[key] = RawDataElement(key, vr, length, value or _empty(vr), at, False, little)
        at += length


def _implicit(data: bytes, at: int) -> dict[Any, Any] | None:
    from pydicom.dataelem import RawDataElement

    if data[at + 4 : at + 6].isalpha():  # explicit after all
        return None
    elements: dict[Any, Any] = {}
    last, end = 0, len(data)
    while True:
        group, number, length = _IMPLICIT_HEAD(data, at)
        at += 8
        tag = group << 16 | number
        if tag <= last or length == _UNDEFINED:
            return None
        last = tag
        if tag >= _PIXEL_DATA - 8:
            return _with_pixels(elements, data, at, (tag, None, length), little=True)
        if at + length > end:
            return None
        if not group & 1 and group != _PATIENT:
            key = known_tag(tag)
            value = data[at : at + length]
            elements[key] = RawDataElement(key, None, length, value or _empty(None), at, True, True)
        at += length


def _with_pixels(
    elements: dict[Any, Any], data: bytes, at: int, element: tuple[int, str | None, int], *, little: bool
) -> dict[Any, Any] | None:
    """Add the pixel data; None where something other than it, or something behind it, has to be understood."""
    from pydicom.dataelem import RawDataElement

    tag, vr, length = element
    characters = elements.get(known_tag(_CHARACTERS))
    if tag != _PIXEL_DATA or vr not in (None, "OB", "OW") or not length:
        return None
    if characters is not None and (characters.value or b"").strip() not in _CHARACTER_SETS:
        return None
    end = at + length if length != _UNDEFINED else _behind_items(data, at)
    follows = data[end : end + 8]
    if length == _UNDEFINED:
        value: Any = data[at : end - 8]
    else:
        value = memoryview(data)[at:end]
    if len(follows) == 8 and int.from_bytes(follows[:2], "little" if little else "big") not in _CLOSING:
        return None
    key = known_tag(tag)
    elements[key] = RawDataElement(key, vr, length, value, at, vr is None, little)
    return elements


def _behind_items(data: bytes, at: int) -> int:
    """Return the position behind the items of compressed pixel data and the delimiter that closes them.

    Raises:
        ValueError: Where something else stands among them.
        struct.error: Where the data ends before.
    """
    while True:
        group, number, length = _IMPLICIT_HEAD(data, at)
        at += 8
        if group == 0xFFFE and number == 0xE0DD:
            return at
        if group != 0xFFFE or number != 0xE000 or length == _UNDEFINED:
            raise ValueError("no item")
        at += length


@cache
def _empty(vr: str | None) -> Any:
    from pydicom.dataelem import empty_value_for_VR

    return empty_value_for_VR(vr, raw=True)


def _as_dataset(elements: dict[Any, Any], syntax: str) -> Any:
    from pydicom.dataset import Dataset

    dataset: Any = Dataset(elements)
    characters = elements.get(known_tag(_CHARACTERS))
    encoding = _encoding(characters.value or b"") if characters is not None else "iso8859"
    dataset.set_original_encoding(syntax == _IMPLICIT, syntax != _BIG, encoding)
    dataset.file_meta = meta_of(syntax)
    return dataset


@cache
def _encoding(value: bytes) -> Any:
    from pydicom.charset import convert_encodings

    return convert_encodings(value.decode("ascii").strip())


@cache
def meta_of(syntax: str) -> Any:
    """Meta information that names a syntax; nobody changes it."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    return meta


PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
_LONG = (b"OB", b"OW", b"UN")
"""Groups that may follow pixels: signatures and filling."""
_FIRST_ELEMENTS = (b"\x08\0\x05\0CS", b"\x08\0\x08\0CS")
_SEARCHED = 1024
_READ_AT_ONCE = 2_000_000
_SLACK = 1 << 20


def parsed(path: Path, expected: Callable[[Any], int]) -> Any:
    """Parse a file.

    Args:
        path: The file.
        expected: Function that returns the bytes of pixels that a data set's header explains, or refuses them; called
            only for deflated files, before their pixels are inflated.

    Returns:
        The pydicom data set. Pixel data of a defined length may be a view of the file's bytes; see
        `elements.raw_bytes`.

    Raises:
        MedclipError: What `expected` raises; TOO_LARGE, TRUNCATED or CORRUPT for deflated data.
        Exception: What pydicom raises.
    """
    with path.open("rb") as file:
        # From memory pydicom's hundreds of small reads are quicker; a large file would be in memory twice.
        data = file.read() if os.fstat(file.fileno()).st_size < _READ_AT_ONCE else None
        plain = None if data is None else scanned(data)
        if plain is not None:
            return plain
        source = file if data is None else BytesIO(data)
        try:
            dataset = _upto_pixels(Guarded(source))
            _add_pixels(dataset, source, data)
        except DeflatedError:
            inflated = Inflated(source)
            small = inflated.read_small(_READ_AT_ONCE)
            plain = None if small is None else scanned(small)
            if plain is not None:
                plain.file_meta = meta_of(UID)
                return plain
            dataset = _upto_pixels(inflated)
            inflated.most = inflated.tell() + expected(dataset) + _SLACK
            _add_pixels(dataset, cast(BinaryIO, inflated), None)
            restore(dataset)
    if not dataset.preamble and not pixel_keyword(dataset):
        dataset = _found_later(path) or dataset
    _settle_transfer_syntax(dataset)
    return dataset


def pixel_keyword(dataset: Any) -> str:
    """Return the name of the element that holds the pixels, "" where there is none."""
    return next((keyword for keyword in PIXEL_KEYWORDS if present(dataset, keyword)), "")


def _upto_pixels(source: Any) -> Any:
    from pydicom.filereader import read_partial

    return read_partial(source, stop_when=_at_pixels, force=True)


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag == _PIXEL_DATA or tag in _FLOAT_PIXELS


def _add_pixels(dataset: Any, source: BinaryIO, data: bytes | None) -> None:
    """Add the pixel data, and what comes behind it, to a data set that was parsed up to it.

    Args:
        dataset: The data set.
        source: The file at the first element that is not read.
        data: The whole file, if it is in memory: then pixels are not copied.
    """
    from pydicom.dataelem import RawDataElement
    from pydicom.filereader import read_dataset
    from pydicom.tag import BaseTag

    implicit, little = dataset.original_encoding
    order = "<" if little else ">"
    at = source.tell()
    head = source.read(12)
    if len(head) < 8:
        return
    group, number = unpack(f"{order}HH", head[:4])
    vr = None if implicit else head[4:6]
    length = _UNDEFINED
    if implicit and head[4:6] in _LONG and head[6:8] == b"\0\0":
        # Explicit after all, whatever the meta information says: as a length these letters would be odd.
        implicit, vr = False, head[4:6]
    if group << 16 | number == _PIXEL_DATA and (implicit or vr in _LONG) and len(head) == 12:
        length = unpack(f"{order}L", head[4:8] if implicit else head[8:])[0]
    if length not in (0, _UNDEFINED):
        start = at + (8 if implicit else 12)
        value: Any = None
        if data is not None:
            value = memoryview(data)[start : start + length]
            follows = data[start + length : start + length + 8]
        else:
            source.seek(start)
            value = source.read(length)
            follows = source.read(8)
        if len(follows) < 8 or unpack(f"{order}H", follows[:2])[0] in _CLOSING:
            name = vr.decode() if vr else None
            tag = BaseTag(_PIXEL_DATA)
            dataset._dict[tag] = RawDataElement(tag, name, length, value, start, implicit, little)
            return
        value = None
    source.seek(at)
    dataset._dict.update(read_dataset(source, implicit, little)._dict)


def _found_later(path: Path) -> Any:
    """Read a data set that begins some bytes into a file without meta information; None where there is none.

    Files cut out of a stream keep the end of what stood before. The first element nearly always is SpecificCharacterSet
    or ImageType, explicit little endian.
    """
    from pydicom import dcmread

    with path.open("rb") as file:
        start = file.read(_SEARCHED)
        places = [at for first in _FIRST_ELEMENTS if (at := start.find(first)) > 0]
        if not places:
            return None
        file.seek(min(places))
        dataset = dcmread(BytesIO(file.read()), force=True)
    return dataset if pixel_keyword(dataset) else None


def _settle_transfer_syntax(dataset: Any) -> None:
    """Name the transfer syntax where the meta information does not, or where the pixel data contradicts it.

    Without meta information, the data set's encoding is what pydicom could parse it with; pixel data of undefined
    length is compressed, and its first bytes tell how.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", None)
    if meta is None:
        meta = dataset.file_meta = FileMetaDataset()
    stated = getattr(meta, "TransferSyntaxUID", None)
    if present(dataset, "PixelData") and (not stated or str(stated) in dicom_codecs.NATIVE):
        element = dataset.get_item("PixelData")
        undefined = getattr(element, "length", 0) == 0xFFFFFFFF or getattr(element, "is_undefined_length", False)
        if undefined and (sniffed := syntax_of(bytes(raw_bytes(dataset, "PixelData")[:4096]))):
            meta.TransferSyntaxUID = UID(sniffed)
            return
    if not stated:
        implicit, little = dataset.original_encoding
        meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        )
