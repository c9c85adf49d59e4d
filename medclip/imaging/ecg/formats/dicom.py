"""Read DICOM ECG waveforms: choose the rhythm groups, apply sensitivity and baseline, turn padding into gaps."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import items, quiet, text, upper
from medclip.dicom.header.elements import number as number_of
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE, lead_name, lead_names
from medclip.imaging.ecg.recording import Recording, check_rate, check_size, choose, millivolts_per, stretch, truncated
from medclip.imaging.ecg.twelve_leads import MAX_MISSING
from medclip.settings import Settings
from medclip.wording import list_of

# Choose the multiplex groups of a DICOM waveform that hold the twelve leads, and join them in time.
#
# A group has one rate and one start. Most objects have all leads in one; some store limb and chest leads in two, or
# the four columns of a printed sheet (3 leads x 2.5 s) in four, each with its offset.


@dataclass(frozen=True)
class GroupFacts:
    """What a multiplex group states of itself."""

    standard: frozenset[str]
    """Those of the twelve leads that it holds."""
    seconds: float
    offset_ms: float | None
    """When its first sample was taken, from a time that all groups share; None if the file does not say."""
    derived: bool
    """Whether it was computed (median beat), and is no recording."""

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Order of groups: recorded before derived, more of the twelve leads, longer."""
        return not self.derived, len(self.standard), self.seconds


def pick(groups: Sequence[GroupFacts]) -> tuple[int, ...]:
    """Choose the groups that are read.

    Args:
        groups: All groups of an object, at least one.

    Returns:
        Numbers in the file's order: the best group, and recorded ones that hold leads which it lacks, or a longer copy
        of a lead in the same time (a rhythm strip under a printed sheet).
    """
    best = max(range(len(groups)), key=lambda number: groups[number].rank)
    picked, have = [best], set(groups[best].standard)
    recorded = [number for number, group in enumerate(groups) if not group.derived and number != best]
    if groups[best].derived:
        return (best,)
    for number in sorted(recorded, key=lambda number: -groups[number].seconds):
        if groups[number].standard - have:
            picked.append(number)
            have |= groups[number].standard
    if len(picked) == 1:
        return (best,)
    first, last = _span([groups[number] for number in picked])
    for number in recorded:
        start = groups[number].offset_ms
        if number in picked or start is None or not groups[number].standard:
            continue
        begin = start / 1000
        longer = all(
            groups[number].seconds > groups[other].seconds
            for other in picked
            if groups[other].standard & groups[number].standard
        )
        if longer and first - 0.1 <= begin and begin + groups[number].seconds <= last + 0.1:
            picked.append(number)
    return tuple(sorted(picked))


def join(parts: Sequence[tuple[GroupFacts, Recording]], settings: Settings) -> Recording:
    """Place groups where they belong in time; a lead that is in several is taken from the longest.

    Args:
        parts: Groups with what was read of them, at least two.
        settings: Limits.

    Returns:
        One recording at the fastest group's rate; NaN where a lead was not recorded.

    Raises:
        MedclipError: NOT_SUPPORTED_YET if the file does not say when the groups start though they differ in length, or
            if no lead covers the time that they span; TOO_LARGE.
    """
    starts_s, notes = _starts([facts for facts, _ in parts])
    hz = max(part.sampling_hz for _, part in parts)
    starts = [round(start * hz) for start in starts_s]
    lengths = [round(part.values_mv.shape[1] * hz / part.sampling_hz) for _, part in parts]
    samples = max(start + length for start, length in zip(starts, lengths, strict=True))
    longest: dict[str, int] = {}
    for number, (_, part) in enumerate(parts):
        for name in (lead_name(lead).name for lead in part.leads):
            if name in TWELVE and (name not in longest or lengths[number] > lengths[longest[name]]):
                longest[name] = number
    rows = [
        (number, row)
        for number, (_, part) in enumerate(parts)
        for row, lead in enumerate(part.leads)
        if longest.get(lead_name(lead).name, number) == number
    ]
    if max(lengths[number] for number in longest.values()) < (1 - MAX_MISSING) * samples:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            f"the leads were recorded at different times, in {len(parts)} groups of at most {max(lengths) / hz:g} s "
            f"within {samples / hz:g} s; expected at least one lead over {1 - MAX_MISSING:.0%} of the time.",
            hint="Export the record with all leads over the whole time.",
        )
    check_size(len(rows), samples, settings)
    values = np.full((len(rows), samples), np.nan, np.float32)
    for line, (number, row) in zip(values, rows, strict=True):
        start = starts[number]
        line[start : start + lengths[number]] = stretch(parts[number][1].values_mv[row], lengths[number])
    if len({part.sampling_hz for _, part in parts}) > 1:
        notes = (*notes, "leads of a lower sampling rate interpolated to that of the fastest")
    if min(lengths) < samples:
        notes = (*notes, "the groups differ in length or start; the rest is a gap")
    return Recording(
        values,
        tuple(parts[number][1].leads[row] for number, row in rows),
        hz,
        tuple(name for _, part in parts for name in part.stored_leads),
        samples,
        hz,
        tuple(parts[number][1].units[row] for number, row in rows),
        (*notes, *dict.fromkeys(note for _, part in parts for note in part.notes)),
        parts[0][1].decoder,
    )


