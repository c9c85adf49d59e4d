"""The header values that may leave a file: one table, each with the reason why it names nobody.

Everything else stays inside: names, numbers, dates, UIDs, and all free text, since people write names into it. That
is an allow-list, not de-identification of pixels: see `burned_in`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from medclip.dicom.codecs.transfer_syntax import SYNTAXES
from medclip.dicom.header.read import DicomHeader
from medclip.dicom.header.safe_words import IMAGE_TYPES, INTENTS, MAKERS, MODALITIES, MODELS, PARTS, PHOTOMETRIC, VIEWS

MAX_LENGTH = 64
MAX_AGE_YEARS = 90.0
"""Older people are few, so that the number would name them; HIPAA's safe harbour makes them one group as well."""
_PLAIN = re.compile(r"[\x20-\x7e]+")
_CODE = re.compile(r"[A-Z]{1,10}")
"""Codes of one word: a modality, a side, a sex."""
_SEQUENCE = re.compile(r"\*?[a-z]{2,5}[123]d\d{0,2}(_\d{1,3}[a-z]{0,2})?")
"""Names such as *tse2d1_11 and ep2d: a kind of echo, 1 to 3 dimensions, echoes. No name of a person looks like it."""
_UID = re.compile(r"1\.2\.840\.10008\.[0-9.]+")


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
    """Return ScanningSequence codes, and a SequenceName in the form that scanners make; others are free text."""
    codes = {"SE", "IR", "GR", "EP", "RM"}
    return " ".join(word for word in header.sequence.split() if word in codes or _SEQUENCE.fullmatch(word))


def stated_view(header: DicomHeader) -> str:
    """Return the view that ViewCodeSequence or ViewPosition states, if it is one of the list; "" for all else."""
    return header.view_code or _term(VIEWS, header.view_position)


@lru_cache(maxsize=1024)
def _maker(text: str) -> str:
    """Return the maker's name as our list has it; "" for one that is not on it."""
    words = " ".join(re.findall(r"[a-z0-9]+", text.lower()))
    return next((name for name, keys in MAKERS.items() if any(f" {k} " in f" {words} " for k in keys)), "")


@lru_cache(maxsize=1024)
def _model(maker: str, model: str) -> str:
    """Return the known words and numbers of a device's model, only beside a maker that is known."""
    if not _maker(maker):
        return ""
    words = [word for word in re.findall(r"[A-Za-z0-9]+", model) if _of_device(word.lower())]
    numbers = [word for word in words if word.isdigit()]
    # Several numbers are a date, or a patient's number in parts.
    return " ".join(word for word in words if len(numbers) < 2 or not word.isdigit())


def _of_device(word: str) -> bool:
    """Return whether a word is one of our list, or a number of at most three digits with letters that name nobody.

    Four digits may be a year, and three letters a name.
    """
    numbered = re.search(r"[0-9]", word) and len(re.findall(r"[0-9]", word)) <= 3
    letters = re.findall(r"[a-z]+", word)
    return word in MODELS or bool(numbered and all(part in MODELS or len(part) <= 2 for part in letters))


@lru_cache(maxsize=1024)
def _standard_uid(uid: str) -> str:
    """Return a UID that the standard itself registers; those of makers and patients are not among them."""
    from pydicom.uid import UID

    known = _UID.fullmatch(uid) is not None and UID(uid).name != uid  # one that is not registered is its own name
    return uid if known else ""


def _number(digits: int, most: float, get: Callable[[DicomHeader], float | None]) -> Callable[[DicomHeader], Any]:
    """Round, so that no long number stays; None for what cannot be measured and so may be anything."""

    def rounded(header: DicomHeader) -> float | None:
        value = get(header)
        return None if value is None or not 0 <= value <= most else round(float(value), digits)

    return rounded


