"""Open a DICOM file for its pixels, with a reason for every way this fails."""

from __future__ import annotations

import os
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.dicom_header import DicomHeader, read_header
from medclip.imaging import dicom_codecs
from medclip.imaging.decoded import check_size
from medclip.imaging.dicom_elements import present, text, whole
from medclip.settings import Settings

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "PALETTE COLOR")
YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_FIRST_ELEMENTS = (b"\x08\0\x05\0CS", b"\x08\0\x08\0CS")
_SEARCHED = 1024
_READ_AT_ONCE = 2_000_000


def open_dataset(path: Path, header: DicomHeader | None) -> tuple[Any, DicomHeader]:
    """Read a DICOM file with its pixel data; the file is parsed once.

    Args:
        path: The file.
        header: Its header where that was read before; else the values that pixels need are taken from the data set.

    Returns:
        The pydicom data set, with a transfer syntax that fits its data, and its plain header values.

    Raises:
        MedclipError: CORRUPT, TRUNCATED, PERMISSION_DENIED, MISSING_FILE, TOO_LARGE. Texts of the parser are not
            passed on, since they may quote header values.
    """
    try:
        dataset = _parsed(path)
        if header is None:
            header = _pixel_header(dataset)
            if not header.has_pixels:  # what is wrong then, the careful reader knows
                with path.open("rb") as file:
                    header = read_header(file)
        return dataset, header
    except MedclipError:
        raise
    except PermissionError:
        raise MedclipError(Reason.PERMISSION_DENIED, "The file may not be read.") from None
    except FileNotFoundError:
        raise MedclipError(Reason.MISSING_FILE, "The file does not exist any more.") from None
    except EOFError:
        raise MedclipError(Reason.TRUNCATED, "The DICOM file ends before its pixels do.") from None
    except zlib.error as error:
        if "-5" in str(error):  # Z_BUF_ERROR: the stream stops before its end
            raise MedclipError(Reason.TRUNCATED, "The deflated data set ends too early.") from None
        raise MedclipError(Reason.CORRUPT, "The deflated data set is damaged.") from None
    except RecursionError:
        raise MedclipError(Reason.CORRUPT, "The DICOM header nests sequences without end.") from None
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "The DICOM file does not fit into memory.") from None
    except Exception:
        raise MedclipError(Reason.CORRUPT, "The DICOM file cannot be parsed.") from None


def _parsed(path: Path) -> Any:
    from pydicom import dcmread

    with path.open("rb") as file:
        small = os.fstat(file.fileno()).st_size < _READ_AT_ONCE
        # From memory pydicom's hundreds of small reads are quicker; a large file would be in memory twice.
        dataset = dcmread(BytesIO(file.read()) if small else file, force=True)
    if not dataset.preamble and not pixel_keyword(dataset):
        dataset = _found_later(path) or dataset
    _settle_transfer_syntax(dataset)
    return dataset


def check(header: DicomHeader, dataset: Any, settings: Settings) -> None:
    """Refuse what cannot become pixels, from the header alone.

    Raises:
        MedclipError: TRUNCATED, NO_PIXELS, CORRUPT, NOT_SUPPORTED_YET, TOO_LARGE.
    """
    if not header.has_pixels:
        raise MedclipError(Reason.NO_PIXELS, "The DICOM object holds no pixel data.")
    if pixel_keyword(dataset) == "":
        raise MedclipError(Reason.TRUNCATED, "The DICOM file ends before its pixels do.")
    if not header.photometric and header.float_pixels:
        return check_size(header.columns, header.rows, settings)
    if not header.photometric:
        raise MedclipError(Reason.CORRUPT, "The DICOM header states no photometric interpretation.")
    if header.photometric not in (*GREY, *COLOUR, *YBR):
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            "The DICOM header's photometric interpretation is none that is read; "
            "MONOCHROME1, MONOCHROME2, RGB, PALETTE COLOR and YBR are.",
        )
    check_size(header.columns, header.rows, settings)


def check_volume(header: DicomHeader, frames: int, settings: Settings) -> None:
    """Refuse more decoded bytes than allowed, by what the header states, before anything is allocated.

    Raises:
        MedclipError: TOO_LARGE beyond `settings.max_volume_bytes`. A single picture is limited by its pixels instead.
    """
    size = frames * header.rows * header.columns * header.samples_per_pixel * max(1, header.bits_allocated // 8)
    if frames > 1 and size > settings.max_volume_bytes:
        raise MedclipError(
            Reason.TOO_LARGE,
            f"The {frames:,} frames would take {size:,} bytes, more than the limit of {settings.max_volume_bytes:,}.",
            hint="From Python, Settings(max_volume_bytes=...) raises the limit; there is no option for it.",
        )


def pixel_keyword(dataset: Any) -> str:
    """Give the name of the element that holds the pixels, "" where there is none."""
    return next((keyword for keyword in PIXEL_KEYWORDS if present(dataset, keyword)), "")


def _pixel_header(dataset: Any) -> DicomHeader:
    """Take the header values that pixels and `public_headers` need; several times as quick as all of them."""
    side = text(dataset, "ImageLaterality") or text(dataset, "Laterality")
    keyword = pixel_keyword(dataset)
    return DicomHeader(
        modality=text(dataset, "Modality").upper(),
        sop_class=text(dataset, "SOPClassUID"),
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        rows=whole(dataset, "Rows", 0),
        columns=whole(dataset, "Columns", 0),
        frames=max(1, whole(dataset, "NumberOfFrames", 1)),
        samples_per_pixel=whole(dataset, "SamplesPerPixel", 1),
        bits_allocated=whole(dataset, "BitsAllocated", 0),
        bits_stored=whole(dataset, "BitsStored", 0),
        signed=whole(dataset, "PixelRepresentation", 0) == 1,
        photometric=text(dataset, "PhotometricInterpretation").upper(),
        has_pixels=bool(keyword),
        float_pixels=keyword not in ("", "PixelData"),
        view_position=text(dataset, "ViewPosition").upper(),
        laterality=side.upper()[:1],
        burned_in={"YES": True, "NO": False}.get(text(dataset, "BurnedInAnnotation").upper()),
        presentation_intent=text(dataset, "PresentationIntentType").upper(),
    )


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
        found = dcmread(BytesIO(file.read()), force=True)
    return found if pixel_keyword(found) else None


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
        if undefined and (sniffed := _sniff(bytes(dataset.PixelData[:4096]))):
            meta.TransferSyntaxUID = UID(sniffed)
            return
    if not stated:
        implicit, little = dataset.original_encoding
        meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        )


def _sniff(data: bytes) -> str:
    """Tell the codec of encapsulated pixel data by its first fragment; "" where it is none that is known."""
    if data[:4] != b"\xfe\xff\x00\xe0":
        return ""
    start = 8 + int.from_bytes(data[4:8], "little") + 8
    frame = data[start:]
    if frame[:4] == b"\xff\x4f\xff\x51":
        return dicom_codecs.JPEG_2000[1]
    if frame[:2] == b"\xff\xd8":
        frames = {
            0xC0: dicom_codecs.BASELINE,
            0xC1: dicom_codecs.EXTENDED,
            0xC3: dicom_codecs.LOSSLESS,
            0xF7: dicom_codecs.JPEG_LS,
        }
        at = 2
        while at + 4 <= len(frame) and frame[at] == 0xFF:
            if frame[at + 1] in frames:
                return frames[frame[at + 1]]
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        return ""
    return dicom_codecs.RLE if 1 <= int.from_bytes(frame[:4], "little") <= 15 else ""
