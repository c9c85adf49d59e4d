"""The twelve leads of a simulated heart: a vector that turns with every beat, seen from Dower's directions.

The heart's electric vector is a sum of bell curves for P wave and parts of the QRS complex, a plateau for the ST
segment and a skewed bell for the T wave, each with a direction in the body. What is planted changes these: a block
delays and turns the end of the QRS, an infarct takes away the early forces towards its wall, an injury shifts the ST
segment. Dower's matrix turns the vector into I, II and V1 to V6 (Dower et al., J Electrocardiol 1980;13:371); the other
limb leads are computed from I and II, so that Einthoven's and Goldberger's identities hold, with noise and all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from heart import DIRECTIONS, INFARCTS, INJURIES, ISCHAEMIAS, Heart, Vector
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_DOWER = np.array(
    [
        (0.632, -0.235, 0.059),
        (0.235, 1.066, -0.132),
        (-0.515, 0.157, -0.917),
        (0.044, 0.164, -1.387),
        (0.882, 0.098, -1.277),
        (1.213, 0.127, -0.601),
        (1.125, 0.127, -0.086),
        (0.831, 0.076, 0.230),
    ]
)
"""I, II, V1 ... V6 of a vector (left, down, back)."""
_NEARER = np.array((0.0, 0.0, -0.05, 0.25, 0.1, 0.05, 0.0, 0.0))
_SPREAD = np.array((0.0, 0.0, 0.22, 0.25, 0.28, 0.26, 0.2, 0.16))
"""Of the logarithm of what the chest electrodes' distances make of a voltage. So that healthy records spread as those
of PTB-XL do: over all samples the standard deviation is 0.21 mV (PTB-XL: 0.22)."""
PWaves = list[tuple[float, str]]
"""When each begins, and its form: sinus, early or wandering."""
Beats = list[tuple[float, str, float]]
"""When each QRS complex begins, whether it is conducted or ventricular, and the seconds since the last."""
_T_SIZES = {"NDT": (0.1, 0.25), "LOWT": (0.28, 0.45), "NT_": (0.7, 0.7), "DIG": (0.45, 0.45)}
"""What is left of the T wave."""
_ST_SHIFTS: dict[str, Vector] = {"NST_": (-0.055, -0.035, 0.02), "DIG": (-0.16, -0.1, 0.03)}
_FLUTTER_S = 0.2
_LEAD_IN_S = 3.0
"""Beats begin before the record does."""


@dataclass(frozen=True)
class Wave:
    """A skewed bell curve with a direction, timed from the beginning of the QRS complex."""

    at_s: float
    before_s: float
    after_s: float
    vector: Vector | Array


@dataclass(frozen=True)
class Complex:
    """The form of one kind of beat."""

    qrs: tuple[Wave, ...]
    qrs_s: float
    st: Array
    t: Array
    t_skew: float = 1.0
    t_second: float = 0.0
    """A second, opposite half of the T wave, as a share of the first."""
    u: Array | None = None


def simulate_leads(
    heart: Heart, seed: int, *, sampling_hz: float = 500.0, seconds: float = 10.0
) -> NDArray[np.float32]:
    """Compute a record.

    Args:
        heart: What is planted.
        seed: Of the cohort; the same arguments give the same record.
        sampling_hz: Of the record.
        seconds: Its length.

    Returns:
        float32 [12, T] in mV, leads in the order I, II, III, aVR, aVL, aVF, V1 ... V6.
    """
    rng = np.random.default_rng((seed, heart.patient, heart.record, 3))
    torso = np.random.default_rng((seed, heart.patient, 4))
    time = np.arange(round(seconds * sampling_hz)) / sampling_hz
    vector = np.zeros((3, len(time)))
    normal = _complex(heart, rng)
    foreign = _ectopic(rng)
    p_waves, beats = _rhythm(heart, rng, seconds)
    p_form, early_p = _p_form(heart), 0.9 * rng.normal(0, 1, 3) * (0.05, 0.09, 0.05)
    for at, form in p_waves:
        changed = early_p if form == "early" else rng.normal(0, 0.08, 3) if form == "wandering" else None
        for wave in p_form:
            moved = Wave(wave.at_s, wave.before_s, wave.after_s, wave.vector if changed is None else changed)
            _add(vector, time, at, moved, sampling_hz)
    for at, kind, previous in beats:
        shape = foreign if kind == "ventricular" else normal
        growth = 1 + 0.03 * np.sin(2 * np.pi * 0.25 * at) + rng.normal(0, 0.01)
        _add_beat(vector, time, at, shape, _qt(heart, previous, shape), growth, sampling_hz)
    _add_atria(vector, time, heart, rng)
    gains = np.exp(heart.torso * (_NEARER + _SPREAD * torso.normal(size=8)))
    if "VCLVH" in heart.statements:  # the criteria are met, whatever the torso
        gains = np.maximum(gains, 1.0)
    eight = max(heart.amplitude, float("VCLVH" in heart.statements)) * gains[:, None] * (_DOWER @ vector)
    if heart.rhythm == "PACE":
        _add_spikes(eight, beats, sampling_hz, rng)
    _add_noise(eight, time, heart, rng)
    leads = twelve(eight)
    _plant_fault(leads, heart.fault, rng)
    return leads.astype(np.float32)


def twelve(eight: Array) -> Array:
    """Compute the twelve leads of I, II, V1 ... V6."""
    one, two = eight[:2]
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *eight[2:]])


def _complex(heart: Heart, rng: np.random.Generator) -> Complex:
    """Compute the form of a conducted beat."""
    septal, main, basal, t = (_rotated(_turned(v, _turn(heart)), heart.rotation_deg) for v in _forces(heart, rng))
    wall, st, early = _wall(heart), np.zeros(3), np.zeros(3)
    if heart.infarct:
        size = float(rng.uniform(0.7, 1.0))
        septal = septal - 0.9 * max(float(septal @ wall), 0) * wall
        main, basal = (v - 0.75 * size * max(float(v @ wall), 0) * wall for v in (main, basal))
        early = (-0.22 if heart.acute else -0.62) * size * wall
        st = heart.acute * rng.uniform(0.18, 0.38) * wall
        t = t + 0.2 * wall if heart.acute else t - (1.4 * max(float(t @ wall), 0) + 0.14) * wall
    qrs = [
        Wave(0.014, 0.006, 0.007, septal),
        Wave(0.040, 0.012, 0.011, main),
        Wave(0.064, 0.009, 0.009, basal),
        Wave(0.018, 0.009, 0.011, early),
    ]
    shape = Complex(tuple(qrs), 0.085 + float(rng.normal(0, 0.004)), st, t)
    return _repolarised(heart, _blocked(heart, shape, rng), wall, rng)


def _forces(heart: Heart, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Return the vectors of septum, free wall and base, and of the T wave, before axis and infarct."""
    scale = {"LVOLT": 0.3, "HVOLT": 1.55, "VCLVH": 1.6}.get(heart.voltage, 1.0)
    if "LVH" in heart.hypertrophy:
        scale = float(rng.uniform(1.6, 2.0))
    septal, main, basal = np.array((-0.2, -0.06, -0.27)), np.array((1.15, 0.85, 0.5)), np.array((-0.2, -0.22, 0.55))
    main, basal = main * scale * rng.normal(1, 0.06, 3), basal * scale
    t = np.array((0.37, 0.3, -0.17)) * rng.normal(1, 0.12)
    if heart.voltage == "LVOLT":
        septal, t = septal * 0.35, t * 0.5
    if "SEHYP" in heart.hypertrophy:
        septal = septal * (3.2, 4.0, 2.6)
    if "RVH" in heart.hypertrophy:
        main, basal, t = np.array((0.1, 0.7, -0.5)), np.array((-0.75, 0.15, -0.75)), np.array((0.28, 0.1, 0.3))
    if "LAFB" in heart.conduction:
        septal, main = np.array((-0.12, 0.32, -0.2)), np.array((1.0, -0.95, 0.5))
    if "LPFB" in heart.conduction:
        septal, main = np.array((0.3, -0.32, -0.15)), np.array((-0.5, 1.25, 0.35))
    return septal, main, basal, t


