"""The header values that may leave a file: one table, each with the reason why it names nobody.

Everything else stays inside: names, numbers, dates, UIDs, and all free text, since people write names into it. That
is an allow-list, not de-identification of pixels: see `burned_in`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from medclip.files.dicom_header import DicomHeader

MAX_LENGTH = 64
_PLAIN = re.compile(r"[\x20-\x7e]+")
_CODE = re.compile(r"[A-Z]{1,10}")
"""Codes of one word: a modality, a side, a sex."""
_DEVICE = re.compile(r"(?!.*[0-9]{6})[A-Za-z0-9 ._\-/()]+")
"""Names of devices. Six digits in a row are a serial number or a date."""
_UID = re.compile(r"1\.2\.840\.10008\.[0-9.]+")
"""UIDs of the standard itself; those of makers and patients have other stems."""
_WORDS = frozenset({
    "ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER", "SCOUT", "MOSAIC", "VOLUME", "LABEL",
    "OVERVIEW", "THUMBNAIL", "NONE", "OTHER", "MPR", "PROJECTION", "MIP", "REFORMATTED", "ADC", "FA", "TRACEW", "M",
    "P", "R", "I", "ND", "NORM", "DIS2D", "DIS3D", "FM", "FS", "T1", "T2", "DIFFUSION", "PERFUSION", "RESAMPLED",
    "SINGLEPLANE", "BIPLANE", "STATIC", "DYNAMIC", "GATED", "TOMO", "WHOLE", "BODY", "EMISSION", "TRANSMISSION",
    "LEFT", "RIGHT", "CORONAL", "SAGITTAL", "FREQUENCY", "TEE", "STRESS", "POST_PROCESSED", "POST_CONTRAST",
    "SUBTRACTION", "COLOR",
})  # fmt: skip
"""Values of ImageType that are let through; what else a maker writes there may be anything."""
_PARTS = frozenset({
    "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "AORTA", "ARM", "BRAIN", "BREAST", "CALF", "CAROTID", "CERVIX", "CHEST",
    "CHESTABDOMEN", "CHESTABDPELVIS", "CLAVICLE", "COCCYX", "CSPINE", "EAR", "ELBOW", "ESOPHAGUS", "EXTREMITY", "EYE",
    "FACE", "FEMUR", "FINGER", "FOOT", "FOREARM", "GALLBLADDER", "HAND", "HEAD", "HEADNECK", "HEART", "HIP",
    "HUMERUS", "IAC", "JAW", "KIDNEY", "KNEE", "LEG", "LIVER", "LSPINE", "LUNG", "MANDIBLE", "MAXILLA", "MEDIASTINUM",
    "MOUTH", "NECK", "NOSE", "ORBIT", "OVARY", "PANCREAS", "PELVIS", "PROSTATE", "RECTUM", "RETINA", "RIB", "SACRUM",
    "SCALP", "SHOULDER", "SINUS", "SKIN", "SKULL", "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "TESTIS",
    "THIGH", "THORAX", "THYMUS", "THYROID", "TLSPINE", "TMJ", "TOE", "TSPINE", "UTERUS", "WHOLEBODY", "WRIST",
    "ZYGOMA", "RIBCAGE",
})  # fmt: skip
"""Body parts (PS3.16, annex L): many sites write free text into this element, so only the terms themselves pass."""
_VIEWS = frozenset({
    "AP", "PA", "LL", "RL", "LAT", "LATERAL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "OBLIQUE",
    "AXIAL", "CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "CCID", "MLOID", "FB", "SIO", "ISO", "CV", "AT",
})  # fmt: skip
"""Views of projection X-ray and mammography; ViewPosition is free text on some devices."""
_PHOTOMETRIC = frozenset({
    "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422",
    "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT",
})  # fmt: skip
_MAKERS: Mapping[str, tuple[str, ...]] = {
    "GE": ("ge", "general electric"), "Siemens": ("siemens",), "Philips": ("philips", "marconi", "picker", "adac"),
    "Canon": ("canon", "toshiba"), "Fujifilm": ("fuji", "fujifilm", "sonosite", "hitachi", "aloka"),
    "Hologic": ("hologic", "lorad"), "Agfa": ("agfa",), "Carestream": ("carestream", "kodak", "trex"),
    "Konica Minolta": ("konica", "minolta"), "Samsung": ("samsung", "medison"), "Mindray": ("mindray",),
    "Shimadzu": ("shimadzu",), "United Imaging": ("united imaging", "uih"), "Esaote": ("esaote", "biosound"),
    "IMS Giotto": ("giotto", "ims"), "Planmed": ("planmed", "planmeca"), "Sectra": ("sectra",),
    "Varian": ("varian",), "Swissray": ("swissray",), "Elekta": ("elekta",), "Bruker": ("bruker",),
    "Hamamatsu": ("hamamatsu",),
    "Leica": ("leica", "aperio"), "3DHISTECH": ("3dhistech",), "Roche": ("roche", "ventana"), "Zeiss": ("zeiss",),
    "Heidelberg": ("heidelberg",), "Topcon": ("topcon",), "Nidek": ("nidek",), "Olympus": ("olympus",),
    "Pentax": ("pentax", "hoya"), "Karl Storz": ("storz",), "Mortara": ("mortara",), "Nihon Kohden": ("nihon",),
    "Butterfly": ("butterfly",), "Supersonic": ("supersonic",), "Neusoft": ("neusoft",), "Imatron": ("imatron",),
}  # fmt: skip
"""Makers of devices, and the words by which their names are known. A text that holds none of them is left out: people
write the name of the site, and worse, into this element."""
_INTENTS = frozenset({"FOR PRESENTATION", "FOR PROCESSING"})


@dataclass(frozen=True)
class Allowed:
    """One value that may leave."""

    name: str
    get: Callable[[DicomHeader], Any]
    reason: str
    pattern: re.Pattern[str] = _CODE


def _known(words: frozenset[str], values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value for value in values if value in words)


def _term(words: frozenset[str], value: str) -> str:
    return value if value in words else ""


def _sequence(header: DicomHeader) -> str:
    """Give ScanningSequence codes only: SequenceName is a text of the site's own making on some devices."""
    codes = {"SE", "IR", "GR", "EP", "RM"}
    return " ".join(word for word in header.sequence.split() if word in codes)


