"""The quick way into a plain DICOM file: its elements are found by their lengths, and their values stay where they are.

Most files write no undefined lengths but that of compressed pixels. For those this takes a fraction of pydicom's time
and gives the same raw elements, without patient and private ones, which no image needs. Whatever is unusual is left
to pydicom, which knows what to do about it.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import Any

from medclip.dicom.codecs.decoders import COMPRESSED
from medclip.dicom.header.elements import known_tag

_EXPLICIT = "1.2.840.10008.1.2.1"
_BIG = "1.2.840.10008.1.2.2"
_IMPLICIT = "1.2.840.10008.1.2"
_SHORT = {
    vr.encode(): vr
    for vr in "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # noqa: SIM905
}
_LONG = {vr.encode(): vr for vr in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()}  # noqa: SIM905
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
        if vr in _LONG:
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
            vr = _LONG.get(code)
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
