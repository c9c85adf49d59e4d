"""One value for each patch of a slide, the raster of them, and a DICOM parametric map of it (PS3.3, A.75).

The value says what a patch adds to the slide's logit of one answer against the others, or the share of attention on it.
It is model attention evidence: no localisation of a disease, and no reason.

The parametric map has one float32 frame in the slide's own coordinates, a pixel a patch. Of a DICOM slide it is a
further series of its study, in its frame of reference, with its patient and study: without them a viewer cannot lay it
over the slide, so it is written only where it is asked for. Of other slides nothing is known of the patient, and
nothing is written: names and numbers are empty, and UIDs come from the slide's key. Where no patch is, pixels have
`FloatPixelPaddingValue`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.hashed_uid import hashed_uid
from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.slides.slide_features import SlideFeatures
from medclip.version import __version__

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CELLS = 8
"""Cells along a patch where patches share no grid."""
_FINEST = 16
"""Steps along a patch, from which a step is no overlap but the distance of two pieces' grids."""
_OFF = 0.01


@dataclass(frozen=True, eq=False)
class PatchMap:
    """A map of one slide."""

    title: str
    """What is mapped, in words: "evidence for tumour against normal"."""
    values_N: NDArray[np.float32]
    corners_um_N2: NDArray[np.float64]
    """Top and left of each patch."""
    patch_um: tuple[float, float]
    """Height and width of a patch."""
    slide_um: tuple[float, float]
    """Height and width of the slide."""

    @property
    def peak(self) -> int:
        """The patch with the greatest value, the first of equal ones."""
        return int(self.values_N.argmax())

    def strengths(self) -> NDArray[np.float32]:
        """Return values as colours have them, float32 [N]: 0 for what speaks not for it, 1 for the largest value."""
        largest = float(self.values_N.max(initial=0.0))
        return (self.values_N.clip(0) / (largest or 1.0)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Raster:
    """A map on a regular grid of cells."""

    values_RC: NDArray[np.float32]
    """NaN where no patch begins."""
    cell_um: tuple[float, float]
    """Height and width of a cell: the step from patch to patch."""
    origin_um: tuple[float, float]
    """Top and left of the first cell."""


def patch_map(features: SlideFeatures, values_N: NDArray[np.floating], title: str) -> PatchMap:
    """Place values on the patches of a slide.

    Args:
        features: The slide.
        values_N: One value for each patch.
        title: Name of what the values are.

    Raises:
        MedclipError: WRONG_USE where there is not one value for each patch.
    """
    if len(values_N) != len(features) or not len(features):
        raise MedclipError(Reason.WRONG_USE, f"{len(values_N)} values for a slide with {len(features)} patches.")
    size = features.size_px * features.effective_mpp_um[0], features.size_px * features.effective_mpp_um[1]
    values = np.asarray(values_N, np.float32)
    return PatchMap(title, values, features.corners_um_N2, size, features.slide_size_um)


def evidence_for(logits_NC: NDArray[np.floating], answer: int) -> NDArray[np.float32]:
    """Return what speaks for one answer against the mean of the others, float32 [N]; its logit where it is alone.

    Example:
        >>> evidence_for(np.array([[3.0, 1.0, 2.0]]), 0).tolist()
        [1.5]
    """
    if logits_NC.shape[1] == 1:
        return logits_NC[:, 0].astype(np.float32)
    others = np.delete(np.asarray(logits_NC, np.float64), answer, axis=1).mean(axis=1)
    return (logits_NC[:, answer] - others).astype(np.float32)


def rasterise(one: PatchMap) -> Raster:
    """Lay a map on the grid that its patches step by; where patches overlap a cell has the patch that begins there.

    Patches that are counted piece by piece share no grid: each fills the cells below it then, an eighth of a patch
    wide, and where two pieces' patches meet a cell has the greater value.
    """
    cells, steps, first = [], [], []
    for axis in range(2):
        starts = one.corners_um_N2[:, axis]
        distinct = np.unique(np.round(starts, 3))
        step = float(np.diff(distinct).min()) if len(distinct) > 1 else one.patch_um[axis]
        # Where whole rows of patches have no tissue, a cell is still no larger than a patch.
        step /= max(1, math.ceil(step / one.patch_um[axis] - _OFF))
        at = (starts - starts.min()) / step
        if step < one.patch_um[axis] / _FINEST or np.abs(at - np.rint(at)).max() > _OFF:
            return _painted(one)
        steps.append(step)
        first.append(float(starts.min()))
        cells.append(np.rint(at).astype(np.int64))
    values = np.full((int(cells[0].max()) + 1, int(cells[1].max()) + 1), np.nan, np.float32)
    values[cells[0], cells[1]] = one.values_N
    return Raster(values, (steps[0], steps[1]), (first[0], first[1]))


def _painted(one: PatchMap) -> Raster:
    """Fill the cells below each patch."""
    cell = one.patch_um[0] / _CELLS, one.patch_um[1] / _CELLS
    first = one.corners_um_N2.min(axis=0)
    at = np.rint((one.corners_um_N2 - first) / cell).astype(np.int64)
    values = np.full(tuple(at.max(axis=0) + _CELLS), np.nan, np.float32)
    for (row, column), value in zip(at, one.values_N, strict=True):
        below = values[row : row + _CELLS, column : column + _CELLS]
        np.fmax(below, value, out=below)
    return Raster(values, cell, (float(first[0]), float(first[1])))


PADDING = float(np.finfo(np.float32).min)
_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    "StudyTime",
)


