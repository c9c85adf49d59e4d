"""Bring pictures deeper than 8 bits to float32 in 0-1; leave 8-bit ones and DICOM as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.inspect import FileFacts
from medclip.files.sniff import Format
from medclip.imaging.decoded import Decoded
from medclip.imaging.intensity import percentiles, stretch
from medclip.sample import Step


def to_range(decoded: Decoded, facts: FileFacts, limits: tuple[float, float]) -> tuple[NDArray[Any], tuple[Step, ...]]:
    """Stretch a deep picture between two of its percentiles.

    A 16-bit file does not say which of its values are white: 12-bit data in 16 bits is common. The picture's own
    percentiles are robust against hot pixels and markers.

    Args:
        decoded: Pixels H x W x C.
        facts: DICOM pixels are in 0-1 already and pass unchanged.
        limits: Percentiles that become black and white.

    Returns:
        uint8 as it was, or float32 in 0-1; and the steps.

    Raises:
        MedclipError: NON_FINITE if there is no finite value.
    """
    pixels = decoded.pixels
    if pixels.dtype == np.uint8 or facts.format is Format.DICOM:
        return pixels, ()
    low, high = percentiles(pixels, *limits)
    if not high > low:
        low, high = percentiles(pixels, 0, 100)
    if not high > low:
        raise MedclipError(Reason.CONSTANT_IMAGE, "All pixels have the same value, so there is nothing to see.")
    step = Step("stretch", f"percentiles {limits[0]:g} to {limits[1]:g}: {low:g} to {high:g}")
    return stretch(pixels, low, high), (step,)
