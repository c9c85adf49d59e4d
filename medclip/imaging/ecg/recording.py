"""One ECG record as its file holds it, in millivolts, and the checks that every format shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE, lead_names
from medclip.sample import Signal
from medclip.settings import Settings
from medclip.wording import count

_TO_MV = {
    "v": 1e3,
    "volt": 1e3,
    "volts": 1e3,
    "mv": 1.0,
    "millivolt": 1.0,
    "millivolts": 1.0,
    "uv": 1e-3,
    "µv": 1e-3,
    "μv": 1e-3,
    "microvolt": 1e-3,
    "microvolts": 1e-3,
    "nv": 1e-6,
    "nanovolt": 1e-6,
    "nanovolts": 1e-6,
}
_RATES_HZ = (1.0, 50_000.0)
_LEADS = 12
_WORKING = 5
"""Times its own size that reading, measuring and filtering a record take: 4.99 of 12 leads of two hours at 500 Hz."""


@dataclass(frozen=True, eq=False)
class Recording:
    """The ECG channels of one record. Channels in other units than volts, and other signals, are left out."""

    values_mv: NDArray[np.float32]
    """float32 [C, T] in mV; NaN where the file has gaps."""
    leads: tuple[str, ...]
    """Names of the C rows as stored."""
    sampling_hz: float
    """Samples per second of `values_mv`."""
    stored_leads: tuple[str, ...]
    """Names of all channels of the record, in the file's order."""
    stored_samples: int
    """Samples (frames, where channels differ in rate) as the file counts them."""
    stored_hz: float
    """Samples (frames) per second as the file states them."""
    units: tuple[str, ...]
    """Unit of each row as found."""
    notes: tuple[str, ...] = ()
    """What is worth knowing; no free text of the file."""
    decoder: str = ""

    def __repr__(self) -> str:
        """Return leads and length in one line, without a value."""
        samples = self.values_mv.shape[1]
        return (
            f"Recording({count(len(self.leads), 'lead')}, {samples / self.sampling_hz:.3g} s, {self.sampling_hz:g} Hz)"
        )


def millivolts_per(unit: str) -> float | None:
    """Return the factor from a unit's name to millivolts; None if it is no voltage.

    Example:
        >>> millivolts_per("uV"), millivolts_per("mmHg")
        (0.001, None)
    """
    return _TO_MV.get(unit.strip().lower())


