"""Augmentation of ECGs: chance is drawn once into plain values, then applied. No torch here.

Never is a sign turned or a record read backwards. What comes from electrodes (wander, noise) is added to electrodes, so
that the limb leads go on to fit each other.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.filters import prepare
from medclip.imaging.ecg.recording import MAX_UV, MISSING, from_microvolts, to_microvolts
from medclip.imaging.ecg.twelve_leads import canonical
from medclip.training.recipe.augment import SignalAugment

if TYPE_CHECKING:
    from numpy.random import Generator

    from medclip.imaging.ecg.recording import Recording
    from medclip.models.inputs.signal_input import SignalInput

_NUM_LEADS = 12
_RA, _LA, _LL, _V1 = range(4)
_NUM_ELECTRODES = 9
_WANDER_HZ = (0.05, 0.5)


def _leads_of_electrodes() -> NDArray[np.float32]:
    """Return the leads as sums of the potentials of nine electrodes, [12, 9] (Einthoven, Goldberger, Wilson)."""
    leads = np.zeros((_NUM_LEADS, _NUM_ELECTRODES), np.float32)
    for row, (plus, minus) in enumerate(((_LA, _RA), (_LL, _RA), (_LL, _LA))):
        leads[row, plus], leads[row, minus] = 1, -1
    for row, limb in enumerate((_RA, _LA, _LL), start=3):
        leads[row, : _LL + 1] = -0.5
        leads[row, limb] = 1
    leads[6:, : _LL + 1] = -1 / 3
    leads[6:, _V1:] = np.eye(6)
    return leads


_LEADS = _leads_of_electrodes()


class SignalChange(NamedTuple):
    """What is done to one ECG."""

    shift: float
    """Where the part that is shown lies in what is there beside it, from 0 (the earliest) to 1."""
    crop: tuple[float, float] | None
    """Seconds that are kept, and where they lie in the rest of the part, from 0 to 1; zeros stand for the rest."""
    gain: float
    """Factor of all leads: their proportions are diagnosis."""
    wander: tuple[tuple[float, float, float], ...]
    """Of each electrode: amplitude in mV, frequency in Hz, phase."""
    noise: tuple[float, int] | None
    """Signal to noise in dB, and the seed of the noise."""
    dropped: tuple[float, ...]
    """Of each lead a number from 0 to 1: it is left out where this is below `share`; the largest one never is."""
    share: float


def prepare_record(recording: Recording, taken: SignalInput, room_s: float = 0.0) -> NDArray[np.int16]:
    """Make of a stored record what a model is shown of it, by the functions that the adapter has for a file.

    Args:
        recording: Record from a shard.
        taken: The model's treatment of ECGs.
        room_s: Seconds on either side beside the part that is shown, for shifts.

    Returns:
        int16 [12, T + room] in microvolts; without room what scoring is shown of the record's file.

    Raises:
        MedclipError: CONSTANT_IMAGE where no lead shows anything in this part; as `prepare`.
    """
    options = replace(taken.options, seconds=taken.seconds + 2 * room_s)
    signal = prepare(canonical(recording, seconds=options.seconds), options)
    if not signal.mask.any():
        raise MedclipError(Reason.CONSTANT_IMAGE, "no lead shows anything: they are flat or missing.")
    return to_microvolts(signal)


def draw_signal_change(settings: SignalAugment, rng: Generator) -> SignalChange:
    """Draw a change; every call takes the same number of draws.

    Args:
        settings: Settings of what may change, and how much.
        rng: Source of chance.
    """
    u, seed = rng.random(5), int(rng.integers(2**63))
    electrodes, leads = rng.random((_NUM_ELECTRODES, 3)), rng.random(_NUM_LEADS)
    crop = None
    if settings.crop_seconds is not None:
        low, high = settings.crop_seconds
        crop = (low + (high - low) * float(u[1]), float(u[2]))
    noise = None
    if settings.noise_db is not None:
        low, high = settings.noise_db
        noise = (low + (high - low) * float(u[4]), seed)
    slow, fast = _WANDER_HZ
    wander = tuple((settings.wander * a, slow + (fast - slow) * f, 2 * math.pi * p) for a, f, p in electrodes.tolist())
    return SignalChange(
        shift=float(u[0]),
        crop=crop,
        gain=1 + settings.amplitude * (2 * float(u[3]) - 1),
        wander=wander if settings.wander else (),
        noise=noise,
        dropped=tuple(leads.tolist()),
        share=settings.lead_dropout,
    )


def apply_signal_change(
    record: NDArray[np.int16], change: SignalChange, num_samples: int, sampling_hz: float
) -> NDArray[np.int16]:
    """Cut the part that is shown out of a record and change it.

    Args:
        record: int16 [12, T + room] in microvolts.
        change: Change from `draw_signal_change`.
        num_samples: Samples of a lead, T.
        sampling_hz: Samples per second.

    Returns:
        int16 [12, T]; zeros of a record that was too short, or was cropped, stay zeros, and missing leads missing.
    """
    room = record.shape[1] - num_samples
    start = round(change.shift * room)
    part = record[:, start : start + num_samples]
    values, mask = from_microvolts(part)
    if change.crop is not None:
        values = _cropped(values, *change.crop, sampling_hz)
    is_there_T = values.any(axis=0)
    values *= np.float32(change.gain)
    moved = np.zeros((_NUM_ELECTRODES, num_samples), np.float32)
    t = np.arange(num_samples, dtype=np.float32) / np.float32(sampling_hz)
    for electrode, (amplitude, hz, phase) in enumerate(change.wander):
        moved[electrode] = amplitude * np.sin(np.float32(2 * math.pi * hz) * t + np.float32(phase))
    if change.noise is not None and mask.any() and is_there_T.any():
        decibel, seed = change.noise
        power = float(np.mean(np.square(values[mask][:, is_there_T])))
        sigma = math.sqrt(power / 2) * 10 ** (-decibel / 20)  # a lead is the difference of two potentials
        moved += np.random.default_rng(seed).standard_normal(moved.shape, np.float32) * np.float32(sigma)
    values += np.where(is_there_T, _LEADS @ moved, np.float32(0))
    microvolts = np.clip(np.rint(values * np.float32(1000)), -MAX_UV, MAX_UV).astype(np.int16)
    microvolts[~_kept(mask, change)] = MISSING
    return microvolts


def _kept(mask: NDArray[np.bool_], change: SignalChange) -> NDArray[np.bool_]:
    """Return which leads are shown: at least one of those that are there."""
    drawn = np.asarray(change.dropped)
    kept = mask & (drawn >= change.share)
    if mask.any() and not kept.any():
        kept[np.flatnonzero(mask)[np.argmax(drawn[mask])]] = True
    return kept


def _cropped(values: NDArray[np.float32], seconds: float, at: float, sampling_hz: float) -> NDArray[np.float32]:
    """Keep some seconds, and put them into the middle of zeros, as the adapter does with a short record."""
    samples = values.shape[1]
    length = min(samples, max(1, round(seconds * sampling_hz)))
    first, before = round(at * (samples - length)), (samples - length) // 2
    centred = np.zeros_like(values)
    centred[:, before : before + length] = values[:, first : first + length]
    return centred
