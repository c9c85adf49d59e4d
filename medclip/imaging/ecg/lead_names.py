"""Names of ECG leads: which stored name is which of the twelve, and which channels are no lead at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The canonical leads in the canonical order."""

OTHER = "other"
"""Stands for a stored name that is on no list: it is free text, and may be a person's name."""

_OTHER_LEADS = (
    "V",
    "V7",
    "V8",
    "V9",
    "V1R",
    "V2R",
    "V3R",
    "V4R",
    "V5R",
    "V6R",
    "V7R",
    "V8R",
    "V9R",
    "MLI",
    "MLII",
    "MLIII",
    "MCL1",
    "MCL6",
    "CM5",
    "CC5",
    "ML5",
    "D",
    "A",
    "J",
    "X",
    "Y",
    "Z",
    "VX",
    "VY",
    "VZ",
    "ES",
    "AS",
    "AI",
)
_NOT_ECG: Mapping[str, str] = MappingProxyType(
    {
        "EDF ANNOTATIONS": r"EDF ANNOTATIONS",
        "BDF ANNOTATIONS": r"BDF ANNOTATIONS",
        "EEG": r"EEG",
        "EOG": r"EOG|[LR]OC(?![A-Z])",
        "EMG": r"EMG",
        "RESP": r"RESP|NASAL|AIR ?FLOW|FLOW(?![A-Z])|THOR|ABDO|EFFORT|SNORE|SOUND",
        "SPO2": r"SPO2|SAO2|OXI?(?:STAT| STAT)",
        "PLETH": r"PLETH",
        "PPG": r"PPG",
        "TEMP": r"TEMP(?![A-DF-Z])",
        "ETCO2": r"ETCO2",
        "CO2": r"CO2",
        "PULSE": r"PULSE|HR(?![A-Z])|H\.R\.|HEART RATE",
        **{name: rf"{name}(?![A-Z])" for name in ("ABP", "ART", "PAP", "CVP", "ICP", "BP", "NIBP", "PACE", "PCG")},
        "ACC": r"ACC(?:EL\w*)?[ _-]?[XYZ]?(?![A-Z])",
        "POSITION": r"POSITION|BODY POS|POS(?![A-Z])",
        "STATUS": r"STATUS|TRIG|STIM(?![A-Z])",
        "MARK": r"MARK(?:ER)?(?![A-Z])|EVENT(?![A-Z])",
    }
)
"""Families of other signals, and how their names begin: "EEG Fpz-Cz", "Resp oro-nasal", "Temp rectal", "Event marker"
(labels as EDF+ and sleep laboratories write them)."""

# A hyphen right after the prefix separates ("ECG-II"); one after a space is a minus ("Lead -aVR").
# Without any separator only what is surely a lead may follow ("LEADII", "ECGV1").
_PREFIX = re.compile(
    r"^(?:MDC_ECG_LEAD_|(?:ECG|EKG|LEAD|CHANNEL|CH)(?:[ _:.]+|-)"
    r"|(?:ECG|EKG|LEAD)(?=(?:D?I{1,3}|D[1-3]|AV[RLF]|[VC]\d)\b))+"
)
_ECG_WORDS = ("ECG", "EKG", "LEAD", "MDC_ECG")
_BRACKET = re.compile(r"[ _]*(?:\(([^()\[\]]*)\)|\[([^()\[\]]*)\])$")
# Only words that say nothing of the place or the sign: "V4 (R)" is V4R, and "II (inverted)" is no II.
_HARMLESS = frozenset({"MV", "UV", "\u039cV", "NV", "V", "FILTERED", "UNFILTERED", "RAW", "EINTHOVEN", "GOLDBERGER"})
_REFERENCE = re.compile(r"[ _-]+REF$")
_FAMILIES = tuple((name, re.compile(pattern)) for name, pattern in _NOT_ECG.items())
_KNOWN: Mapping[str, str] = MappingProxyType(
    {name.upper(): name for name in (*TWELVE, *_OTHER_LEADS)}
    | {"DI": "I", "DII": "II", "DIII": "III", "D1": "I", "D2": "II", "D3": "III"}
)
_IEC = re.compile(r"C[ _-]?([1-6])")
# Places of the 10-20 and 10-10 systems, alone or against another one: "Fp1", "Cz..", "C3-A2", "O1-Ref".
_PLACE = r"(?:FP|AF|FC|FT|CP|TP|PO|F|C|T|P|O)(?:Z|10|[1-9])"
_ELECTRODE = re.compile(rf"{_PLACE}(?:[ :-]?(?:{_PLACE}|[AM][12](?:[ +/]?[AM]2)?|[ _-]?REF|LE|AVG?))?\.*")
_NEGATED = frozenset({"-AVR", "- AVR", "AVRNEG", "AVR-", "AVR NEG", "MINUS AVR", "NEG AVR", "-(AVR)"})
# What joins the parts of one name ("V_1", "a VR", "ML II"), but neither two names ("I-II") nor a minus at an end.
_JOINT = re.compile(r"(?<!^)(?<!I)[ _-](?=[A-Z0-9])")
_DASHES = str.maketrans("\u2212\u2010\u2011\u2013\u2014", "-----")


