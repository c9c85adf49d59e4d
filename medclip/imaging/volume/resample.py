"""New grids for a volume, and which of its slices show something.

Spacing is changed by a triangle filter along one axis after another, as Pillow's bilinear does for images: linear
interpolation where the grid gets finer, an average over the new voxel where it gets coarser. MONAI's `Spacing` and
`scipy.ndimage.zoom` sample without that average, so thin bright structures vanish or not by chance, and importing
MONAI costs seconds (`benchmarks/read_volume.py` measures all three).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.volume_read import HU
from medclip.sample import Step, Volume

MAX_GROWTH = 64
"""A resampled volume may have this many times the voxels; more is a mistake in the spacing."""
BODY_HU = -500.0
"""CT voxels above this are body, table or pillow, not air."""
SIGNAL = 0.05
"""Other voxels above this part of the range (lowest value to 99.5 percentile) are signal, not background."""
EMPTY = 0.02
"""A slice at an end with less signal than this part of the fullest slice's is left out."""
_STRIDE = 4


def resample(volume: Volume, spacing_mm: Sequence[float]) -> Volume:
    """Change the distance between slices, rows and columns.

    The grid keeps its directions and its centre, and covers the same space to within half a new voxel; there, values
    of the edge are repeated.

    Args:
        volume: 3-D, or 4-D with frames first.
        spacing_mm: New distance between slices, rows, columns.

    Returns:
        float32 voxels in the same unit and plane.

    Raises:
        MedclipError: WRONG_USE for a spacing that is not positive or would make the volume more than `MAX_GROWTH`
            times as large.
    """
    wanted = np.asarray(spacing_mm, np.float64)
    if wanted.shape != (3,) or not np.isfinite(wanted).all() or wanted.min() <= 0:
        raise MedclipError(Reason.WRONG_USE, "spacing_mm takes three positive numbers: between slices, rows, columns.")
    shape = np.array(volume.voxels.shape[-3:])
    factor = wanted / np.array(volume.spacing_mm)
    lengths = np.maximum(1, np.rint(shape / factor)).astype(int)
    if np.prod(lengths / shape) > MAX_GROWTH:
        raise MedclipError(Reason.WRONG_USE, f"the spacing would make the volume over {MAX_GROWTH} times as large.")
    voxels = volume.voxels.astype(np.float32)
    affine = volume.affine.copy()
    # The axis that shrinks most goes first: the others then have less to do.
    for axis in np.argsort(lengths / shape):
        voxels = along(voxels, voxels.ndim - 3 + int(axis), int(lengths[axis]), float(factor[axis]))
        affine[:3, axis] *= factor[axis]
        start = (shape[axis] - 1) / 2 - (lengths[axis] - 1) / 2 * factor[axis]  # keeps the centre, in old voxels
        affine[:3, 3] += volume.affine[:3, axis] * start
    return replace(volume, voxels=voxels, affine=affine)


def square_pixels(image: NDArray[Any], spacing_mm: tuple[float, float]) -> tuple[NDArray[Any], tuple[float, float]]:
    """Resample an image whose pixels are not square to the finer of its two spacings.

    Args:
        image: H x W.
        spacing_mm: Distances between rows and between columns, in mm.

    Returns:
        The image (as it was where the spacings agree within 1 %) and its spacing.
    """
    rows, columns = spacing_mm
    fine = min(rows, columns)
    if max(rows, columns) <= 1.01 * fine:
        return image, spacing_mm
    out = image.astype(np.float32)
    for axis, step in enumerate(spacing_mm):
        if step > fine:
            length = min(round(out.shape[axis] * step / fine), 8192)
            out = along(out, axis, length, fine / step)
    return out, (fine, fine)


