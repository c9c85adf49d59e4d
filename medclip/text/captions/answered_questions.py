"""Questions about an image with their answers, turned into statements that a caption can quote. Word lists, no model.

Sets such as VQA-RAD hold what a radiologist knows of an image as questions and answers. "Is the heart enlarged? No"
says as much as "the heart is not enlarged", and a text tower learns from statements.
"""

from __future__ import annotations

import re

_PLURAL = re.compile(r"\b(is|was|does)\s*/\s*(are|were|do)\b", re.I)
_TAIL = re.compile(r"\s*(?:-\s*yes\s*/\s*no|[?.:]+)\s*$", re.I)
_ASIDE = re.compile(
    r",?\s*\b(?:(?:as )?(?:seen |shown |depicted |displayed )?(?:in|on|from) (?:this|the|the above) "
    r"(?:image|picture|film|scan|photo|slice|ct|mri|x-?ray|cxr|radiograph|study)(?: above)?|in this patient|above"
    r"|in the patient)(?=$|[?.,\s])",
    re.I,
)
_PATIENT = re.compile(r"\b(?:this|the) patient'?s\b", re.I)
_TALK = re.compile(
    r"\b(?:anything|something|you|why|how|should|could|would|likely|diagnos\w+|patient|history|symptoms?|he|she)\b"
)
_YES, _NO = frozenset(("yes", "yes.", "y", "true")), frozenset(("no", "no.", "n", "false"))
_THERE = re.compile(r"^(is|are|was|were) there (?!no\b)(?:any |an? )?(?:evidence of |signs? of )?(?:any |an? )?(.+)$")
_THIS = re.compile(r"^(is|was) (this|it) ((?:an?|the|in|from|of) .+)$")
_BE = re.compile(r"^(is|are|was|were) (?!there\b)(.+)$")
_SEE = re.compile(
    r"^(?:(?:can|do) you (?:see|appreciate|identify|visuali[sz]e)|does this image (?:show|depict)) "
    r"(?:any |an? )?(?:evidence of )?(?:an? )?(.+)$"
)
_WHERE = re.compile(r"^where (is|are) (.+?)(?: located| found| seen)?$")
_WHAT_IS = re.compile(r"^(?:what|which) (is|are|was|were) (the .+)(?<! of)$")
_WHICH = re.compile(r"^(?:which|what) (?:\w+ ){1,4}?(is|are) (the .+?) (?:located |seen |found )?(?:in|on|at)$")
_PLURAL_HEAD = re.compile(r"\w[^siu]s$")
_PREPOSITIONS = re.compile(r"\b(?:in|on|at|of|within|near|under|above|below|outside|around|present|visible|seen)\b")
_MODALITY = re.compile(r"\b(?:modality|(?:kind|type|sort) of (?:image|scan|imaging|study|medical))", re.I)
_PLANE = re.compile(r"\b(?:plane|cross[- ]section|orientation)\b", re.I)
_ORGAN = re.compile(r"\b(?:organ(?: system)?|part of the body|body part)\b", re.I)
_PREDICATES = frozenset(
    (
        "normal",
        "abnormal",
        "present",
        "absent",
        "visible",
        "intact",
        "clear",
        "large",
        "small",
        "big",
        "midline",
        "symmetric",
        "symmetrical",
        "asymmetric",
        "bilateral",
        "unilateral",
        "patent",
        "sharp",
        "smooth",
        "irregular",
        "homogeneous",
        "heterogeneous",
        "hyperdense",
        "hypodense",
        "hyperintense",
        "hypointense",
        "isodense",
        "isointense",
        "dense",
        "cystic",
        "solid",
        "acute",
        "chronic",
        "benign",
        "malignant",
        "singular",
        "multiple",
        "diffuse",
        "focal",
        "calcified",
        "thick",
        "thin",
        "wide",
        "narrow",
        "open",
        "flat",
        "bright",
        "dark",
        "radiolucent",
        "radiopaque",
        "in",
        "on",
        "at",
        "within",
        "near",
        "above",
        "below",
        "under",
        "behind",
        "along",
        "throughout",
        "from",
        "a",
        "an",
        "too",
        "very",
        "evident",
        "homogenous",
        "heterogenous",
        "identical",
        "suspicious",
    )
)
_PARTICIPLE = re.compile(r"(?:[^e]ed|ing|own|een|ly)$")
_DETERMINERS = frozenset(("the", "a", "an", "any", "this", "these", "both", "all"))
_MOST_WORDS, _SHORT_WORDS = 24, 4


