"""Frozen settings: folders, limits and worker counts. Passed as a value; there is no global state."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal


def _config_home() -> Path:
    base = os.environ.get("MEDCLIP_HOME") or os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "medclip"


DEFAULT_MODEL = "medclip-mini"
"""Name of the pack that is asked where nobody names one."""
MPP_RANGE_UM = (0.01, 1000.0)
"""Micrometres per pixel that a slide or an overview of one can have."""


@dataclass(frozen=True)
class PixelPolicy:
    """What is decided about DICOM pixels where the header leaves a choice. The default is what a viewer shows first."""

    window: int | str | tuple[float, float] = 0
    """Which VOI transformation: the number of the header's LUT or window (from 0), its explanation ("BONE"), a
    (centre, width) in modality units (HU for CT), or "none" for the full or percentile range."""
    polarity: Literal["display", "stored"] = "display"
    """"display" shows MONOCHROME1 and PresentationLUTShape INVERSE as white on black; "stored" never inverts."""
    both_inverse: Literal["once", "cancel"] = "once"
    """An image that is MONOCHROME1 *and* INVERSE: the second statement repeats the first ("once", what most writers
    mean), or takes it back ("cancel")."""
    padding: Literal["black", "keep"] = "black"
    """Whether pixels in the header's padding range are set to black at the end."""
    square_pixels: bool = True
    """Resample where the header states that pixels are not square (PixelAspectRatio, or spacing of unequal sides)."""


def parse_window(text: str) -> int | str | tuple[float, float]:
    """Read a window as the command line takes it: a number, "CENTRE,WIDTH", an explanation or "none".

    Raises:
        MedclipError: WRONG_USE for a width below 1, and for what is no number.

    Example:
        >>> parse_window("1"), parse_window("40,400"), parse_window("BONE")
        (1, (40.0, 400.0), 'BONE')
    """
    from medclip.errors import MedclipError, Reason

    centre, comma, width = text.partition(",")
    try:
        if not comma:
            return int(text)
        window = float(centre), float(width)
    except ValueError:
        return text
    if not (math.isfinite(window[0]) and math.isfinite(window[1]) and window[1] >= 1):
        raise MedclipError(
            Reason.WRONG_USE, f"a window is a centre and a width of at least 1, such as 40,400, not {text!r}."
        )
    return window


_MOST_WORKERS = 512
_LEAST_MEMORY_BYTES = 100 * 10**6
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_size(size: int | str) -> int:
    """Read a size as people write it: 12GB, 500 MB, 8GiB, or bytes.

    Raises:
        MedclipError: WRONG_USE for what is no size, and for 0.

    Example:
        >>> parse_size("50MB"), parse_size(1000)
        (50000000, 1000)
    """
    from medclip.errors import MedclipError, Reason

    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?|)b?\s*", str(size), re.IGNORECASE)
    num_bytes = 0 if match is None else int(float(match[1]) * (_UNITS | _BINARY_UNITS)[match[2].lower()])
    if num_bytes < 1:
        raise MedclipError(Reason.WRONG_USE, f"a size is a number above 0 with a unit, such as 12GB, not {size!r}.")
    return num_bytes


def parse_memory(size: int | str) -> int:
    """Read an amount of memory, as `parse_size` does.

    Raises:
        MedclipError: WRONG_USE for what is no size, or less than 100 MB.

    Example:
        >>> parse_memory("1.5GB"), parse_memory("2 GiB"), parse_memory(3 * 10**9)
        (1500000000, 2147483648, 3000000000)
    """
    from medclip.errors import MedclipError, Reason

    num_bytes = parse_size(size)
    if num_bytes < _LEAST_MEMORY_BYTES:
        raise MedclipError(Reason.WRONG_USE, f"memory is a size of at least 100 MB, such as 12GB, not {size!r}.")
    return num_bytes


