"""One value for each patch of a slide, and the raster of them.

The value says what a patch adds to the slide's logit of one answer against the others, or the share of attention on it.
It is model attention evidence: no localisation of a disease, and no reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.slides.store.slide_features import SlideFeatures

_CELLS = 8
"""Cells along a patch where patches share no grid."""
_FINEST = 16
"""Steps along a patch, from which a step is no overlap but the distance of two pieces' grids."""
_OFF = 0.01


@dataclass(frozen=True, eq=False)
class PatchMap:
    """A map of one slide."""

    title: str
    """What is mapped, in words: "evidence for tumour against normal"."""
    values_N: NDArray[np.float32]
    corners_um_N2: NDArray[np.float64]
    """Top and left of each patch."""
    patch_um: tuple[float, float]
    """Height and width of a patch."""
    slide_um: tuple[float, float]
    """Height and width of the slide."""

    @property
    def peak(self) -> int:
        """The patch with the greatest value, the first of equal ones."""
        return int(self.values_N.argmax())

    def strengths(self) -> NDArray[np.float32]:
        """Return values as colours have them, float32 [N]: 0 for what speaks not for it, 1 for the largest value."""
        largest = float(self.values_N.max(initial=0.0))
        return (self.values_N.clip(0) / (largest or 1.0)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Raster:
    """A map on a regular grid of cells."""

    values_RC: NDArray[np.float32]
    """NaN where no patch begins."""
    cell_um: tuple[float, float]
    """Height and width of a cell: the step from patch to patch."""
    origin_um: tuple[float, float]
    """Top and left of the first cell."""


def patch_map(features: SlideFeatures, values_N: NDArray[np.floating], title: str) -> PatchMap:
    """Place values on the patches of a slide.

    Args:
        features: The slide.
        values_N: One value for each patch.
        title: Name of what the values are.

    Raises:
        MedclipError: WRONG_USE where there is not one value for each patch.
    """
    if len(values_N) != len(features) or not len(features):
        raise MedclipError(Reason.WRONG_USE, f"{len(values_N)} values for a slide with {len(features)} patches.")
    size = features.size_px * features.effective_mpp_um[0], features.size_px * features.effective_mpp_um[1]
    values = np.asarray(values_N, np.float32)
    return PatchMap(title, values, features.corners_um_N2, size, features.slide_size_um)


def evidence_for(logits_NC: NDArray[np.floating], answer: int) -> NDArray[np.float32]:
    """Return what speaks for one answer against the mean of the others, float32 [N]; its logit where it is alone.

    Example:
        >>> evidence_for(np.array([[3.0, 1.0, 2.0]]), 0).tolist()
        [1.5]
    """
    if logits_NC.shape[1] == 1:
        return logits_NC[:, 0].astype(np.float32)
    others = np.delete(np.asarray(logits_NC, np.float64), answer, axis=1).mean(axis=1)
    return (logits_NC[:, answer] - others).astype(np.float32)


def rasterise(one: PatchMap) -> Raster:
    """Lay a map on the grid that its patches step by; where patches overlap a cell has the patch that begins there.

    Patches that are counted piece by piece share no grid: each fills the cells below it then, an eighth of a patch
    wide, and where two pieces' patches meet a cell has the greater value.
    """
    cells, steps, first = [], [], []
    for axis in range(2):
        starts = one.corners_um_N2[:, axis]
        distinct = np.unique(np.round(starts, 3))
        step = float(np.diff(distinct).min()) if len(distinct) > 1 else one.patch_um[axis]
        # Where whole rows of patches have no tissue, a cell is still no larger than a patch.
        step /= max(1, math.ceil(step / one.patch_um[axis] - _OFF))
        at = (starts - starts.min()) / step
        if step < one.patch_um[axis] / _FINEST or np.abs(at - np.rint(at)).max() > _OFF:
            return _painted(one)
        steps.append(step)
        first.append(float(starts.min()))
        cells.append(np.rint(at).astype(np.int64))
    values = np.full((int(cells[0].max()) + 1, int(cells[1].max()) + 1), np.nan, np.float32)
    values[cells[0], cells[1]] = one.values_N
    return Raster(values, (steps[0], steps[1]), (first[0], first[1]))


def _painted(one: PatchMap) -> Raster:
    """Fill the cells below each patch."""
    cell = one.patch_um[0] / _CELLS, one.patch_um[1] / _CELLS
    first = one.corners_um_N2.min(axis=0)
    at = np.rint((one.corners_um_N2 - first) / cell).astype(np.int64)
    values = np.full(tuple(at.max(axis=0) + _CELLS), np.nan, np.float32)
    for (row, column), value in zip(at, one.values_N, strict=True):
        below = values[row : row + _CELLS, column : column + _CELLS]
        np.fmax(below, value, out=below)
    return Raster(values, cell, (float(first[0]), float(first[1])))
