"""What window, gain, light and stain change: brightness, contrast, gamma and saturation; and a dark rim.

Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from medclip.imaging.corruptions.noise import to_8_bit


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
