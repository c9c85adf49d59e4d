"""The words of open sets as captions: findings, descriptors and answers, of which none names where it is from.

A sentence is quoted only if the image can show what it says (`medclip.text.free_text`) and no word in it
betrays the source: a text tower that knows the source by a word teaches it to the image tower, and a finding that comes
from one source is then found by its source.

Sets such as VQA-RAD hold what a radiologist knows of an image as questions and answers. "Is the heart enlarged? No"
says as much as "the heart is not enlarged", and a text tower learns from statements: word lists make them, no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from medclip.text.free_text import aside, sentences

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
_PREDICATE_WORDS = """
normal abnormal present absent visible intact clear large small big midline symmetric symmetrical asymmetric bilateral
unilateral patent sharp smooth irregular homogeneous heterogeneous hyperdense hypodense hyperintense hypointense
isodense isointense dense cystic solid acute chronic benign malignant singular multiple diffuse focal calcified thick
thin wide narrow open flat bright dark radiolucent radiopaque in on at within near above below under behind along
throughout from a an too very evident homogenous heterogenous identical suspicious
"""
_PREDICATES = frozenset(_PREDICATE_WORDS.split())
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
    plain_question, replied = _plain(question), " ".join(answer.lower().split()).strip(" .")
    if (
        not plain_question
        or not replied
        or "?" in plain_question + replied
        or _TALK.search(_SEE.sub("", plain_question))
        or _TALK.search(replied)
    ):
        return None
    if replied in _YES or replied in _NO:
        statement = _closed(plain_question, replied in _YES)
    else:
        statement = None if " or " in plain_question else _open(plain_question, replied)
    if statement is None or len(statement.split()) > _MOST_WORDS:
        return None
    return " ".join(statement.split())


def _plain(question: str) -> str:
    text = _PLURAL.sub(lambda match: match[1], " ".join(question.split()))
    before = None
    while before != text:
        before, text = text, _ASIDE.sub("", _TAIL.sub("", text))
    return _PATIENT.sub("the", text).strip().lower()


def _closed(question: str, holds: bool) -> str | None:
    if " or " in question:  # "on the left or right? yes" says nothing
        return None
    if match := _THERE.match(question) or _SEE.match(question):
        what = match[match.lastindex or 1]
        if what.startswith(("is ", "are ")):
            return None
        head = _PREPOSITIONS.split(what)[0].strip()
        return f"there {'are' if _PLURAL_HEAD.search(head) else 'is'} {'' if holds else 'no '}{what}"
    if match := _THIS.match(question):
        return f"this {match[1]} {'' if holds else 'not '}{match[3]}"
    if match := _BE.match(question):
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


def _open(question: str, replied: str) -> str | None:
    if _MODALITY.search(question):
        return f"the image is {_with_article(replied)}"
    if _PLANE.search(question) and len(replied.split()) < _SHORT_WORDS:
        return f"the plane is {replied.removesuffix(' plane')}"
    if _ORGAN.search(question):
        return f"the image shows {replied}"
    if match := _WHERE.match(question):
        return f"{match[2]} {match[1]} located: {replied}"
    if match := _WHICH.match(question):
        return f"{match[2]} {match[1]} located: {replied}"
    if match := _WHAT_IS.match(question):
        return f"{match[2]} {match[1]} {replied}"
    return None


def _with_article(noun: str) -> str:
    if noun.split()[0] in _DETERMINERS:
        return noun
    return f"{'an' if noun[0] in 'aeiou' or noun.startswith(('mr', 'x')) else 'a'} {noun}"


GIVE_AWAY: Mapping[str, str] = {
    "": r"https?://|www\.|\bdoi\b|\bcourtesy\b|\bcredits?\b|\bcase of\b|\br?id: ?\d|\bfig(?:ure|\.)? ?\d|\barrow\w*"
    r"|\bet al\b|\bjournal\b|\bhospital\b|\buniversity\b|\bclinic\b|\binstitut\w+|\bdata ?(?:set|base)\b|\barchive\b"
    r"|\b(?:images?|panel) \(?[a-h1-9]\)?(?=$|[ .,:;])|\bsee captions?\b|\bthis (?:publication|paper|article)\b",
    "places": r"\b(?:wuhan|hubei|china|chinese|hanoi|vietnam\w*|ital(?:y|ian)|iran\w*|spain|spanish|korea\w*|taiwan\w*"
    r"|brazil\w*|pakistan\w*|egypt\w*|german\w*|poland|polish|brit\w+|america\w*|bethesda|travel\w*|flown|cruise)\b",
    "makers": r"\b(?:ge|siemens|philips|toshiba|lumisys|howtek|logiq|aplio|u-systems|hologic|schiller)\b",
    "nih_cxr": r"\b(?:nih|chest ?x-?ray ?14|chestx-?ray\w*)\b",
    "covid_cxr": r"\bradiopaedia\b|\beurorad\b|\bsirm\b|\bauntminnie\b|\bcohen\b",
    "csdi_fundus": r"\bcsdi\b|\bcrystalline density\b",
    "mini_mias": r"\bmias\b|\bsuckling\b|\bmammographic image analysis\b",
    "ddsm": r"\b(?:cbis|ddsm)\b",
    "brain_mri": r"\bkaggle\b|\bbhuvaji\b",
    "glas_colon": r"\bglas\b|\bwarwick\b",
    "isic2017": r"\bisic\b|\bham ?10000\b",
    "bus_bra": r"\bbus-?bra\b|\bbrest\b",
    "medpix2": r"\bmedpix\b|\bsynpic\w*|\buploader\b|\bquiz\b|\bcan you\b",
    "vqa_rad": r"\bvqa\b",
    "ptbxl": r"\bptb\b|\bptb-?xl\b|\bcs-?12\b",
}
"""What betrays a source: anyone's, and of each set its names."""
_BETRAYS = re.compile("|".join(GIVE_AWAY.values()), re.I)
_SPELLING = (
    (r"speculated\b", "spiculated"),
    (r"eterogenous", "eterogeneous"),
    (r"omogenous", "omogeneous"),
    (r"\b(?:ehancing|enahncing)\b", "enhancing"),
    (r"\b(?:enhacement|enhancment)\b", "enhancement"),
    (r"\bIMLN\b", "intramammary lymph node"),
    (r"\bnon mass\b", "non-mass"),
)
_OTHER_EXAM = {
    "ct": re.compile(
        r"\b(?:mri?|flair|t[12]w?|gadolinium|ultraso\w+|us|radiograph\w*|x-?ray|films?|cxr|angiogra\w+|\w*scopy|pet)\b",
        re.I,
    ),
    "mri": re.compile(
        r"\b(?:ct|computed tomogra\w+|ultraso\w+|us|radiograph\w*|x-?ray|films?|cxr|angiogra\w+|\w*scopy|pet)\b", re.I
    ),
}
_MOST_DIAGNOSIS_WORDS = 6


