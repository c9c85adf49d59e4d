"""What decoding a file gives, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.sample import Step
from medclip.settings import Settings

MIN_SIDE = 16
"""Pixels of the shorter side under which an image is an icon or a fragment. Real tiles of 30 pixels exist."""


class Decoded(NamedTuple):
    """Pixels and what was done to them."""

    pixels: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
    """H x W x C, C = 1 or 3. DICOM: uint8 in 0-255 or float32 in 0-1. Rasters: as stored, so deep ones may be uint16
    or float32 of any range, and `imaging.intensity` maps them."""
    steps: tuple[Step, ...]
    decoder: str
    headers: Mapping[str, Any]
    """Allow-listed, non-identifying header values."""
    unit: str = "relative"
    """What the values mean: "relative" for display values, "HU", "BQML", ... in modality units, "stored" when raw."""
    spacing_mm: tuple[float, float] | None = None
    """Row and column spacing of `pixels` where the header states it (DICOM); it differs from the header's where pixels
    were made square."""
    in_colour: bool = False
    """Whether the file shows colours, where `pixels` are but its luma; False where nobody looked."""
    stored_size: tuple[int, int] | None = None
    """Rows and columns of the file, where `pixels` have others because they were made square."""


class Frames(NamedTuple):
    """Several frames of one object, and what was done to all of them."""

    pixels: NDArray[Any]
    """F x H x W x C, in the order that was asked for."""
    steps: tuple[Step, ...]
    decoder: str
    headers: Mapping[str, Any]
    unit: str = "relative"
    spacing_mm: tuple[float, float] | None = None
    stored_size: tuple[int, int] | None = None


def check_size(width: int, height: int, settings: Settings) -> None:
    """Refuse an image by the size its header states, before anything is allocated.

    Raises:
        MedclipError: TOO_LARGE beyond `settings.max_pixels`; CORRUPT for a size of zero.
    """
    if width < 1 or height < 1:
        raise MedclipError(Reason.CORRUPT, "the header states an image without rows or columns.")
    if width * height > settings.max_pixels:
        raise MedclipError(
            Reason.TOO_LARGE,
            f"the image has {width} x {height} pixels, more than the limit of {settings.max_pixels:,}.",
            hint="A larger max_pixels below [limits] in medclip.toml, or of medclip.Settings, raises the limit.",
        )


def check_not_small(pixels: NDArray[np.generic]) -> None:
    """Refuse an image with too few pixels to show anything.

    Raises:
        MedclipError: TOO_SMALL if a side is shorter than `MIN_SIDE`.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise MedclipError(
            Reason.TOO_SMALL, f"the image has {width} x {height} pixels; less than {MIN_SIDE} on a side is not scored."
        )


def check_not_constant(pixels: NDArray[np.generic]) -> None:
    """Refuse an image whose pixels are all equal.

    Raises:
        MedclipError: CONSTANT_IMAGE.
    """
    first = pixels[0, 0]
    stride = max(1, max(pixels.shape[:2]) // 64)
    # A coarse grid settles nearly every image; only a candidate is looked at in full.
    if (pixels[::stride, ::stride] == first).all() and (pixels == first).all():
        raise MedclipError(Reason.CONSTANT_IMAGE, "all pixels have the same value, so there is nothing to see.")
