"""The words of open sets as captions: findings, descriptors and answers, of which none names where it is from.

A sentence is quoted only if the image can show what it says (`medclip.text.free_text.non_visual`) and no word in it
betrays the source: a text tower that knows the source by a word teaches it to the image tower, and a finding that comes
from one source is then found by its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from medclip.text.captions.answered_questions import statement_of
from medclip.text.free_text.non_visual import aside
from medclip.text.free_text.sentences import sentences

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
