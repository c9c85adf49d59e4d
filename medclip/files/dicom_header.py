"""Plain header values of a DICOM file, read without touching its pixels."""

from __future__ import annotations

import io
import math
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
    "PixelAspectRatio",
    "ImageType",
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "SliceThickness",
    "SpacingBetweenSlices",
    "GantryDetectorTilt",
    "TemporalPositionIdentifier",
    "EchoTime",
    "EchoNumbers",
    "DiffusionBValue",
    "ScanningSequence",
    "SequenceName",
    "FrameTime",
    "CineRate",
    "Manufacturer",
    "ManufacturerModelName",
    "PatientSex",
    "PatientAge",
    "BreastImplantPresent",
    "ViewCodeSequence",
    "PresentationLUTShape",
    "LossyImageCompression",
    "SequenceOfUltrasoundRegions",
    "UltrasoundColorDataPresent",
    "TotalPixelMatrixColumns",
    "TotalPixelMatrixRows",
    "DimensionOrganizationType",
    "ConcatenationUID",
)
_PREAMBLE = 132
"""Bytes of the preamble and the letters DICM."""
_UNDEFINED = 0xFFFFFFFF
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)


@dataclass(frozen=True)
class UltrasoundRegion:
    """One calibrated region of an ultrasound picture (PS3.3 C.8.5.5)."""

    left: int
    top: int
    right: int
    """Inclusive, as the standard has it."""
    bottom: int
    spatial_format: int
    """1 2D, 2 M-mode, 3 spectral, 4 wave form, 5 graphics."""
    data_type: int
    """1 tissue, 2 colour flow, 3 PW spectral Doppler, 4 CW spectral Doppler, ..."""
    spacing_mm: tuple[float, float] | None = None
    """Row and column spacing where the region states centimetres."""


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
    pixel_aspect: tuple[int, int] | None = None
    """Vertical and horizontal size of a pixel (PixelAspectRatio), only where they differ."""
    image_type: tuple[str, ...] = ()
    """ORIGINAL/DERIVED, PRIMARY/SECONDARY, then what the maker adds: AXIAL, LOCALIZER, MOSAIC, ..."""
    series_number: int | None = None
    instance_number: int | None = None
    acquisition_number: int | None = None
    image_position: tuple[float, float, float] | None = None
    """Centre of the first pixel in millimetres, patient coordinates (LPS+)."""
    image_orientation: tuple[float, ...] | None = None
    """Six direction cosines: of a row (columns rising), then of a column (rows rising)."""
    frame_of_reference: str = ""
    slice_thickness_mm: float | None = None
    slice_spacing_mm: float | None = None
    """SpacingBetweenSlices as stated; positions are what counts."""
    gantry_tilt_deg: float | None = None
    temporal_position: int | None = None
    echo_time_ms: float | None = None
    echo_number: int | None = None
    b_value: float | None = None
    sequence: str = ""
    """ScanningSequence and SequenceName, such as "SE tse2d1_11": the machine's words, not a person's."""
    frame_time_ms: float | None = None
    manufacturer: str = ""
    device_model: str = ""
    sex: str = ""
    """"F", "M", "O" or ""."""
    age_years: float | None = None
    """PatientAge in years, 90 at most; days, weeks and months are converted."""
    breast_implant: bool | None = None
    view_code: str = ""
    """View from ViewCodeSequence as a word (CC, MLO, ...); "" where there is none that is known."""
    presentation_inverse: bool = False
    lossy: bool = False
    ultrasound_regions: tuple[UltrasoundRegion, ...] = ()
    ultrasound_colour: bool | None = None
    """UltrasoundColorDataPresent."""
    matrix_columns: int = 0
    matrix_rows: int = 0
    """Size of a whole-slide image's level in pixels."""
    tiled_sparse: bool = False
    concatenation: str = ""


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
        pixel_aspect=_aspect(dataset),
        image_type=tuple(text.upper() for text in _texts(dataset, "ImageType")),
        series_number=_maybe_whole(dataset, "SeriesNumber"),
        instance_number=_maybe_whole(dataset, "InstanceNumber"),
        acquisition_number=_maybe_whole(dataset, "AcquisitionNumber"),
        image_position=_three(_numbers(dataset, "ImagePositionPatient", 3)),
        image_orientation=_numbers(dataset, "ImageOrientationPatient", 6),
        frame_of_reference=_text(dataset, "FrameOfReferenceUID"),
        slice_thickness_mm=_number(dataset, "SliceThickness"),
        slice_spacing_mm=_number(dataset, "SpacingBetweenSlices"),
        gantry_tilt_deg=_number(dataset, "GantryDetectorTilt"),
        temporal_position=_maybe_whole(dataset, "TemporalPositionIdentifier"),
        echo_time_ms=_number(dataset, "EchoTime"),
        echo_number=_maybe_whole(dataset, "EchoNumbers"),
        b_value=_number(dataset, "DiffusionBValue"),
        sequence=" ".join([*_texts(dataset, "ScanningSequence"), _text(dataset, "SequenceName")]).strip(),
        frame_time_ms=_frame_time(dataset),
        manufacturer=_text(dataset, "Manufacturer"),
        device_model=_text(dataset, "ManufacturerModelName"),
        sex={"F": "F", "M": "M", "O": "O"}.get(_text(dataset, "PatientSex").upper()[:1], ""),
        age_years=age_in_years(_text(dataset, "PatientAge")),
        breast_implant={"YES": True, "NO": False}.get(_text(dataset, "BreastImplantPresent").upper()),
        view_code=_view_code(dataset),
        presentation_inverse=_text(dataset, "PresentationLUTShape").upper() == "INVERSE",
        lossy=_text(dataset, "LossyImageCompression") == "01",
        ultrasound_regions=_regions(dataset),
        ultrasound_colour={"1": True, "0": False}.get(_text(dataset, "UltrasoundColorDataPresent")),
        matrix_columns=_whole(dataset, "TotalPixelMatrixColumns", 0),
        matrix_rows=_whole(dataset, "TotalPixelMatrixRows", 0),
        tiled_sparse=_text(dataset, "DimensionOrganizationType").upper() == "TILED_SPARSE",
        concatenation=_text(dataset, "ConcatenationUID"),
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


