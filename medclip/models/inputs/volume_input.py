"""How a model takes volumes and loops: which plane, unit, window and spacing, and how they become clips. No torch here.

What a file's slices measure and where they point is read from its header; what the model was trained on stands in its
pack. The two are compared before anything is resampled, so that a model of axial CT is never shown a sagittal series,
an MRI, or a stack of slices in the wrong order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medclip.imaging.volume.voxels import Part, Voxels

KEY = "volume"
"""Of `preprocess_cfg`, for a model of volumes or loops."""
TUBELET = "tubelet"
"""Of `vision_cfg`: num_frames, tubelet and channels of its tower."""
TUBELET_KEYS = ("num_frames", "tubelet", "channels")
Plane = Literal["axial", "coronal", "sagittal", "oblique"]
InputKind = Literal["volume", "cine"]
Triple = tuple[float, float, float]
MAX_CLIPS = 5
"""Clips that are looked at of one volume or loop: as many as cover it, evenly spaced, up to so many."""
MAX_STRETCH = 16
"""Voxels of a clip that one of a file becomes at most, along each axis; more is a mistake in the file's spacing."""
_CINE_UNIT = "grey values"


@dataclass(frozen=True)
class VolumeInput:
    """What a model of volumes or loops is shown: clips of `num_frames` slices or frames, squares of its `size_px`."""

    kind: InputKind = "volume"
    num_frames: int = 32
    """Slices or frames of a clip, T."""
    tubelet: int = 2
    """Slices or frames of a token."""
    spacing_mm: Triple | None = None
    """Distance between slices, rows and columns that a volume is resampled to; None for loops."""
    frame_ms: float | None = None
    """Time from one frame of a clip to the next; None takes a loop's frames as they come. None for volumes."""
    plane: Plane | None = None
    """Plane of the slices; None for loops."""
    unit: str = _CINE_UNIT
    """Of the voxels: "HU", or "relative" for MRI."""
    window: tuple[float, float] | None = None
    """Values that become black and white; None: percentiles of each volume, 0 to 255 of a loop."""
    channels: int = 1
    """1: colour becomes grey; 3: grey is repeated."""

    def check(self, voxels: Voxels) -> None:
        """Refuse what the model was not trained for.

        Raises:
            MedclipError: OTHER_INPUT for the other kind; OTHER_ORIENTATION, OTHER_UNIT, SINGLE_SLICE, CONSTANT_IMAGE;
                NO_SCALE for a loop that does not say how long a frame lasts, where the model must know, and for a
                volume of a spacing that cannot be: voxels `MAX_STRETCH` times as large as the model's along an axis,
                or all of it within two voxels of the model.
        """
        from medclip.imaging.volume.voxels import check_voxels

        if voxels.kind != self.kind:
            words = {"volume": "volumes", "cine": "loops in time"}
            raise MedclipError(
                Reason.OTHER_INPUT, f"the file is of the kind {voxels.kind}; the model takes {words[self.kind]}."
            )
        check_voxels(voxels)
        if voxels.plane != self.plane:
            raise MedclipError(
                Reason.OTHER_ORIENTATION,
                f"its slices are {voxels.plane}; the model was trained on {self.plane} slices.",
                hint="Take the series of that plane, or a model that was trained on this one.",
            )
        if voxels.unit != self.unit:
            raise MedclipError(
                Reason.OTHER_UNIT, f"its values are in {voxels.unit}; the model was trained on values in {self.unit}."
            )
        steps = self._step(voxels, 1)
        sizes = [n / step for n, step in zip(voxels.values.shape, steps, strict=False)]  # in voxels of a clip
        if self.spacing_mm is not None and (min(steps) * MAX_STRETCH < 1 or max(sizes) < 2):
            stated, wanted = (" x ".join(f"{mm:.3g}" for mm in v.spacing_mm or ()) for v in (voxels, self))
            raise MedclipError(
                Reason.NO_SCALE,
                f"it states a spacing of {stated} mm; the model takes {wanted} mm.",
                hint="Look for millimetres that are metres or micrometres in its header.",
            )
        if self.frame_ms is not None and not voxels.frame_ms:
            raise MedclipError(
                Reason.NO_SCALE,
                f"it does not say how long a frame lasts; the model takes frames {self.frame_ms:g} ms apart.",
            )

    def clips(self, voxels: Voxels, size_px: int) -> NDArray[np.uint8]:
        """Return what the model is shown of a volume or a loop.

        Args:
            voxels: Voxels of the file.
            size_px: Side of a clip.

        Returns:
            uint8 [V, T, S, S, C]: as many clips, evenly spaced, as cover all slices or frames, up to `MAX_CLIPS`; rows
            and columns around the middle.

        Raises:
            MedclipError: As `check`; FROZEN_LOOP for a loop in which nothing moves; CONSTANT_IMAGE.
        """
        import numpy as np

        self.check(voxels)
        limits, clips, frozen = self.black_white(voxels), [], None
        for at in self.places(voxels):
            try:
                clips.append(self.clip(voxels, self.part(voxels, size_px, at=at), limits))
            except MedclipError as error:
                if error.reason is not Reason.FROZEN_LOOP:
                    raise
                frozen = error
        if frozen is not None and not clips:
            raise frozen
        return np.stack(clips)

    def places(self, voxels: Voxels) -> tuple[float, ...]:
        """Return where along the slices or frames the clips of `clips` lie, from 0 (the first) to 1 (the last)."""
        room = len(voxels.values) / (self.num_frames * self._step(voxels, 1)[0])
        count = min(MAX_CLIPS, max(1, math.ceil(room - 1e-6)))
        return (0.5,) if count == 1 else tuple(n / (count - 1) for n in range(count))

    def part(
        self,
        voxels: Voxels,
        size_px: int,
        *,
        at: float = 0.5,
        zoom: tuple[float, float] = (1.0, 1.0),
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> Part:
        """Return where a clip lies.

        Args:
            voxels: Voxels that the clip is cut out of.
            size_px: Side of the clip.
            at: Place along the slices or frames that are left beside the clip, from 0 to 1.
            zoom: Height and width of what is shown, relative to the whole square.
            shift: Place of the clip in the room that is left, down and across, from -1 to 1.
        """
        from medclip.imaging.volume.voxels import Part

        step = self._step(voxels, size_px)
        step = step[0], step[1] * zoom[0], step[2] * zoom[1]
        shape = self.num_frames, size_px, size_px
        room = [voxels.values.shape[n] - shape[n] * step[n] for n in range(3)]
        centre = [(voxels.values.shape[n] - 1) / 2 for n in range(3)]
        depth = centre[0] + max(0.0, room[0]) * (at - 0.5)
        rows, columns = (centre[n] + abs(room[n]) / 2 * shift[n - 1] for n in (1, 2))
        return Part((depth, rows, columns), step, shape)

    def _step(self, voxels: Voxels, size_px: int) -> Triple:
        """Return how many voxels of the volume make one of a clip; a loop is letterboxed, and has no millimetres."""
        if self.spacing_mm is not None and voxels.spacing_mm is not None:
            slices, rows, columns = (a / b for a, b in zip(self.spacing_mm, voxels.spacing_mm, strict=True))
            return slices, rows, columns
        side = max(voxels.values.shape[1:3]) / size_px
        in_time = self.frame_ms / voxels.frame_ms if self.frame_ms is not None and voxels.frame_ms else 1.0
        return in_time, side, side

    def black_white(self, voxels: Voxels) -> tuple[float, float]:
        """Return the values that become black and white.

        Raises:
            MedclipError: CONSTANT_IMAGE for a volume without a window whose voxels are all the same.
        """
        if self.window is not None:
            return self.window
        if self.kind == "cine":
            return 0.0, 255.0
        import numpy as np

        from medclip.imaging.volume.resample import levels
        from medclip.imaging.volume.voxels import PERCENTILES
        from medclip.sample import Volume

        volume = Volume(voxels.values, np.eye(4), voxels.unit, voxels.plane or "")
        return levels(volume, PERCENTILES, signal_only=True)

    def clip(self, voxels: Voxels, part: Part, black_white: tuple[float, float]) -> NDArray[np.uint8]:
        """Cut one clip out.

        Args:
            voxels: Voxels that the clip is cut out of.
            part: Part of the voxels, from `part`.
            black_white: Values that become black and white, from `black_white`.

        Returns:
            uint8 [T, S, S, C].

        Raises:
            MedclipError: FROZEN_LOOP for a clip of a loop in which nothing moves.
        """
        import numpy as np

        from medclip.imaging.volume.voxels import cut_clip, refuse_frozen

        shown_THWC = cut_clip(voxels, part, black_white)
        if self.kind == "cine":
            refuse_frozen(shown_THWC)
        if shown_THWC.shape[3] == self.channels:
            return shown_THWC
        if self.channels == 3:
            return np.repeat(shown_THWC, 3, axis=3)
        grey_THW = shown_THWC @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as the adapters have it
        return (grey_THW + 0.5).astype(np.uint8)[..., None]

    def describe(self, size_px: int) -> str:
        """Describe what the model is shown in one sentence, for cards and people."""
        shape = f"{self.num_frames} x {size_px} x {size_px}"
        if self.kind == "cine":
            apart = "as they come" if self.frame_ms is None else f"{self.frame_ms:g} ms apart"
            return f"Loops are taken as clips of {shape}, frames {apart}, the longer side brought to {size_px} px."
        mm = " x ".join(f"{value:g}" for value in self.spacing_mm or ())
        low_high = "percentiles of each volume"
        if self.window is not None:
            low_high = f"{self.window[0]:g} to {self.window[1]:g} {self.unit}"
        return f"Volumes are taken as clips of {shape} {self.plane} voxels of {mm} mm, black to white {low_high}."

    @property
    def tower(self) -> dict[str, int]:
        """What `vision_cfg.tubelet` says of the tower."""
        return {name: getattr(self, name) for name in TUBELET_KEYS}

    def to_config(self) -> dict[str, Any]:
        """Return the form that `preprocess_cfg.volume` has; what is None is left out."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in plain.items() if value is not None}


def volume_input(values: Mapping[str, Any]) -> VolumeInput:
    """Read the settings back from a config.

    Raises:
        ValueError: They are of another form, or do not go together; the message says which.
    """
    unknown = sorted(set(values) - set(VolumeInput.__dataclass_fields__))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not known")
    kind = values.get("kind", "volume")
    if kind not in get_args(InputKind):
        raise ValueError(f"kind is {kind!r}; it is volume or cine")
    frames, tubelet, channels = (values.get(name, getattr(VolumeInput, name)) for name in TUBELET_KEYS)
    if not all(type(n) is int and n > 0 for n in (frames, tubelet)) or frames % tubelet or frames < 2:
        raise ValueError(f"num_frames {frames!r} is no multiple of tubelet {tubelet!r}, or under 2")
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; it is 1 or 3")
    window = _numbers("window", values.get("window"), 2)
    if window is not None and not window[0] < window[1]:
        raise ValueError(f"window is {list(window)}; it is [black, white], black below white")
    spacing = _numbers("spacing_mm", values.get("spacing_mm"), 3)
    apart = _numbers("frame_ms", None if values.get("frame_ms") is None else [values["frame_ms"]], 1)
    if any(value <= 0 for value in (*(spacing or ()), *(apart or ()))):
        raise ValueError("distances between slices, rows, columns and frames are above 0")
    plane = values.get("plane")
    if kind == "volume":
        plane = plane or "axial"
        if spacing is None or apart is not None or plane not in get_args(Plane):
            raise ValueError(f"a volume takes spacing_mm, no frame_ms, and a plane ({', '.join(get_args(Plane))})")
    elif spacing is not None or plane is not None:
        raise ValueError("a cine has frame_ms, and neither spacing_mm nor plane")
    unit = str(values.get("unit") or ("HU" if kind == "volume" else _CINE_UNIT))
    return VolumeInput(
        kind,
        frames,
        tubelet,
        None if spacing is None else (spacing[0], spacing[1], spacing[2]),
        None if apart is None else apart[0],
        plane,
        unit,
        None if window is None else (window[0], window[1]),
        channels,
    )


def _numbers(name: str, values: Any, count: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} is {str(values)[:60]}; it takes {count} finite numbers")
    return numbers
