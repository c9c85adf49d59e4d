"""Flags of an ECG record: leads without a usable signal, electrodes that were mixed up, a rate that stands out.

Flags are words of a closed list, with the leads that they are about: `lead_off:V3,V4`, `arms_swapped`. They are
measured on the record in mV as stored, before any filter, since a filter hides what they look for. A flag changes no
value: what is scored is what the record holds, and the row says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.ecg.lead_names import TWELVE

# Find the heart beats of a twelve-lead ECG, and what one beat looks like in each lead.
#
# Only for flags and a heart rate in result rows: it finds beats, and neither P waves nor diagnoses.

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


LEAD_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "lead_missing": "not recorded, and not to be computed from others",
        "lead_gaps": "more than a tenth of its samples are missing",
        "lead_flat": "one value throughout, or for a second or more",
        "lead_off": "all of it within 0.03 mV: no electrode was on",
        "saturated": "cut off at the ends of the recorder's range",
        "noisy": "what differs from beat to beat is over half as strong as the beats",
    }
)
"""Flags that name leads, and what they mean."""
OTHER_SCALE = "other_scale"
"""Flag of a record whose numbers are no millivolts, whatever its file says."""
_QRS_MV = (0.05, 4.0)
"""Height of a QRS complex, typical of the leads. Of 307 real records with beats it is 0.29 to 3.3."""
_SPREAD_MV = 10.0
"""Standard deviation of half the leads where no beat is found: of no heart, nor of a drifting electrode."""
_FEWEST_LEADS = 6
_ALIKE_LEADS = 0.05
"""Standard deviation of the leads' spread over its mean. Of 297 real records of six leads and more the least has 0.17,
of their ranges 0.10, of their largest amplitudes 0.12; leads that were normalised one by one have 0."""
_STANDARD = 0.01
_LEAD_OFF_MV = 0.03
"""A lead of 10 uV rms is amplifier noise; the lowest QRS of a pericardial effusion has ten times that."""
_FLAT_S = 1.0
_RAIL_MV = 0.5
_RUN_S = 0.006
_LONG_RUN_S = 0.1
_NOISE_SHARE = 0.5
_NOISE_MV = 0.05
_ALIKE = 0.5
_MOST_S = 60.0
_SLOW_BPM, _FAST_BPM = 50.0, 100.0


@dataclass(frozen=True)
class Quality:
    """What was measured of a record."""

    flags: tuple[str, ...]
    """Of leads first, then of the record, in the order of the two lists."""
    heart_rate_bpm: float | None
    """By the median distance of QRS complexes; None with fewer than three."""


def assess(
    values_mv: NDArray[np.float32],
    mask: NDArray[np.bool_],
    hz: float,
    *,
    lost: Mapping[str, str] | None = None,
    derived: Sequence[str] = (),
    disagree: bool = False,
) -> Quality:
    """Measure the part of a record that is kept.

    Args:
        values_mv: float32 [12, T] in mV, unfiltered, without NaN.
        mask: bool [12]: leads with a signal.
        hz: Samples per second.
        lost: Lead -> flag, of those that were stored and could not be used.
        derived: Leads that were computed from others; their faults are those of the others.
        disagree: Whether the stored limb leads contradict each other.

    Returns:
        Flags and heart rate. Of more than a minute the middle one is measured.
    """
    most = round(_MOST_S * hz)
    start = max(0, (values_mv.shape[1] - most) // 2)
    values = values_mv[:, start : start + most]
    recorded = [lead for lead, present in zip(TWELVE, mask, strict=True) if present]
    leads: dict[str, set[str]] = {flag: set() for flag in LEAD_FLAGS}
    for lead, flag in (lost or {}).items():
        leads[flag].add(lead)
    leads["lead_missing"] |= set(TWELVE) - set(recorded) - set(lost or {})
    stored = [n for n, lead in enumerate(TWELVE) if mask[n] and lead not in derived]
    for row, flag in _faults(values[stored], hz):
        leads[flag].add(TWELVE[stored[row]])
    good = [n for n, lead in enumerate(TWELVE) if mask[n] and lead not in leads["lead_off"]]
    if not good and len(stored) >= _FEWEST_LEADS:  # noise of so many leads has no beats, a record in volts has
        good = stored
    lines, hz_of_lines = coarse(values[good], hz)
    beats = find_beats(lines, hz_of_lines)
    windows = beat_windows(lines, beats, hz_of_lines)
    medians: dict[str, NDArray[np.float32]] = {}
    if len(windows) >= 3:
        median_LW = np.median(windows, axis=0)
        medians = dict(zip((TWELVE[n] for n in good), median_LW, strict=True))
        leads["noisy"] |= {TWELVE[good[n]] for n in _noisy(windows, median_LW) if TWELVE[good[n]] not in derived}
    rate = heart_rate_bpm(beats, hz_of_lines)
    moving = [n for n in stored if TWELVE[n] not in leads["lead_flat"] | leads["lead_off"]]
    uncut = [n for n in moving if TWELVE[n] not in leads["saturated"]]
    heights = [float(np.ptp(line[qrs_part(hz_of_lines)])) for line in medians.values()]
    is_other_scale = _is_other_scale(values[moving], values[uncut], heights)
    flags = [f"{flag}:{','.join(lead for lead in TWELVE if lead in named)}" for flag, named in leads.items() if named]
    if is_other_scale:
        flags.append(OTHER_SCALE)
    if disagree:
        flags.append("limb_leads_disagree")
    if _arms_swapped(medians, hz_of_lines):
        flags.append("arms_swapped")
    return Quality((*flags, *_rhythm(beats, rate, values.shape[1] / hz, hz_of_lines)), rate)


def _is_other_scale(moving_LT: NDArray[np.float32], whole_LT: NDArray[np.float32], heights: Sequence[float]) -> bool:
    """Return whether numbers that are called millivolts are others.

    Microvolts and counts of a converter have QRS complexes that no heart makes. Leads that were normalised one by one
    all spread alike, by standard deviation, range or largest amplitude. A record that was standardised as a whole has a
    mean of 0 and a standard deviation of 1.

    Args:
        moving_LT: float32 [L, T], the leads that are no sums of others, without those that are flat or off.
        whole_LT: Those of them that are not cut off at the ends of a range.
        heights: Heights of the QRS complex of the median beat, a lead each; empty where no beats are found.
    """
    if heights and not _QRS_MV[0] <= float(np.median(heights)) <= _QRS_MV[1]:
        return True
    if len(moving_LT) and not heights and float(np.median(moving_LT.std(1))) > _SPREAD_MV:
        return True
    if len(moving_LT) < _FEWEST_LEADS:
        return False
    if abs(float(moving_LT.mean())) < _STANDARD and abs(float(moving_LT.std()) - 1) < _STANDARD:
        return True
    spreads = [moving_LT.std(1)]
    if len(whole_LT) >= _FEWEST_LEADS:
        spreads += [np.ptp(whole_LT, axis=1), np.abs(whole_LT).max(1)]
    return any(float(spread.std()) < _ALIKE_LEADS * float(spread.mean()) for spread in spreads)


def _faults(lines_LT: NDArray[np.float32], hz: float) -> Iterable[tuple[int, str]]:
    """Yield rows with their flag, by their samples alone."""
    low, high = lines_LT.min(1), lines_LT.max(1)
    samples, block = lines_LT.shape[1], max(2, round(_FLAT_S / 2 * hz))
    blocks = lines_LT[:, : samples // block * block].reshape(len(lines_LT), samples // block, block)
    # Whatever is flat for a second fills one of these blocks of half a second; only such leads are looked at closely.
    maybe_flat = (blocks.max(2) == blocks.min(2)).any(1)
    rails = [(rail, np.count_nonzero(lines_LT == rail[:, None], 1) >= _run_lengths(hz)[0]) for rail in (low, high)]
    for row, line in enumerate(lines_LT):
        if high[row] - low[row] < _LEAD_OFF_MV and samples >= hz * _FLAT_S:
            yield row, "lead_off"
        elif maybe_flat[row] and _runs(line).max() >= hz * _FLAT_S:
            yield row, "lead_flat"
        elif any(at_rail[row] and _is_cut_off(line, rail[row], hz) for rail, at_rail in rails):
            yield row, "saturated"


def _runs(line: NDArray[Any]) -> NDArray[np.intp]:
    """Return the lengths of the runs of equal samples."""
    return np.diff(np.flatnonzero(np.diff(line, prepend=np.nan, append=np.nan)))


def _run_lengths(hz: float) -> tuple[int, int]:
    """Return the samples of a short run at a rail, which counts three times, and of a long one, which counts once."""
    return max(3, round(_RUN_S * hz)), max(3, round(_LONG_RUN_S * hz))


def _is_cut_off(line: NDArray[np.float32], rail: np.float32, hz: float) -> bool:
    """Return whether a lead stays at its lowest or highest value: thrice, or for a tenth of a second, far from rest."""
    if abs(rail - np.median(line)) < _RAIL_MV:
        return False
    at_rail, (short, long) = line == rail, _run_lengths(hz)
    edges = np.flatnonzero(np.diff(at_rail.astype(np.int8), prepend=0, append=0))
    lengths = edges[1::2] - edges[::2]
    return bool(np.count_nonzero(lengths >= short) >= 3 or lengths.max() >= long)


def _noisy(windows_BLW: NDArray[np.float32], median_LW: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the leads in which the typical beat differs from the median beat by half of what that one is strong."""
    rest_BL = np.sqrt(np.mean((windows_BLW - median_LW) ** 2, axis=2))
    noise_L, strength_L = np.median(rest_BL, axis=0), np.sqrt(np.mean(median_LW**2, axis=1))
    return np.flatnonzero((noise_L > _NOISE_SHARE * strength_L) & (noise_L > _NOISE_MV))