def _span(groups: Sequence[GroupFacts]) -> tuple[float, float]:
    """Return the first and last second of groups; nothing where one does not state its offset."""
    stated = [(group.offset_ms / 1000, group.seconds) for group in groups if group.offset_ms is not None]
    if len(stated) < len(groups):
        return math.inf, -math.inf
    return min(start for start, _ in stated), max(start + seconds for start, seconds in stated)


def _starts(groups: Sequence[GroupFacts]) -> tuple[list[float], tuple[str, ...]]:
    """Return the seconds at which groups start after the first of them."""
    stated = [group.offset_ms / 1000 for group in groups if group.offset_ms is not None]
    if len(stated) == len(groups):
        return [start - min(stated) for start in stated], ("joined by their time offsets",)
    if stated or max(group.seconds for group in groups) - min(group.seconds for group in groups) > 0.01:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            f"the leads are spread over {len(groups)} multiplex groups, and not all of them say when they start; "
            "expected a time offset in each.",
            hint="Export the record with all leads in one group, or with offsets.",
        )
    # One time of acquisition and one length: DICOM counts offsets from the former, and without one nothing is shifted.
    return [0.0] * len(groups), ("joined as simultaneous: they are of one length, and state no time offset",)


_TYPES = {("SB", 8): "i1", ("UB", 8): "u1", ("SS", 16): "i2", ("US", 16): "u2", ("SL", 32): "i4", ("UL", 32): "u4"}
# The lead numbers that SCP-ECG, MDC (ISO 11073-10101) and DICOM share.
_LEADS = {
    1: "I",
    2: "II",
    3: "V1",
    4: "V2",
    5: "V3",
    6: "V4",
    7: "V5",
    8: "V6",
    61: "III",
    62: "aVR",
    63: "aVL",
    64: "aVF",
    65: "-aVR",
}
_CODE = re.compile(r"(?:5\.6\.3-9-|2:)(\d+)")
_MDC_BASE = 2 * 65536


def read_dicom_ecg(path: Path, settings: Settings) -> Recording:
    """Read the ECG of a DICOM waveform object.

    Returns:
        The multiplex group with the most of the twelve leads, the longest of those; never a derived one (median beat)
        where there is an original one. Other original groups are joined to it where they hold leads that it lacks.

    Raises:
        MedclipError: CORRUPT, TRUNCATED, TOO_LARGE, NO_SCALE, NO_PIXELS, NOT_AN_IMAGE or NOT_SUPPORTED_YET.
    """
    import pydicom

    try:
        with quiet("pydicom"):
            dataset = pydicom.dcmread(path, force=True)
            groups = list(dataset.get("WaveformSequence") or ())
            little = dataset.original_encoding[1] is not False
            if not groups:
                raise MedclipError(Reason.NO_PIXELS, "the DICOM object holds no waveform.")
            facts = _facts(groups)
            picked = pick(facts)
            parts = [(facts[number], _read_group(groups[number], settings, little=little)) for number in picked]
            recording = parts[0][1] if len(parts) == 1 else join(parts, settings)
    except (MedclipError, OSError):
        raise
    except Exception as error:  # a broken element raises whatever its parser does
        raise MedclipError(Reason.CORRUPT, f"the DICOM waveform cannot be read ({type(error).__name__}).") from None
    if len(groups) == 1:
        return recording
    numbers = list_of([str(number + 1) for number in picked])
    notes = [f"multiplex {'groups' if len(picked) > 1 else 'group'} {numbers} of {len(groups)}"]
    computed = {lead for group in facts for lead in group.standard if group.derived}
    computed -= {lead for number in picked for lead in facts[number].standard}
    if computed:
        notes.append(f"only in a derived group, not read: {', '.join(lead for lead in TWELVE if lead in computed)}")
    return replace(recording, notes=(*notes, *recording.notes))


