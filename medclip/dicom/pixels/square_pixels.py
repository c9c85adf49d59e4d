"""Pixels that are not square are made so, on the finer of their two spacings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medclip.dicom.header.elements import floats
from medclip.dicom.header.read import DicomHeader
from medclip.dicom.pixels.decoded import check_size
from medclip.sample import Step
from medclip.settings import Settings

_TOLERANCE = 0.01
_LARGEST = 8.0
"""A pixel eight times as long as wide is a mistake of the header."""


def pixel_shape(
    dataset: Any, header: DicomHeader, spacing: tuple[float, float] | None
) -> tuple[tuple[float, float] | None, float]:
    """Return the spacing in millimetres (row, column) and the height of a pixel in its widths.

    Spacing counts before PixelAspectRatio, which the standard wants only where there is no spacing.
    """
    spacing = spacing or header.spacing_mm or _pair(dataset, "ImagerPixelSpacing")
    if spacing is not None:
        return spacing, spacing[0] / spacing[1]
    aspect = _pair(dataset, "PixelAspectRatio")
    return None, aspect[0] / aspect[1] if aspect else 1.0


def _pair(dataset: Any, keyword: str) -> tuple[float, float] | None:
    numbers = floats(dataset, keyword)
    if not numbers or len(numbers) != 2:
        return None
    first, second = numbers
    return (first, second) if 1e-3 < first < 1e4 and 1e-3 < second < 1e4 else None


def make_square(
    pixels: NDArray[Any],
    spacing: tuple[float, float] | None,
    ratio: float,
    settings: Settings,
    steps: list[Step],
) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Resample F x H x W x C pixels so that they are square; the coarser axis gets more of them (bilinear).

    Args:
        pixels: uint8 or float32.
        spacing: Row and column spacing in millimetres, if known.
        ratio: Height of a pixel in its widths.
        settings: Limits the result.
        steps: Receives what was done.

    Returns:
        The pixels and their spacing.

    Raises:
        MedclipError: TOO_LARGE.
    """
    if abs(ratio - 1) <= _TOLERANCE:
        return pixels, spacing
    if not 1 / _LARGEST <= ratio <= _LARGEST:
        steps.append(Step("square pixels", f"ignored: a pixel {ratio:g} times as high as wide is not believed"))
        return pixels, spacing
    height, width = pixels.shape[1:3]
    new_height, new_width = (round(height * ratio), width) if ratio > 1 else (height, round(width / ratio))
    check_size(new_width, new_height, settings)
    if (new_height, new_width) == (height, width):
        return pixels, spacing
    out = np.empty((len(pixels), new_height, new_width, pixels.shape[3]), pixels.dtype)
    for frame, target in zip(pixels, out, strict=True):
        for channel in range(frame.shape[2]):
            plane = Image.fromarray(np.ascontiguousarray(frame[:, :, channel]))
            target[:, :, channel] = np.asarray(plane.resize((new_width, new_height), Image.Resampling.BILINEAR))
    steps.append(
        Step(
            "square pixels",
            f"{height} x {width} pixels, {ratio:g} times as high as wide, to {new_height} x {new_width}",
        )
    )
    side = min(spacing) if spacing else None
    return out, (side, side) if side is not None else None