def _maybe_whole(dataset: Any, keyword: str) -> int | None:
    number = _number(dataset, keyword)
    return None if number is None else int(number)


def _number(dataset: Any, keyword: str) -> float | None:
    try:
        number = float(_text(dataset, keyword))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(text) for text in _texts(dataset, keyword))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _three(numbers: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    return None if numbers is None else (numbers[0], numbers[1], numbers[2])


def _aspect(dataset: Any) -> tuple[int, int] | None:
    numbers = _numbers(dataset, "PixelAspectRatio", 2)
    if numbers is None or min(numbers) < 1 or numbers[0] == numbers[1]:
        return None
    return int(numbers[0]), int(numbers[1])


def _frame_time(dataset: Any) -> float | None:
    stated, rate = _number(dataset, "FrameTime"), _number(dataset, "CineRate")
    if stated is not None and stated > 0:
        return stated
    return 1000 / rate if rate is not None and rate > 0 else None


def age_in_years(text: str) -> float | None:
    """Read a DICOM age string (PS3.5: 018M, 034Y, 003W, 010D); 90 and above give 90.

    Example:
        >>> age_in_years("018M"), age_in_years("102Y"), age_in_years("")
        (1.5, 90.0, None)
    """
    per_year = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}
    unit = text[-1:].upper()
    if not text[:-1].isdigit() or unit not in per_year:
        return None
    return min(float(text[:-1]) / per_year[unit], 90.0)


_VIEW_CODES: Mapping[str, str] = {
    "R-10242": "CC", "399162004": "CC", "R-10226": "MLO", "399368009": "MLO", "R-10224": "ML", "399260004": "ML",
    "R-10228": "LM", "399352003": "LM", "R-10230": "LMO", "399099002": "LMO", "R-1024A": "XCCL", "R-1024B": "XCCM",
}  # fmt: skip
"""Mammography views by their SNOMED code, old and new (PS3.16, CID 4014)."""


def _view_code(dataset: Any) -> str:
    try:
        return next(
            (_VIEW_CODES.get(_text(item, "CodeValue"), "") for item in _value(dataset, "ViewCodeSequence") or ()), ""
        )
    except Exception:
        return ""


def _regions(dataset: Any) -> tuple[UltrasoundRegion, ...]:
    """Read the calibrated regions of an ultrasound picture; what cannot be read is left out."""
    try:
        items = list(_value(dataset, "SequenceOfUltrasoundRegions") or ())
    except Exception:
        return ()
    corners = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    found = []
    for item in items:
        left, top, right, bottom = (_whole(item, keyword, -1) for keyword in corners)
        if not (0 <= left < right and 0 <= top < bottom):
            continue
        across, down = _number(item, "PhysicalDeltaX"), _number(item, "PhysicalDeltaY")
        in_cm = all(_whole(item, f"PhysicalUnits{axis}Direction", 0) == 3 for axis in "XY")
        spacing = (abs(down) * 10, abs(across) * 10) if in_cm and across and down else None
        kinds = _whole(item, "RegionSpatialFormat", 0), _whole(item, "RegionDataType", 0)
        found.append(UltrasoundRegion(left, top, right, bottom, *kinds, spacing))
    return tuple(found)


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