def _facts(groups: Sequence[Any]) -> list[GroupFacts]:
    """Return what each group states; the names of all of them together tell which leads they are."""
    names = [[_name(channel) for channel in group.ChannelDefinitionSequence] for group in groups]
    meanings = iter(lead_names([name for group in names for name in group]))
    facts = []
    for group, leads in zip(groups, names, strict=True):
        label = upper(group, "MultiplexGroupLabel")
        facts.append(
            GroupFacts(
                frozenset(meaning.name for meaning in islice(meanings, len(leads)) if meaning.standard),
                int(group.NumberOfWaveformSamples) / max(float(group.SamplingFrequency), 1e-9),
                number_of(group, "MultiplexGroupTimeOffset"),
                upper(group, "WaveformOriginality") == "DERIVED" or "MEDIAN" in label,
            )
        )
    return facts


def _read_group(group: Any, settings: Settings, *, little: bool) -> Recording:
    channels = list(group.ChannelDefinitionSequence)
    samples, hz = int(group.NumberOfWaveformSamples), check_rate(float(group.SamplingFrequency))
    if int(group.NumberOfWaveformChannels) != len(channels):
        raise MedclipError(Reason.CORRUPT, "the waveform states another number of channels than it defines.")
    check_size(len(channels), samples, settings)
    stored = _stored(group, len(channels), samples, little=little)
    names = tuple(_name(channel) for channel in channels)
    rows, notes = choose(names, [_millivolts(channel) for channel in channels])
    values = np.empty((len(rows), samples), np.float32)
    padding = _padding(group, stored.dtype)
    for line, row in zip(values, rows, strict=True):
        line[:] = _physical(stored[:, row], channels[row])
        if padding is not None:
            line[stored[:, row] == padding] = np.nan
    if any(float(channels[row].get(name) or 0) for row in rows for name in ("ChannelTimeSkew", "ChannelSampleSkew")):
        notes = (*notes, "the header states a skew between the leads; it is not removed")
    units = tuple(str(channels[row].ChannelSensitivityUnitsSequence[0].CodeValue) for row in rows)
    return Recording(values, tuple(names[row] for row in rows), hz, names, samples, hz, units, notes, "pydicom")


def _dtype(group: Any, *, little: bool) -> np.dtype[Any]:
    bits, meaning = int(group.WaveformBitsAllocated), str(group.WaveformSampleInterpretation)
    code = _TYPES.get((meaning, bits))
    if code is None:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET, "the waveform's samples are compressed (A-law, mu-law) or of an unusual width."
        )
    return np.dtype(("<" if little else ">") + code)


def _stored(group: Any, channels: int, samples: int, *, little: bool) -> NDArray[Any]:
    """Return the samples as stored, [T, C]."""
    dtype = _dtype(group, little=little)
    data = group.WaveformData
    data = data if isinstance(data, bytes) else b"".join(data)
    wanted = channels * samples
    if len(data) < wanted * dtype.itemsize:
        raise truncated("waveform samples", wanted, len(data) // dtype.itemsize)
    return np.frombuffer(data, dtype, wanted).reshape(samples, channels)


def _padding(group: Any, dtype: np.dtype[Any]) -> int | None:
    data = group.get("WaveformPaddingValue")
    if not isinstance(data, bytes) or len(data) < dtype.itemsize:
        return None
    return int(np.frombuffer(data, dtype, 1)[0])


def _physical(stored: NDArray[Any], channel: Any) -> NDArray[np.float64]:
    """Apply sensitivity, its correction, and baseline (in the sensitivity's unit); give mV."""
    correction = number_of(channel, "ChannelSensitivityCorrectionFactor")
    factor = float(channel.ChannelSensitivity) * (1.0 if correction is None else correction)
    baseline = number_of(channel, "ChannelBaseline") or 0.0
    return (stored.astype(np.float64) * factor + baseline) * (_millivolts(channel) or np.nan)


def _millivolts(channel: Any) -> float | None:
    """Return millivolts per unit of sensitivity; None where sensitivity or unit is missing or no voltage."""
    units = items(channel, "ChannelSensitivityUnitsSequence")
    if not units or not number_of(channel, "ChannelSensitivity"):
        return None
    if number_of(channel, "ChannelSensitivityCorrectionFactor") == 0:
        return None
    return millivolts_per(text(units[0], "CodeValue"))


def _name(channel: Any) -> str:
    """Name a channel: by its code, else by the code's meaning, else by its label."""
    source = items(channel, "ChannelSourceSequence")
    if source:
        code = text(source[0], "CodeValue")
        match = _CODE.fullmatch(code)
        number = int(match[1]) if match else int(code) - _MDC_BASE if code.isdecimal() else 0
        if number in _LEADS:
            return _LEADS[number]
        meaning = text(source[0], "CodeMeaning")
        if meaning:
            return meaning
    return text(channel, "ChannelLabel")