@dataclass(frozen=True)
class EcgOptions:
    """What is done to the twelve leads. `EcgOptions.raw()` does nothing."""

    baseline: Literal["elliptic", "butterworth", "none"] = "elliptic"
    """Take out baseline wander: elliptic high-pass (pass 0.8 Hz, stop 0.2 Hz), or Butterworth band-pass 0.5-45 Hz of
    order 3; forward and backward, so that no wave moves."""
    notch_hz: Literal[50, 60] | None = None
    """Take out the mains (Q = 30, forward and backward). Which mains is the country's; none is assumed."""
    sampling_hz: float | None = 500.0
    """Resample to this rate; None keeps the record's."""
    seconds: float | None = 10.0
    """Cut the centre or pad with zeros on both sides; None keeps the length."""
    normalisation: Literal["mv", "minmax_record", "zscore_global", "zscore_lead"] = "mv"
    """"mv" keeps millivolts, since amplitude carries diagnosis. The others: (x - min) / (max - min + 1e-8) over the
    record, or z-scores with a training set's mean and standard deviation, or with each lead's own."""
    mean_mv: float | None = None
    """For "zscore_global"."""
    std_mv: float | None = None
    mlii_as_ii: bool = False
    """Take the ambulatory lead MLII for lead II where there is no II; it is not the same lead."""
    microvolts: bool = False
    """Round the stored leads to whole microvolts before anything else, as shards store them: models are shown the same,
    to the bit, of a file and of a shard."""

    def __post_init__(self) -> None:
        """Refuse options that do not fit together.

        Raises:
            MedclipError: WRONG_USE.
        """
        from medclip.errors import MedclipError, Reason

        known = ("mv", "minmax_record", "zscore_global", "zscore_lead")
        if self.baseline not in ("elliptic", "butterworth", "none") or self.normalisation not in known:
            raise MedclipError(Reason.WRONG_USE, "the ECG option for baseline or normalisation does not exist.")
        if self.normalisation == "zscore_global" and (self.mean_mv is None or not self.std_mv or self.std_mv < 0):
            raise MedclipError(
                Reason.WRONG_USE,
                "zscore_global needs mean_mv and std_mv (above 0), taken over the training records and leads.",
            )
        if (self.sampling_hz is not None and not 10 <= self.sampling_hz <= 5000) or (
            self.seconds is not None and not 0.1 <= self.seconds <= 3600
        ):
            raise MedclipError(Reason.WRONG_USE, "sampling_hz must lie in 10 to 5,000 and seconds in 0.1 to 3,600.")

    @classmethod
    def raw(cls) -> EcgOptions:
        """Return the options that leave the record in mV, at its rate and length, as stored."""
        return cls(baseline="none", sampling_hz=None, seconds=None)


@dataclass(frozen=True)
class ReadPolicy:
    """Choices that change what is read. All defaults together are what packs are trained and scored with; a change of
    any enters the preprocessing hash of the sample.
    """

    pixels: PixelPolicy = field(default_factory=PixelPolicy)
    uneven_slices: Literal["reject", "resample"] = "reject"
    """A series with gaps or uneven spacing is refused, with the positions in the reason, or resampled to a regular
    grid (linear)."""
    mpp_um: float | None = None
    """Micrometres per pixel of slides that do not say. Never used for one that does, unless that is a print
    resolution."""
    accept_unterminated: bool = False
    """Read compressed images that lack their end marker and nothing else, as some devices write them. Without it they
    are truncated: a cut stream looks the same."""
    crop: Literal["modality", "none"] = "modality"
    """Cut an image to what its modality shows (dark borders, field of view, breast, sector), or leave it whole as many
    public checkpoints were trained. A pack says which; see `medclip.models.inputs.preprocess.Preprocess.crop`."""
    ecg: EcgOptions | None = None
    """What is done to the leads of an ECG, where a model of signals says so; None: what the adapter does by itself."""

    def changes(self) -> Mapping[str, Any]:
        """Return the fields that differ from the defaults; empty for the default policy."""
        mine, default = asdict(self), asdict(ReadPolicy())
        return {name: value for name, value in mine.items() if value != default[name]}


UNEVEN = ("reject", "resample")
CHOICES = ("uneven_slices", "mpp_um", "accept_unterminated")
"""Fields of a policy that a call may name in words."""