def _turn(heart: Heart) -> float:
    """Return by how much the frontal plane is turned; a fascicular block sets the axis mostly by itself."""
    return heart.axis_deg * (0.3 if {"LAFB", "LPFB"} & set(heart.conduction) else 1.0)


def _blocked(heart: Heart, shape: Complex, rng: np.random.Generator) -> Complex:
    """Change the QRS complex, and what follows from it, by a bundle branch block, a pacemaker or pre-excitation."""
    _, main, basal, _ = shape.qrs
    forces, t = np.asarray(main.vector), shape.t
    if heart.rhythm == "PACE":
        return _left_bundle(np.array((0.3, -0.75, 0.7)), np.array((0.35, -0.9, 0.65)))
    if "CLBBB" in heart.conduction:
        return _left_bundle(np.array((0.7, 0.4, 0.85)), np.array((0.95, 0.15, 1.2)))
    if "ILBBB" in heart.conduction:
        slow = Wave(0.05, 0.018, 0.016, forces * (1.0, 0.9, 1.2)), Wave(0.08, 0.012, 0.012, (0.3, 0.0, 0.4))
        return replace(shape, qrs=slow, qrs_s=0.112)
    if "IVCD" in heart.conduction:
        slow = tuple(Wave(1.45 * w.at_s, 1.45 * w.before_s, 1.45 * w.after_s, w.vector) for w in shape.qrs)
        notches = Wave(0.085, 0.006, 0.006, -0.35 * forces), Wave(0.105, 0.01, 0.012, 0.3 * _turned(forces, 40))
        return replace(shape, qrs=slow + notches, qrs_s=0.128)
    if "WPW" in heart.conduction:
        delta = np.array((0.38, 0.22, -0.28)) * rng.normal(1, 0.15)
        later = tuple(replace(w, at_s=w.at_s + 0.034) for w in (main, basal))
        return replace(shape, qrs=(Wave(0.044, 0.02, 0.024, delta), *later), qrs_s=0.13, t=t * 0.4 - 0.25 * delta)
    if "CRBBB" in heart.conduction:
        late = Wave(0.09, 0.014, 0.016, (-0.42, 0.08, -0.5)), Wave(0.115, 0.016, 0.014, (-0.5, 0.0, -0.45))
        small = replace(basal, vector=0.6 * np.asarray(basal.vector))
        own = shape.qrs[0], main, small, shape.qrs[3]
        return replace(shape, qrs=own + late, qrs_s=0.14, t=t + np.array((0.06, 0.0, 0.33)))
    if "IRBBB" in heart.conduction:
        return replace(shape, qrs=(*shape.qrs, Wave(0.086, 0.010, 0.011, (-0.3, 0.0, -0.42))), qrs_s=0.108)
    return shape


