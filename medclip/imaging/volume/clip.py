"""A part of a volume or a loop on a grid of its own: cut out, resampled, and brought to 8 bits.

One function cuts what training draws and what scoring looks at. Space is resampled by the triangle filter of
`medclip.imaging.volume.resample`; frames of a loop are never blended: the nearest one is taken, and a loop that is too
short begins again, as it does where it is shown.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.intensity import scale_to_uint8
from medclip.imaging.volume.resample import along
from medclip.imaging.volume.voxels import Voxels
from medclip.sample import Kind


class Part(NamedTuple):
    """Where a clip lies, along slices (or frames), rows and columns; in voxels of the volume."""

    middle: tuple[float, float, float]
    """Of the clip."""
    step: tuple[float, float, float]
    """Voxels of the volume from one of the clip to the next."""
    shape: tuple[int, int, int]
    """Of the clip."""

    def places(self, axis: int) -> NDArray[Any]:
        """Return where the clip's voxels lie along an axis."""
        length = self.shape[axis]
        return self.middle[axis] + (np.arange(length) - (length - 1) / 2) * self.step[axis]


def cut_clip(voxels: Voxels, part: Part, black_white: tuple[float, float]) -> NDArray[np.uint8]:
    """Cut a part out, resampled to its grid.

    Args:
        voxels: A volume or a loop.
        part: Part that is cut out. What lies outside the volume is black.
        black_white: Values that become 0 and 255.

    Returns:
        uint8 [T, H, W, C] of the part's shape; C is 1 for volumes and grey loops, 3 for loops in colour.
    """
    values, first = voxels.values, 0
    if voxels.kind is Kind.CINE:
        nearest = np.floor(part.places(0) + 0.5 + 1e-6).astype(int)  # rint goes to even numbers, and leaves frames out
        values, first = values[nearest % len(values)], 1
    sizes = values.shape
    axes = range(first, 3)
    starts = {}
    for axis in axes:
        low, high = _needed(part, axis, sizes[axis])
        starts[axis] = low
        values = values[(slice(None),) * axis + (slice(low, high),)]
    grid = values.astype(np.float32)
    for axis in sorted(axes, key=lambda axis: part.shape[axis] / grid.shape[axis]):  # the one that shrinks most first
        grid = along(grid, axis, part.shape[axis], part.step[axis], part.middle[axis] - starts[axis])
    shown = scale_to_uint8(grid, *black_white)
    for axis in axes:
        places = part.places(axis)
        outside = (places < -0.5) | (places > sizes[axis] - 0.5)
        shown[(slice(None),) * axis + (outside,)] = 0
    return shown if shown.ndim == 4 else shown[..., None]


def _needed(part: Part, axis: int, size: int) -> tuple[int, int]:
    """Return the first voxel along an axis that a part reads, and the one after the last."""
    half = (part.shape[axis] + 1) / 2 * part.step[axis] + max(1.0, part.step[axis]) + 1
    low = min(max(0, math.floor(part.middle[axis] - half)), size - 1)
    return low, max(min(size, math.ceil(part.middle[axis] + half) + 1), low + 1)
