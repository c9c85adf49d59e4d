"""Find the round field of view of a fundus photograph."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.geometry import Box

T = TypeVar("T", bound=np.generic)

GRID = 256
DARK = 0.06
"""Outside the field of view all channels are below this part of the range (15 of 255); camera noise stays under it."""
MIN_AREA = 0.1
OPEN, CLOSE = 2, 8
"""Grid steps: letters and noise narrower than twice the first are no field; gaps up to twice the second are closed."""


def find_field_of_view(pixels: NDArray[np.uint8]) -> Box | None:
    """Find the box around the lit field of view; text and labels beside it do not count.

    Args:
        pixels: H x W x C uint8.

    Returns:
        The box, or None if the field fills the image or nothing is lit.
    """
    circle = _field(pixels)
    if circle is None:
        return None
    field, stride = circle
    height, width = pixels.shape[:2]
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    box = Box(
        max(0, int(rows[0]) * stride - (stride - 1)),
        max(0, int(columns[0]) * stride - (stride - 1)),
        min(height, (int(rows[-1]) + 1) * stride),
        min(width, (int(columns[-1]) + 1) * stride),
    )
    return None if box == Box(0, 0, height, width) else box


def field_mask(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the lit field of view as a mask: the largest lit component with its holes filled.

    Args:
        pixels: H x W x C uint8.

    Returns:
        H x W bool; all True where no field stands out (a photograph that fills its frame, or is nearly black).
    """
    height, width = pixels.shape[:2]
    circle = _field(pixels)
    if circle is None:
        return np.ones((height, width), bool)
    field, stride = circle
    return np.repeat(np.repeat(field, stride, axis=0), stride, axis=1)[:height, :width]


def _field(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], int] | None:
    """Return the field on a coarse grid and the grid's step; None where none stands out."""
    from scipy import ndimage

    stride = max(1, max(pixels.shape[:2]) // GRID)
    grid = pixels[::stride, ::stride]
    brightest = grid[:, :, 0]
    for channel in range(1, pixels.shape[2]):  # three maxima are five times faster than one over an axis of three
        brightest = np.maximum(brightest, grid[:, :, channel])
    # What lies beyond the edge counts as what touches it, or opening would round the corners of a full frame.
    bright = np.pad(brightest > round(255 * DARK), OPEN, mode="edge")
    lit = ndimage.binary_opening(bright, iterations=OPEN)[OPEN:-OPEN, OPEN:-OPEN]
    labels, count = ndimage.label(lit)  # pyright: ignore[reportGeneralTypeIssues]
    if not count:
        return None
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    if areas.max() < MIN_AREA * lit.size:
        return None
    field = ndimage.binary_closing(np.pad(labels == areas.argmax(), CLOSE), iterations=CLOSE)
    # Opening took a rim of the field's edge back where it is dark; one grid step more keeps it.
    field = np.asarray(ndimage.binary_dilation(ndimage.binary_fill_holes(field)), bool)
    return field[CLOSE:-CLOSE, CLOSE:-CLOSE], stride


def square_of(box: Box) -> Box:
    """Return the smallest square that holds a box, centred on it; it may reach beyond the image."""
    side = max(box.height, box.width)
    top = (box.top + box.bottom - side) // 2
    left = (box.left + box.right - side) // 2
    return Box(top, left, top + side, left + side)


def square_around(pixels: NDArray[T], box: Box) -> NDArray[T]:
    """Cut the smallest square that holds a box, centred on it; what lies outside the image is black.

    Returns:
        S x S x C; a view of the same memory if the square lies inside the image.
    """
    height, width = pixels.shape[:2]
    top, left, bottom, _ = square_of(box)
    side = bottom - top
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        return pixels[top : top + side, left : left + side]
    square = np.zeros((side, side, pixels.shape[2]), pixels.dtype)
    rows = slice(max(0, top), min(height, top + side))
    columns = slice(max(0, left), min(width, left + side))
    square[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = pixels[rows, columns]
    return square