def _left_bundle(first: Array, last: Array) -> Complex:
    """Return a broad, notched complex without a septal wave, with ST and T against it."""
    qrs = (
        Wave(0.045, 0.018, 0.022, first),
        Wave(0.092, 0.022, 0.02, last),
        Wave(0.125, 0.014, 0.014, 0.25 * last),
    )
    return Complex(qrs, 0.15, -0.1 * (first + last), -0.28 * (first + last))


def _repolarised(heart: Heart, shape: Complex, wall: Array, rng: np.random.Generator) -> Complex:
    """Change ST segment and T wave."""
    st, t = shape.st, shape.t
    if heart.ischaemia:
        st = st - rng.uniform(0.04, 0.14) * wall
        t = t - (1.35 * max(float(t @ wall), 0) + rng.uniform(0.15, 0.3)) * wall
    if heart.injury:
        st, t = st - rng.uniform(0.2, 0.36) * wall, t * 0.8
    if heart.strain:
        st, t = st + np.array((-0.12, -0.04, 0.06)), np.array((-0.32, 0.02, -0.25))
    kind = heart.repolarisation or heart.form
    low, high = _T_SIZES.get(kind, (1.0, 1.0))
    t = t * rng.uniform(low, high)
    if kind == "ANEUR":
        st = st + rng.uniform(0.14, 0.22) * wall
    elif kind in _ST_SHIFTS:
        st = st + rng.uniform(0.8, 1.2) * np.array(_ST_SHIFTS[kind])
    elif kind == "NT_":
        t = _turned(t, -75)
    elif kind == "INVT":
        side = np.array(DIRECTIONS[("lateral", "anterior", "inferior")[int(rng.integers(3))]])
        t = t - (1.5 * max(float(t @ side), 0) + 0.14) * side
    elif kind == "EL" and rng.random() < 0.5:  # potassium is high
        return replace(shape, st=st, t=2.4 * t, t_skew=0.55)
    elif kind == "EL":  # or low
        return replace(shape, st=st, t=0.3 * t, u=np.array((0.12, 0.09, -0.14)))
    return replace(shape, st=st, t=t, t_second=-0.8 if kind == "TAB_" else 0.0)


def _wall(heart: Heart) -> Array:
    name = INFARCTS.get(heart.infarct) or INJURIES.get(heart.injury) or ISCHAEMIAS.get(heart.ischaemia) or "unspecific"
    direction = np.array(DIRECTIONS[name])
    return direction / np.linalg.norm(direction)


