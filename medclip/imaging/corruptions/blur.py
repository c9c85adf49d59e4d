"""Loss of sharpness: Gaussian, defocus, motion and zoom blur.

Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536; Hendrycks and Dietterich, ICLR 2019 (defocus, zoom).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medclip.imaging.corruptions.noise import Draws, to_8_bit

_SMALL_PX = 8
MOST_DEGREES = 45.0
"""Motion goes this far up or down from the rows."""


def gaussian_blur(pixels: NDArray[np.uint8], kernel_px: float) -> NDArray[np.uint8]:
    """Smooth with a Gaussian of `kernel_px` taps (odd), of the width that OpenCV and torchvision take for them."""
    taps = _gaussian(int(kernel_px), 0.3 * ((kernel_px - 1) / 2 - 1) + 0.8)
    rows = ndimage.correlate1d(pixels.astype(np.float32), taps, axis=0, mode="mirror")
    return np.rint(ndimage.correlate1d(rows, taps, axis=1, mode="mirror")).clip(0, 255).astype(np.uint8)


def defocus_blur(pixels: NDArray[np.uint8], disc: tuple[float, float]) -> NDArray[np.uint8]:
    """Spread each point over a disc of a radius in pixels, whose edge is smoothed a little: a lens out of focus."""
    kernel = _disc(*disc)
    unit = (pixels / 255.0).astype(np.float32)
    channels = [ndimage.correlate(unit[:, :, c], kernel, mode="mirror") for c in range(unit.shape[2])]
    return to_8_bit(np.stack(channels, axis=2))


def motion_blur(pixels: NDArray[np.uint8], stroke: tuple[float, float], rng: Draws) -> NDArray[np.uint8]:
    """Smear along a line of random direction, one-sided, as ImageMagick does: the image also moves a little."""
    return smeared(pixels, stroke, float(rng.uniform(-MOST_DEGREES, MOST_DEGREES)))


def smeared(pixels: NDArray[np.uint8], stroke: tuple[float, float], degrees: float) -> NDArray[np.uint8]:
    """Smear along a line of a known direction.

    Args:
        pixels: uint8 [H, W, C].
        stroke: Radius in pixels, and the standard deviation of the weights along the line.
        degrees: Direction.
    """
    radius, sd = stroke
    steps = np.arange(2 * math.ceil(radius) + 1)
    taps = np.exp(-(steps**2) / (2 * sd**2))
    taps /= taps.sum()
    angle = math.radians(degrees)
    height, width = pixels.shape[:2]
    blurred = np.zeros(pixels.shape, np.float64)
    for step, weight in zip(steps, taps, strict=True):
        across, down = math.ceil(step * math.cos(angle) - 0.5), math.ceil(step * math.sin(angle) - 0.5)
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + across, 0, width - 1)
        blurred += weight * pixels[rows[:, None], columns[None, :]]
    return np.floor(blurred).clip(0, 255).astype(np.uint8)


def zoom_blur(pixels: NDArray[np.uint8], zooms: tuple[float, float]) -> NDArray[np.uint8]:
    """Average the image with enlarged copies of itself: the camera moved while it looked.

    Args:
        pixels: uint8 [H, W, C].
        zooms: End (left out) and step of the factors, which begin at 1.
    """
    unit = (pixels / 255.0).astype(np.float32)
    end, step = zooms
    factors = 1 + step * np.arange(round((end - 1) / step))  # np.arange(1, end, step) has the end where it rounds so
    total = np.zeros_like(unit)
    for factor in factors:
        total += _enlarged(unit, float(factor))
    return to_8_bit((unit + total) / (len(factors) + 1))


def _enlarged(unit: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Cut out the middle and enlarge it to the size of the whole."""
    height, width, _ = unit.shape
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = unit[top : top + rows, left : left + columns]
    large: NDArray[np.float32] = np.asarray(ndimage.zoom(middle, (factor, factor, 1), order=1), np.float32)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return large[top : top + height, left : left + width]


def _disc(radius_px: float, smoothing: float) -> NDArray[np.float32]:
    reach = _SMALL_PX if radius_px <= _SMALL_PX else int(radius_px)
    line = np.arange(-reach, reach + 1)
    disc = (line[:, None] ** 2 + line[None, :] ** 2 <= radius_px**2).astype(np.float32)
    disc /= disc.sum()
    taps = _gaussian(3 if radius_px <= _SMALL_PX else 5, smoothing)
    rows = ndimage.correlate1d(disc, taps, axis=0, mode="mirror")
    return np.asarray(ndimage.correlate1d(rows, taps, axis=1, mode="mirror"), np.float32)


def _gaussian(num_taps: int, sd: float) -> NDArray[np.float32]:
    steps = np.arange(num_taps) - (num_taps - 1) / 2
    taps = np.exp(-(steps**2) / (2 * sd**2))
    return (taps / taps.sum()).astype(np.float32)
