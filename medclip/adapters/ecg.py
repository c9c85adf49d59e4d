"""ECGs: records of any format become twelve leads in millivolts, images of sheets stay images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medclip.adapters.base import ImageAdapter, Source, is_raster, refused, stated, value_range
from medclip.adapters.depth import to_range
from medclip.dicom.pixels.decoded import Decoded
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.imaging.ecg.filters import filter_parameters, prepare
from medclip.imaging.ecg.formats.readers import READERS, read_ecg
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import MAX_UV, Recording, exceeds_range, whole_microvolts
from medclip.imaging.ecg.twelve_leads import canonical, header_leads
from medclip.sample import Kind, Modality, Sample, Signal, Step, View
from medclip.settings import EcgOptions as EcgOptions
from medclip.settings import Settings
from medclip.wording import count

ECG_VERSION = 2
"""Raise when the ECG modules of `medclip.imaging` give other values for the same file."""

_WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9.1."
"""The SOP classes of ECGs; other waveforms (pressure, sound, electrophysiology) are none."""


class EcgAdapter(ImageAdapter):
    """Reads a record into 12 x T: by default 10 s at 500 Hz, baseline taken out, in millivolts.

    An image of a paper sheet becomes one RGB view, as it is.
    """

    name = "ecg"
    modality = Modality.ECG
    version = 1
    grey = False
    kinds = frozenset({Kind.SIGNAL, Kind.IMAGE})

    def __init__(self, options: EcgOptions | None = None) -> None:
        """Choose what is done to the leads where `settings.policy.ecg` says nothing.

        None is the default, `EcgOptions.raw()` leaves them as stored.
        """
        self.options = options or EcgOptions()

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the signal."""
        return {"ecg": ECG_VERSION, "leads": list(TWELVE), **filter_parameters(self.options)}

    def parameters_of(self, kind: Kind) -> Mapping[str, Any]:
        """Constants that shape what it makes of a kind."""
        return {"kind": str(kind), **(super().parameters if kind is Kind.IMAGE else self.parameters)}

    def accepts(self, source: Source) -> bool:
        """Return whether it reads a unit: a record in one of the ECG formats, or an image without a medical header."""
        facts = source.first
        if source.kind is Kind.IMAGE:
            return is_raster(source)
        if source.kind not in self.kinds or facts.format not in READERS:
            return False
        if facts.format is Format.DICOM:
            return facts.header is not None and facts.header.sop_class.startswith(_WAVEFORMS)
        return True

    def describe(self, kind: Kind) -> str:
        """Describe in one line what is read for a kind."""
        if kind is Kind.IMAGE:
            return "1 view, H x W x 3, uint8 0-255 or float32 0-1: a sheet as it is"
        options = self.options
        rate = "the record's rate" if options.sampling_hz is None else f"{options.sampling_hz:g} Hz"
        length = "its length" if options.seconds is None else f"{options.seconds:g} s"
        unit = "mV" if options.normalisation == "mv" else options.normalisation
        return f"12 leads (I, II, III, aVR, aVL, aVF, V1-V6) x T at {rate}, {length}, float32 {unit}, with a lead mask"

    def read_unit(self, source: Source, settings: Settings) -> Sample:
        """Read a record, or the image of a sheet.

        Raises:
            MedclipError: NOT_AN_IMAGE where no channel has the name of one of the twelve leads, CONSTANT_IMAGE where
                none of those has a usable signal; and what reading raises.
        """
        if source.kind is Kind.IMAGE:
            return super().read_unit(source, settings)
        recording = read_ecg(source.paths, source.facts, settings)
        options = settings.policy.ecg or self.options
        if options.microvolts:
            recording = whole_microvolts(recording)
        # Only what is kept decides which leads are there: a gap an hour away costs no lead.
        signal = prepare(canonical(recording, mlii_as_ii=options.mlii_as_ii, seconds=options.seconds), options)
        if not signal.mask.any():
            raise _without_leads(signal)
        steps = signal.steps
        if settings.policy.ecg is not None and exceeds_range(signal):
            steps = (*steps, Step("note", f"values beyond {MAX_UV / 1000:g} mV are cut off for the model"))
        stored = Step(
            "read",
            f"{count(len(recording.stored_leads), 'channel')}, {recording.stored_samples:,} samples at "
            f"{recording.stored_hz:g} Hz, to mV",
        )
        return Sample(
            self.modality,
            (),
            self.provenance(source, (stored, *steps), recording.decoder, settings),
            {**stated(source.first), **_headers(signal)},
            Kind.SIGNAL,
            signal=signal,
        )

    def render(self, decoded: Decoded, facts: FileFacts, *, cropped: bool) -> tuple[View, tuple[Step, ...]]:
        """Return a sheet in RGB."""
        pixels, steps = to_range(decoded, facts, (0, 100))
        limits = value_range(pixels)
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
            steps += (Step("colour", "grey repeated"),)
        return View(pixels, limits), steps


