"""The voxels of a volume or the frames of a loop without their place in the patient: what shards keep.

A `Sample` says everything of where its volume lies. A model of volumes needs less: what a slice, a row and a column
measure, which plane the slices are in, and what the values mean. The same value is made of a file that is scored and
of a stored sample that is trained on, so that both are shown to a model through the same code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.intensity import scale_to_uint8
from medclip.imaging.volume.resample import along, levels, still_frame
from medclip.imaging.volume.volume_read import exactly
from medclip.sample import Kind, Sample, Volume

GREY_VALUES = "grey values"
"""Unit of the frames of a loop: 0 is black, 255 white."""
PERCENTILES = (0.5, 99.5)
"""Of the voxels above background: black and white where no window is stated, as the MRI adapter has it."""
FROZEN = 0.1
"""Grey values of 255 by which two frames that follow each other differ on average where something moves."""
_STRIDE = 4
_ASSUMED = {
    "orientation": (Reason.OTHER_ORIENTATION, "does not say how its slices lie in the patient"),
    "spacing": (Reason.NO_SCALE, "does not say how large its pixels are"),
}
"""Steps of a volume's readers by which something was assumed that a person sees, and a model of volumes does not."""
DTYPES = ("uint8", "int16", "float32")
"""How values are held."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """A volume or a loop, laid out as it is shown."""

    values: NDArray[Any]
    """[slice, row, column] of a volume, [frame, row, column, channel] of a loop; one of `DTYPES`."""
    kind: Kind
    """VOLUME or CINE."""
    unit: str
    """"HU", "relative" or what else a volume is in; "grey values" of a loop."""
    plane: str | None = None
    """axial, coronal, sagittal or oblique; None of a loop."""
    spacing_mm: tuple[float, float, float] | None = None
    """Distance between slices, rows and columns; None of a loop."""
    frame_ms: float | None = None
    """Between two frames of a loop, where it is known."""

    def __repr__(self) -> str:
        """Return size, spacing and unit in one line, without a voxel."""
        size = " x ".join(map(str, self.values.shape))
        apart = [] if self.spacing_mm is None else [" x ".join(f"{mm:.3g}" for mm in self.spacing_mm) + " mm"]
        apart += [] if self.frame_ms is None else [f"{self.frame_ms:.3g} ms"]
        return f"Voxels({', '.join([f'{self.kind} {size} {self.values.dtype}', *apart, self.unit, self.plane or ''])})"


def voxels_of(sample: Sample) -> Voxels:
    """Return the voxels of a volume or the frames of a loop that an adapter has read.

    Of a volume in time the frame that its adapter shows stands for all.

    Raises:
        MedclipError: OTHER_INPUT for a sample that is neither; TOO_LARGE for a loop of which a frame was not decoded;
            OTHER_ORIENTATION or NO_SCALE for a volume whose header states no orientation or no pixel spacing.
    """
    if sample.kind is Kind.VOLUME and sample.volume is not None:
        for reason, what in (_ASSUMED[step.name] for step in sample.provenance.steps if step.name in _ASSUMED):
            raise MedclipError(reason, f"its header {what}.", hint="Write it into the header first, where it is known.")
        volume, _ = still_frame(sample.volume, sample.headers)
        return Voxels(held(volume.voxels), Kind.VOLUME, volume.unit, volume.plane, volume.spacing_mm)
    if sample.kind is Kind.CINE and sample.frames is not None:
        return Voxels(sample.frames, Kind.CINE, GREY_VALUES, frame_ms=sample.headers.get("frame_time_ms"))
    if sample.kind is Kind.CINE:
        raise MedclipError(Reason.TOO_LARGE, "not all frames of the loop were decoded, for they exceed the limit.")
    raise MedclipError(Reason.OTHER_INPUT, f"the file is of the kind {sample.kind}, and neither a volume nor a loop.")


def check_voxels(voxels: Voxels) -> None:
    """Refuse what has no third dimension or shows nothing: one slice, a loop in which nothing moves, one value.

    Raises:
        MedclipError: SINGLE_SLICE, FROZEN_LOOP; CONSTANT_IMAGE for a volume.
    """
    if len(voxels.values) < 2:
        word = "slice" if voxels.kind is Kind.VOLUME else "frame"
        raise MedclipError(Reason.SINGLE_SLICE, f"there is one {word}, of which no {voxels.kind} is made.")
    if voxels.kind is Kind.CINE:
        refuse_frozen(voxels.values[:, ::_STRIDE, ::_STRIDE])
        return
    first, few = voxels.values.flat[0], voxels.values[:, ::_STRIDE, ::_STRIDE]
    if (few == first).all() and (voxels.values == first).all():  # the few mostly settle it
        raise MedclipError(Reason.CONSTANT_IMAGE, "all voxels have the same value, so there is nothing to see.")


def refuse_frozen(frames: NDArray[np.uint8]) -> None:
    """Refuse frames [F, H, W, C] of which no two that follow each other differ by `FROZEN` grey values on average.

    Raises:
        MedclipError: FROZEN_LOOP.
    """
    if all(np.abs(a.astype(np.int16) - b).mean() < FROZEN for a, b in pairwise(frames)):
        raise MedclipError(Reason.FROZEN_LOOP, "nothing moves in the loop: its frames are one still image.")


def middle_image(voxels: Voxels) -> NDArray[np.uint8]:
    """Return the middle slice or frame as uint8 H x W x 3, a volume's between the percentiles of all its voxels."""
    middle = voxels.values[len(voxels.values) // 2]
    if voxels.kind is Kind.CINE:
        return np.broadcast_to(middle, (*middle.shape[:2], 3))
    volume = Volume(voxels.values, np.eye(4), voxels.unit, voxels.plane or "")
    try:
        low, high = levels(volume, PERCENTILES, signal_only=True)
    except MedclipError:  # of one value: black
        low, high = float(middle.max()), float(middle.max()) + 1
    return np.repeat(scale_to_uint8(middle, low, high)[:, :, None], 3, axis=2)


def held(values: NDArray[Any]) -> NDArray[Any]:
    """Return values as int16 where that holds each of them, else as float32; uint8 stays what it is."""
    if values.dtype in (np.uint8, np.int16):
        return values
    if values.dtype.kind in "iu":
        limits = np.iinfo(np.int16)
        fits = limits.min <= values.min(initial=0) and values.max(initial=0) <= limits.max
        return values.astype(np.int16 if fits else np.float32)
    exact = exactly(values, np.int16)
    return values.astype(np.float32, copy=False) if exact is None else exact


# A part of a volume or a loop on a grid of its own: cut out, resampled, and brought to 8 bits.
#
# One function cuts what training draws and what scoring looks at. Space is resampled by the triangle filter of
# `medclip.imaging.volume.resample`; frames of a loop are never blended: the nearest one is taken, and a loop that is
# too short begins again, as it does where it is shown.


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
    clip = scale_to_uint8(grid, *black_white)
    for axis in axes:
        places = part.places(axis)
        outside = (places < -0.5) | (places > sizes[axis] - 0.5)
        clip[(slice(None),) * axis + (outside,)] = 0
    return clip if clip.ndim == 4 else clip[..., None]


def _needed(part: Part, axis: int, size: int) -> tuple[int, int]:
    """Return the first voxel along an axis that a part reads, and the one after the last."""
    half = (part.shape[axis] + 1) / 2 * part.step[axis] + max(1.0, part.step[axis]) + 1
    low = min(max(0, math.floor(part.middle[axis] - half)), size - 1)
    return low, max(min(size, math.ceil(part.middle[axis] + half) + 1), low + 1)
