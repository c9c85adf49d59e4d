"""Plain header values of a DICOM file, read without touching its pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

from medclip.dicom.header import elements as v
from medclip.dicom.header.body_parts import region_of_code, stated_part
from medclip.dicom.header.codes import (
    ECG_CLASSES,
    EXAM_KINDS,
    MAMMOGRAPHIC,
    SOP_MODALITIES,
    TO_BE_INFERRED,
    view_code,
    view_modifiers,
)
from medclip.dicom.header.deflated import UID as _DEFLATED
from medclip.dicom.header.deflated import DeflatedError, Guarded, Inflated, restore
from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.sample import Modality, modality_of_code

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
    "StudyDate",
    "AcquisitionDate",
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
    "LossyImageCompression",
    "SequenceOfUltrasoundRegions",
    "UltrasoundColorDataPresent",
    "TotalPixelMatrixColumns",
    "TotalPixelMatrixRows",
    "SharedFunctionalGroupsSequence",
    "KVP",
    "MagneticFieldStrength",
    "RepetitionTime",
    "DeviceSerialNumber",
    "StationName",
    "InstitutionName",
    "ProtocolName",
    "SeriesDescription",
    "StudyDescription",
    "AnatomicRegionSequence",
)
_PREAMBLE = 132
"""Bytes of the preamble and the letters DICM."""
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)


@dataclass(frozen=True)
class UltrasoundRegion:
    """One calibrated region of an ultrasound image (PS3.3 C.8.5.5)."""

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
    """BodyPartExamined, or the term of AnatomicRegionSequence where that is missing."""
    stated_part: str = ""
    """The same with the terms that descriptions name (`medclip.dicom.header.body_parts`)."""
    spacing_mm: tuple[float, float] | None = None
    """Row and column spacing: PixelSpacing, or ImagerPixelSpacing where that is missing or zero."""
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
    lossy: bool = False
    ultrasound_regions: tuple[UltrasoundRegion, ...] = ()
    ultrasound_colour: bool | None = None
    """UltrasoundColorDataPresent."""
    matrix_columns: int = 0
    matrix_rows: int = 0
    """Size of a whole-slide image's level in pixels."""
    view_modifiers: tuple[str, ...] = ()
    """What was done differently in a mammographic view: implant displaced, magnification, spot compression."""
    kvp: float | None = None
    field_strength_t: float | None = None
    repetition_time_ms: float | None = None
    study_date: str = ""
    """StudyDate, or AcquisitionDate where that is missing: for the days between examinations only."""
    device: str = ""
    """DeviceSerialNumber, or StationName where that is missing. As the next two: only ever written as a keyed hash."""
    institution: str = ""
    protocol: str = ""
    """ProtocolName: free text."""

    @property
    def exam_kind(self) -> str | None:
        """How a mammogram was made, one of `medclip.sample.VIEW_KINDS`; None for a standard one and other images."""
        kinds = (EXAM_KINDS[word] for word in self.image_type if word in EXAM_KINDS)
        return next(kinds, None) if modality_code(self) == "MG" else None

    @property
    def mosaic(self) -> bool:
        """Whether the image is a Siemens mosaic: the slices of a volume side by side in one frame."""
        return "MOSAIC" in self.image_type


def modality_code(header: DicomHeader) -> str:
    """Return the DICOM modality code, from the SOP class where the Modality element does not say."""
    if header.modality in TO_BE_INFERRED:
        return SOP_MODALITIES.get(header.sop_class, header.modality)
    return header.modality


def modality_from_header(header: DicomHeader) -> Modality | None:
    """Return the modality that a DICOM header names; None where it must be inferred or medclip has no name for it."""
    if header.sop_class in ECG_CLASSES:
        return Modality.ECG  # whatever the device calls itself: some ECG carts write "ECG", some "HD" or nothing
    return modality_of_code(modality_code(header))


