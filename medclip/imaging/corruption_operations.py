"""What goes wrong with an 8-bit image, one function each: noise, blur, exposure, coarse pixels and lossy files.

Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536 (formulas of its published code).
"""

from __future__ import annotations

import io
import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy import ndimage

# Noise of the detector: Gaussian, speckle, shot and impulse noise.
#
# Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536 (formulas of its published code).


class Draws(Protocol):
    """What noise is drawn from: `numpy.random.Generator`, or the older `RandomState`."""

    def normal(self, loc: float, scale: float, size: Any) -> Any:
        """Draw normal values."""
        ...

    def poisson(self, lam: Any) -> Any:
        """Draw counts."""
        ...

    def random(self, size: Any) -> Any:
        """Draw values from 0 to 1."""
        ...

    def uniform(self, low: float, high: float) -> Any:
        """Draw a value between two."""
        ...


def gaussian_noise(pixels: NDArray[np.uint8], sd: float, rng: Draws) -> NDArray[np.uint8]:
    """Add normal noise of one standard deviation everywhere, in units of the whole range: electronic noise."""
    unit = pixels / 255.0
    return to_8_bit(unit + rng.normal(0.0, sd, unit.shape))


def speckle_noise(pixels: NDArray[np.uint8], sd: float, rng: Draws) -> NDArray[np.uint8]:
    """Multiply each value by 1 plus normal noise: bright tissue is grainier, as where waves are coherent."""
    unit = pixels / 255.0
    return to_8_bit(unit + unit * rng.normal(0.0, sd, unit.shape))


def shot_noise(pixels: NDArray[np.uint8], photons: float, rng: Draws) -> NDArray[np.uint8]:
    """Count photons, so many for the whole range: fewer are noisier, as with a lower dose."""
    return to_8_bit(rng.poisson(pixels / 255.0 * photons) / photons)


def impulse_noise(pixels: NDArray[np.uint8], share: float, rng: Draws) -> NDArray[np.uint8]:
    """Set a share of the values to black or white, half each: dead and hot elements of a detector."""
    struck = rng.random(pixels.shape) <= share
    white = rng.random(pixels.shape) <= 0.5
    return np.where(struck, np.where(white, 255, 0), pixels).astype(np.uint8)


def to_8_bit(unit: NDArray[Any]) -> NDArray[np.uint8]:
    """Cut values to 0 to 1 and bring them to 0 to 255, fractions dropped."""
    return (np.clip(unit, 0, 1) * 255).astype(np.uint8)


# Loss of sharpness: Gaussian, defocus, motion and zoom blur.
#
# Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536; Hendrycks and Dietterich, ICLR 2019 (defocus, zoom).

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


# What window, gain, light and stain change: brightness, contrast, gamma and saturation; and a dark rim.
#
# Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536.


def brightness(pixels: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Multiply every value; what goes beyond white is white."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(factor))


def contrast(pixels: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Move every value away from the image's mean grey, or towards it (below 1)."""
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(pixels)).enhance(factor))


def gamma(pixels: NDArray[np.uint8], exponent: float) -> NDArray[np.uint8]:
    """Raise the values to a power: another display curve. Above 1 the middle greys are darker."""
    curve = np.floor((255 + 1 - 1e-3) * (np.arange(256) / 255.0) ** exponent).clip(0, 255)
    return curve.astype(np.uint8)[pixels]


def saturate(pixels: NDArray[np.uint8], added: float) -> NDArray[np.uint8]:
    """Add to the saturation (of HSV) and keep hue and value: a stronger stain. Pure grey becomes red, as in HSV."""
    unit = pixels / 255.0
    value = unit.max(axis=2, keepdims=True)
    spread = value - unit.min(axis=2, keepdims=True)
    before = np.divide(spread, value, out=np.zeros_like(value), where=value > 0)
    after = np.clip(before + added, 0, 1)
    coloured = value - (value - unit) * np.divide(after, before, out=np.zeros_like(after), where=before > 0)
    grey = value * np.concatenate([np.ones_like(after), 1 - after, 1 - after], axis=2)
    return to_8_bit(np.where(before > 0, coloured, grey))


def black_corner(pixels: NDArray[np.uint8], diameter: float) -> NDArray[np.uint8]:
    """Blacken what is outside a circle in the middle, of a diameter as a share of the shorter side: a vignette."""
    height, width = pixels.shape[:2]
    radius = int(diameter * min(width, height) / 2)
    rows, columns = np.ogrid[:height, :width]
    inside = (columns - width // 2) ** 2 + (rows - height // 2) ** 2 <= radius**2
    return pixels * inside[:, :, None].astype(np.uint8)


# What storage takes away: coarse pixels and lossy JPEG.
#
# Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536.


def pixelate(pixels: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Shrink to a share of the sides and enlarge again, each small pixel a block."""
    image = Image.fromarray(pixels)
    small = image.resize((max(1, int(image.width * share)), max(1, int(image.height * share))), Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BOX))


def jpeg_compression(pixels: NDArray[np.uint8], quality: float) -> NDArray[np.uint8]:
    """Store as JPEG of a quality from 1 to 100 and read again."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=int(quality))
    return np.asarray(Image.open(stream).convert("RGB"))
