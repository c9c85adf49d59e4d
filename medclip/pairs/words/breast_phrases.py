"""The phrase banks of mammography reports: openers, nouns, places and impressions.

Of the scale of Mammo-CLIP's banks (400 wordings of a mass on a side, 1,440 of suspicious calcifications), with wordings
of our own. A bank says what its slot says and nothing more: no adjective that the record does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from medclip.text.breast_record import ASYMMETRIES, SIDES, BreastFinding

OPENERS = (
    "There {is} {x} {p}.",
    "{X} {is} seen {p}.",
    "{X} {is} present {p}.",
    "{X} {is} noted {p}.",
    "{X} {is} identified {p}.",
    "{X} {is} visible {p}.",
    "{X} {is} demonstrated {p}.",
    "{X} {is} found {p}.",
    "{X} {is} depicted {p}.",
    "{X} can be seen {p}.",
    "{X} {p}.",
    "{P}, there {is} {x}.",
    "{P}, {x} {is} seen.",
    "{P}, {x} {is} present.",
    "{P}, {x} {is} noted.",
    "The mammogram shows {x} {p}.",
    "The mammogram demonstrates {x} {p}.",
    "The mammogram reveals {x} {p}.",
    "The mammogram depicts {x} {p}.",
    "The image shows {x} {p}.",
    "The image demonstrates {x} {p}.",
    "Findings include {x} {p}.",
    "The findings are those of {x} {p}.",
)
DENIALS = (
    "No {x} {is} seen {p}.",
    "There {is} no {x} {p}.",
    "No {x} {p}.",
    "No evidence of {x} {p}.",
    "There is no evidence of {x} {p}.",
    "No {x} {is} identified {p}.",
    "No {x} {is} present {p}.",
    "No {x} {is} noted {p}.",
    "No {x} {is} visible {p}.",
    "No {x} {is} demonstrated {p}.",
    "No {x} can be seen {p}.",
    "{P}, there {is} no {x}.",
    "{P}, no {x} {is} seen.",
    "{P}, no {x} {is} identified.",
    "The mammogram shows no {x} {p}.",
    "The mammogram demonstrates no {x} {p}.",
    "The image shows no {x} {p}.",
    "The image demonstrates no {x} {p}.",
)
CLEAR = (
    "No suspicious finding {p}.",
    "There is no suspicious finding {p}.",
    "No suspicious finding is seen {p}.",
    "The mammogram shows no suspicious finding {p}.",
    "No abnormality is seen {p}.",
    "There is no abnormality {p}.",
    "No mammographic abnormality {p}.",
    "The mammogram shows no abnormality {p}.",
    "Unremarkable mammogram, without an abnormality {p}.",
)
"""Of a breast without a finding. Those with "suspicious" fit one that was assessed as benign, too."""
NOUNS: Mapping[str, tuple[str, ...]] = {
    "mass": ("mass", "mass lesion", "focal mass"),
    "calcification": ("calcifications", "calcification"),
    "architectural_distortion": (
        "architectural distortion",
        "an area of architectural distortion",
        "distortion of the architecture",
        "distortion of the parenchymal architecture",
    ),
    "asymmetry": ("an asymmetry", "asymmetric tissue", "an area of asymmetry", "an area of asymmetric tissue"),
    "focal_asymmetry": ("a focal asymmetry", "focal asymmetric tissue", "an area of focal asymmetry"),
    "global_asymmetry": ("a global asymmetry", "global asymmetric tissue", "global asymmetry"),
    "lymph_node": ("a suspicious lymph node", "an abnormal lymph node", "a lymph node of suspicious appearance"),
    "nipple_retraction": ("nipple retraction", "retraction of the nipple", "a retracted nipple"),
    "skin_retraction": ("skin retraction", "retraction of the skin", "dimpling of the skin"),
    "skin_thickening": ("skin thickening", "thickening of the skin", "thickened skin"),
}
SUSPICIOUS_CALCIFICATIONS = (
    "suspicious calcifications",
    "suspicious microcalcifications",
    "calcifications of suspicious morphology",
    "microcalcifications of suspicious morphology",
    "calcifications of suspicious appearance",
    "microcalcifications of suspicious appearance",
    "calcifications with suspicious features",
    "microcalcifications with suspicious features",
    "morphologically suspicious calcifications",
    "morphologically suspicious microcalcifications",
    "suspicious-appearing calcifications",
    "suspicious-appearing microcalcifications",
)
BENIGN_CALCIFICATIONS = ("benign calcifications", "typically benign calcifications", "benign-appearing calcifications")
PLAIN_LYMPH_NODES = ("an intramammary lymph node",)
_PLURAL = ("skin", "vascular", "coarse", "popcorn-like", "large rod-like", "round", "rim", "eggshell", "dystrophic")
WITHOUT_MICRO = (*_PLURAL, "suture", "oil cyst", "lucent-centred")
"""Forms of calcifications that are not small."""
VIEWS: Mapping[str, str] = {"CC": "craniocaudal", "MLO": "mediolateral oblique"}
VIEW_KINDS: Mapping[str, str] = {
    "standard": "mammogram",
    "low_energy": "low-energy image of a contrast-enhanced mammogram",
    "subtracted": "subtracted image of a contrast-enhanced mammogram",
    "synthetic": "synthetic mammogram",
}
PATHOLOGY: Mapping[str, tuple[str, ...]] = {
    "malignant": (
        "Final diagnosis: malignancy.",
        "Final diagnosis: breast cancer.",
        "The final diagnosis is malignant.",
        "Outcome: malignant.",
        "Malignancy.",
        "Breast cancer.",
    ),
    "benign": (
        "Final diagnosis: benign.",
        "The final diagnosis is benign.",
        "Outcome: benign.",
        "Benign.",
        "No malignancy.",
        "Final diagnosis: no malignancy.",
    ),
    "normal": (
        "Final diagnosis: normal.",
        "The final diagnosis is a normal breast.",
        "Outcome: normal.",
        "Normal breast.",
        "No malignancy.",
        "Final diagnosis: no malignancy.",
    ),
}
ASSESSMENTS = ("{}.", "Assessment: {}.", "Impression: {}.", "Overall assessment: {}.")
IMPLANTS = ("A breast implant is present {p}.", "There is a breast implant {p}.", "A breast implant is seen {p}.")
_OF_THE_SKIN = ("nipple_retraction", "skin_retraction", "skin_thickening")


@lru_cache(maxsize=4096)
def places_of(kind: str, quadrant: str, depth: str, side: str) -> tuple[str, ...]:
    """Return the ways to say where a finding of a kind lies.

    Args:
        kind: Kind of the finding; "" for the breast as a whole.
        quadrant: Quadrant, one of `QUADRANTS`, or "".
        depth: Depth, one of `DEPTHS`, or "".
        side: Side of the breast, "L", "R" or "".

    Example:
        >>> places_of("mass", "upper outer", "", "L")[0]
        'in the upper outer quadrant of the left breast'
    """
    places = _of_quadrant(quadrant, SIDES[side]) if side else _sideless(quadrant)
    if not quadrant and side:
        places = _of_side(kind, SIDES[side])
    if not depth:
        return places
    depths = (f"at {depth} depth", f"{depth} depth", f"in the {depth} third")
    return tuple(f"{place}, {words}" for place in places for words in depths)


def _of_side(kind: str, side: str) -> tuple[str, ...]:
    general = (f"in the {side} breast", f"on the {side}", f"on the {side} side")
    if kind in _OF_THE_SKIN or kind == "lymph_node":
        return general
    if kind in ASYMMETRIES:  # "asymmetric tissue in the tissue" says it twice
        return (*general, f"within the {side} breast")
    tissue = (f"in the {side} breast tissue", f"in the tissue of the {side} breast")
    return (*general, f"within the {side} breast", *tissue)


def _of_quadrant(quadrant: str, side: str) -> tuple[str, ...]:
    if quadrant == "axilla":
        return (f"in the {side} axilla",)
    if quadrant == "axillary tail":
        return (f"in the axillary tail of the {side} breast", f"in the {side} axillary tail")
    if quadrant == "subareolar":
        return (f"in the subareolar region of the {side} breast", f"in the {side} subareolar region")
    if " " in quadrant:
        return (
            f"in the {quadrant} quadrant of the {side} breast",
            f"in the {quadrant} {side} breast",
            f"in the {quadrant} quadrant on the {side}",
        )
    part = f"in the {quadrant} part of the {side} breast"
    half = () if quadrant == "central" else (f"in the {quadrant} half of the {side} breast",)
    return (part, f"in the {quadrant} {side} breast", *half)


def _sideless(quadrant: str) -> tuple[str, ...]:
    if not quadrant:
        return ("in the breast", "within the breast")
    if quadrant.startswith("axill"):
        return (f"in the {quadrant}",)
    if quadrant == "subareolar":
        return ("in the subareolar region",)
    return (f"in the {quadrant} quadrant",) if " " in quadrant else (f"in the {quadrant} part of the breast",)


@lru_cache(maxsize=4096)
def noun_phrases(finding: BreastFinding) -> tuple[str, ...]:
    """Return the ways to name a finding with all that is known of its look, with an article where one belongs.

    Example:
        >>> noun_phrases(BreastFinding("mass", shape="irregular", margins=("spiculated",), size_mm=12))[0]
        'a 12 mm irregular mass with spiculated margins'
    """
    if finding.kind == "mass":
        return tuple(dict.fromkeys(_article(p) for p in _masses(finding)))
    if finding.kind == "calcification":
        return tuple(dict.fromkeys(_calcifications(finding)))
    if finding.kind == "lymph_node" and finding.suspicious is False:
        return PLAIN_LYMPH_NODES
    return NOUNS[finding.kind]


def denied_nouns(kind: str) -> tuple[str, ...]:
    """Return the ways to name a kind of finding behind "no": of calcifications the suspicious ones, which are those
    that readers look for.
    """
    if kind == "calcification":
        return SUSPICIOUS_CALCIFICATIONS
    bare = (p.removeprefix("an ").removeprefix("a ") for p in NOUNS[kind] if not p.startswith("an area of"))
    return tuple(dict.fromkeys(bare))


def _masses(finding: BreastFinding) -> list[str]:
    size = "" if finding.size_mm is None else f"{finding.size_mm:g} mm"
    density = {"high density": "high-density", "equal density": "equal-density", "low density": "low-density"}.get(
        finding.density, finding.density
    )
    margins = " and ".join(finding.margins)
    phrases = []
    for noun in NOUNS["mass"]:
        plain = _joined(density, finding.shape, noun)
        looks = [f"{plain} with {margins} margins"] if margins else [plain]
        if len(finding.margins) == 1:
            looks += [f"{plain} with {_article(f'{margins} margin')}", _joined(density, finding.shape, margins, noun)]
        for look in looks:
            phrases.append(_joined(size, look))
            if size and " with " not in look:  # "with a spiculated margin measuring 12 mm" measures the margin
                phrases.append(f"{look} measuring {size}")
    return phrases


def _calcifications(finding: BreastFinding) -> list[str]:
    forms, distribution = _listed(finding.forms), finding.distribution
    if not forms and not distribution:
        if finding.suspicious is None:
            return list(NOUNS["calcification"])
        return list(SUSPICIOUS_CALCIFICATIONS if finding.suspicious else BENIGN_CALCIFICATIONS)
    small = not any(form in WITHOUT_MICRO for form in finding.forms) and bool(finding.suspicious)
    nouns = ("calcifications", "microcalcifications") if small else ("calcifications",)
    if "milk of calcium" in finding.forms:
        others = _listed([form for form in finding.forms if form != "milk of calcium"])
        heads = [_joined(others, f"{noun} of the milk-of-calcium type") for noun in nouns]
    elif "oil cyst" in finding.forms:
        others = _listed([form for form in finding.forms if form != "oil cyst"])
        heads = [_joined(others, f"{noun} of the oil-cyst type") for noun in nouns]
    else:
        heads = [_joined(forms, noun) for noun in nouns]
    if not distribution:
        return heads
    before = [_joined(distribution, head) for head in heads]
    return [*before, *(f"{head} in a {distribution} distribution" for head in heads)]


def _listed(words: tuple[str, ...] | list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 2 else list(words)) if words else ""


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)


def _article(phrase: str) -> str:
    number = phrase.split()[0]
    vowel = phrase[0] in "aeiou" or number in ("11", "18") or number.startswith("8")
    return f"{'an' if vowel else 'a'} {phrase}"