def _arms_swapped(beat: Mapping[str, NDArray[np.float32]], hz: float) -> bool:
    """Return whether the median beats look as if the arms' electrodes were swapped.

    Swapped, lead I is its negative, and aVR and aVL change places. In everybody whose heart lies on the left, I is like
    V6, and aVR its opposite (Batchvarov et al., Europace 2007); so: I negative in the QRS and against V6, aVR not
    against it. In dextrocardia V6 is small or negative as well, so it must be upright. Of 293 records of PTB-XL,
    Georgia and Chapman it calls none, and 252 after their arms were swapped.
    """
    if not {"I", "aVR", "V6"} <= beat.keys():
        return False
    qrs = qrs_part(hz)

    def net(lead: str) -> float:
        return float(beat[lead][qrs].max() + beat[lead][qrs].min())

    return net("I") < 0 < net("V6") and _like(beat["I"], beat["V6"]) < -_ALIKE < _like(beat["aVR"], beat["V6"])


def _like(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the correlation of two lines; 0 where one is constant."""
    one, other = one - one.mean(), other - other.mean()
    both = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / both if both > 0 else 0.0


def _rhythm(beats: NDArray[np.intp], rate: float | None, seconds: float, hz: float) -> Iterable[str]:
    if not beats.size and seconds >= 3:
        yield "no_beats"
    if rate is not None and rate < _SLOW_BPM:
        yield "rate_slow"
    if rate is not None and rate > _FAST_BPM:
        yield "rate_fast"
    if is_irregular(beats, hz):
        yield "irregular"
