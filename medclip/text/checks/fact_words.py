"""Words that state a fact of an image or a person, by kind: which captions may say only if the record does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from medclip.modalities import MODALITIES
from medclip.text.free_text.non_visual import KINDS

FACTS: Mapping[str, re.Pattern[str]] = {
    "age": re.compile(
        r"\b(?:elderly|older|aged|middle-aged|young\w*|adults?|infants?|bab(?:y|ies)|newborns?|neonat\w+|child\w*"
        r"|toddlers?|teenage\w*|adolescents?|pa?ediatric|geriatric|(?:twen|thir|for|fif|six|seven|eigh|nine)ties"
        r"|years?|months? old)\b"
    ),
    "sex": re.compile(
        r"\b(?:man|men|woman|women|(?:fe)?males?|boys?|girls?|gentlem[ae]n|lad(?:y|ies)|he|she|him|his|hers?|pregnan\w+)\b"
    ),
    "view": re.compile(
        r"\b(?:a\.?p\.?|p\.?a\.?|anteroposterior|posteroanterior|portable|bedside|upright|supine|standing|lateral|profile"
        r"|oblique|decubitus|cc|mlo|cranio-?caudal|mediolateral\w*|lateromedial|axial|coronal|sagittal)\b"
    ),
    "side": re.compile(
        r"\b(?:left|right|bilateral\w*|unilateral\w*|both|either|bibasilar|biapical|(?:ipsi|contra)lateral)\b"
    ),
    "place": re.compile(
        r"\b(?:(?:upper|middle|lower|mid) (?:lobes?|zones?|lungs?|quadrants?|fields?|poles?)|lob(?:e|es|ar)"
        r"|lingul\w+|apex|apices|apical|bas(?:al|ilar|es?)|perihilar|retrocardiac|quadrants?|o'clock|subareolar|peripheral\w*|proximal"
        r"|distal|anterior|posterior|medial|inferior|superior|frontal|parietal|temporal|occipital|cerebell\w+|brainstem)\b"
    ),
    "degree": re.compile(
        r"\b(?:mild\w*|moderate\w*|severe\w*|massive|extensive\w*|large|small|tiny|huge|minimal\w*|minor|advanced|early|late"
        r"|acute\w*|chronic\w*|subacute|stages?|grades?|marked\w*|subtle|slight\w*|diffuse\w*|focal|patchy|aggressive|borderline)\b"
    ),
    "count": re.compile(
        r"\b(?:two|three|four|five|six|seven|eight|nine|ten|several|multiple|numerous|many|solitary|single)\b"
    ),
    "measurement": re.compile(
        r"\d\s*(?:mm|cm|[µu]m|microns?|ml|cc|hu|mmhg|%|kg|degrees?|dioptres?|bpm|ms|mv|hz)(?![a-z])"
    ),
    "date": KINDS["date"],
    "number": re.compile(r"\d"),
    "history": KINDS["comparison"],
    "talk": KINDS["talk"],
    "person": re.compile(r"\b(?:dr|mr|mrs|ms|prof)\b|\bpatient'?s? (?:named?|id)\b|\bhospital\b"),
}
_OTHER = "other"
_OTHER_MODALITIES = r"\b(?:pet|scintigra\w+|spect|fluoroscop\w+|angiogra\w+|tomogra\w+)\b"
BODY_REGIONS: Mapping[str, re.Pattern[str]] = {
    "head": re.compile(
        r"\b(?:heads?|brains?|skulls?|crani(?:al|um)|intracranial|cerebr(?:al|um)|orbits?|faces?|necks?)\b"
    ),
    "thorax": re.compile(r"\b(?:chests?|thora(?:x|cic)|lungs?|mediastin(?:um|al)|hearts?|rib ?cages?|ribs?)\b"),
    "abdomen": re.compile(r"\b(?:abdom(?:en|inal)|livers?|spleens?|bowels?|stomachs?|pancreas)\b"),
    "pelvis": re.compile(r"\b(?:pelv(?:is|ic)|bladders?|kidneys?|(?:genito)?urinary tracts?)\b"),
    "musculoskeletal": re.compile(
        r"\b(?:spin(?:e|es|al)|vertebra[el]?|limbs?|bones?|muscles?|joints?|musculoskeletal|arms?|legs?|hands?|feet|foot"
        r"|knees?|shoulders?|hips?|elbows?|wrists?|ankles?)\b"
    ),
}
"""Words that name a class of the task body_region, and say nothing of what is seen there."""


def modality_words() -> Mapping[str, re.Pattern[str]]:
    """Return what finds the words of each modality, and of "other" ones, in a lower-case text."""
    return _modality_words(tuple(MODALITIES))


def any_modality_words() -> re.Pattern[str]:
    """Return what finds the words of any modality in a lower-case text."""
    return _joined(tuple(MODALITIES))


def also_said_of(modality: str) -> tuple[str, ...]:
    """Return the modalities, or "other", whose words fit a modality too: a mammogram is an X-ray of the breast."""
    return MODALITIES[modality].also_called if modality in MODALITIES else ()


@cache
def _modality_words(names: tuple[str, ...]) -> Mapping[str, re.Pattern[str]]:
    words = {name: MODALITIES[name].text_words for name in names} | {_OTHER: _OTHER_MODALITIES}
    return {name: re.compile(text) for name, text in words.items() if text}


@cache
def _joined(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(words.pattern for words in _modality_words(names).values()))
