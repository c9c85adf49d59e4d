"""Part a sheet into paper, grid and ink, whatever the colours and the light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

_BLOCK_PX = 16
_LEAST_CONTRAST = 0.15


@dataclass(frozen=True, eq=False)
class Parted:
    """What is printed, and what is written upon it."""

    lines: NDArray[np.float32]
    """float32 [H, W]: how much darker than paper, in its palest colour, with ink taken out: the grid."""
    ink: NDArray[np.float32]
    """float32 [H, W], 0 to 1: share of a pixel that ink covers."""


def part(pixels: NDArray[np.uint8]) -> Parted:
    """Part a sheet.

    A line of the grid is dark in the colours that it lacks; ink is dark in all of them. The level of the paper is taken
    block by block, so that shadows and yellow light are none of either.

    Args:
        pixels: uint8 [H, W, 1 or 3].

    Raises:
        MedclipError: NOT_AN_IMAGE where nothing darker than the paper is found.
    """
    light = pixels.max(2).astype(np.float32)
    pale = pixels.min(2).astype(np.float32)
    dark = 1 - light / _paper(light)
    np.clip(dark, 0, 1, out=dark)
    level = _ink_level(dark)
    if level < _LEAST_CONTRAST:
        raise MedclipError(Reason.NOT_AN_IMAGE, "nothing on the sheet is darker than its grid: no ECG is drawn there.")
    ink = np.clip((dark - 0.4 * level) / (0.5 * level), 0, 1).astype(np.float32)
    lines = 1 - pale / _paper(pale)
    blocked = _widened(ink > 0)
    lines = np.clip(lines, 0, 0.6).astype(np.float32)
    lines[blocked] = float(lines[~blocked].mean()) if not blocked.all() else 0.0
    return Parted(lines, ink)


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    return np.asarray(ndimage.binary_dilation(mask, iterations=1), np.bool_)


def _paper(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the level of the paper around each pixel: the bright side of each block, smoothed."""
    from scipy import ndimage

    height, width = values.shape
    rows, columns = -(-height // _BLOCK_PX), -(-width // _BLOCK_PX)
    padded = np.pad(values, ((0, rows * _BLOCK_PX - height), (0, columns * _BLOCK_PX - width)), mode="edge")
    blocks = padded.reshape(rows, _BLOCK_PX, columns, _BLOCK_PX).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    level = np.percentile(blocks, 90, axis=2)
    level = ndimage.gaussian_filter(ndimage.maximum_filter(level, 5), 2)
    zoomed = np.asarray(
        ndimage.zoom(level, (height / rows, width / columns), order=1, grid_mode=True, mode="nearest"), np.float32
    )
    return np.maximum(zoomed[:height, :width], 1.0).astype(np.float32)


def _ink_level(dark: NDArray[np.float32]) -> float:
    """Return how dark ink is: the level that the darkest hundredth of the pixels has in its middle."""
    counts, edges = np.histogram(dark, 256, (0, 1))
    above = np.cumsum(counts[::-1])[::-1]
    top = edges[np.flatnonzero(above > 0.005 * dark.size)[-1]]
    return float(top)