def decoded(data: bytes) -> str:
    """Return a header's text: UTF-8, else Latin-1, which older writers use for the micro sign.

    Example:
        >>> decoded("µV".encode()) == decoded("µV".encode("latin-1"))
        True
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def stretch(line: NDArray[np.floating], samples: int) -> NDArray[np.floating]:
    """Interpolate a channel linearly to more samples over the same time."""
    if line.size == samples:
        return line
    return np.interp(np.arange(samples) / samples, np.arange(line.size) / line.size, line)


def check_rate(hz: float) -> float:
    """Return a sampling rate back, or refuse it.

    Raises:
        MedclipError: CORRUPT if it is no number between 1 and 50,000 Hz.
    """
    if not math.isfinite(hz) or not _RATES_HZ[0] <= hz <= _RATES_HZ[1]:
        raise MedclipError(Reason.CORRUPT, "the record states no usable sampling rate; expected 1 to 50,000 Hz.")
    return float(hz)


def check_size(channels: int, samples: int, settings: Settings) -> None:
    """Refuse a record before anything is allocated for it.

    Args:
        channels: Channels that the header states.
        samples: Samples of each channel.
        settings: Settings with the limits: `max_volume_bytes` of a record, `reader_memory_bytes` of all that reading it
            takes.

    Raises:
        MedclipError: CORRUPT without channels or samples, TOO_LARGE above the limit.
    """
    if channels < 1 or samples < 1:
        raise MedclipError(Reason.CORRUPT, "the record states no channel or no sample; expected at least one of each.")
    # The canonical record has twelve leads, whatever the file stores.
    if (num_bytes := max(channels, _LEADS) * samples * 4) > settings.max_volume_bytes:
        raise MedclipError(
            Reason.TOO_LARGE,
            f"the record states {count(channels, 'channel')} of {samples:,} samples, more than the limit of "
            f"{settings.max_volume_bytes:,} bytes in memory.",
            hint="Raise settings.max_volume_bytes, or cut the record.",
        )
    if (needed := num_bytes * _WORKING) > settings.reader_memory_bytes:
        raise MedclipError(
            Reason.TOO_LARGE,
            f"the record states {count(channels, 'channel')} of {samples:,} samples; measuring and filtering takes "
            f"about {needed:,} bytes, and a reading process may take {settings.reader_memory_bytes:,}.",
            hint="Cut out the part that is to be looked at, or raise settings.reader_memory_bytes.",
        )


def no_scale(what: str) -> MedclipError:
    """Return the refusal of a lead whose amplitude is unknown."""
    return MedclipError(
        Reason.NO_SCALE,
        f"{what}; expected gain and a unit of voltage for every lead.",
        hint="Amplitudes carry diagnosis, so none is assumed: write the record with its gain.",
    )


def left_out(names: Sequence[str], why: str) -> tuple[str, ...]:
    """Make the note on channels that are not read, by names of the closed list; none for none."""
    return (f"not read, {why}: {', '.join(names)}",) if names else ()


def truncated(what: str, wanted: int, present: int) -> MedclipError:
    """Return the refusal of a file that holds less than its header states."""
    return MedclipError(Reason.TRUNCATED, f"the header states {wanted:,} {what}, the file holds {present:,}.")


def choose(names: Sequence[str], factors: Sequence[float | None]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Choose the channels that are read.

    Args:
        names: Names of all channels, as stored.
        factors: Millivolts per unit of each; None where gain or unit of voltage is missing.

    Returns:
        The numbers of the ECG channels with a known scale, and notes on the others.

    Raises:
        MedclipError: NO_SCALE if one of the twelve leads has no scale, NOT_AN_IMAGE if there is no ECG channel.
    """
    meanings = lead_names(names)
    for meaning, factor in zip(meanings, factors, strict=True):
        if meaning.standard and factor is None:
            raise no_scale(f"Lead {meaning.name} has no gain, or no unit of voltage")
    other = [meaning.name for meaning in meanings if not meaning.ecg]
    maybe = [i for i, meaning in enumerate(meanings) if meaning.ecg]
    unscaled = [meanings[i].name for i in maybe if not factors[i]]
    rows = tuple(i for i in maybe if factors[i])
    if not maybe:
        raise MedclipError(
            Reason.NOT_AN_IMAGE,
            f"no channel is an ECG; found {', '.join(sorted(set(other))) or 'none'}, expected at least one ECG lead.",
        )
    if not rows:
        raise MedclipError(
            Reason.NOT_AN_IMAGE,
            "no channel that may be an ECG lead has a known scale; expected gain and unit of voltage.",
        )
    return rows, (*left_out(other, "no ECG"), *left_out(unscaled, "in no unit of voltage"))


# Twelve leads as whole microvolts: the form in which ECGs are stored in shards and travel to a model.
#
# A microvolt is below the noise of any electrode, and below the step of the usual devices (1 to 5 uV). Integers take
# half the memory of floats, and are the same on every machine.

MISSING = -32768
"""Every sample of a lead that is not there; no other sample has it."""
MAX_UV = 32_767
"""Largest amplitude that is kept; 33 mV is ten times what a heart makes on the skin."""


