"""Where the slices of a stack lie: one affine for all, checked against every slice's own position.

DICOM states for each slice the centre of its first pixel, the direction of its rows and of its columns (LPS+) and the
pixel spacing. Nothing says that slices come in order, at even distances, or above one another.

highdicom's `get_volume_positions` finds the same order and spacing where the slices are even (3 real series, 5 made
ones), but no tilt of 10° or more unless its tolerance is so wide that a slice 5 mm aside passes; it looks at one
orientation for all, says None where this says which slices are at fault, and takes 0.5 s to import.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.sample import Step
from medclip.wording import list_of

# Where the axes of a volume point, and how its slices are laid out for a person to look at.
#
# World coordinates are millimetres in RAS+: x grows to the patient's right, y to the front, z to the head, as in
# NIfTI. A volume is never resampled here: axes are swapped and reversed, and the affine with them.
#
# The layout of a plane is the radiological one. In each, (column, row, slice) is right-handed in the patient, so
# nothing is ever shown mirrored:
#
# - axial: slices from feet to head, rows from front to back, columns from the patient's right to left.
# - coronal: slices from front to back, rows from head to feet, columns from the patient's right to left.
# - sagittal: slices from the patient's left to right, rows from head to feet, columns from front to back.

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


EVEN_PART, EVEN_MM = 0.02, 0.1
"""Distances between slices may differ from their median by the larger of these."""
SAME_MM = 0.01
"""Slices closer than this are in the same place."""
PARALLEL_DEG = 0.5
"""Slices whose rows and columns differ by less are parallel."""
TILT_DEG = 0.5
"""From here on slices are said to be tilted against the line they are stacked on."""
_SHOWN = 8


@dataclass(frozen=True)
class Place:
    """Where one slice lies."""

    position: tuple[float, float, float] | None
    """Centre of the first pixel, LPS+ mm; None where the header does not say."""
    orientation: tuple[float, ...] | None
    """Direction cosines of a row, then of a column."""
    spacing_mm: tuple[float, float] | None
    """Between rows, between columns."""
    thickness_mm: float | None = None
    """Distance to the next slice as stated, else the thickness; used where there is only one slice."""


@dataclass(frozen=True)
class Stack:
    """Slices in order along the normal."""

    order: tuple[int, ...]
    """Index of the slices as they were given."""
    affine: Affine
    """4 x 4, RAS: (slice, row, column, 1) to mm."""
    distances_mm: NDArray[np.float64]
    """Of the slices in order, along the normal."""
    even: bool
    steps: tuple[Step, ...] = ()


def stack_of(places: Sequence[Place], *, uneven: str) -> Stack:
    """Sort slices along their normal and find the affine they share.

    Args:
        places: Place of each slice, in any order.
        uneven: "reject" or "resample": whether uneven distances are an error, or marked in the result. With "resample"
            the second of two slices in one place is left out.

    Raises:
        MedclipError: UNEVEN_SLICES, with positions in mm; CORRUPT if the geometry makes no sense.
    """
    notes: list[Step] = []
    row, column = _directions(places, notes)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    spacing = _spacing(places, notes)
    positions = _positions(places, notes)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    order, even = _even(order, along, uneven, notes)
    distances = along[order]
    step = _step(positions[order], normal, places[0], notes)
    if len(order) > 1:
        _aligned(positions[order], distances, step, spacing)
        tilt = float(np.degrees(np.arccos(min(1.0, abs(step @ normal) / float(np.linalg.norm(step))))))
        if tilt > TILT_DEG:
            notes.append(Step("tilt", f"slices are sheared by {tilt:.1f}° (gantry tilt); the affine says so"))
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2], lps[:3, 3] = step, column * spacing[0], row * spacing[1], positions[order[0]]
    affine = LPS_TO_RAS @ lps + 0.0
    check_affine(affine)
    return Stack(tuple(int(index) for index in order), affine, distances, even, tuple(notes))


def _directions(places: Sequence[Place], notes: list[Step]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    orientations = [place.orientation for place in places if place.orientation is not None]
    if not orientations:
        notes.append(Step("orientation", "the header states none; taken for axial, front on top"))
        return np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    cosines = np.array(orientations)
    turned = np.abs(cosines - cosines[0]).max()  # a turn by a small angle moves a unit vector by as many radians
    if len(orientations) < len(places) or turned > np.radians(PARALLEL_DEG):
        raise MedclipError(Reason.UNEVEN_SLICES, "the slices of the series are not parallel to each other.")
    row, column = cosines[0, :3], cosines[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(float(row @ column)) > 0.02:
        raise MedclipError(Reason.CORRUPT, "the header's directions of rows and columns make no sense.")
    return row / lengths[0], column / lengths[1]


def _spacing(places: Sequence[Place], notes: list[Step]) -> tuple[float, float]:
    first = places[0].spacing_mm
    if first is None:
        notes.append(Step("spacing", "the header states no pixel spacing; 1 mm is assumed"))
        return 1.0, 1.0
    spacings = [place.spacing_mm for place in places]
    if None in spacings or not np.allclose(np.array(spacings), first, rtol=1e-3):
        raise MedclipError(Reason.UNEVEN_SLICES, "the slices of the series differ in their pixel spacing.")
    return first


def _positions(places: Sequence[Place], notes: list[Step]) -> NDArray[np.float64]:
    positions = [place.position for place in places if place.position is not None]
    if len(positions) == len(places):
        return np.array(positions, np.float64)
    if len(places) > 1:
        raise MedclipError(
            Reason.UNEVEN_SLICES,
            f"{len(places) - len(positions)} of the {len(places)} slices do not say where they lie.",
        )
    notes.append(Step("position", "the header states none; the first pixel is taken for the origin"))
    return np.zeros((1, 3))


def _even(
    order: NDArray[np.intp], along: NDArray[np.float64], uneven: str, notes: list[Step]
) -> tuple[NDArray[np.intp], bool]:
    """Check the distances between neighbours; give the order without doubles, and whether they are even."""
    if len(order) < 2:
        return order, True
    steps = np.diff(along[order])
    double = np.flatnonzero(steps < SAME_MM)
    if double.size:
        where = list_of([f"{at:.2f}" for at in along[order][double]], most=_SHOWN)
        if uneven == "reject":
            raise MedclipError(
                Reason.UNEVEN_SLICES,
                f"{double.size} of {len(order)} slices lie where another one does (at {where} mm along the normal).",
                hint="Two series may have been mixed into one.",
            )
        notes.append(Step("doubles", f"{double.size} slices left out, one is there already (at {where} mm)"))
        order = np.delete(order, double + 1)
        if len(order) < 2:
            return order, True
        steps = np.diff(along[order])
    median = float(np.median(steps))
    odd = np.flatnonzero(np.abs(steps - median) > max(EVEN_PART * median, EVEN_MM))
    if not odd.size:
        return order, True
    sorted_along = along[order]
    gaps = list_of([f"{sorted_along[i]:.2f} to {sorted_along[i + 1]:.2f}" for i in odd], most=_SHOWN)
    if uneven == "reject":
        raise MedclipError(
            Reason.UNEVEN_SLICES,
            f"the slices are not evenly spaced: {median:.2f} mm apart, but at {gaps} mm.",
            hint="A slice may be missing; ReadPolicy(uneven_slices='resample') interpolates.",
        )
    notes.append(Step("uneven", f"slices {median:.2f} mm apart, but at {gaps} mm"))
    return order, False


def _step(
    positions: NDArray[np.float64], normal: NDArray[np.float64], place: Place, notes: list[Step]
) -> NDArray[np.float64]:
    """Return the vector from a slice to the next: over the whole stack, so that rounding of positions averages out."""
    if len(positions) > 1:
        return (positions[-1] - positions[0]) / (len(positions) - 1)
    if place.thickness_mm is None or place.thickness_mm <= 0:
        notes.append(Step("thickness", "the header states none; 1 mm is assumed"))
        return normal
    return normal * place.thickness_mm


def _aligned(
    positions: NDArray[np.float64],
    distances: NDArray[np.float64],
    step: NDArray[np.float64],
    spacing: tuple[float, float],
) -> None:
    """Check that all first pixels lie on the line from the first to the last."""
    extent = step * (len(positions) - 1)
    part = (distances - distances[0]) / (distances[-1] - distances[0])
    off = np.linalg.norm(positions - positions[0] - part[:, None] * extent, axis=1)
    if off.max() > max(0.5 * min(spacing), EVEN_MM):
        raise MedclipError(
            Reason.UNEVEN_SLICES,
            f"the slices do not lie above one another: one is {off.max():.2f} mm beside the line of the others.",
        )


def evenly(voxels: NDArray[Any], stack: Stack) -> tuple[NDArray[np.float32], Affine, Step]:
    """Interpolate an uneven stack at even distances, linearly along the normal.

    Args:
        voxels: [slice, row, column] in the stack's order.
        stack: Stack whose `even` is False.

    Returns:
        float32 voxels from the first slice to the last at the median distance (the last step may end short of the last
        slice, never beyond it), their affine, and the step.
    """
    distances = stack.distances_mm - stack.distances_mm[0]
    median = float(np.median(np.diff(distances)))
    count = int(np.floor(distances[-1] / median + 1e-6)) + 1
    wanted = np.arange(count) * median
    upper = np.clip(np.searchsorted(distances, wanted, side="right"), 1, len(distances) - 1)
    part = np.clip((wanted - distances[upper - 1]) / (distances[upper] - distances[upper - 1]), 0, 1)
    out = np.empty((count, *voxels.shape[1:]), np.float32)
    for index, (above, share) in enumerate(zip(upper, part, strict=True)):
        below, top = voxels[above - 1].astype(np.float32), voxels[above].astype(np.float32)
        out[index] = below + np.float32(share) * (top - below)
    affine = stack.affine.copy()
    # The stack's own step covers the whole line in len - 1 parts; the new one covers it in parts of the median.
    affine[:3, 0] *= (len(distances) - 1) * median / distances[-1]
    return out, affine, Step("resample", f"{len(distances)} uneven slices to {count}, {median:.2f} mm apart, linear")