def slide_header(*paths: Path) -> Dataset | None:
    """Read the header of the finest level of a DICOM slide, without pixels; None for any other file.

    Labels and overviews are images of the same class, in frames of their own: they never stand for the slide.
    """
    levels = [header for path in paths if (header := _level(path)) is not None]
    return max(levels, key=lambda h: h.TotalPixelMatrixRows * h.TotalPixelMatrixColumns, default=None)


def _level(path: Path) -> Dataset | None:
    """Read the header of a level of a DICOM slide; None for any other file."""
    import pydicom

    try:
        with quiet("pydicom"):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            level = str(header.SOPClassUID) == _SLIDE and "VOLUME" in header.ImageType
            placed = "ImageOrientationSlide" in header and header.TotalPixelMatrixRows * header.TotalPixelMatrixColumns
            return header if level and placed else None
    except Exception:  # pydicom raises many types, whose texts may quote header values
        return None


def blank_header(one: PatchMap, key: str, mpp_um: tuple[float, float]) -> Dataset:
    """Make the header that stands for a slide that is not DICOM: its geometry, and nothing of a patient.

    Args:
        one: Map of the slide.
        key: Key of the slide; UIDs are made of it.
        mpp_um: Row and column µm/px of the slide's finest resolution.
    """
    from pydicom.dataset import Dataset

    header, origin, measures, group = Dataset(), Dataset(), Dataset(), Dataset()
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        setattr(header, name, hashed_uid(key, name))
    header.SOPClassUID, header.Modality = _SLIDE, "SM"
    header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns = (
        max(1, round(side / mpp)) for side, mpp in zip(one.slide_um, mpp_um, strict=True)
    )
    header.Rows, header.Columns, header.NumberOfFrames = 256, 256, 1
    header.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    header.TotalPixelMatrixOriginSequence = [origin]
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000 for mpp in mpp_um], 0.001
    group.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [group]
    header.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    _describe_specimen(header, key)
    return header


