"""What distinguishes DICOM slides from one another, as edits of a level that `write_dicom_slide` writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.kits.slides import MPP, write_dicom_slide

Edit = Callable[[Dataset], None]


def all_of(*edits: Edit) -> Edit:
    def edit(ds: Dataset) -> None:
        for one in edits:
            one(ds)

    return edit


def coarser(step: int) -> Edit:
    """Say that a pixel is `step` pixels of the finest level wide."""

    def edit(ds: Dataset) -> None:
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [MPP * step / 1000] * 2
        ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
        ds.ImagedVolumeHeight, ds.ImagedVolumeWidth = ds.ImagedVolumeHeight * step, ds.ImagedVolumeWidth * step

    return edit


def shows(name: str) -> Edit:
    """Make it a LABEL or an OVERVIEW."""

    def edit(ds: Dataset) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", name, "NONE"]
        ds.SpecimenLabelInImage = "YES"
        ds.BurnedInAnnotation = "YES"

    return edit


def without_scale(ds: Dataset) -> None:
    """Leave out the pixel size."""
    del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence


def sparse(missing: set[int]) -> Edit:
    """Leave out tiles, and say of each of the others where it lies, the last first."""

    def edit(ds: Dataset) -> None:
        size = ds.Rows * ds.Columns * ds.SamplesPerPixel
        across = -(-ds.TotalPixelMatrixColumns // ds.Columns)
        kept = [i for i in range(ds.NumberOfFrames) if i not in missing][::-1]
        ds.PixelData = b"".join(ds.PixelData[i * size : (i + 1) * size] for i in kept)
        ds["PixelData"].VR = "OB"
        ds.NumberOfFrames = len(kept)
        ds.DimensionOrganizationType = "TILED_SPARSE"
        groups = []
        for i in kept:
            place, group, content = Dataset(), Dataset(), Dataset()
            place.ColumnPositionInTotalImagePixelMatrix = i % across * ds.Columns + 1
            place.RowPositionInTotalImagePixelMatrix = i // across * ds.Rows + 1
            for axis in "XYZ":
                setattr(place, f"{axis}OffsetInSlideCoordinateSystem", 0)
            content.DimensionIndexValues = [i % across + 1, i // across + 1]
            group.FrameContentSequence, group.PlanePositionSlideSequence = [content], [place]
            groups.append(group)
        ds.PerFrameFunctionalGroupsSequence = groups

    return edit


def part(number: int, frames: range, whole: int, total: int = 2) -> Edit:
    """Keep some frames, as one part of a concatenation."""

    def edit(ds: Dataset) -> None:
        size = ds.Rows * ds.Columns * ds.SamplesPerPixel
        assert ds.NumberOfFrames == whole
        ds.PixelData = ds.PixelData[frames.start * size : frames.stop * size]
        ds["PixelData"].VR = "OB"
        ds.NumberOfFrames = len(frames)
        ds.ConcatenationUID = generate_uid(entropy_srcs=["concatenation"])
        ds.SOPInstanceUIDOfConcatenationSource = generate_uid(entropy_srcs=["source"])
        ds.InConcatenationNumber, ds.InConcatenationTotalNumber = number, total
        ds.ConcatenationFrameOffsetNumber = frames.start

    return edit


def halved(image: np.ndarray, step: int) -> np.ndarray:
    """Average over step x step pixels."""
    height, width = image.shape[0] // step, image.shape[1] // step
    part = image[: height * step, : width * step].reshape(height, step, width, step, -1)
    return part.mean((1, 3)).round().astype(np.uint8)


def write_set(folder: Path, image: np.ndarray, steps: tuple[int, ...] = (1, 4, 16)) -> list[Path]:
    """Write a pyramid of TILED_FULL instances, with a label and an overview."""
    paths = []
    for step in steps:
        level = image if step == 1 else halved(image, step)
        edit = coarser(step) if step > 1 else None
        paths.append(write_dicom_slide(folder / f"level{step:02d}.dcm", level, photometric="RGB", edit=edit))
    for name, grey in (("LABEL", 77), ("OVERVIEW", 88)):
        small = np.full((120, 100, 3), grey, np.uint8)
        path = folder / f"{name.lower()}.dcm"
        paths.append(write_dicom_slide(path, small, photometric="RGB", edit=shows(name)))
    return paths
