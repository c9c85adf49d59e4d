"""The bare glass of a slide: what colour its white has, and whether the background is bright at all.

Lamps and glass are tinted along the way from yellow to blue, so their green lies between red and blue; the palest eosin
and haematoxylin let least green through. That, evenness and brightness tell glass from pale tissue.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WHITE = 245.0
"""What each channel of the glass becomes."""
_LEAST, _TINT, _GREEN, _STEP = 150, 60, 6, 8
"""Least channel, most chroma, how far green may lie below the others, and most difference of neighbours."""
_SHARE = 0.01
_SAMPLE = 200_000
"""Pixels that are enough to say what colour the glass has."""


def low_high(rgb: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and largest of red, green and blue; several times as fast as `min` along the last axis."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)


def brightness(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean of red, green and blue."""
    return (rgb[..., 0].astype(np.float32) + rgb[..., 1] + rgb[..., 2]) / np.float32(3)


def glass_of(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find what may be bare glass: bright, of a lamp's tint, and no edge.

    Args:
        rgb: RGB uint8 [H, W, 3].

    Returns:
        bool [H, W].
    """
    red, green, blue = (rgb[:, :, i].astype(np.int16) for i in range(3))
    low, high = low_high(rgb)
    glass = (low >= _LEAST) & (high - low <= _TINT) & (green >= np.minimum(red, blue) - _GREEN)
    glass[1:] &= np.abs(np.diff(green, axis=0)) <= _STEP
    glass[:, 1:] &= np.abs(np.diff(green, axis=1)) <= _STEP
    return glass


def white_point(rgb: NDArray[np.uint8], glass: NDArray[np.bool_]) -> tuple[float, float, float] | None:
    """Estimate the colour of the glass: the commonest of the brightest.

    Args:
        rgb: RGB uint8 [H, W, 3].
        glass: Mask of what may be glass, bool [H, W].

    Returns:
        Red, green, blue; None if less than a hundredth of the slide is glass.
    """
    step = max(1, int((glass.size / _SAMPLE) ** 0.5))
    rgb, glass = rgb[::step, ::step], glass[::step, ::step]
    colours = rgb[glass]
    # Where nothing was scanned, readers give 255: it says nothing of the lamp.
    scanned = colours[low_high(colours)[0] < 255]
    least = _SHARE * glass.size
    colours = scanned if len(scanned) >= least else colours
    if len(colours) < least:
        return None
    mean = brightness(colours)
    top = np.sort(mean)[-int(least) - 1 :][0] if len(mean) > least else mean.min()
    near = mean >= top - 20  # shading makes one glass a little darker here and there; tissue is darker than that
    counts = np.bincount(mean[near].astype(np.int64), minlength=256)
    mode = int(np.convolve(counts, np.ones(5), "same").argmax())
    red, green, blue = np.median(colours[np.abs(mean - mode) <= 4], axis=0)
    return float(red), float(green), float(blue)


def levelled(rgb: NDArray[np.uint8], white: tuple[float, float, float] | None) -> NDArray[np.uint8]:
    """Scale the channels so that the glass is neutral and equally bright on every slide; as it is without glass."""
    if white is None:
        return rgb
    values = np.arange(256, dtype=np.float64)
    tables = [np.minimum(values * WHITE / channel + 0.5, 255).astype(np.uint8) for channel in white]
    return np.stack([tables[i][rgb[:, :, i]] for i in range(3)], axis=2)


def is_dark(rgb: NDArray[np.uint8], glass: NDArray[np.bool_], dark: float) -> bool:
    """Return whether the background is dark, as in fluorescence, however much of the slide is bright.

    A slide with a bright background has more glass than dark ink and shadows.
    """
    share = float((low_high(rgb)[1] < dark).mean())
    if share <= 0.15:
        return False
    # Readers give 255 where nothing was scanned, on dark slides too.
    scanned = float((glass & (low_high(rgb)[0] < 255)).mean())
    return float(glass.mean()) < share / 2 or (share > 0.3 and scanned < share / 10)