def parametric_map(one: PatchMap, header: Dataset, key: str, software: str = "") -> Dataset:
    """Turn a map into a DICOM parametric map.

    Args:
        one: The map.
        header: Header of the slide: `slide_header` or `blank_header`.
        key: Key of the slide; with the title it makes the UIDs, so that equal maps have equal ones.
        software: Model and head, in a few words.

    Returns:
        The data set, ready for `save_as`.

    Raises:
        MedclipError: MISSING_CODEC without highdicom; CORRUPT for a header that does not say where the slide lies.
    """
    try:
        import highdicom as hd
        from pydicom.sr.codedict import codes
    except ImportError as e:
        raise MedclipError(
            Reason.MISSING_CODEC, "a parametric map needs highdicom.", hint="Run: pip install 'medclip-imaging[dicom]'"
        ) from e
    for name in _EMPTY:
        if name not in header:
            setattr(header, name, "")
    raster = rasterise(one)
    values_RC = np.where(np.isnan(raster.values_RC), PADDING, raster.values_RC).astype(np.float32)
    low, high = float(one.values_N.min()), float(one.values_N.max())
    try:
        orientation = [float(value) for value in header.ImageOrientationSlide]
        position = _position(raster, header, orientation)
    except (AttributeError, IndexError, TypeError, ValueError) as e:
        raise MedclipError(Reason.CORRUPT, "the slide's header does not say where the slide lies.") from e
    slide = hd.CoordinateSystemNames.SLIDE
    data: Any = hd.pm.ParametricMap(
        source_images=[header],
        pixel_array=values_RC,
        series_instance_uid=hashed_uid(key, f"{one.title} {software} series"),
        series_number=1,
        sop_instance_uid=hashed_uid(key, f"{one.title} {software} {values_RC.tobytes().hex()}"),
        instance_number=1,
        manufacturer="medclip",
        manufacturer_model_name="medclip",
        software_versions=__version__,
        device_serial_number="0",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                lut_label="evidence",
                lut_explanation=one.title[:64],
                unit=codes.UCUM.NoUnits,
                value_range=(low, high if high > low else low + 1.0),
                slope=1.0,
                intercept=0.0,
            )
        ],
        voi_lut_transformations=[
            # By DICOM's LINEAR no window may be narrower than 1.
            hd.VOILUTTransformation((low + high) / 2, max(high - low, 1e-6), voi_lut_function="LINEAR_EXACT")
        ],
        content_label="EVIDENCE",
        content_description=f"Model attention evidence: {one.title}. {software}"[:64],
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=tuple(um / 1000 for um in raster.cell_um), slice_thickness=0.001
        ),
        plane_orientation=hd.PlaneOrientationSequence(slide, tuple(orientation)),
        plane_positions=[hd.PlanePositionSequence(slide, position, pixel_matrix_position=(1, 1))],
    )
    data.FloatPixelPaddingValue = PADDING
    return data


def write_parametric_map(path: Path, one: PatchMap, header: Dataset, key: str, software: str = "") -> None:
    """Write a map as a DICOM file, whole or not at all; arguments as in `parametric_map`."""
    from medclip.files.output import new_file

    data: Any = parametric_map(one, header, key, software)
    with new_file(path) as draft:
        data.save_as(draft, enforce_file_format=True)


def _position(raster: Raster, header: Any, orientation: list[float]) -> tuple[float, float, float]:
    """Return the centre of the first cell in the slide's coordinates, in mm; DICOM counts from centres of pixels."""
    origin = header.TotalPixelMatrixOriginSequence[0]
    spacing = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    down, across = (
        (first + cell / 2) / 1000 - float(pixel) / 2
        for first, cell, pixel in zip(raster.origin_um, raster.cell_um, spacing, strict=True)
    )
    start = float(origin.XOffsetInSlideCoordinateSystem), float(origin.YOffsetInSlideCoordinateSystem), 0.0
    moved = (start[i] + across * orientation[i] + down * orientation[3 + i] for i in range(3))
    x, y, z = moved
    return x, y, z


def _describe_specimen(header: Dataset, key: str) -> None:
    """Name container and specimen, which each slide must have, by a hash of its key; nothing else is known of them."""
    from pydicom.dataset import Dataset

    specimen = Dataset()
    name = hashlib.sha256(f"{key} specimen".encode()).hexdigest()[:16]
    header.ContainerIdentifier = specimen.SpecimenIdentifier = name
    specimen.SpecimenUID = hashed_uid(key, "SpecimenUID")
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    header.IssuerOfTheContainerIdentifierSequence = []
    header.ContainerTypeCodeSequence = []
    header.SpecimenDescriptionSequence = [specimen]