def betrayal_in(text: str) -> str | None:
    """Return the first words of a text that betray its source; None where none does."""
    match = _BETRAYS.search(text)
    return match[0] if match else None


def quotable(text: str) -> Iterator[str]:
    """Yield the sentences of a text that say what the image shows and nothing of where it is from."""
    for sentence in sentences(text.replace("\ufffd", " ")):
        if aside(sentence) is None and betrayal_in(sentence) is None and "?" not in sentence:
            yield sentence


def findings_of(text: str) -> Iterator[str]:
    """Yield a radiologist's findings, one for each part of the text, with the set's slips of the pen corrected."""
    for part in text.split(";"):
        words = " ".join(part.split())
        for pattern, right in _SPELLING:
            words = re.sub(pattern, right, words)
        if words and betrayal_in(words) is None:
            yield f"{words[0].upper()}{words[1:]}."


def mass_of(row: Mapping[str, str]) -> Iterator[str]:
    """Yield what BI-RADS descriptors say of a mass on ultrasound."""
    if not row["shape"]:
        return
    margin = row["margin"].removeprefix("not circumscribed - ").replace("&", " and ")
    yield f"{row['shape'].capitalize()} mass with {margin} margin."
    echo = {"complex cystic/solid": "partly cystic, partly solid"}.get(row["echogenicity"], row["echogenicity"])
    yield f"The mass is {echo}."
    if row["posterior"] in ("shadowing", "enhancement"):
        yield f"There is posterior {row['posterior']}."
    if row["calcifications"] in ("in a mass", "intraductal"):
        yield f"There are calcifications {row['calcifications'].replace('in a mass', 'in the mass')}."


def of_teaching_file(row: Mapping[str, str]) -> Iterator[str]:
    """Yield what a teaching file says of one image: its caption, how it was made, a short diagnosis.

    Findings are those of the whole case; what they say of other examinations is left out.
    """
    other = _OTHER_EXAM["ct" if row["modality"] == "CT" else "mri"]
    yield from (s for s in quotable(row["caption"]) if not other.search(s))
    yield from (s for s in quotable(row["findings"]) if not other.search(s))
    name = "CT" if row["modality"] == "CT" else "MRI"
    diagnosis = " ".join(row["diagnosis"].split()).rstrip(".")
    fits = 0 < len(diagnosis.split()) <= _MOST_DIAGNOSIS_WORDS and aside(diagnosis) is None
    if fits and betrayal_in(diagnosis) is None and "?" not in diagnosis:
        yield f"{name} of {' '.join(word.lower() if word.istitle() else word for word in diagnosis.split())}."
    if row["plane"] in ("Axial", "Coronal", "Sagittal"):
        yield f"{row['plane']} {name} of the {row['region'].lower().replace(' system', ' tract')}."


def of_answers(pairs: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield the answers about an image as statements."""
    for pair in pairs:
        statement = statement_of(pair["question"], pair["answer"])
        if statement is not None and betrayal_in(statement) is None and aside(statement) is None:
            yield f"{statement[0].upper()}{statement[1:]}."


def joined(texts: Iterable[str]) -> str:
    """Join texts as the column `captions` takes them; each stands once."""
    return "\n".join(dict.fromkeys(text for text in texts if len(text.split()) > 2))