def _ectopic(rng: np.random.Generator) -> Complex:
    """Return the form of beats from a ventricle: broad, with ST and T against the QRS."""
    origin = np.array(((-0.6, 1.1, 0.35), (0.55, -1.0, -0.75), (1.0, 0.75, 0.95))[int(rng.integers(3))])
    origin = origin * rng.normal(1.25, 0.12, 3)
    waves = (
        Wave(0.05, 0.022, 0.028, 0.75 * origin),
        Wave(0.1, 0.024, 0.02, _turned(origin, 25)),
        Wave(0.14, 0.016, 0.014, -0.25 * origin),
    )
    return Complex(waves, 0.16, -0.08 * origin, -0.42 * origin)


def _p_form(heart: Heart) -> tuple[Wave, ...]:
    right, left = np.array((0.03, 0.06, -0.055)), np.array((0.065, 0.055, 0.05))
    delay, width = 0.038, 0.018
    if "RAO/RAE" in heart.hypertrophy:
        right = np.array((0.05, 0.22, -0.1))
    if "LAO/LAE" in heart.hypertrophy:
        left, delay, width = np.array((0.09, 0.085, 0.14)), 0.062, 0.021
    return Wave(0.035, 0.016, 0.017, right), Wave(0.035 + delay, width, width, left)


def _rhythm(heart: Heart, rng: np.random.Generator, seconds: float) -> tuple[PWaves, Beats]:
    """Time the record.

    Returns:
        P waves as (beginning, form), and beats as (beginning of the QRS, kind, seconds since the last).
    """
    rr, end = 60 / heart.rate, seconds + 1.0
    now = -_LEAD_IN_S + float(rng.uniform(0, rr))
    if heart.rhythm == "AFIB":
        return [], _fibrillating(heart, rng, now, end)
    if heart.rhythm in ("AFLT", "SVTAC", "PACE"):
        return _clocked(heart, rng, now, end)
    if "3AVB" in heart.conduction:
        atrial = 60 / float(rng.uniform(72, 92))
        p = [(at, "sinus") for at in _ticks(-_LEAD_IN_S, end, atrial, 0.01, rng)]
        return p, [(at, "conducted", rr) for at in _ticks(now, end, rr, 0.006, rng)]
    if "2AVB" in heart.conduction:
        return _second_degree(rng, now, end, rr)
    return _sinus(heart, rng, now, end)


def _ticks(start: float, end: float, step: float, jitter: float, rng: np.random.Generator) -> list[float]:
    num = int((end - start) / step) + 1
    return list(start + np.cumsum(step * (1 + jitter * rng.normal(size=num))) - step)


def _fibrillating(heart: Heart, rng: np.random.Generator, now: float, end: float) -> Beats:
    rr, spread, beats = 60 / heart.rate, float(rng.uniform(0.17, 0.26)), []
    last = rr
    while now < end:
        step = max(rr * float(rng.lognormal(-(spread**2) / 2, spread)), 0.3)
        ectopic = heart.premature == "PVC" and len(beats) % 6 == 4
        beats.append((now, "ventricular" if ectopic else "conducted", last))
        last = max(step, 0.9 * rr) if ectopic else step
        now += last
    return beats


def _clocked(heart: Heart, rng: np.random.Generator, now: float, end: float) -> tuple[PWaves, Beats]:
    """Time what runs like a clock: flutter with a fixed ratio, a re-entrant tachycardia, a pacemaker."""
    step = max(round(60 / heart.rate / _FLUTTER_S), 2) * _FLUTTER_S if heart.rhythm == "AFLT" else 60 / heart.rate
    tracked = heart.rhythm == "PACE" and rng.random() < 0.6
    times = _ticks(now, end, step, 0.004 if heart.rhythm == "SVTAC" else 0.0, rng)
    return [(at - 0.18, "sinus") for at in times if tracked], [(at, "conducted", step) for at in times]


