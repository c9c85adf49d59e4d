"""Multi-frame DICOM objects and scenes made by code, and reading with one adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medclip.adapters.base import ImageAdapter, single
from medclip.files.recognise.inspect import inspect_file
from medclip.sample import Sample
from medclip.settings import Settings
from tests.kits.files import dataset

US = "1.2.840.10008.5.1.4.1.1.3.1"


def read(adapter: ImageAdapter, path: Path, settings: Settings | None = None) -> Sample:
    """Read one file with one adapter."""
    settings = settings or Settings()
    return adapter.read(single(path, inspect_file(path, settings)), settings)


def write_cine(path: Path, frames: NDArray[Any], **elements: Any) -> Path:
    """Write [F, H, W] or [F, H, W, 3] as a multi-frame DICOM object."""
    data = dataset(frames[0], **{"NumberOfFrames": len(frames), "SOPClassUID": US, "Modality": "US", **elements})
    raw = frames.tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    data.save_as(path, enforce_file_format=True)
    return path


def region(
    left: int, top: int, right: int, bottom: int, data_type: int = 1, form: int = 1, cm: float | None = 0.05
) -> Dataset:
    """Build one item of SequenceOfUltrasoundRegions; ends inclusive, `cm` per pixel."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = form, data_type, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3 if cm else 0
    item.PhysicalDeltaX = item.PhysicalDeltaY = cm or 0.0
    return item


def regions(*items: Dataset) -> Sequence:
    """Put regions together."""
    return Sequence(items)


def sector(count: int = 1, height: int = 240, width: int = 320, seed: int = 0) -> NDArray[np.uint8]:
    """Give grey ultrasound frames [F, H, W]: a speckled sector (rows 40-199, columns 80-239), text and a grey bar."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    inside = (np.abs(x - 160) < 20 + (y - 40) * 0.4) & (y >= 40) & (y < 200) & (np.abs(x - 160) < 80)
    frames = np.where(inside, rng.integers(20, 180, (count, height, width)), 0).astype(np.uint8)
    frames[:, 8:10, 10:120] = 255
    frames[:, 8:20, 10:120:6] = 255
    frames[:, 220:230, 20:120:6] = 200
    frames[:, 60:160, 300:310] = np.linspace(255, 0, 100).astype(np.uint8)[:, None]
    return frames