class _Watched(Guarded):
    """A file that notes whether a read behind the preamble found some bytes, but fewer than it asked for."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.short = False

    def read(self, size: int = -1) -> bytes:
        at = self.tell()
        data = super().read(size)
        self.short |= at >= _PREAMBLE and 0 < len(data) < size
        return data


def read_header(file: BinaryIO) -> DicomHeader:
    """Read the header values of an open DICOM file and stop before the pixels.

    Args:
        file: A binary file at any position.

    Returns:
        The values; empty ones where the header says nothing.

    Raises:
        MedclipError: CORRUPT if the file cannot be parsed; of a deflated one TRUNCATED if it ends early, TOO_LARGE if
            its header takes more than is reasonable. Texts of the parser are not passed on, since they may quote
            header values.
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
            options: dict[str, Any] = {"stop_when": at_pixels, "force": True, "specific_tags": wanted}
            try:
                dataset = read_partial(cast(BinaryIO, watched), **options)
            except DeflatedError:
                dataset = read_partial(cast(BinaryIO, Inflated(file)), **options)
                restore(dataset)
            header = _plain(dataset, seen)
            if seen or header.transfer_syntax == _DEFLATED:  # positions in a deflated data set are not the file's
                return header
            # Meta information always names a transfer syntax; without it and without a data set it was cut short.
            bare = not len(dataset) and not header.transfer_syntax and size > _PREAMBLE
            return replace(header, cut=watched.short or needed > size or bare)
    except MedclipError:
        raise
    except InvalidDicomError:
        raise MedclipError(Reason.CORRUPT, "the DICOM header cannot be read.") from None
    except RecursionError:
        raise MedclipError(Reason.CORRUPT, "the DICOM header nests sequences without end.") from None
    except (EOFError, MemoryError, OverflowError):
        raise MedclipError(Reason.TRUNCATED, "the DICOM header ends too early.") from None
    except Exception:
        raise MedclipError(Reason.CORRUPT, "the DICOM header cannot be read.") from None


