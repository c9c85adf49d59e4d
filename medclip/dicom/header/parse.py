"""Parse a DICOM file once, without a copy of its pixels, and name the transfer syntax that fits them."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from struct import unpack
from typing import Any, BinaryIO, cast

from medclip.dicom.codecs import decoders as dicom_codecs
from medclip.dicom.codecs.codestream import syntax_of
from medclip.dicom.header.deflated import UID, DeflatedError, Guarded, Inflated, restore
from medclip.dicom.header.elements import present, raw_bytes
from medclip.dicom.header.fast_parse import meta_of, scanned

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
_UNDEFINED = 0xFFFFFFFF
_LONG = (b"OB", b"OW", b"UN")
_CLOSING = (0xFFFA, 0xFFFC)
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
