"""Patches laid out from the corner of each piece of tissue, as PathGen lays them.

A grid that starts at the slide's corner cuts a biopsy of one patch's width into two halves that are both too empty.
Here each piece of tissue has its own origin: its bounding box is divided into cells without overlap, and a cell is kept
when more than half of it is that piece's tissue (its own: no tissue is the reason for two patches).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.patches.grid import Patch, coverage_of
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.tissue.find import TissueMask

_NEARLY = 1e-6


@dataclass(frozen=True, eq=False)
class RegionGrid:
    """The patches of a slide, piece of tissue by piece of tissue."""

    size_px: int
    """Rows and columns of a patch."""
    mpp_um: float
    """The µm/px that was asked for: what `SlideReader.read` takes."""
    effective_mpp_um: tuple[float, float]
    """Row and column µm/px of the pixels."""
    patches: tuple[Patch, ...]
    """`row` and `column` count within a piece of tissue."""
    num_regions: int
    candidates: int
    """Cells of all bounding boxes, with and without enough tissue."""

    def spread(self, count: int) -> tuple[Patch, ...]:
        """Choose up to `count` patches at equal steps, piece by piece and row by row."""
        if count >= len(self.patches):
            return self.patches
        steps = ((np.arange(count) + 0.5) * len(self.patches) / count).astype(np.int64)
        return tuple(self.patches[int(step)] for step in steps)


def lay_region_grid(
    reader: SlideReader, tissue: TissueMask, *, size_px: int = 336, mpp_um: float = 0.5, min_coverage: float = 0.5
) -> RegionGrid:
    """Lay a grid over each piece of tissue.

    Args:
        reader: The slide.
        tissue: Where tissue is.
        size_px: Rows and columns of a patch.
        mpp_um: Its scale. PathGen takes 672 px of the finest level whatever that is, so that its patches of 20x and 40x
            slides show fields of different size; here a patch is `size_px * mpp_um` µm wide on every slide.
        min_coverage: Share of a cell that must be exceeded.

    Returns:
        The grid: origins lie on whole pixels of the scale, so that a patch's pixels can be read again.

    Raises:
        MedclipError: WRONG_USE for impossible sizes; NO_SCALE; TOO_SMALL for a finer scale than the slide has.
    """
    from scipy import ndimage

    if size_px < 1 or not 0 <= min_coverage < 1:
        raise MedclipError(Reason.WRONG_USE, "a grid needs a positive size, and a coverage from 0 to less than 1.")
    effective = reader.effective_mpp(mpp_um)
    size = size_px * effective[0], size_px * effective[1]
    labelled: Any = ndimage.label(tissue.mask, np.ones((3, 3), int))
    labels, count = labelled
    patches: list[Patch] = []
    candidates = 0
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        region = TissueMask(labels[box] == number, tissue.mpp_um)
        corner = [part.start * mpp for part, mpp in zip(box, tissue.mpp_um, strict=True)]
        # The piece's corner, on a whole pixel; the remainder shifts the cells against the mask.
        origin = [int(np.floor(um / mpp + _NEARLY)) * mpp for um, mpp in zip(corner, effective, strict=True)]
        shift = [start - um for start, um in zip(origin, corner, strict=True)]
        ends = [(part.stop - part.start) * mpp for part, mpp in zip(box, tissue.mpp_um, strict=True)]
        tops, lefts = (
            np.arange(max(1, int(np.ceil((end - start) / side - _NEARLY)))) * side + start
            for end, start, side in zip(ends, shift, size, strict=True)
        )
        coverage = coverage_of(region, tops, lefts, size)
        candidates += coverage.size
        for row, column in np.argwhere(coverage > min_coverage + _NEARLY):
            top, left = origin[0] + row * size[0], origin[1] + column * size[1]
            patches.append(Patch(int(row), int(column), float(top), float(left), float(coverage[row, column])))
    return RegionGrid(size_px, mpp_um, effective, tuple(patches), int(count), candidates)
