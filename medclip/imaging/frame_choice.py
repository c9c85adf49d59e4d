"""Choose frames of a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_VIEWS = 16
"""Frames of a loop that models see."""
DARK = 10
"""A frame whose brightest pixels (0.5 %) stay below this shows nothing: fades, lead-ins that hold a label only."""


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` of `count` indices, evenly spaced: the middles of equal parts.

    Example:
        >>> spread(5, 16), spread(100, 4)
        ([0, 1, 2, 3, 4], [12, 37, 62, 87])
    """
    if count <= most:
        return list(range(count))
    return [(2 * part + 1) * count // (2 * most) for part in range(most)]


def brightest(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the maximum of the channels of H x W x C pixels, as H x W; a maximum of a short last axis is ten times
    slower.
    """
    level = pixels[..., 0]
    for channel in range(1, pixels.shape[-1]):
        level = np.maximum(level, pixels[..., channel])
    return level


def shows_something(frame: NDArray[np.uint8]) -> bool:
    """Return whether a frame H x W x C is neither black nor constant."""
    stride = max(1, max(frame.shape[:2]) // 128)
    grid = brightest(frame[::stride, ::stride])
    low, high = np.percentile(grid, (0.5, 99.5), method="nearest")
    return bool(high > DARK and high > low)


def choose(frames: NDArray[Any], most: int = MAX_VIEWS) -> list[int]:
    """Return evenly spaced frames of those that show something.

    Args:
        frames: [F, H, W, C] uint8.
        most: Largest number of frames.

    Returns:
        Indices in order; empty if no frame shows anything.
    """
    shown = [number for number, frame in enumerate(frames) if shows_something(frame)]
    return [shown[index] for index in spread(len(shown), most)]
