"""ECGs in whole microvolts: how shards store a record, and what a model is shown of one.

A microvolt is below the noise of any electrode, and below the step of the usual devices (1 to 5 uV). Integers take half
the memory of floats, and are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import Recording
from medclip.sample import Signal

MISSING = -32768
"""Stands for what is not there; no sample that is there has this value."""
_MOST = 32767
_PER_MV = 1000.0


def whole_microvolts(recording: Recording) -> Recording:
    """Round a record to whole microvolts, as shards store it; gaps stay gaps."""
    values = np.rint(recording.values_mv * np.float64(_PER_MV)) / _PER_MV
    return replace(recording, values_mv=values.astype(np.float32))


def to_microvolts(signal: Signal) -> tuple[NDArray[np.int16], int]:
    """Return what a model is shown of a signal.

    Args:
        signal: The twelve leads in mV.

    Returns:
        int16 [12, T] in microvolts, `MISSING` throughout in leads that are masked; and the number of samples beyond
        32.767 mV, which are that much.
    """
    values = np.rint(signal.values_mv * np.float64(_PER_MV))
    beyond = int(np.count_nonzero(np.abs(values) > _MOST))
    shown = np.clip(values, -_MOST, _MOST).astype(np.int16)
    shown[~signal.mask] = MISSING
    return shown, beyond


def to_millivolts(shown: NDArray[np.int16]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read what `to_microvolts` returned.

    Args:
        shown: int16 [..., 12, T].

    Returns:
        float32 [..., 12, T] in mV, zero in leads that are missing; and bool [..., 12], which leads are there.
    """
    mask = shown[..., 0] != MISSING
    values = (shown / _PER_MV).astype(np.float32)
    return np.where(mask[..., None], values, np.float32(0)), mask


def stored_values(recording: Recording) -> NDArray[np.signedinteger[Any]]:
    """Return a record's leads as shards store them.

    Args:
        recording: Its rows are some of the twelve leads, each once, as `ordered` returns them.

    Returns:
        [12, T] in microvolts; the lowest number of the type where a sample is missing. int16, or int32 where electrode
        offsets go beyond 32 mV.
    """
    values = np.rint(recording.values_mv * np.float64(_PER_MV))
    present = np.isfinite(values)
    small = bool((np.abs(values[present]) <= _MOST).all())
    dtype = np.dtype(np.int16 if small else np.int32)
    stored = np.full((len(TWELVE), values.shape[1]), np.iinfo(dtype).min, dtype)
    rows = [TWELVE.index(lead) for lead in recording.leads]
    stored[rows] = np.where(present, values, np.iinfo(dtype).min).astype(dtype)
    return stored


def recording_of(stored: NDArray[np.signedinteger[Any]], leads: Sequence[str], sampling_hz: float) -> Recording:
    """Read what `stored_values` returned.

    Args:
        stored: [12, T] in microvolts.
        leads: Those of the twelve that were stored.
        sampling_hz: Samples per second.
    """
    rows = stored[[TWELVE.index(lead) for lead in leads]]
    values = np.where(rows == np.iinfo(stored.dtype).min, np.nan, rows / _PER_MV).astype(np.float32)
    units = ("uV",) * len(leads)
    return Recording(values, tuple(leads), sampling_hz, tuple(leads), stored.shape[1], sampling_hz, units)
