"""Find the breast in a mammogram and which way it lies."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.geometry import Box

GRID = 256
"""The breast is looked for on a grid of about this many points along the longer side."""
MARGIN = 0.02
MIN_AREA = 0.04
"""A component smaller than this part of the image is not a breast."""
TOWARDS_BACKGROUND = 0.5
CLEAR_SIDE = 0.03
"""How far off the middle the centre of mass must lie to tell the chest wall's side, as a part of the breast's width."""

FRAME = (0.02, 0.08)
"""Band along each edge where the background is looked for, as parts of the image: inside the frame of a film."""
WHITE = (0.6, 0.8)
"""The background is white where three edges are at least as bright as the first, and two of them as the second. None of
927 mammograms of four sets is taken for a negative, and of their negatives 907 are."""


class Breast(NamedTuple):
    """Where the breast lies."""

    box: Box
    chest_wall: str | None
    """"left" or "right" side of the image; None if the shape does not tell."""


def find_breast(pixels: NDArray[Any], value_range: tuple[float, float]) -> Breast | None:
    """Find the breast: the largest bright component of a coarse grid.

    The chest wall lies on the side where the tissue stands taller, since a breast narrows towards the nipple.

    Args:
        pixels: H x W x 1.
        value_range: Values that stand for black and white.

    Returns:
        Box (with a margin of 2 %) and side of the chest wall; None if no component is large enough.
    """
    from scipy import ndimage

    height, width = pixels.shape[:2]
    stride = max(1, max(height, width) // GRID)
    low, high = value_range
    grid = (pixels[::stride, ::stride, 0].astype(np.float32) - np.float32(low)) / np.float32(high - low)
    mask = ndimage.binary_opening(grid > _threshold(grid), iterations=2)
    labels, count = ndimage.label(mask)  # pyright: ignore[reportGeneralTypeIssues]
    if not count:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if sizes.max() < MIN_AREA * mask.size:
        return None
    breast = labels == sizes.argmax()
    rows, columns = np.flatnonzero(breast.any(axis=1)), np.flatnonzero(breast.any(axis=0))
    box = Box(
        max(0, round(rows[0] * stride - MARGIN * height)),
        max(0, round(columns[0] * stride - MARGIN * width)),
        min(height, round((rows[-1] + 1) * stride + MARGIN * height)),
        min(width, round((columns[-1] + 1) * stride + MARGIN * width)),
    )
    return Breast(box, _chest_wall(breast[:, columns[0] : columns[-1] + 1]))


def has_white_background(pixels: NDArray[Any], value_range: tuple[float, float]) -> bool:
    """Return whether a mammogram is stored white on black the wrong way round, whatever its header says.

    The chest wall lies along one edge, and a muscle may reach a second; all others show what is behind the breast. Raw
    images of several makers are bright where nothing is in the beam, and exports lose MONOCHROME1.

    Args:
        pixels: H x W x 1.
        value_range: Values that stand for black and white.
    """
    height, width = pixels.shape[:2]
    stride = max(1, max(height, width) // GRID)
    low, high = value_range
    grid = (pixels[::stride, ::stride, 0].astype(np.float32) - np.float32(low)) / np.float32(high - low)
    (top, deep), (left, wide) = ([round(part * size) for part in FRAME] for size in grid.shape)
    if deep <= top or wide <= left:
        return False
    edges = (
        grid[top:deep, left : -left or None],
        grid[::-1][top:deep, left : -left or None],
        grid[top : -top or None, left:wide],
        grid[top : -top or None, ::-1][:, left:wide],
    )
    _, second, third, _ = sorted(float(np.median(edge)) for edge in edges)
    return second >= WHITE[0] and third >= WHITE[1]


def _chest_wall(breast: NDArray[np.bool_]) -> str | None:
    heights = breast.sum(axis=0)
    centre = float((heights * (np.arange(heights.size) + 0.5)).sum() / heights.sum()) / heights.size - 0.5
    if abs(centre) < CLEAR_SIDE:
        return None
    return "left" if centre < 0 else "right"


def _threshold(grid: NDArray[np.float32]) -> float:
    """Return the level between background and tissue.

    Otsu's level on square roots separates dense tissue from the background; the skin line of film is darker, so the
    level is moved half the way (`TOWARDS_BACKGROUND`) towards the background's median.
    """
    counts, edges = np.histogram(np.sqrt(np.clip(grid, 0, 1)), bins=128, range=(0, 1))
    weights = counts / counts.sum()
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(weights)
    mean_below = np.cumsum(weights * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean_below[-1] * below - mean_below) ** 2 / (below * (1 - below))
    level = float(edges[1:][np.argmax(np.nan_to_num(between, posinf=0.0))])
    background = float(np.median(np.sqrt(np.clip(grid[grid <= level**2], 0, 1)))) if (grid <= level**2).any() else 0.0
    return (background + TOWARDS_BACKGROUND * (level - background)) ** 2
