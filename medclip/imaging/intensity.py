"""Grey-level mappings: to 8 bit for display and models, and from deep integers to a stated range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from medclip.sample import View

_SAMPLES = 1_000_000
"""Percentiles are taken over about this many pixels of a regular grid: exact enough, and cheap on a mammogram."""


def to_uint8(view: View) -> NDArray[np.uint8]:
    """Return a view's pixels as 8-bit values.

    Args:
        view: Pixels H x W x C and the values that stand for black and white.

    Returns:
        H x W x C uint8; the same array if it is that already. Values outside the range are clipped.
    """
    return scale_to_uint8(view.pixels, *view.value_range)


def scale_to_uint8(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map [low, high] to [0, 255] with rounding; values outside are clipped, NaN becomes 0."""
    if pixels.dtype == np.uint8 and (low, high) == (0, 255):
        return pixels
    scaled = pixels.astype(np.float32)
    if low:
        scaled -= np.float32(low)
    scaled *= np.float32(255.0 / (high - low))
    scaled += np.float32(0.5)
    # fmax and fmin, not clip: they give the limit where the other value is NaN.
    np.fmax(scaled, 0, out=scaled)
    np.fmin(scaled, 255, out=scaled)
    return scaled.astype(np.uint8)


def percentiles(pixels: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """Return two percentiles over a regular grid of about a million pixels.

    Args:
        pixels: H x W or H x W x C; NaN is left out.
        low: Lower percentile, 0-100; exactly 0 gives the minimum of all pixels.
        high: Higher percentile, 0-100; exactly 100 gives the maximum of all pixels.
    """
    stride = max(1, round((pixels.size / _SAMPLES) ** 0.5))
    grid = pixels[::stride, ::stride]
    if np.issubdtype(pixels.dtype, np.floating):
        grid = grid[np.isfinite(grid)]
        if grid.size == 0:
            return 0.0, 0.0
    lower, upper = np.percentile(grid, (low, high), method="nearest")
    if low == 0:
        lower = np.nanmin(pixels)
    if high == 100:
        upper = np.nanmax(pixels)
    return float(lower), float(upper)


def stretch(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Map [low, high] to [0, 1] as float32, clipped; one table look-up for 16-bit integers.

    Args:
        pixels: Pixels of any shape.
        low: Value that becomes 0.
        high: Value that becomes 1; must be above `low`.
    """
    if pixels.dtype in (np.uint8, np.uint16):
        values = np.arange(np.iinfo(pixels.dtype).max + 1, dtype=np.float64)
        table = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
        return table[pixels]
    scaled = pixels.astype(np.float32)
    scaled -= np.float32(low)
    scaled /= np.float32(high - low)
    np.fmax(scaled, 0, out=scaled)
    return np.fmin(scaled, 1, out=scaled)