@dataclass(frozen=True)
class LeadName:
    """What a stored channel name means."""

    name: str
    """One of the closed list (the twelve, other leads, other signals), or `OTHER`."""
    inverted: bool = False
    """Whether the channel holds the lead's negative, as the Cabrera order gives -aVR."""
    iec: bool = False
    """Whether it is C1 to C6 without a word that says ECG: the chest leads of IEC 60601-2-25, and places of an EEG."""

    @property
    def standard(self) -> bool:
        """Whether it is one of the twelve."""
        return self.name in TWELVE

    @property
    def ecg(self) -> bool:
        """Whether it may be an ECG lead; unknown names may."""
        return self.name not in _NOT_ECG


def lead_name(stored: str) -> LeadName:
    """Return what a stored channel name means; by name only, never by position.

    Args:
        stored: Name of a channel as in the file: "avr", "Lead II", "MDC_ECG_LEAD_V1", "ECG aVF-Ref", "DII", "C1",
            "-aVR".

    Returns:
        The meaning. `lead_names` also looks at the other names of the record, which C1 to C6 need.

    Example:
        >>> lead_name("Lead I (Einthoven)").name, lead_name("-aVR").inverted, lead_name("Smith").name
        ('I', True, 'other')
        >>> lead_name("V4 (R)").name, lead_name("EEG Fpz-Cz").name
        ('other', 'EEG')
    """
    full = " ".join(stored.strip().strip("\0").split()).translate(_DASHES).upper()
    text = _PREFIX.sub("", full)
    is_ecg = full.startswith(_ECG_WORDS)
    if not is_ecg and _ELECTRODE.fullmatch(text) and not _IEC.fullmatch(text):
        return LeadName("EEG")
    while (match := _BRACKET.search(text)) and (match[1] or match[2] or "").strip() in _HARMLESS:
        text = text[: match.start()].strip()
    text = _REFERENCE.sub("", text).strip()
    if text in _NEGATED:
        return LeadName("aVR", inverted=True)
    if match := _IEC.fullmatch(text):
        return LeadName(f"V{match[1]}", iec=not is_ecg)
    # A minus before another lead is no name of the lists: its sign would be lost.
    lead = _KNOWN.get(text) or _KNOWN.get(_JOINT.sub("", text))
    return LeadName(lead or next((name for name, pattern in _FAMILIES if pattern.match(text)), OTHER))


def lead_names(stored: Sequence[str]) -> tuple[LeadName, ...]:
    """Return what the channel names of one record mean, where a name alone leaves it open.

    C1 to C6 are chest leads (IEC) in an ECG, and places on the head in an EEG. They are taken for V1 to V6 where no
    channel is an EEG and either a limb lead or all six of them are there; else they are none of the twelve. In a record
    that has an EEG, a channel of unknown name is no ECG unless the name says ECG.

    Example:
        >>> [meaning.name for meaning in lead_names(("I", "C1"))], [m.name for m in lead_names(("Fp1", "C3"))]
        (['I', 'V1'], ['EEG', 'EEG'])
    """
    meanings = [lead_name(name) for name in stored]
    eeg = any(meaning.name == "EEG" for meaning in meanings)
    limb = any(meaning.name in TWELVE[:6] for meaning in meanings)
    chest = not eeg and (limb or len({meaning.name for meaning in meanings if meaning.iec}) == 6)
    names = []
    for name, meaning in zip(stored, meanings, strict=True):
        if meaning.iec and not chest:
            meaning = LeadName("EEG" if eeg else OTHER)
        elif eeg and meaning.name == OTHER and not any(word in name.upper() for word in _ECG_WORDS):
            meaning = LeadName("EEG")
        names.append(meaning)
    return tuple(names)
