"""Bring stored pixels to a coarser scale, without aliasing and the same way everywhere on the slide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_STRIP_PIXELS = 8_000_000
"""Pixels of the finer level held at once: 24 MB, so that an overview of a slide without levels needs little memory."""


def reduced(
    stored: Callable[[int, int, int, int], NDArray[np.uint8]], box: tuple[int, int, int, int], k: int
) -> NDArray[np.uint8]:
    """Read a rectangle averaged over k x k pixels, in strips.

    Args:
        stored: Reads (top, left, height, width) of the finer level.
        box: Top, left, bottom, right in averaged pixels, counted from the slide's corner: the same averages come out
            wherever a region begins.
        k: Pixels of the finer level to one averaged pixel, in each direction.

    Returns:
        RGB uint8 [bottom - top, right - left, 3].
    """
    from PIL import Image

    y0, x0, y1, x1 = box
    width = x1 - x0
    strip = max(1, _STRIP_PIXELS // (width * k * k))
    if strip >= y1 - y0:
        return np.array(Image.fromarray(stored(y0 * k, x0 * k, (y1 - y0) * k, width * k)).reduce(k))
    out = np.empty((y1 - y0, width, 3), np.uint8)
    for y in range(y0, y1, strip):
        rows = min(strip, y1 - y)
        pixels = stored(y * k, x0 * k, rows * k, width * k)
        out[y - y0 : y - y0 + rows] = np.asarray(Image.fromarray(pixels).reduce(k))
    return out


def to_size(
    pixels: NDArray[np.uint8], corner: tuple[float, float], factors: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Resize a part of `pixels` with LANCZOS, looking at the pixels around the part too.

    Args:
        pixels: RGB uint8 [H, W, 3].
        corner: Top and left of the part, in pixels and fractions.
        factors: Rows and columns of `pixels` to one of the result.
        size: Rows and columns of the result.

    Returns:
        RGB uint8 [size[0], size[1], 3].
    """
    from PIL import Image

    (top, left), (fy, fx), (height, width) = corner, factors, size
    box = (left, top, min(left + width * fx, pixels.shape[1]), min(top + height * fy, pixels.shape[0]))
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box=box))