def to_microvolts(signal: Signal) -> NDArray[np.int16]:
    """Return a signal in whole microvolts.

    Args:
        signal: Signal in mV, of any rate and length.

    Returns:
        int16 [12, T]: rounded, at most `MAX_UV` either way (`exceeds_range`); leads that are masked are all `MISSING`.

    Raises:
        MedclipError: WRONG_USE for a signal that is not in mV.

    Example:
        >>> leads = np.arange(12) > 0
        >>> to_microvolts(Signal(np.full((12, 2), 0.5, np.float32), leads, 500.0))[:2].tolist()
        [[-32768, -32768], [500, 500]]
    """
    if signal.unit != "mV":
        raise MedclipError(Reason.WRONG_USE, "the signal is normalised already; expected the one in mV.")
    microvolts = np.clip(np.rint(signal.values_mv.astype(np.float64) * 1000), -MAX_UV, MAX_UV)
    return np.where(signal.mask[:, None], microvolts, MISSING).astype(np.int16)


def from_microvolts(record: NDArray[np.int16]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return millivolts, float32 [..., 12, T] with zeros where a lead is missing; and which leads are there, [..., 12].

    Example:
        >>> values_mv, mask = from_microvolts(np.array([[500, -500], [MISSING, MISSING]], np.int16))
        >>> values_mv.tolist(), mask.tolist()
        ([[0.5, -0.5], [0.0, 0.0]], [True, False])
    """
    mask = (record != MISSING).any(-1)
    return np.where(mask[..., None], record.astype(np.float32) / np.float32(1000), np.float32(0)), mask


def signal_of(record: NDArray[np.int16], sampling_hz: float) -> Signal:
    """Return the signal that `to_microvolts` was given, rounded: int16 [12, T] to a Signal in mV.

    Zeros of all leads at both ends count as padding: there is no record in which the noise of every electrode is below
    half a microvolt.

    Example:
        >>> record = np.array([[0, 500, -500, 0]] * 12, np.int16)
        >>> signal_of(record, 500.0).padded
        (1, 1)
    """
    values_mv, mask = from_microvolts(record)
    moved = np.flatnonzero((values_mv != 0).any(axis=0))
    padded = (int(moved[0]), record.shape[1] - 1 - int(moved[-1])) if moved.size else (0, 0)
    return Signal(values_mv, mask, sampling_hz, padded=padded)


def exceeds_range(signal: Signal) -> bool:
    """Return whether a signal has values that `to_microvolts` cuts off."""
    return bool(np.abs(signal.values_mv).max(initial=0) * 1000 > MAX_UV)


def whole_microvolts(recording: Recording) -> Recording:
    """Round a record to whole microvolts, as shards store it; gaps stay gaps."""
    values = np.rint(recording.values_mv.astype(np.float64) * 1000) / 1000
    return replace(recording, values_mv=values.astype(np.float32))


def stored_values(recording: Recording) -> NDArray[np.signedinteger[Any]]:
    """Return a record's leads as shards store them.

    Args:
        recording: Recording whose rows are some of the twelve leads, each once, as `ordered` returns them.

    Returns:
        [12, T] in microvolts; the lowest number of the type where a sample is missing. int16, or int32 where electrode
        offsets go beyond 32 mV.
    """
    values = np.rint(recording.values_mv.astype(np.float64) * 1000)
    present = np.isfinite(values)
    small = bool((np.abs(values[present]) <= MAX_UV).all())
    dtype = np.dtype(np.int16 if small else np.int32)
    stored = np.full((len(TWELVE), values.shape[1]), np.iinfo(dtype).min, dtype)
    rows = [TWELVE.index(lead) for lead in recording.leads]
    stored[rows] = np.where(present, values, np.iinfo(dtype).min).astype(dtype)
    return stored


def recording_of(stored: NDArray[np.signedinteger[Any]], leads: Sequence[str], sampling_hz: float) -> Recording:
    """Read what `stored_values` returned.

    Args:
        stored: [12, T] in microvolts.
        leads: Names of the leads of the twelve that were stored.
        sampling_hz: Samples per second.
    """
    rows = stored[[TWELVE.index(lead) for lead in leads]]
    values = np.where(rows == np.iinfo(stored.dtype).min, np.nan, rows / 1000).astype(np.float32)
    units = ("uV",) * len(leads)
    return Recording(values, tuple(leads), sampling_hz, tuple(leads), stored.shape[1], sampling_hz, units)