ALLOWED: tuple[Allowed, ...] = (
    Allowed("modality", lambda h: _term(MODALITIES, h.modality), "kind of device; a code of the standard"),
    Allowed("sop_class", lambda h: _standard_uid(h.sop_class), "kind of object; a UID of the standard", _UID),
    Allowed(
        "transfer_syntax",
        lambda h: _term(SYNTAXES, h.transfer_syntax),
        "how pixels are stored; a UID of the standard",
        _UID,
    ),
    Allowed("photometric", lambda h: _term(PHOTOMETRIC, h.photometric), "how pixels are stored", _PLAIN),
    Allowed("rows", lambda h: h.rows or None, "size of the picture"),
    Allowed("columns", lambda h: h.columns or None, "size of the picture"),
    Allowed("frames", lambda h: h.frames, "size of the object"),
    Allowed("bits_stored", lambda h: h.bits_stored or None, "how pixels are stored"),
    Allowed("view", stated_view, "a view of our own list"),
    Allowed("view_modifiers", lambda h: h.view_modifiers, "how the picture was taken; our own words", _PLAIN),
    Allowed("laterality", lambda h: h.laterality if h.laterality in ("L", "R", "B") else "", "side; one letter"),
    Allowed("intent", lambda h: _term(INTENTS, h.presentation_intent), "raw or processed; a code", _PLAIN),
    Allowed("burned_in", lambda h: h.burned_in, "warns of text in the pixels"),
    Allowed("body_part", lambda h: _term(PARTS, h.body_part), "a term of the standard's own list"),
    Allowed("image_type", lambda h: _known(IMAGE_TYPES, h.image_type), "terms of the standard's own list", _PLAIN),
    Allowed("sequence", _sequence, "MR sequence; codes of the standard", _PLAIN),
    Allowed("manufacturer", lambda h: _maker(h.manufacturer), "maker, one of our list; thousands share it", _PLAIN),
    Allowed("device_model", lambda h: _model(h.manufacturer, h.device_model), "model, in words of our list", _PLAIN),
    Allowed("slice_thickness_mm", _number(3, 1000, lambda h: h.slice_thickness_mm), "geometry"),
    Allowed("spacing_mm", lambda h: h.spacing_mm, "geometry"),
    Allowed("kvp", _number(1, 1000, lambda h: h.kvp), "exposure; a few values are in use"),
    Allowed("field_strength_t", _number(2, 30, lambda h: h.field_strength_t), "magnet; a few values are in use"),
    Allowed("echo_time_ms", _number(2, 10_000, lambda h: h.echo_time_ms), "MR sequence"),
    Allowed("repetition_time_ms", _number(1, 100_000, lambda h: h.repetition_time_ms), "MR sequence"),
    Allowed("b_value", _number(0, 100_000, lambda h: h.b_value), "MR sequence"),
    Allowed("frame_time_ms", _number(2, 100_000, lambda h: h.frame_time_ms), "speed of a loop"),
    Allowed("sex", lambda h: h.sex, "half of all people share it"),
    Allowed("age_years", _number(2, MAX_AGE_YEARS, lambda h: h.age_years), "90 and above are one group"),
    Allowed("breast_implant", lambda h: h.breast_implant, "changes how a mammogram is read"),
    Allowed("lossy", lambda h: h.lossy or None, "whether pixels were compressed with loss"),
)


def public_values(header: DicomHeader) -> Mapping[str, Any]:
    """Return the header values that may be written into results.

    Returns:
        Name -> text, number, truth value or tuple of them, in the order of `ALLOWED`. Left out is what the header does
        not state, texts longer than 64 characters, and texts with other characters than their pattern allows.
    """
    values = {entry.name: _clean(entry.get(header), entry.pattern) for entry in ALLOWED}
    return {name: value for name, value in values.items() if value is not None}


def _clean(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, tuple):
        cleaned = tuple(item for item in (_clean(item, pattern) for item in value) if item is not None)
        return cleaned or None
    if not isinstance(value, str):
        return value
    good = 0 < len(value) <= MAX_LENGTH and pattern.fullmatch(value)
    return value if good else None