def _plain(dataset: Any, seen: Sequence[int]) -> DicomHeader:
    """Return the plain values of a pydicom data set; `seen` are the tags of pixel data that follow it."""
    file_meta = getattr(dataset, "file_meta", None)
    side = v.text(dataset, "ImageLaterality") or v.text(dataset, "Laterality")
    shared = _shared(dataset)
    regions = (v.text(item, "CodeValue") for item in v.items(dataset, "AnatomicRegionSequence")[:1])
    part = v.text(dataset, "BodyPartExamined").upper() or "".join(map(region_of_code, regions))
    view = view_code(dataset)
    described = [v.text(dataset, of) for of in ("SeriesDescription", "ProtocolName", "StudyDescription")]
    if view in MAMMOGRAPHIC:
        described.insert(0, "breast")
    if v.text(dataset, "Modality").upper() == "MG":
        described = []  # such a device sees breasts alone, whatever else the study was for
    return DicomHeader(
        modality=v.text(dataset, "Modality").upper(),
        sop_class=v.text(dataset, "SOPClassUID") or v.text(file_meta, "MediaStorageSOPClassUID"),
        transfer_syntax=v.text(file_meta, "TransferSyntaxUID"),
        study_uid=v.text(dataset, "StudyInstanceUID"),
        series_uid=v.text(dataset, "SeriesInstanceUID"),
        instance_uid=v.text(dataset, "SOPInstanceUID"),
        patient_id=v.text(dataset, "PatientID"),
        rows=v.integer(dataset, "Rows", 0),
        columns=v.integer(dataset, "Columns", 0),
        frames=_frames(dataset),
        samples_per_pixel=v.integer(dataset, "SamplesPerPixel", 1),
        bits_allocated=v.integer(dataset, "BitsAllocated", 0),
        bits_stored=v.integer(dataset, "BitsStored", 0),
        signed=v.integer(dataset, "PixelRepresentation", 0) == 1,
        photometric=v.text(dataset, "PhotometricInterpretation").upper(),
        has_pixels=bool(seen),
        float_pixels=any(tag in _FLOAT_PIXELS for tag in seen),
        view_position=v.text(dataset, "ViewPosition").upper(),
        laterality=v.side_of(side),
        patient_orientation=v.texts(dataset, "PatientOrientation"),
        burned_in=v.flag(dataset, "BurnedInAnnotation"),
        presentation_intent=v.text(dataset, "PresentationIntentType").upper(),
        body_part=part,
        stated_part=stated_part(part, described),
        spacing_mm=v.spacing(dataset, "PixelSpacing")
        or v.spacing(dataset, "ImagerPixelSpacing")
        or v.spacing(shared.get("PixelMeasuresSequence"), "PixelSpacing"),
        image_type=tuple(text.upper() for text in v.texts(dataset, "ImageType")),
        series_number=v.maybe_whole(dataset, "SeriesNumber"),
        instance_number=v.maybe_whole(dataset, "InstanceNumber"),
        acquisition_number=v.maybe_whole(dataset, "AcquisitionNumber"),
        image_position=v.three(v.numbers(dataset, "ImagePositionPatient", 3)),
        image_orientation=v.numbers(dataset, "ImageOrientationPatient", 6)
        or v.numbers(shared.get("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        frame_of_reference=v.text(dataset, "FrameOfReferenceUID"),
        slice_thickness_mm=v.number(dataset, "SliceThickness")
        or v.number(shared.get("PixelMeasuresSequence"), "SliceThickness"),
        slice_spacing_mm=v.number(dataset, "SpacingBetweenSlices")
        or v.number(shared.get("PixelMeasuresSequence"), "SpacingBetweenSlices"),
        gantry_tilt_deg=v.number(dataset, "GantryDetectorTilt"),
        temporal_position=v.maybe_whole(dataset, "TemporalPositionIdentifier"),
        echo_time_ms=v.number(dataset, "EchoTime"),
        echo_number=v.maybe_whole(dataset, "EchoNumbers"),
        b_value=v.number(dataset, "DiffusionBValue"),
        sequence=" ".join([*v.texts(dataset, "ScanningSequence"), v.text(dataset, "SequenceName")]).strip(),
        frame_time_ms=v.frame_time(dataset),
        manufacturer=v.text(dataset, "Manufacturer"),
        device_model=v.text(dataset, "ManufacturerModelName"),
        sex={"F": "F", "M": "M", "O": "O"}.get(v.text(dataset, "PatientSex").upper()[:1], ""),
        age_years=v.age_in_years(v.text(dataset, "PatientAge")),
        breast_implant=v.flag(dataset, "BreastImplantPresent"),
        view_code=view,
        lossy=v.text(dataset, "LossyImageCompression") == "01",
        ultrasound_regions=_regions(dataset),
        ultrasound_colour={"1": True, "0": False}.get(v.text(dataset, "UltrasoundColorDataPresent")),
        matrix_columns=v.integer(dataset, "TotalPixelMatrixColumns", 0),
        matrix_rows=v.integer(dataset, "TotalPixelMatrixRows", 0),
        view_modifiers=view_modifiers(dataset),
        kvp=v.number(dataset, "KVP"),
        field_strength_t=v.number(dataset, "MagneticFieldStrength"),
        repetition_time_ms=v.number(dataset, "RepetitionTime"),
        study_date=v.text(dataset, "StudyDate") or v.text(dataset, "AcquisitionDate"),
        device=v.text(dataset, "DeviceSerialNumber") or v.text(dataset, "StationName"),
        institution=v.text(dataset, "InstitutionName"),
        protocol=v.text(dataset, "ProtocolName"),
    )


def _frames(dataset: Any) -> int:
    """Return the number of frames.

    Raises:
        MedclipError: CORRUPT where it is stated and no number: nothing behind it could be placed.
    """
    stated = v.text(dataset, "NumberOfFrames")
    if not stated and not _is_broken(dataset, "NumberOfFrames"):
        return 1
    if v.number(dataset, "NumberOfFrames") is None:
        raise MedclipError(Reason.CORRUPT, "the DICOM header states a number of frames that is no number.")
    return max(1, v.integer(dataset, "NumberOfFrames", 1))


def _is_broken(dataset: Any, keyword: str) -> bool:
    """Return whether an element is there and cannot be converted."""
    try:
        dataset.get(keyword)
    except Exception:
        return True
    return False


def _shared(dataset: Any) -> dict[str, Any]:
    """Return the first items of the shared functional groups that say where and how large the pixels are."""
    if "SharedFunctionalGroupsSequence" not in dataset:
        return {}
    groups = v.items(dataset, "SharedFunctionalGroupsSequence")[:1]
    return {
        name: items[0]
        for group in groups
        for name in ("PixelMeasuresSequence", "PlaneOrientationSequence")
        if (items := v.items(group, name))
    }


def _regions(dataset: Any) -> tuple[UltrasoundRegion, ...]:
    """Read the calibrated regions of an ultrasound image; what cannot be read is left out."""
    regions = []
    corners = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    for item in v.items(dataset, "SequenceOfUltrasoundRegions"):
        left, top, right, bottom = (v.integer(item, keyword, -1) for keyword in corners)
        if not (0 <= left < right and 0 <= top < bottom):
            continue
        across, down = v.number(item, "PhysicalDeltaX"), v.number(item, "PhysicalDeltaY")
        in_cm = all(v.integer(item, f"PhysicalUnits{axis}Direction", 0) == 3 for axis in "XY")
        spacing = (abs(down) * 10, abs(across) * 10) if in_cm and across and down else None
        kinds = v.integer(item, "RegionSpatialFormat", 0), v.integer(item, "RegionDataType", 0)
        regions.append(UltrasoundRegion(left, top, right, bottom, *kinds, spacing))
    return tuple(regions)