def statement_of(question: str, answer: str) -> str | None:
    """Turn a question and its answer into a statement.

    Args:
        question: Question about one image.
        answer: "yes" or "no", or a word or two.

    Returns:
        One statement in lower case without a full stop; None where the pair has a form that is not known, speaks of a
        person, or asks for an opinion: what cannot be turned around is left out.

    Example:
        >>> statement_of("Is the heart enlarged?", "No"), statement_of("What is the shape of the mass?", "Elliptical")
        ('the heart is not enlarged', 'the shape of the mass is elliptical')
    """
    asked, replied = _plain(question), " ".join(answer.lower().split()).strip(" .")
    if not asked or not replied or "?" in asked + replied or _TALK.search(_SEE.sub("", asked)) or _TALK.search(replied):
        return None
    if replied in _YES or replied in _NO:
        statement = _closed(asked, replied in _YES)
    else:
        statement = None if " or " in asked else _open(asked, replied)
    if statement is None or len(statement.split()) > _MOST_WORDS:
        return None
    return " ".join(statement.split())


def _plain(question: str) -> str:
    text = _PLURAL.sub(lambda match: match[1], " ".join(question.split()))
    before = None
    while before != text:
        before, text = text, _ASIDE.sub("", _TAIL.sub("", text))
    return _PATIENT.sub("the", text).strip().lower()


def _closed(asked: str, holds: bool) -> str | None:
    if " or " in asked:  # "on the left or right? yes" says nothing
        return None
    if match := _THERE.match(asked) or _SEE.match(asked):
        what = match[match.lastindex or 1]
        if what.startswith(("is ", "are ")):
            return None
        head = _PREPOSITIONS.split(what)[0].strip()
        return f"there {'are' if _PLURAL_HEAD.search(head) else 'is'} {'' if holds else 'no '}{what}"
    if match := _THIS.match(asked):
        return f"this {match[1]} {'' if holds else 'not '}{match[3]}"
    if match := _BE.match(asked):
        subject, predicate = _divided(match[2].split())
        if subject and predicate:
            return f"{subject} {match[1]} {'' if holds else 'not '}{predicate}"
    return None


def _divided(words: list[str]) -> tuple[str, str]:
    """Divide "the heart enlarged" where what is stated of the subject begins; "" where that cannot be told."""
    first = 2 if words and words[0] in _DETERMINERS - {"both", "all"} else 1
    for place in range(first, len(words)):
        of_kind = words[place] == "of" and words[place + 1 : place + 2] in (["normal"], ["abnormal"])
        if of_kind or words[place] in _PREDICATES or _PARTICIPLE.search(words[place]):
            return " ".join(words[:place]), " ".join(words[place:])
    return "", ""


def _open(asked: str, replied: str) -> str | None:
    if _MODALITY.search(asked):
        return f"the image is {_with_article(replied)}"
    if _PLANE.search(asked) and len(replied.split()) < _SHORT_WORDS:
        return f"the plane is {replied.removesuffix(' plane')}"
    if _ORGAN.search(asked):
        return f"the image shows {replied}"
    if match := _WHERE.match(asked):
        return f"{match[2]} {match[1]} located: {replied}"
    if match := _WHICH.match(asked):
        return f"{match[2]} {match[1]} located: {replied}"
    if match := _WHAT_IS.match(asked):
        return f"{match[2]} {match[1]} {replied}"
    return None


def _with_article(noun: str) -> str:
    if noun.split()[0] in _DETERMINERS:
        return noun
    return f"{'an' if noun[0] in 'aeiou' or noun.startswith(('mr', 'x')) else 'a'} {noun}"
