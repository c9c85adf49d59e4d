"""From what a TIFF or DICOM slide stores per pixel to 8-bit RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (0.1, 99.9)
"""Of the coarsest level, per channel: what becomes black and white where values are not 8-bit."""


@dataclass(frozen=True)
class ToRgb:
    """How channels become colours: one is repeated, of two the first is red and the second green, of more the first
    three are red, green and blue. Values that are not 8-bit are scaled per channel by limits taken once per slide.
    """

    limits: tuple[tuple[float, float], ...] | None = None
    """Low and high value of each channel; None for 8-bit values, which stay as they are."""
    inverted: bool = False
    """Whether 0 is white (TIFF's WhiteIsZero, DICOM's MONOCHROME1)."""
    palette: NDArray[np.uint8] | None = None
    """[entries, 3] colours of an index."""

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn [H, W, C] into RGB uint8 [H, W, 3]."""
        if self.palette is not None:
            return self.palette[np.minimum(pixels[:, :, 0], len(self.palette) - 1)]
        pixels = pixels[:, :, :3]
        if self.limits is not None:
            low = np.array([limit[0] for limit in self.limits[:3]], np.float32)
            high = np.array([limit[1] for limit in self.limits[:3]], np.float32)
            span = np.where(high > low, high - low, 1)
            scaled = np.nan_to_num((pixels.astype(np.float32) - low) / span)
            pixels = (np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8)
        elif pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * 255
        if self.inverted:
            pixels = 255 - pixels
        count = pixels.shape[2]
        if count == 3:
            return pixels
        if count == 1:
            return np.repeat(pixels, 3, axis=2)
        return np.concatenate([pixels, np.zeros_like(pixels[:, :, :1])], axis=2)

    def note(self, channels: int) -> str:
        """Describe in one sentence what is done; empty where 8-bit RGB stays as it is."""
        parts = []
        if channels == 1 and self.palette is None:
            parts.append("grey repeated as RGB")
        elif channels == 2:
            parts.append("two channels shown as red and green")
        elif channels > 3:
            parts.append(f"the first three of {channels} channels shown as RGB")
        if self.limits is not None:
            parts.append(
                f"scaled to 8 bits between the percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g} per channel"
            )
        return "; ".join(parts)


def limits_of(channels: Sequence[NDArray[Any]]) -> tuple[tuple[float, float], ...]:
    """Find the low and high value of each channel of an overview.

    Args:
        channels: One array per channel, any shape.
    """
    limits = []
    for values in channels:
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = np.percentile(finite, PERCENTILES) if finite.size else (0.0, 1.0)
        if not high > low:
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        limits.append((float(low), float(high)))
    return tuple(limits)
