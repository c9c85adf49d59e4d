"""The voxels of a volume or the frames of a loop without their place in the patient: what shards keep.

A `Sample` says everything of where its volume lies. A model of volumes needs less: what a slice, a row and a column
measure, which plane the slices are in, and what the values mean. The same value is made of a file that is scored and
of a stored sample that is trained on, so that both are shown to a model through the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.intensity import scale_to_uint8
from medclip.imaging.volume.resample import levels
from medclip.imaging.volume.result import exactly
from medclip.imaging.volume.still import still_frame
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
