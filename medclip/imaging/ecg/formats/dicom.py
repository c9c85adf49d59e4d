"""Read DICOM ECG waveforms: choose the rhythm groups, apply sensitivity and baseline, turn padding into gaps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import items, text, upper
from medclip.dicom.header.elements import number as number_of
from medclip.dicom.header.quiet import quiet
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.formats.dicom_groups import GroupFacts, join, pick
from medclip.imaging.ecg.lead_names import TWELVE, lead_names
from medclip.imaging.ecg.recording import Recording, check_rate, check_size, choose, millivolts_per, truncated
from medclip.settings import Settings
from medclip.wording import list_of

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
    for group, own in zip(groups, names, strict=True):
        label = upper(group, "MultiplexGroupLabel")
        facts.append(
            GroupFacts(
                frozenset(meaning.name for meaning in islice(meanings, len(own)) if meaning.standard),
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