def _sinus(heart: Heart, rng: np.random.Generator, now: float, end: float) -> tuple[PWaves, Beats]:
    """Time a sinus rhythm with what disturbs it: breath, wandering, bouts of tachycardia, premature beats."""
    rr, p, beats = 60 / heart.rate, [], []
    low, high = (
        (0.225, 0.33) if "1AVB" in heart.conduction else (0.085, 0.1) if "WPW" in heart.conduction else (0.13, 0.18)
    )
    pr = float(rng.uniform(low, high))
    phase, depth = rng.uniform(0, 2 * np.pi), 0.17 if heart.rhythm == "SARRH" else 0.018
    bout = (rng.uniform(1.0, 5.0), rng.uniform(3.0, 6.0)) if heart.rhythm == "PSVT" else (0.0, 0.0)
    slow = 60 / rng.uniform(68, 88) if heart.rhythm == "PSVT" else rr
    number, last = int(rng.integers(6)), rr
    while now < end:
        in_bout = bout[0] <= now < sum(bout)
        step = rr if in_bout else slow * (1 + depth * np.sin(2 * np.pi * 0.22 * now + phase) + 0.008 * rng.normal())
        if heart.rhythm == "SVARR":
            step = rr * float(rng.lognormal(0, 0.14))
        kind = _premature_kind(heart, number, rng) if beats else ""
        number += 1
        early = now - slow * (1 - float(rng.uniform(0.58, 0.68)))
        if kind == "ventricular" and early - beats[-1][0] > 0.32:
            beats.append((early, kind, early - beats[-1][0]))
            now += step  # the sinus beat that meets the refractory ventricle is the pause
            last = now - early
            continue
        if kind == "atrial":
            now = early
            last = now - beats[-1][0]
        if not in_bout:
            p.append((now - pr, "early" if kind == "atrial" else "wandering" if heart.rhythm == "SVARR" else "sinus"))
        beats.append((now, "conducted", last))
        last = step
        now += step
    return p, beats


