"""Names of ECG leads: which stored name is which of the twelve, and which channels are no lead at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The canonical leads in the canonical order."""

OTHER = "other"
"""Stands for a stored name that is on no list: it is free text, and may be a person's name."""

_OTHER_LEADS = (
    "V", "V7", "V8", "V9", "V1R", "V2R", "V3R", "V4R", "V5R", "V6R", "V7R", "V8R", "V9R", "MLI", "MLII", "MLIII",
    "MCL1", "MCL6", "CM5", "CC5", "ML5", "D", "A", "J", "X", "Y", "Z", "VX", "VY", "VZ", "ES", "AS", "AI",
)  # fmt: skip
_NOT_ECG = (
    "RESP", "PLETH", "ABP", "ART", "PAP", "CVP", "ICP", "BP", "PPG", "SPO2", "CO2", "EEG", "EMG", "EOG", "PACE",
    "EDF ANNOTATIONS", "BDF ANNOTATIONS", "STATUS", "MARK", "ACC", "PCG",
)  # fmt: skip
# A hyphen right after the prefix separates ("ECG-II"); one after a space is a minus ("Lead -aVR").
_PREFIX = re.compile(r"^(?:MDC_ECG_LEAD_|(?:ECG|EKG|LEAD|CHANNEL|CH)(?:[ _:.]+|-))+")
_SUFFIX = re.compile(r"(?:[ _]*\([A-Z]+\)|[ _-]+REF)$")
_KNOWN: Mapping[str, str] = MappingProxyType({name.upper(): name for name in (*TWELVE, *_OTHER_LEADS, *_NOT_ECG)})
_NEGATED = frozenset({"-AVR", "AVRNEG", "AVR-", "MINUS AVR", "NEG AVR"})


@dataclass(frozen=True)
class LeadName:
    """What a stored channel name means."""

    name: str
    """One of the closed list (the twelve, other leads, other signals), or `OTHER`."""
    inverted: bool = False
    """Whether the channel holds the lead's negative, as the Cabrera order gives -aVR."""

    @property
    def standard(self) -> bool:
        """Whether it is one of the twelve."""
        return self.name in TWELVE

    @property
    def ecg(self) -> bool:
        """Whether it may be an ECG lead; unknown names may."""
        return self.name not in _NOT_ECG


def lead_name(stored: str) -> LeadName:
    """Say what a stored channel name means; by name only, never by position.

    Args:
        stored: As in the file: "avr", "Lead II", "MDC_ECG_LEAD_V1", "ECG aVF-Ref", "-aVR".

    Example:
        >>> lead_name("Lead I (Einthoven)"), lead_name("-aVR").inverted, lead_name("Smith").name
        (LeadName(name='I', inverted=False), True, 'other')
    """
    text = " ".join(stored.strip().strip("\0").split()).upper()
    text = _SUFFIX.sub("", _PREFIX.sub("", text)).strip()
    if text in _NEGATED:
        return LeadName("aVR", inverted=True)
    # A minus before another lead is no name of the lists: its sign would be lost.
    known = _KNOWN.get(text) or _KNOWN.get(re.sub(r"(?<!^)[ _-]", "", text))
    return LeadName(known or OTHER)
