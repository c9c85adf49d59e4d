"""The words that checks go by: neutral ones, doubts and denials, and those that state a fact of an image or a person.

Neutral words state nothing by themselves. Words of facts, by kind, a caption may say only if its record does; and some
prompts have words that name an image and nothing else: "a brain MRI", "the lungs", "a fundus photograph".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache

from medclip.modalities import MODALITIES
from medclip.text.free_text import KINDS
from medclip.text.vocabulary.load import MODALITY_TASK, REGION_TASK, load_task

_NEUTRAL = """
a an the this that these those it its here there which what where
is are be being was were has have can and of on in with as
but however although also together alongside
show shows showing shown see seen visible present presence demonstrate demonstrates demonstrating demonstrated
reveal reveals revealing revealed display displays displaying displayed depict depicts depicting depicted
contain contains containing include includes including indicate indicates indicating
noted identified found observed detected recognised recognises recognized made out
evidence sign signs finding findings feature features appearance appearances consistent keeping
image images picture pictures examination study case view patient
reading read follows answer gives
"""
NEUTRAL = frozenset(_NEUTRAL.split())
"""Function words and words of reporting. No word that denies, doubts, measures, places or names a thing is among
them."""
REPORTING = ("one recognises", "one sees")
"""In two words, because "one" alone counts."""
PUNCTUATION = frozenset(".,;:!()-–—")
HEDGES = re.compile(
    r"\b(?:lack(?:s|ed|ing)?|(?:un)?likely|doubt\w*|hardly|barely|scarcely|possib\w+|probab\w+|may|might|could|would|should"
    r"|suspect\w*|suspicio\w+|suggest\w*|question\w*|cannot|can't|rul(?:e|es|ed|ing) out|exclud\w+|not only|dismiss\w*"
    r"|resolv\w+|perhaps|maybe|seem\w*|appears?|apparent\w*|presum\w+|differential|versus|vs|rather|instead|almost|if)\b"
    r"|\?"
)
"""What leaves open whether a thing is there, or says that it is not without the plain words for it."""
DENIALS = re.compile(
    r"\b(?:no|not|without|nor|neither|none|never|absent|absence|free|excluded|negative|nothing|never|n't)\b"
)

_THE_LIKE = r"(?:(?:a|an|any|the|evidence|signs?|findings?|features?|indication|of|visible)\s+)*"
_MORE = r"(?:(?:\s*,\s*(?:or\s+|nor\s+)?|\s+or\s+|\s+nor\s+)" + _THE_LIKE + r"N)*"
DENIED = re.compile(
    r"\b(?:no|without|free\s+of|absence\s+of|not(?:\s+(?:show|demonstrate|reveal|display|contain))?)\s+"
    + _THE_LIKE
    + r"N"
    + _MORE
    + r"|N(?:(?:\s*,\s*|\s+and\s+|\s+or\s+)(?:(?:a|an|the)\s+)?N)*\s+(?:is|are)\s+"
    r"(?:absent|not\s+(?:seen|present|visible|identified|detected|found|observed|demonstrated))\b"
)
"""Every form in which N (a thing that the record denies) may be denied; the forms stand in clauses of their own."""
TURN = re.compile(r"\b(?:but|however|although|with|showing|demonstrating|revealing)\b")
"""Words behind which a denial no longer reaches."""


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


Pair = tuple[str, str]
"""A task and a class of it."""
IMAGE_TASKS = (MODALITY_TASK, REGION_TASK)
"""Tasks about what an image is of, not about what is found in it."""
_QUALIFIERS = re.compile(
    r"\b(?:an?|the|one|of|in|on|from|by|with|and|or|this|is|shows?|showing|colou?r|digital|plain|conventional|printed"
    r"|clinical|human|patients?'?s?|woman'?s?|man'?s?|person'?s?)\b"
)
_IMAGES = re.compile(
    r"\b(?:images?|imaging|pictures?|photographs?|photos?|photography|scans?|slices?|sections?|views?|films?|frames?"
    r"|sheets?|recordings?|traces?|(?:(?:12|twelve)[- ])?leads?|examinations?|cross-sectional|axial|coronal|sagittal"
    r"|radiolog(?:y|ical)|medical|breasts?|retinas?|retinal|eyes?|skin|tissue|organs?|cavity|system|structures?)\b"
)
"""Words that may stand in the name of an image and are no finding: the organs are those of one modality."""


def image_classes(texts: Collection[str]) -> frozenset[Pair]:
    """Return the modalities and body regions that texts name, where they name nothing beside them.

    Of "a chest X-ray with an enlarged heart" the figure of the modality says nothing: so it names none.

    Example:
        >>> sorted(image_classes(["a brain MRI"]))
        [('body_region', 'head'), ('modality', 'mri')]
        >>> image_classes(["a spaceship"]), image_classes(["a brain MRI with a glioma"])
        (frozenset(), frozenset())
    """
    pairs: set[Pair] = set()
    for text in texts:
        bare = _bare(text)
        pairs.update((MODALITY_TASK, str(name)) for name, words in modality_words().items() if words.search(bare))
        pairs.update((REGION_TASK, name) for name, words in BODY_REGIONS.items() if words.search(bare))
        for name, wording in _image_wordings():
            if place := re.search(rf"\b{re.escape(wording)}\b", bare):
                pairs.add((MODALITY_TASK, name))
                bare = f"{bare[: place.start()]} {bare[place.end() :]}"
        for words in (*modality_words().values(), *BODY_REGIONS.values(), _IMAGES):
            bare = words.sub(" ", bare)
        if re.search(r"\w", bare):
            return frozenset()
    return frozenset(pairs)


def _bare(text: str) -> str:
    """Return a text in lower case without words such as "a", "of the" and "colour"."""
    return " ".join(_QUALIFIERS.sub(" ", text.lower()).split())


@cache
def _image_wordings() -> tuple[Pair, ...]:
    """Return modalities with the ways to say them that are two words or more, the longest first."""
    wordings = [(c.name, _bare(text)) for c in load_task(MODALITY_TASK).classes for text in c.prompts]
    return tuple(sorted((one for one in wordings if " " in one[1]), key=lambda one: (-len(one[1]), one)))
