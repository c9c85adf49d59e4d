"""Where the axes of a volume point, and how its slices are laid out for a person to look at.

World coordinates are millimetres in RAS+: x grows to the patient's right, y to the front, z to the head, as in NIfTI. A
volume is never resampled here: axes are swapped and reversed, and the affine with them.

The layout of a plane is the radiological one. In each, (column, row, slice) is right-handed in the patient, so nothing
is ever shown mirrored:

- axial: slices from feet to head, rows from front to back, columns from the patient's right to left.
- coronal: slices from front to back, rows from head to feet, columns from the patient's right to left.
- sagittal: slices from the patient's left to right, rows from head to feet, columns from front to back.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

Affine = NDArray[np.float64]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
CLEARLY = 1.2
"""Slices lie along the axis whose spacing is this many times the others; else axial."""
OBLIQUE_DEG = 30.0
"""From here on a plane's name would mislead: it is called oblique."""

_R, _A, _S = 0, 1, 2
_PLANES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "axial": ((_S, 1), (_A, -1), (_R, -1)),
    "coronal": ((_A, -1), (_S, -1), (_R, -1)),
    "sagittal": ((_R, 1), (_S, -1), (_A, -1)),
}
"""For slices, rows and columns: the world axis they run along and which way."""
_OF_NORMAL = {_S: "axial", _A: "coronal", _R: "sagittal"}


class Layout(NamedTuple):
    """How the three axes of an array become slices, rows and columns."""

    axes: tuple[int, int, int]
    """Which axis of the array the slices, rows and columns are."""
    flips: tuple[bool, bool, bool]
    """Which of those run the other way."""

    def apply(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Lay out the last three axes of an array; a view, not a copy."""
        first = voxels.ndim - 3
        moved = voxels.transpose(*range(first), *(first + axis for axis in self.axes))
        return moved[(..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))]

    def affine(self, affine: Affine, shape: tuple[int, ...]) -> Affine:
        """Return the affine of the laid out array.

        Args:
            affine: 4 x 4 of the array as it was.
            shape: Last three lengths of the array as it was.
        """
        out = np.eye(4)
        out[:3, 3] = affine[:3, 3]
        for place, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            out[:3, place] = -affine[:3, axis] if flip else affine[:3, axis]
            if flip:
                out[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
        return out + 0.0  # no negative zeros


def check_affine(affine: Affine) -> None:
    """Refuse an affine that does not span space.

    Raises:
        MedclipError: CORRUPT.
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or lengths.min() < 1e-6 or lengths.max() > 1e6:
        raise MedclipError(Reason.CORRUPT, "the header's position in space makes no sense (an axis without length).")
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise MedclipError(Reason.CORRUPT, "the header's position in space makes no sense (two axes are parallel).")


def closest_axes(affine: Affine) -> tuple[tuple[int, int], ...]:
    """Return the world axis that each axis of the array runs along, and its sign (1 or -1)."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # Shear pulls axes towards each other; the nearest rotation shares that out (polar decomposition).
    left, _, right = np.linalg.svd(directions)
    rotation = left @ right
    best = max(
        itertools.permutations(range(3)), key=lambda world: sum(rotation[w, i] ** 2 for i, w in enumerate(world))
    )
    return tuple((world, 1 if rotation[world, axis] >= 0 else -1) for axis, world in enumerate(best))


def axis_codes(affine: Affine) -> str:
    """Name where the axes point, as nibabel does: "LAS" for a first axis to the left, then front, then head."""
    return "".join("RAS"[world] if sign > 0 else "LPI"[world] for world, sign in closest_axes(affine))


def oblique_deg(affine: Affine) -> float:
    """Return the largest angle between an axis of the array and the world axis closest to it, in degrees."""
    directions = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    return round(float(np.degrees(np.arccos(np.clip(directions.max(axis=0), 0, 1)).max())), 2)


def plane_of(affine: Affine, slice_axis: int = 0) -> str:
    """Name the plane of slices stacked along an axis by its normal: axial, coronal, sagittal or oblique."""
    others = [affine[:3, axis] for axis in range(3) if axis != slice_axis]
    normal = np.cross(others[0], others[1])
    cosines = np.abs(normal) / np.linalg.norm(normal)
    if np.degrees(np.arccos(min(1.0, float(cosines.max())))) > OBLIQUE_DEG:
        return "oblique"
    return _OF_NORMAL[int(cosines.argmax())]


def layout_of(affine: Affine, plane: str | None = None, slice_axis: int | None = None) -> Layout:
    """Return how an array is laid out to be shown.

    Args:
        affine: 4 x 4 of the array, RAS.
        plane: "axial", "coronal" or "sagittal"; None to go by `slice_axis`.
        slice_axis: The axis that stays the slices.
    """
    closest = closest_axes(affine)
    if plane is None:
        plane = _OF_NORMAL[closest[slice_axis or 0][0]]
    wanted = _PLANES[plane]
    axes = tuple(next(axis for axis, (world, _) in enumerate(closest) if world == w) for w, _ in wanted)
    flips = tuple(closest[axis][1] != sign for axis, (_, sign) in zip(axes, wanted, strict=True))
    return Layout((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))


def natural_plane(affine: Affine) -> str:
    """Name the plane in which an array is looked at: across its clearly thickest axis, else axial."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    thick = int(spacing.argmax())
    if spacing[thick] > CLEARLY * max(np.delete(spacing, thick)):
        return _OF_NORMAL[closest_axes(affine)[thick][0]]
    return "axial"


def arrange(voxels: NDArray[Any], affine: Affine, plane: str) -> tuple[NDArray[Any], Affine, str]:
    """Lay an array out in a plane without resampling.

    Args:
        voxels: Array whose last three axes are in space, in any order.
        affine: 4 x 4 of these axes, RAS.
        plane: axial, coronal or sagittal.

    Returns:
        The voxels (a view), their affine, and the plane's name ("oblique" where it lies far off).
    """
    layout = layout_of(affine, plane)
    laid_out = layout.affine(affine, voxels.shape[-3:])
    return layout.apply(voxels), laid_out, plane_of(laid_out)
