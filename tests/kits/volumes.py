"""Series, enhanced objects and NIfTI files with a bright voxel at a known place, made by code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from medclip.files.recognise.inspect import inspect_file
from medclip.imaging.volume.read import VolumeRead, read_series
from medclip.sample import Volume
from medclip.settings import ReadPolicy, Settings
from tests.kits.files import dataset, write_dicom

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.2.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SETTINGS = Settings()
RESAMPLE = Settings(policy=ReadPolicy(uneven_slices="resample"))
SHAPE = (6, 20, 24)
BRIGHT = (4, 7, 15)
"""Slice, row, column of the bright voxel as it is stored."""


def scene(shape: tuple[int, int, int] = SHAPE, dtype: Any = np.int16) -> NDArray[Any]:
    """Give a dim volume with one bright voxel."""
    voxels = (np.indices(shape).sum(axis=0) % 7 + 100).astype(dtype)
    voxels[BRIGHT] = 2000
    return voxels


def bright_lps(
    positions: Sequence[Sequence[float]], orientation: Sequence[float], spacing: tuple[float, float]
) -> NDArray[np.float64]:
    """Say where the bright voxel is, in LPS mm, by the standard's formula (PS3.3 C.7.6.2.1.1)."""
    slice_, row, column = BRIGHT
    along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
    return np.array(positions[slice_]) + along_row * spacing[1] * column + along_column * spacing[0] * row


def positions_of(
    count: int, orientation: Sequence[float] = AXIAL, step: float = 2.0, origin: Sequence[float] = (-30.0, -50.0, 10.0)
) -> list[tuple[float, ...]]:
    """Give positions along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    return [tuple(float(v) for v in np.array(origin) + normal * step * index) for index in range(count)]


def write_series(
    folder: Path,
    voxels: NDArray[Any],
    positions: Sequence[Sequence[float]],
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (0.8, 0.5),
    **elements: Any,
) -> list[Path]:
    """Write one file for each slice."""
    base: dict[str, Any] = {
        "SOPClassUID": CT,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SliceThickness": 2.0,
    }
    if elements.get("Modality", "CT") == "CT":
        base |= {"RescaleSlope": 1, "RescaleIntercept": 0}
    return [
        write_dicom(
            folder / f"{index:03}.dcm",
            slice_,
            **{
                **base,
                "PixelSpacing": list(spacing),
                "ImagePositionPatient": [round(float(value), 6) for value in position],
                "ImageOrientationPatient": [round(float(value), 9) for value in orientation],
                "InstanceNumber": index + 1,
                **elements,
            },
        )
        for index, (slice_, position) in enumerate(zip(voxels, positions, strict=True))
    ]


def read_paths(paths: Sequence[Path], settings: Settings = SETTINGS, **options: Any) -> VolumeRead:
    """Read files as one series."""
    return read_series(paths, [inspect_file(path, settings) for path in paths], settings, **options)


def write_enhanced(
    path: Path,
    frames: NDArray[Any],
    groups: Sequence[dict[str, dict[str, Any]]],
    shared: dict[str, dict[str, Any]] | None = None,
    **elements: Any,
) -> Path:
    """Write a multi-frame object with functional groups: for each frame {sequence: {element: value}}."""
    data = dataset(
        frames[0], **{"SOPClassUID": ENHANCED_MR, "Modality": "MR", "NumberOfFrames": len(frames), **elements}
    )
    data.PixelData = frames.tobytes()
    data.SharedFunctionalGroupsSequence = Items([_group(shared or {})])
    data.PerFrameFunctionalGroupsSequence = Items([_group(group) for group in groups])
    data.save_as(path, enforce_file_format=True)
    return path


def _group(content: dict[str, dict[str, Any]]) -> Dataset:
    out = Dataset()
    for sequence, values in content.items():
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(out, sequence, Items([item]))
    return out


def brightest_ras(volume: Volume) -> NDArray[np.float64]:
    """Find the bright voxel through the affine, in RAS mm."""
    voxels = volume.voxels if volume.voxels.ndim == 3 else volume.voxels[0]
    index = np.unravel_index(int(voxels.argmax()), voxels.shape)
    return (volume.affine @ [*index, 1.0])[:3]


def lps(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn RAS into LPS or back."""
    return values * [-1, -1, 1]


def write_nifti(path: Path, voxels: NDArray[Any], affine: NDArray[Any], kind: Any = nibabel.Nifti1Image) -> Path:
    """Write [x, y, z(, t)] voxels."""
    nibabel.save(kind(voxels, affine), path)
    return path


def limited(max_volume_bytes: int) -> Settings:
    """Settings with a small limit."""
    return replace(SETTINGS, max_volume_bytes=max_volume_bytes)