def read_recording(source: Source, settings: Settings) -> Recording:
    """Read a record as its file has it: all its ECG channels, at the stored rate and length, with gaps.

    Raises:
        MedclipError: The problem that inspection found, or with the reason why it cannot be read.
    """
    for path, facts in zip(source.paths, source.facts, strict=True):
        if facts.problem is not None:
            raise facts.problem.error(path)
    if not EcgAdapter().accepts(source):
        raise refused(EcgAdapter(), source)
    return read_ecg(source.paths, source.facts, settings)


def raw_signal(
    source: Source, settings: Settings | None = None, *, mlii_as_ii: bool = False, seconds: float | None = None
) -> Signal:
    """Read a record's twelve leads in mV at the stored rate and length, unfiltered.

    Args:
        source: The record.
        settings: Limits; None is the default.
        mlii_as_ii: Whether MLII is taken for II, as in `EcgOptions`.
        seconds: Length of the part in the middle that decides which leads are there, as the adapter does with the part
            that it keeps; None decides over the whole record. The length stays.

    Raises:
        MedclipError: With the reason why it cannot be read.
    """
    recording = read_ecg(source.paths, source.facts, settings or Settings())
    return canonical(recording, mlii_as_ii=mlii_as_ii, seconds=seconds)


def _without_leads(signal: Signal) -> MedclipError:
    """Return the refusal of a record that has none of the twelve leads: a model would be shown zeros."""
    if set(header_leads(signal)) & set(TWELVE):
        flags = " ".join(flag for flag in signal.flags if flag.startswith(("lead_flat", "lead_gaps")))
        return MedclipError(
            Reason.CONSTANT_IMAGE,
            f"none of the twelve leads has a usable signal ({flags}), so there is nothing to see.",
        )
    names = ", ".join(sorted(set(header_leads(signal))))
    return MedclipError(
        Reason.NOT_AN_IMAGE,
        f"no channel has the name of one of the twelve leads; found {names or 'none'}, expected I, II, V1 and so on.",
        hint="Leads are identified by name alone: correct the names in the file.",
    )


def _headers(signal: Signal) -> dict[str, Any]:
    """Return what the record is, in names of the closed list and numbers."""
    gaps = [step.detail for step in signal.steps if step.name == "gaps"]
    return {
        "stored_leads": list(header_leads(signal)),
        "stored_lead_count": len(signal.stored_leads),
        "stored_hz": signal.stored_hz,
        "stored_samples": signal.stored_samples,
        "duration_s": round(signal.stored_samples / signal.stored_hz, 4),
        "derived_leads": list(signal.derived),
        "missing_leads": [lead for lead, present in zip(TWELVE, signal.mask, strict=True) if not present],
        "gaps": gaps,
        "ecg_flags": list(signal.flags),
        "heart_rate_bpm": None if signal.heart_rate_bpm is None else round(signal.heart_rate_bpm),
    }
