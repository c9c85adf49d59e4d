"""Trim dark or plain borders."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.pixels.decoded import MIN_SIDE
from medclip.imaging.geometry import Box, crop

T = TypeVar("T", bound=np.generic)

GRID = 512
"""The border is looked for on a grid of about this many rows and columns."""
DARK = 0.02
"""A border pixel is at most this far above black, as a part of the range (5 of 255)."""
STRAY = 0.005
"""Part of a border row that may be brighter: JPEG noise and dust, but no letter."""
KEEP = 0.3
"""Never trim a side below this part of its length: what is left would not be the image."""
PARAMETERS = {"grid": GRID, "dark": DARK, "stray": STRAY, "keep": KEEP}
"""All of them, for the hash of an adapter's preprocessing."""


def crop_dark_borders(pixels: NDArray[T], value_range: tuple[float, float]) -> tuple[NDArray[T], Box | None]:
    """Cut off rows and columns at the edges that are black throughout.

    Conservative: a row goes only if 99.5 % of it lies within 2 % of black, and one grid step is kept as a margin.

    Args:
        pixels: H x W x C.
        value_range: Values that stand for black and white.

    Returns:
        The pixels inside (a view, not a copy) and the box; the pixels as they were and None if nothing was cut.
    """
    height, width = pixels.shape[:2]
    stride = max(1, min(height, width) // GRID)
    low, high = value_range
    grid: NDArray[Any] = pixels[::stride, ::stride]
    level = grid.dtype.type(low + DARK * (high - low))
    bright = grid[:, :, 0] > level
    for channel in range(1, pixels.shape[2]):
        bright |= grid[:, :, channel] > level
    rows = _extent(bright.mean(axis=1) > STRAY, stride, height)
    columns = _extent(bright.mean(axis=0) > STRAY, stride, width)
    if rows is None or columns is None:
        return pixels, None
    box = Box(rows[0], columns[0], rows[1], columns[1])
    if box == Box(0, 0, height, width) or box.height < KEEP * height or box.width < KEEP * width:
        return pixels, None
    return crop(pixels, box), box


def find_plain_borders(frames: NDArray[np.uint8]) -> Box | None:
    """Find the box inside rows and columns at the edges that are black throughout, or white throughout.

    Args:
        frames: [F, H, W, C] uint8; a line is plain if it is the same plain in every frame.

    Returns:
        The box; None if nothing is to be cut, or if what is left would be too little.
    """
    height, width = frames.shape[1:3]
    box = Box(0, 0, height, width)
    for _ in range(_PASSES):
        inner = _inside(frames[:, box.top : box.bottom, box.left : box.right])
        if inner is None:
            break
        box = Box(box.top + inner.top, box.left + inner.left, box.top + inner.bottom, box.left + inner.right)
    uncropped, small = box == Box(0, 0, height, width), min(box.height, box.width) < MIN_SIDE
    return None if uncropped or small or min(box.height / height, box.width / width) < KEEP else box


_PASSES = 2
"""White above and black beside: the first pass takes one of them, and the other is plain then."""


def _inside(frames: NDArray[np.uint8]) -> Box | None:
    height, width = frames.shape[1:3]
    stride = max(1, min(height, width) // GRID)
    grid = frames[:, ::stride, ::stride]
    level = round(255 * DARK)
    bright, pale = (grid > level).any(axis=(0, 3)), (grid < 255 - level).any(axis=(0, 3))
    inside = [(bright.mean(axis=axis) > STRAY) & (pale.mean(axis=axis) > STRAY) for axis in (1, 0)]
    rows, columns = _extent(inside[0], stride, height), _extent(inside[1], stride, width)
    if rows is None or columns is None:
        return None
    return Box(rows[0], columns[0], rows[1], columns[1])


def _extent(inside: NDArray[np.bool_], stride: int, length: int) -> tuple[int, int] | None:
    """Return first and last (exclusive) pixel of the lines that are inside, with one grid step of margin if stepped."""
    positions = np.flatnonzero(inside)
    if positions.size == 0:
        return None
    margin = stride if stride > 1 else 0
    return max(0, int(positions[0]) * stride - margin), min(length, (int(positions[-1]) + 1) * stride + margin)