def _premature_kind(heart: Heart, number: int, rng: np.random.Generator) -> str:
    """Return ventricular, atrial or "" for the beat of a number."""
    every = {"BIGU": 2, "TRIGU": 3}.get(heart.pattern, 6)
    # Where there is no pattern at least one in six beats, so that a record of ten seconds shows it.
    if not heart.premature or (number % every != every - 1 and (every < 6 or rng.random() > 0.04)):
        return ""
    return {"PVC": "ventricular", "PAC": "atrial"}.get(heart.premature) or ("ventricular", "atrial")[number // 6 % 2]


def _second_degree(rng: np.random.Generator, now: float, end: float, rr: float) -> tuple[PWaves, Beats]:
    """Time P waves of which one in four (after lengthening PR intervals) or one in two is not conducted."""
    wenckebach = rng.random() < 0.5
    delays = (0.17, 0.25, 0.31) if wenckebach else (0.17,)
    p, beats = [], []
    for number, at in enumerate(_ticks(now, end, rr * 0.7 if wenckebach else rr / 2, 0.01, rng)):
        p.append((at, "sinus"))
        cycle = number % (len(delays) + 1)
        if cycle < len(delays):
            beats.append((at + delays[cycle], "conducted", at + delays[cycle] - beats[-1][0] if beats else rr))
    return p, beats


def _qt(heart: Heart, rr: float, shape: Complex) -> float:
    """Return the QT interval in seconds by Fridericia's formula, with what a broad QRS adds."""
    corrected = 0.395 + 0.012 * heart.sex
    corrected = {"LNGQT": 0.515, "DIG": 0.35}.get(heart.repolarisation, corrected)
    return corrected * min(max(rr, 0.33), 1.6) ** (1 / 3) + max(shape.qrs_s - 0.1, 0) * 0.8


def _add_beat(
    vector: Array, time: Array, at: float, shape: Complex, qt: float, growth: float, sampling_hz: float
) -> None:
    for wave in shape.qrs:
        _add(
            vector,
            time,
            at,
            Wave(wave.at_s, wave.before_s, wave.after_s, growth * np.asarray(wave.vector)),
            sampling_hz,
        )
    width = (0.19 * qt) * shape.t_skew
    peak = qt - 0.085 * shape.t_skew - 0.01
    _add(vector, time, at, Wave(peak, 0.72 * width, 0.42 * width, growth * shape.t), sampling_hz)
    if shape.t_second:
        _add(vector, time, at, Wave(peak - 0.09, 0.03, 0.03, growth * shape.t_second * shape.t), sampling_hz)
    if shape.u is not None:
        _add(vector, time, at, Wave(peak + 0.17, 0.035, 0.04, shape.u), sampling_hz)
    if np.any(shape.st):
        here = _span(time, at, at + qt, sampling_hz)
        moment = time[here] - at
        rise = 1 / (1 + np.exp(-(moment - shape.qrs_s) / 0.006))
        fall = 1 / (1 + np.exp((moment - peak) / 0.024))
        vector[:, here] += growth * shape.st[:, None] * rise * fall


def _add(vector: Array, time: Array, at: float, wave: Wave, sampling_hz: float) -> None:
    """Add a bell curve in place, out to where it has died away."""
    middle = at + wave.at_s
    here = _span(time, middle - 4.5 * wave.before_s, middle + 4.5 * wave.after_s, sampling_hz)
    moment = time[here] - middle
    width = np.where(moment < 0, wave.before_s, wave.after_s)
    vector[:, here] += np.asarray(wave.vector, float)[:, None] * np.exp(-0.5 * (moment / width) ** 2)


def _span(time: Array, start: float, stop: float, sampling_hz: float) -> slice:
    return slice(min(max(int(start * sampling_hz), 0), len(time)), min(max(int(stop * sampling_hz) + 1, 0), len(time)))


def _add_atria(vector: Array, time: Array, heart: Heart, rng: np.random.Generator) -> None:
    """Add the waves of fibrillating or fluttering atria."""
    if heart.rhythm == "AFIB":
        size, base = rng.uniform(0.02, 0.06), rng.uniform(5.2, 7.5)
        drift = np.cumsum(rng.normal(0, 1, len(time))) * 0.04 * np.sqrt(time[1] / 0.002)
        phase = 2 * np.pi * base * time + drift
        wave = np.sin(phase) + 0.45 * np.sin(2 * phase + 1) + 0.3 * np.sin(0.5 * phase)
        vector += size * np.array((0.2, 0.5, -0.65))[:, None] * wave
    if heart.rhythm == "AFLT":
        turn = (time / _FLUTTER_S + rng.uniform()) % 1.0
        saw = np.interp(turn, (0, 0.62, 0.8, 1.0), (0.55, -1.0, 0.3, 0.55))
        vector += rng.uniform(0.12, 0.2) * np.array((0.05, 0.95, -0.35))[:, None] * saw


def _add_spikes(eight: Array, beats: Beats, sampling_hz: float, rng: np.random.Generator) -> None:
    heights = rng.uniform(0.5, 1.4) * np.array((0.3, -0.9, 0.8, 1.0, 1.0, 0.8, 0.5, 0.3))
    for at, _, _ in beats:
        first = round((at - 0.012) * sampling_hz)
        last = first + max(round(0.002 * sampling_hz), 1)
        if first >= 0 and last < eight.shape[1]:
            eight[:, first:last] += heights[:, None]


def _add_noise(eight: Array, time: Array, heart: Heart, rng: np.random.Generator) -> None:
    """Add muscle noise, breathing and drift, each lead's own; those of I and II then reach the other limb leads."""
    eight += rng.normal(0, 1, eight.shape) * heart.noise_mv * rng.uniform(0.6, 1.5, (8, 1))
    for low, high in ((0.12, 0.3), (0.05, 0.12)):
        speed, phase = rng.uniform(low, high, (8, 1)), rng.uniform(0, 2 * np.pi, (8, 1))
        eight += heart.wander_mv * rng.normal(0, 1, (8, 1)) * np.sin(2 * np.pi * speed * time + phase)
    if rng.random() < 0.1:  # mains
        eight += min(heart.noise_mv, 0.02) * rng.uniform(0.3, 1, (8, 1)) * np.sin(2 * np.pi * 50 * time)


def _plant_fault(leads: Array, fault: str, rng: np.random.Generator) -> None:
    """Spoil a record in place; one of `heart.FAULTS`."""
    lead = 6 + int(rng.integers(6))
    if fault == "arms swapped":
        one, two, three, right, left, foot = leads[:6].copy()
        leads[:6] = -one, three, two, left, right, foot
    elif fault == "flat lead":
        leads[lead] = 0.0
    elif fault == "electrode off":
        step = np.cumsum(rng.normal(0, 0.03, leads.shape[1]))
        leads[lead] = np.clip(step + rng.normal(0, 0.25, leads.shape[1]), -5, 5)
    elif fault == "saturated lead":
        leads[lead] = np.clip(6 * leads[lead], -1.6, 1.6)


def _rotated(vector: Array, degrees: float) -> Array:
    """Turn a vector in the horizontal plane, from the left to the back."""
    x, y, z = vector
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array((cos * x - sin * z, y, sin * x + cos * z))


def _turned(vector: Vector | Array, degrees: float) -> Array:
    """Turn a vector in the frontal plane, clockwise as an axis is counted: from the left to the feet."""
    x, y, z = vector
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array((cos * x - sin * y, sin * x + cos * y, z))
