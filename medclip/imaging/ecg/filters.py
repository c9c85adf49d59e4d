"""Clean, resample, cut and scale a twelve-lead ECG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.sample import Signal, Step
from medclip.settings import EcgOptions

HIGH_PASS = {"pass_hz": 0.8, "stop_hz": 0.2, "ripple_db": 0.5, "attenuation_db": 40.0}
BAND_PASS = {"low_hz": 0.5, "high_hz": 45.0, "order": 3}
NOTCH_Q = 30.0
_MARGIN_S = 30.0
"""Seconds on either side of the part that is kept which the filters still see; their memory is a few seconds."""
_RATIO = 1000
SHORT = "short_record"
"""Flag of a record that was padded, of the list in `medclip.imaging.ecg.quality`."""


def filter_parameters(options: EcgOptions) -> Mapping[str, Any]:
    """Return all constants that shape what `prepare` makes, as JSON values."""
    filters = {"elliptic": HIGH_PASS, "butterworth": BAND_PASS, "none": {}}[options.baseline]
    stated = asdict(options)
    if not options.microvolts:  # as hashes have it that are older than the option
        del stated["microvolts"]
    return {**stated, "filter": dict(filters), "notch_q": NOTCH_Q, "margin_s": _MARGIN_S}


def prepare(signal: Signal, options: EcgOptions | None = None) -> Signal:
    """Filter, resample, cut or pad, and scale; in this order.

    Args:
        signal: The twelve leads in mV, as `canonical` gives them.
        options: Options of the preparation; None is the default.

    Returns:
        A signal with one step more for each thing done, or not done because the record does not allow it. Masked
        leads stay zero, and so does padding, except under `minmax_record`, where both get the value of 0 mV.

    Raises:
        MedclipError: WRONG_USE if the signal is not in mV, CORRUPT if it holds no sample.
    """
    options = options or EcgOptions()
    if signal.unit != "mV":
        raise MedclipError(Reason.WRONG_USE, "the signal is normalised already; prepare the one in mV.")
    if not signal.values_mv.shape[1]:
        raise MedclipError(Reason.CORRUPT, "the ECG holds no sample.")
    hz, steps = signal.sampling_hz, list(signal.steps)
    start, lines = _window(signal, options)
    rows = np.flatnonzero(signal.mask)
    lines = _clean(lines[rows].astype(np.float64), hz, options, steps)
    # The part that is kept is cut after filtering, in the rate it will have.
    lines, rate = _resample(lines, hz, options.sampling_hz, steps)
    padded = (0, 0)
    if options.seconds is not None:
        lines, padded = _cut(lines, round(options.seconds * rate), signal, start, rate, steps)
    values = np.zeros((signal.mask.size, lines.shape[1]), np.float32)
    values[rows] = lines
    values, unit = _normalise(values, signal.mask, options, steps)
    short = any(step.name == "pad" for step in steps) and SHORT not in signal.flags
    flags = (*signal.flags, SHORT) if short else signal.flags
    return replace(
        signal,
        values_mv=values,
        sampling_hz=rate,
        unit=unit,
        steps=tuple(steps),
        flags=flags,
        padded=padded,
        prepared=options,
    )


def middle(samples: int, hz: float, seconds: float | None) -> slice:
    """Return the samples in the middle of a record; all of them for None, or where there are no more.

    Example:
        >>> middle(6001, 500.0, 10.0), middle(100, 500.0, 10.0)
        (slice(500, 5500, None), slice(0, 100, None))
    """
    length = samples if seconds is None else min(samples, round(seconds * hz))
    start = min(max(0, round(samples / 2 - length / 2)), samples - length)
    return slice(start, start + length)


def _window(signal: Signal, options: EcgOptions) -> tuple[int, NDArray[np.float32]]:
    """Return the part that decides the result, and where it starts: a day's record is not filtered for ten seconds."""
    values, hz = signal.values_mv, signal.sampling_hz
    if options.seconds is None:
        return 0, values
    keep = int(np.ceil((options.seconds / 2 + _MARGIN_S) * hz))
    centre = values.shape[1] // 2
    start = max(0, centre - keep)
    return start, values[:, start : centre + keep]


def _clean(lines: NDArray[np.float64], hz: float, options: EcgOptions, steps: list[Step]) -> NDArray[np.float64]:
    from scipy import signal as scipy_signal

    if options.baseline != "none":
        name, sections, slowest = _baseline_filter(options.baseline, hz)
        if lines.shape[1] < hz / slowest:
            steps.append(Step("note", f"shorter than one period of {slowest:g} Hz: baseline left as it is"))
        elif lines.size:
            lines = scipy_signal.sosfiltfilt(sections, lines, axis=1, padlen=_pad(lines, hz))
            steps.append(Step("baseline", name))
    if options.notch_hz is not None:
        if options.notch_hz >= hz / 2 or lines.shape[1] < 2:
            steps.append(Step("note", f"no notch at {options.notch_hz} Hz: the record holds no such frequency"))
        elif lines.size:
            top, bottom = scipy_signal.iirnotch(options.notch_hz, NOTCH_Q, hz)
            lines = scipy_signal.filtfilt(top, bottom, lines, axis=1, padlen=_pad(lines, hz))
            steps.append(Step("notch", f"{options.notch_hz} Hz, Q {NOTCH_Q:g}, zero phase"))
    return lines