def read_choices(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a call names of a policy, in one form and one order.

    Args:
        named: Values of `CHOICES`.

    Raises:
        MedclipError: WRONG_USE for a name, a word or a number that is none of the choices.
    """
    from medclip.errors import MedclipError, Reason, did_you_mean

    for name, value in named.items():
        sentence, hint = "", ""
        if name not in CHOICES:
            sentence, hint = f"there is no choice {name!r} of reading.", did_you_mean(name, CHOICES, "Choices are")
        elif name == "uneven_slices" and value not in UNEVEN:
            sentence = f"uneven slices are rejected or resampled, not {value!r}."
            hint = did_you_mean(str(value), UNEVEN, "Say one of")
        elif name == "mpp_um" and not _is_scale(value):
            low, high = MPP_RANGE_UM
            sentence = f"a slide has {low:g} to {high:g} micrometres per pixel, not {value!r}."
        elif name == "accept_unterminated" and not isinstance(value, bool):
            sentence = f"accept_unterminated is true or false, not {value!r}."
        if sentence:
            raise MedclipError(Reason.WRONG_USE, sentence, hint=hint)
    return {name: float(value) if name == "mpp_um" else value for name, value in sorted(named.items())}


def _is_scale(value: Any) -> bool:
    low, high = MPP_RANGE_UM
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True)
class Settings:
    """Limits and places used by every room. Build a changed copy with `dataclasses.replace`."""

    max_pixels: int = 200_000_000
    """Refuse images with more pixels than this before anything is allocated. The largest clinical projection image
    in common use (a 14k x 14k scanned film) has 196 million."""

    max_file_bytes: int = 4 * 1024**3
    """Refuse larger files for decoding (they are still hashed and get their row). Slides in tiles are never read whole,
    and may be larger."""

    decode_timeout_s: float = 120.0
    """Seconds one file may take in a reading worker before the worker is stopped and the file fails."""

    follow_links: bool = False
    """Follow symbolic links that lead out of the folder that is named. Without it they have a row that says so: who may
    put files into a folder, such as a sender, must not choose what else is read."""

    workers: int = field(default_factory=lambda: max(1, min(os.cpu_count() or 1, 16)))
    """Reading processes."""

    max_volume_bytes: int = 2 * 1024**3
    """Refuse volumes and cine loops whose decoded voxels would take more memory than this (a 512 x 512 CT of 4,000
    slices has 2.1 billion bytes)."""

    reader_memory_bytes: int = 8 * 1024**3
    """Address space one reading process may take; a file that wants more fails with too_large. Linux only."""

    memory_bytes: int | None = None
    """What all processes of a call may take together, this one with the model too. None for 60 % of what the machine or
    its cgroup has. A file that alone needs more fails with too_large. Linux only."""

    slide_cache_bytes: int = 256 * 1024**2
    """Decoded tiles that one slide reader may keep."""

    spool_bytes: int = 20 * 1000**3
    """Files of a PACS or an object store that lie on this disk at once: nothing is fetched ahead beyond it."""

    policy: ReadPolicy = field(default_factory=ReadPolicy)
    """Choices that change pixels."""

    home: Path = field(default_factory=_config_home)
    """Where the identity key lives. Set MEDCLIP_HOME to move it."""

    def __post_init__(self) -> None:
        """Refuse a number of reading processes that reads nothing: the one check of every `workers` and `--workers`.

        Raises:
            MedclipError: WRONG_USE.
        """
        from medclip.errors import MedclipError, Reason

        if self.workers < 1:
            raise MedclipError(Reason.WRONG_USE, f"files are read by 1 process or more, not by {self.workers}.")
        if self.workers > _MOST_WORKERS:
            raise MedclipError(
                Reason.WRONG_USE, f"files are read by {_MOST_WORKERS} processes at most, not by {self.workers}."
            )

    def on_machine(self, workers: int | None, memory: int | str | None) -> Settings:
        """Return these settings with what a call asks of the machine.

        Args:
            workers: Reading processes; as they are where None.
            memory: Bytes for all processes, as `parse_memory` takes them; as they are where None.

        Raises:
            MedclipError: WRONG_USE for what is no size, and for no process at all.
        """
        return replace(
            self,
            workers=self.workers if workers is None else workers,
            memory_bytes=self.memory_bytes if memory is None else parse_memory(memory),
        )
