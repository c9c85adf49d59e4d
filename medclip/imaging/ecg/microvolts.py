"""Twelve leads as whole microvolts: the form in which ECGs are stored in shards and travel to a model.

A microvolt is below the noise of any electrode, and below the step of the usual devices (1 to 5 uV). Integers take half
the memory of floats, and are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import Recording
from medclip.sample import Signal

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