def _pad(lines: NDArray[np.float64], hz: float) -> int:
    """Reflect up to two seconds at the ends, so that the slow filter has settled where the record starts."""
    return max(0, min(lines.shape[1] - 1, round(2 * hz)))


@lru_cache(maxsize=64)
def _baseline_filter(kind: str, hz: float) -> tuple[str, Any, float]:
    """Design a baseline filter for a sampling rate: its description, second-order sections, lowest frequency kept."""
    from scipy import signal as scipy_signal

    if kind == "elliptic":
        pass_hz, stop_hz, ripple, attenuation = HIGH_PASS.values()
        order, edge = scipy_signal.ellipord(pass_hz, stop_hz, ripple, attenuation, fs=hz)
        sections = scipy_signal.ellip(order, ripple, attenuation, edge, "highpass", output="sos", fs=hz)
        return f"elliptic high-pass {pass_hz:g} Hz, order {order}, zero phase", sections, pass_hz
    low, high, order = BAND_PASS.values()
    if high >= hz / 2:  # nothing above half the rate is there to be taken out
        sections = scipy_signal.butter(order, low, "highpass", output="sos", fs=hz)
        return f"Butterworth high-pass {low:g} Hz, order {order}, zero phase", sections, low
    sections = scipy_signal.butter(order, [low, high], "bandpass", output="sos", fs=hz)
    return f"Butterworth band-pass {low:g}-{high:g} Hz, order {order}, zero phase", sections, low


def _resample(
    lines: NDArray[np.float64], hz: float, wanted: float | None, steps: list[Step]
) -> tuple[NDArray[np.float64], float]:
    if wanted is None or wanted == hz:
        return lines, hz
    from scipy import signal as scipy_signal

    ratio = Fraction(wanted / hz).limit_denominator(_RATIO)
    if ratio.numerator == 0:
        ratio = Fraction(1, _RATIO)
    steps.append(Step("resample", f"{hz:g} to {wanted:g} Hz, polyphase {ratio.numerator}/{ratio.denominator}"))
    if lines.size:
        # The ends are continued by their own value: zeros there would ring.
        lines = scipy_signal.resample_poly(lines, ratio.numerator, ratio.denominator, axis=1, padtype="edge")
    else:
        lines = np.zeros((0, -(-lines.shape[1] * ratio.numerator // ratio.denominator)))
    return lines, wanted


def _cut(
    lines: NDArray[np.float64], length: int, signal: Signal, start: int, rate: float, steps: list[Step]
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Cut the centre of the record, or pad it with zeros on both sides: the lines, and how many in front and behind."""
    samples = lines.shape[1]
    if samples > length:
        centre = (signal.values_mv.shape[1] / 2 - start) * rate / signal.sampling_hz
        at = min(max(0, round(centre - length / 2)), samples - length)
        seconds = start / signal.sampling_hz + at / rate
        steps.append(Step("crop", f"centre: {length / rate:g} s from {seconds:.2f} s of {signal.duration_s:.2f} s"))
        return lines[:, at : at + length], (0, 0)
    if samples < length:
        before = (length - samples) // 2
        steps.append(Step("pad", f"zeros on both sides: {samples / rate:.2f} s to {length / rate:g} s"))
        padded = (before, length - samples - before)
        return np.pad(lines, ((0, 0), padded)), padded
    return lines, (0, 0)


def _normalise(
    values: NDArray[np.float32], mask: NDArray[np.bool_], options: EcgOptions, steps: list[Step]
) -> tuple[NDArray[np.float32], str]:
    kind = options.normalisation
    if kind == "mv":
        return values, "mV"
    if kind == "minmax_record":
        low, high = float(values.min()), float(values.max())
        steps.append(Step("normalise", "minmax_record over all leads and samples"))
        return ((values - low) / (high - low + 1e-8)).astype(np.float32), "relative"
    if kind == "zscore_global":
        mean, std = options.mean_mv or 0.0, options.std_mv or 1.0
        steps.append(Step("normalise", f"zscore_global, mean {mean:g} mV, standard deviation {std:g} mV"))
        scaled = (values - mean) / std
    else:
        steps.append(Step("normalise", "zscore_lead, each lead by its own mean and standard deviation"))
        scaled = (values - values.mean(1, keepdims=True)) / (values.std(1, keepdims=True) + 1e-8)
    return np.where(mask[:, None], scaled, 0).astype(np.float32), "relative"