def _maker(header: DicomHeader) -> str:
    """Give the maker's name as our list has it; "" for one that is not on it."""
    words = " ".join(re.findall(r"[a-z0-9]+", header.manufacturer.lower()))
    return next((name for name, keys in _MAKERS.items() if any(f" {k} " in f" {words} " for k in keys)), "")


def _model(header: DicomHeader) -> str:
    """Give the device's model, only beside a maker that is known."""
    return header.device_model if _maker(header) else ""


def _number(digits: int, get: Callable[[DicomHeader], float | None]) -> Callable[[DicomHeader], Any]:
    def rounded(header: DicomHeader) -> float | None:
        value = get(header)
        return None if value is None else round(float(value), digits)

    return rounded


ALLOWED: tuple[Allowed, ...] = (
    Allowed("modality", lambda h: h.modality, "kind of device; a code of the standard"),
    Allowed("sop_class", lambda h: h.sop_class, "kind of object; a UID of the standard", _UID),
    Allowed("transfer_syntax", lambda h: h.transfer_syntax, "how pixels are stored; a UID of the standard", _UID),
    Allowed("photometric", lambda h: _term(_PHOTOMETRIC, h.photometric), "how pixels are stored", _PLAIN),
    Allowed("rows", lambda h: h.rows or None, "size of the picture"),
    Allowed("columns", lambda h: h.columns or None, "size of the picture"),
    Allowed("frames", lambda h: h.frames, "size of the object"),
    Allowed("bits_stored", lambda h: h.bits_stored or None, "how pixels are stored"),
    Allowed("view", lambda h: h.view_code or _term(_VIEWS, h.view_position), "a view of our own list"),
    Allowed("view_modifiers", lambda h: h.view_modifiers, "how the picture was taken; our own words", _PLAIN),
    Allowed("laterality", lambda h: h.laterality if h.laterality in ("L", "R", "B") else "", "side; one letter"),
    Allowed("intent", lambda h: _term(_INTENTS, h.presentation_intent), "raw or processed; a code", _PLAIN),
    Allowed("burned_in", lambda h: h.burned_in, "warns of text in the pixels"),
    Allowed("body_part", lambda h: _term(_PARTS, h.body_part), "a term of the standard's own list"),
    Allowed("image_type", lambda h: _known(_WORDS, h.image_type), "terms of the standard's own list", _PLAIN),
    Allowed("sequence", _sequence, "MR sequence; codes of the standard", _PLAIN),
    Allowed("manufacturer", _maker, "maker of the device, one of our list; thousands of patients share it", _PLAIN),
    Allowed("device_model", _model, "model of the device, no serial number; only beside a known maker", _DEVICE),
    Allowed("slice_thickness_mm", _number(3, lambda h: h.slice_thickness_mm), "geometry"),
    Allowed("spacing_mm", lambda h: h.spacing_mm, "geometry"),
    Allowed("kvp", _number(1, lambda h: h.kvp), "exposure; a few values are in use"),
    Allowed("field_strength_t", _number(2, lambda h: h.field_strength_t), "magnet; a few values are in use"),
    Allowed("echo_time_ms", _number(2, lambda h: h.echo_time_ms), "MR sequence"),
    Allowed("repetition_time_ms", _number(1, lambda h: h.repetition_time_ms), "MR sequence"),
    Allowed("b_value", _number(0, lambda h: h.b_value), "MR sequence"),
    Allowed("frame_time_ms", _number(2, lambda h: h.frame_time_ms), "speed of a loop"),
    Allowed("sex", lambda h: h.sex, "half of all people share it"),
    Allowed("age_years", _number(2, lambda h: h.age_years), "90 and above are one group, as HIPAA asks"),
    Allowed("breast_implant", lambda h: h.breast_implant, "changes how a mammogram is read"),
    Allowed("lossy", lambda h: h.lossy or None, "whether pixels were compressed with loss"),
)


def public_values(header: DicomHeader) -> Mapping[str, Any]:
    """Give the header values that may be written into results.

    Returns:
        Name -> text, number, truth value or tuple of them, in the order of `ALLOWED`. Left out is what the header does
        not state, texts longer than 64 characters, and texts with other characters than their pattern allows.
    """
    found = {entry.name: _clean(entry.get(header), entry.pattern) for entry in ALLOWED}
    return {name: value for name, value in found.items() if value is not None}


def _clean(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, tuple):
        cleaned = tuple(item for item in (_clean(item, pattern) for item in value) if item is not None)
        return cleaned or None
    if not isinstance(value, str):
        return value
    good = 0 < len(value) <= MAX_LENGTH and pattern.fullmatch(value)
    return value if good else None