def along(
    values: NDArray[np.float32], axis: int, length: int, factor: float, middle: float | None = None
) -> NDArray[np.float32]:
    """Resample one axis to another length by a triangle filter; beyond an edge its value repeats.

    Args:
        values: Array of any number of axes.
        axis: Number of the axis.
        length: New length.
        factor: Old voxels that a new one is wide.
        middle: Place of the middle of the new axis, in old voxels; that of the old one where None.
    """
    size = values.shape[axis]
    at = (size - 1) / 2 if middle is None else middle
    if length == size and abs(factor - 1) < 1e-6 and abs(at - (size - 1) / 2) < 1e-6:
        return values
    from scipy.sparse import csr_array

    reach = max(1.0, factor)
    centre = at + (np.arange(length) - (length - 1) / 2) * factor
    offsets = np.arange(-int(np.ceil(reach)), int(np.ceil(reach)) + 1)
    index = np.rint(centre)[:, None].astype(int) + offsets
    weight = np.maximum(0.0, 1.0 - np.abs(index - centre[:, None]) / reach)
    weight /= weight.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(length), len(offsets))
    table = csr_array(  # entries in the same place add up: beyond the edge its value repeats
        (weight.ravel().astype(np.float32), (rows, np.clip(index, 0, size - 1).ravel())), shape=(length, size)
    )
    table.eliminate_zeros()
    first = np.moveaxis(values, axis, 0)
    out = table @ np.ascontiguousarray(first.reshape(size, -1))
    return np.ascontiguousarray(np.moveaxis(out.reshape(length, *first.shape[1:]), 0, axis), dtype=np.float32)


def background(volume: Volume) -> float:
    """Return the value up to which voxels are background: air in CT, else 5 % of the way to the 99.5 percentile."""
    if volume.unit == HU:
        return BODY_HU
    grid = sampled(volume.voxels)
    low = float(grid.min())
    return low + SIGNAL * (float(np.percentile(grid, 99.5, method="nearest")) - low)


def levels(volume: Volume, limits: tuple[float, float], *, signal_only: bool) -> tuple[float, float]:
    """Return two percentiles of a volume's voxels: what becomes black and white where no window is known.

    Args:
        volume: Volume, 3-D.
        limits: Percentiles, 0 to 100.
        signal_only: Whether the percentiles are of the values above background, not of all.

    Raises:
        MedclipError: CONSTANT_IMAGE if all voxels have the same value.
    """
    grid = sampled(volume.voxels)
    choices = [grid[grid > background(volume)]] if signal_only else []
    for values in (*choices, grid.ravel()):
        if values.size:
            low, high = (float(v) for v in np.percentile(values, limits, method="nearest"))
            if high > low:
                return low, high
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    if not high > low:
        raise MedclipError(Reason.CONSTANT_IMAGE, "all voxels have the same value, so there is nothing to see.")
    return low, high


def sampled(voxels: NDArray[Any]) -> NDArray[Any]:
    """Look at every slice, but at rows and columns in steps where there are many."""
    stride = min(_STRIDE, max(1, min(voxels.shape[-2:]) // 32))
    return voxels[..., ::stride, ::stride]


def slice_indices(volume: Volume, count: int) -> tuple[int, ...]:
    """Choose slices evenly over the part of a volume that shows something.

    Slices at both ends with almost no signal (less than 2 % of what the fullest has) are passed over; one in the middle
    never is. The same volume gives the same slices.

    Args:
        volume: 3-D, or 4-D with frames first.
        count: Most slices to give; at least 1.

    Returns:
        Rising indices; all of these slices where there are no more than `count`.
    """
    if count < 1:
        raise MedclipError(Reason.WRONG_USE, "count must be at least 1.")
    signal = sampled(volume.voxels) > background(volume)
    axes = tuple(axis for axis in range(signal.ndim) if axis != signal.ndim - 3)
    amount = signal.mean(axis=axes)
    full = np.flatnonzero(amount > EMPTY * amount.max()) if amount.max() > 0 else np.arange(len(amount))
    first, last = int(full[0]), int(full[-1])
    length = last - first + 1
    if length <= count:
        return tuple(range(first, last + 1))
    # The middles of `count` equal parts.
    return tuple(first + int((index + 0.5) * length / count) for index in range(count))


# Which frame of a volume in time stands for all: the one that is shown, and that a model of volumes is given.


def still_frame(volume: Volume, headers: Mapping[str, Any]) -> tuple[Volume, tuple[Step, ...]]:
    """Choose a frame of a volume in time: the lowest b-value where b-values are known, else the middle one.

    Args:
        volume: Volume, 3-D, which stays what it is, or 4-D with frames first.
        headers: Header values, as the volume's reader returned them.

    Returns:
        The 3-D volume, and what was done.
    """
    if volume.voxels.ndim == 3:
        return volume, ()
    count = volume.voxels.shape[0]
    b_values = headers.get("b_values")
    if b_values and all(value is not None for value in b_values):
        number = int(np.argmin(b_values))
        why = f"the lowest b-value, {b_values[number]:g} s/mm²"
    else:
        number, why = count // 2, "the middle one"
    return replace(volume, voxels=volume.voxels[number]), (Step("frame", f"{number} of {count}, {why}"),)
