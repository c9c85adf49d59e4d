"""Plain header values of a DICOM file, read without touching its pixels."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

from medclip.errors import MedclipError, Reason
from medclip.files.quiet import quiet
from medclip.sample import Modality

_TAGS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "PresentationIntentType",
    "PatientID",
    "BodyPartExamined",
    "ViewPosition",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientOrientation",
    "Laterality",
    "ImageLaterality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "BurnedInAnnotation",
    "ImagerPixelSpacing",
    "PixelSpacing",
)
_PREAMBLE = 132
"""Bytes of the preamble and the letters DICM."""
_UNDEFINED = 0xFFFFFFFF
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)


@dataclass(frozen=True)
class DicomHeader:
    """Header values as plain Python. Identifiers serve grouping only and are never written anywhere unhashed."""

    modality: str = ""
    sop_class: str = ""
    transfer_syntax: str = ""
    study_uid: str = ""
    series_uid: str = ""
    instance_uid: str = ""
    patient_id: str = ""
    rows: int = 0
    columns: int = 0
    frames: int = 1
    samples_per_pixel: int = 1
    bits_allocated: int = 0
    bits_stored: int = 0
    signed: bool = False
    photometric: str = ""
    has_pixels: bool = False
    float_pixels: bool = False
    """Pixels are stored as floating-point numbers (parametric maps)."""
    cut: bool = False
    """The file ends inside an element of the header, before any pixels."""
    view_position: str = ""
    laterality: str = ""
    """ImageLaterality, or Laterality where that is missing: "L", "R", "B" or ""."""
    patient_orientation: tuple[str, ...] = ()
    burned_in: bool | None = None
    presentation_intent: str = ""
    body_part: str = ""
    spacing_mm: tuple[float, float] | None = None
    """Row and column spacing: PixelSpacing, or ImagerPixelSpacing where that is missing or zero."""


class _Watched:
    """A file that notes whether a read behind the preamble found some bytes, but fewer than it asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.short = False
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        at = self._file.tell()
        data = self._file.read(size)
        self.short |= at >= _PREAMBLE and 0 < len(data) < size
        return data


def read_header(file: BinaryIO) -> DicomHeader:
    """Read the header values of an open DICOM file and stop before the pixels.

    Args:
        file: A binary file at any position.

    Returns:
        The values; empty ones where the header says nothing.

    Raises:
        MedclipError: CORRUPT if the file cannot be parsed. Texts of the parser are not passed on, since they may
            quote header values.
    """
    from pydicom.datadict import tag_for_keyword
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_partial

    wanted: list[Any] = [tag_for_keyword(keyword) for keyword in _TAGS]
    seen: list[int] = []
    size = file.seek(0, io.SEEK_END)
    watched = _Watched(file)
    needed = 0

    def at_pixels(tag: Any, vr: str | None, length: int) -> bool:
        """Stop where pixel data starts, and remember which kind it was; note how far each value reaches."""
        nonlocal needed
        if length != _UNDEFINED:
            needed = max(needed, watched.tell() + length)
        if int(tag) in (_PIXEL_DATA, *_FLOAT_PIXELS):
            seen.append(int(tag))
            return True
        return False

    file.seek(0)
    try:
        with quiet("pydicom"):
            dataset = read_partial(cast(BinaryIO, watched), stop_when=at_pixels, force=True, specific_tags=wanted)
            header = _plain(dataset, seen)
            if seen or header.transfer_syntax == _DEFLATED:  # positions in a deflated data set are not the file's
                return header
            # Meta information always names a transfer syntax; without it and without a data set it was cut short.
            bare = not len(dataset) and not header.transfer_syntax and size > _PREAMBLE
            return replace(header, cut=watched.short or needed > size or bare)
    except InvalidDicomError:
        raise MedclipError(Reason.CORRUPT, "The DICOM header cannot be read.") from None
    except RecursionError:
        raise MedclipError(Reason.CORRUPT, "The DICOM header nests sequences without end.") from None
    except (EOFError, MemoryError, OverflowError):
        raise MedclipError(Reason.TRUNCATED, "The DICOM header ends too early.") from None
    except Exception:
        raise MedclipError(Reason.CORRUPT, "The DICOM header cannot be read.") from None


