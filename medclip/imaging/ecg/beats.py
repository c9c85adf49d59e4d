"""Find the heart beats of a twelve-lead ECG, and what one beat looks like in each lead.

Only for flags and a heart rate in result rows: it finds beats, and neither P waves nor diagnoses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_COARSE_HZ = 125.0
"""Rate at which beats are looked for: QRS complexes have little above 40 Hz, and mains average out."""
_SMOOTH_S = 0.1
_REFRACTORY_S = 0.25
"""No two beats are nearer: 240 a minute."""
_STANDS_OUT = 2.3
"""A typical beat is so many times as steep as the record is on average. Of 380 real records the least has 3.3; the
noise of twelve leads reaches 2.0, that of a single lead 3.2, and a tachycardia of 200 a minute about 3."""
_BEFORE_S, _AFTER_S = 0.2, 0.35
_SHARE = 0.3
"""Of the height of a typical beat; what is lower is a T wave or noise."""


def coarse(leads_LT: NDArray[np.float32], hz: float) -> tuple[NDArray[np.float32], float]:
    """Average neighbouring samples, down to the rate at which beats are looked for.

    Returns:
        float32 [L, T'] and its samples per second, 125 to 250; a slower record as it is.
    """
    step = max(1, int(hz / _COARSE_HZ))
    samples = leads_LT.shape[1] // step
    if step == 1:
        return leads_LT, hz
    sums = leads_LT[:, : samples * step : step].copy()
    for offset in range(1, step):
        sums += leads_LT[:, offset : samples * step : step]
    return sums / np.float32(step), hz / step


def find_beats(leads_LT: NDArray[np.float32], hz: float) -> NDArray[np.intp]:
    """Find the QRS complexes.

    The steepness of all leads together, as Pan and Tompkins (1985) take it of one: squared differences, smoothed over
    the width of a QRS, peaks above a share of what the highest of them reach.

    Args:
        leads_LT: float [L, T] in mV, without NaN, at 100 to 250 Hz: as `coarse` returns them.
        hz: Samples per second.

    Returns:
        Sample numbers in rising order; empty for a part of less than a second, or without any beat.
    """
    samples = leads_LT.shape[1]
    if not leads_LT.size or samples < hz:
        return np.zeros(0, np.intp)
    # Over 24 ms: noise of single samples is no slope.
    lag = max(1, round(0.024 * hz))
    slope = leads_LT[:, lag:] - leads_LT[:, :-lag]
    # A lead with a fault is steep everywhere; each counts by its own spread.
    slope *= slope
    energy = (1 / np.maximum(slope.mean(1), 1e-12)) @ slope
    width = max(1, round(_SMOOTH_S * hz))
    energy = np.convolve(energy, np.full(width, 1 / width), "same")
    peaks = _peaks(energy, max(1, round(_REFRACTORY_S * hz)))
    if not peaks.size:
        return peaks
    heights = np.sort(energy[peaks])[::-1]
    seconds = samples / hz
    # At 40 to 200 beats a minute the first two thirds a second of the highest peaks are beats.
    typical = float(np.median(heights[: max(1, round(seconds * 2 / 3))]))
    if typical < _STANDS_OUT * float(energy.mean()):
        return np.zeros(0, np.intp)
    return (peaks[energy[peaks] >= _SHARE * typical] + lag // 2).astype(np.intp)


def _peaks(line: NDArray[np.floating], apart: int) -> NDArray[np.intp]:
    """Return the local maxima that are the highest within a distance."""
    from scipy.signal import find_peaks

    return find_peaks(line, distance=apart)[0].astype(np.intp)


def beat_windows(leads_LT: NDArray[np.float32], beats: NDArray[np.intp], hz: float) -> NDArray[np.float32]:
    """Cut the beats out, each lead and beat with its median taken off.

    Returns:
        float32 [B, L, W], 0.2 s before to 0.35 s after each beat that lies whole in the record.
    """
    before, after = round(_BEFORE_S * hz), round(_AFTER_S * hz)
    inside = beats[(beats >= before) & (beats + after <= leads_LT.shape[1])]
    if not inside.size:
        return np.zeros((0, len(leads_LT), before + after), np.float32)
    windows = leads_LT[:, inside[:, None] + np.arange(-before, after)].transpose(1, 0, 2)
    return windows - np.median(windows, axis=2, keepdims=True)


def qrs_part(hz: float) -> slice:
    """Return where the QRS complex lies in a window of `beat_windows`: 70 ms to either side."""
    middle, half = round(_BEFORE_S * hz), round(0.07 * hz)
    return slice(middle - half, middle + half + 1)


def heart_rate_bpm(beats: NDArray[np.intp], hz: float) -> float | None:
    """Return beats a minute by the median distance; None with fewer than three beats."""
    if len(beats) < 3:
        return None
    return float(60 * hz / np.median(np.diff(beats)))


def is_irregular(beats: NDArray[np.intp], hz: float) -> bool:
    """Return whether the distances of the beats scatter by more than 12 % of their mean, of five beats at least."""
    if len(beats) < 5:
        return False
    distances = np.diff(beats) / hz
    return float(distances.std() / distances.mean()) > 0.12