def _plain(dataset: Any, seen: Sequence[int]) -> DicomHeader:
    """Give the plain values of a pydicom data set; `seen` are the tags of pixel data that follow it."""
    file_meta = getattr(dataset, "file_meta", None)
    side = _text(dataset, "ImageLaterality") or _text(dataset, "Laterality")
    burned = _text(dataset, "BurnedInAnnotation").upper()
    return DicomHeader(
        modality=_text(dataset, "Modality").upper(),
        sop_class=_text(dataset, "SOPClassUID") or _text(file_meta, "MediaStorageSOPClassUID"),
        transfer_syntax=_text(file_meta, "TransferSyntaxUID"),
        study_uid=_text(dataset, "StudyInstanceUID"),
        series_uid=_text(dataset, "SeriesInstanceUID"),
        instance_uid=_text(dataset, "SOPInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        rows=_whole(dataset, "Rows", 0),
        columns=_whole(dataset, "Columns", 0),
        frames=max(1, _whole(dataset, "NumberOfFrames", 1)),
        samples_per_pixel=_whole(dataset, "SamplesPerPixel", 1),
        bits_allocated=_whole(dataset, "BitsAllocated", 0),
        bits_stored=_whole(dataset, "BitsStored", 0),
        signed=_whole(dataset, "PixelRepresentation", 0) == 1,
        photometric=_text(dataset, "PhotometricInterpretation").upper(),
        has_pixels=bool(seen),
        float_pixels=any(tag in _FLOAT_PIXELS for tag in seen),
        view_position=_text(dataset, "ViewPosition").upper(),
        laterality=side.upper()[:1],
        patient_orientation=_texts(dataset, "PatientOrientation"),
        burned_in={"YES": True, "NO": False}.get(burned),
        presentation_intent=_text(dataset, "PresentationIntentType").upper(),
        body_part=_text(dataset, "BodyPartExamined").upper(),
        spacing_mm=_spacing(dataset, "PixelSpacing") or _spacing(dataset, "ImagerPixelSpacing"),
    )


def _value(dataset: Any, keyword: str) -> Any:
    """Give an element's value, or None where it is missing or cannot be converted."""
    if dataset is None:
        return None
    try:
        return dataset.get(keyword)
    except Exception:
        return None


def _text(dataset: Any, keyword: str) -> str:
    texts = _texts(dataset, keyword)
    return texts[0] if texts else ""


def _texts(dataset: Any, keyword: str) -> tuple[str, ...]:
    value = _value(dataset, keyword)
    if value is None:
        return ()
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    return tuple(text for item in values if (text := str(item).strip(" \0\t\r\n")))


def _whole(dataset: Any, keyword: str, default: int) -> int:
    try:
        return int(float(_text(dataset, keyword) or default))
    except (ValueError, OverflowError):
        return default


def _spacing(dataset: Any, keyword: str) -> tuple[float, float] | None:
    try:
        row, column = (float(text) for text in _texts(dataset, keyword))
    except ValueError:
        return None
    return (row, column) if 1e-3 < row < 100 and 1e-3 < column < 100 else None


_MODALITIES: Mapping[str, Modality] = {
    "CR": Modality.XRAY,
    "DX": Modality.XRAY,
    "MG": Modality.MAMMOGRAPHY,
    "CT": Modality.CT,
    "MR": Modality.MRI,
    "US": Modality.ULTRASOUND,
    "IVUS": Modality.ULTRASOUND,
    "BMUS": Modality.ULTRASOUND,
    "SM": Modality.PATHOLOGY,
    "GM": Modality.PATHOLOGY,
    "OP": Modality.FUNDUS,
    "OPT": Modality.OCT,
    "OCT": Modality.OCT,
    "ES": Modality.ENDOSCOPY,
    "ECG": Modality.ECG,
    "DMS": Modality.DERMATOLOGY,
}
_SOP_MODALITIES: Mapping[str, str] = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.2": "MG",
    "1.2.840.10008.5.1.4.1.1.1.2.1": "MG",
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.6.1": "US",
    "1.2.840.10008.5.1.4.1.1.3.1": "US",
    "1.2.840.10008.5.1.4.1.1.20": "NM",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
    "1.2.840.10008.5.1.4.1.1.12.1": "XA",
    "1.2.840.10008.5.1.4.1.1.12.2": "RF",
    "1.2.840.10008.5.1.4.1.1.77.1.6": "SM",
}
TO_BE_INFERRED = frozenset({"", "OT", "RG", "SC"})
"""Modality codes that do not say what the picture shows."""


def modality_code(header: DicomHeader) -> str:
    """Give the DICOM modality code, from the SOP class where the Modality element does not say."""
    if header.modality in TO_BE_INFERRED:
        return _SOP_MODALITIES.get(header.sop_class, header.modality)
    return header.modality


def modality_from_header(header: DicomHeader) -> Modality | None:
    """Give the modality that a DICOM header names; None where it must be inferred or medclip has no name for it."""
    return _MODALITIES.get(modality_code(header))
