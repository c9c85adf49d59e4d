"""Check a report that somebody else wrote, for instance a language model, against the record of the breast.

The vocabulary is closed, as that of `check_caption`: a report may consist of the words that the grammar of reports has,
and of neutral ones. Sentence by sentence, what is stated must be in the record: finding, side, place, look, size,
composition, assessment and outcome, and the look and place those of one finding. It is strict: many a good sentence is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import permutations

from medclip.pairs.words.breast_phrases import (
    CLEAR,
    DENIALS,
    IMPLANTS,
    NOUNS,
    OPENERS,
    PATHOLOGY,
    VIEW_KINDS,
    VIEWS,
    denied_nouns,
    noun_phrases,
    places_of,
)
from medclip.pairs.words.breast_report import (
    assessment_sentences,
    clear_sentences,
    composition_sentences,
    view_sentences,
)
from medclip.pairs.words.caption_writer import CaptionFacts
from medclip.text.breast_record import (
    CALCIFICATION,
    DEPTHS,
    DISTRIBUTIONS,
    FINDINGS_TASK,
    FORMS,
    LYMPH_NODE,
    MARGINS,
    MASS,
    MASS_DENSITIES,
    QUADRANTS,
    SHAPES,
    SIDES,
    BreastFinding,
    BreastRecord,
    finding_kinds,
)
from medclip.text.checks.closed_words import DENIALS as NEGATIONS
from medclip.text.checks.closed_words import HEDGES, NEUTRAL, TURN
from medclip.text.free_text import sentences
from medclip.text.mentions import asserted
from medclip.text.vocabulary.load import load_task

MOST_WORDS = 200
_WORD = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*mm\b")
_SIDE_WORDS = re.compile(r"\b(left|right|both|bilateral\w*|either|contralateral|ipsilateral)\b")
_SUSPICIOUS = re.compile(r"\bsuspicious(?:-appearing)?\b")
"""A word of findings here, and no doubt."""
_JUDGED = {
    True: re.compile(r"\b(?:suspicious(?:-appearing)?|abnormal|morphologically)\b"),
    False: re.compile(r"\b(?:benign(?:-appearing)?|typically)\b"),
}
_MOST_ALIKE = 6
"""Findings of one kind that are told apart; a breast with more is checked by their number."""
_Statement = tuple[str, frozenset[str]]
"""A kind of finding that a sentence states, with the terms of the sentence."""
_PLACES = (*QUADRANTS, *DEPTHS)
_TERMS = tuple(dict.fromkeys([*_PLACES, *SHAPES, *MARGINS, *MASS_DENSITIES, *FORMS, *DISTRIBUTIONS]))


def breast_facts(record: BreastRecord) -> CaptionFacts:
    """Write a record in the plain words that a writer of reports receives, and never who the patient is.

    Example:
        >>> from medclip.text.breast_record import record_of
        >>> breast_facts(record_of({"findings": [{"type": "mass", "shape": "oval"}], "absent": []}, "L")).present
        ('an oval mass in the left breast',)
    """
    present = [
        f"{noun_phrases(f)[0]} {places_of(f.kind, f.quadrant, f.depth, record.side)[0]}"
        for f in dict.fromkeys(record.findings)
    ]
    if record.composition:
        present.append(_prompt("breast_composition", record.composition))
    if record.birads is not None:
        present.append(_prompt("breast_birads", f"birads_{record.birads}"))
    if record.pathology:
        present.append(f"final diagnosis: {record.pathology}")
    if record.is_clear:
        present.append("no suspicious finding")
    view = VIEWS.get(record.view)
    return CaptionFacts(
        modality="mammography",
        image=f"{VIEW_KINDS[record.view_kind]}{f' of the {SIDES[record.side]} breast' if record.side else ''}",
        view=f"{view} view" if view else "",
        present=tuple(present),
        absent=tuple(denied_nouns(kind)[0] for kind in record.deniable),
    )


def check_report(report: str, record: BreastRecord) -> tuple[str, ...]:
    """Return what a report states that its record does not, and what it leaves out.

    Args:
        report: English sentences.
        record: Record of the breast.

    Returns:
        Problems, each as `kind: what was found`; empty when the report may be used. Kinds: `form`, `finding`, `missing`
        (of the record), `twice`, `side`, `place`, `look`, `size`, `composition`, `assessment`, `outcome`, `view`,
        `implant`, `hedge`, `unknown word`.

    Example:
        >>> from medclip.text.breast_record import record_of
        >>> record = record_of({"findings": [{"type": "mass"}], "absent": []}, "L")
        >>> check_report("There is a mass in the left breast.", record)
        ()
        >>> check_report("There is a mass in the right breast.", record)
        ("side: 'right' is not the side of the record",)
    """
    words = report.split()
    if not words or len(words) > MOST_WORDS:
        return (f"form: the report has {len(words)} words; it must have 1 to {MOST_WORDS}",)
    problems: list[str] = []
    stated: list[_Statement] = []
    true_sentences = _own_sentences(record)
    for sentence in sentences(report, min_words=1):
        lowered = sentence.lower()
        if lowered in true_sentences:
            continue
        problems += _of_sentence(lowered, record, stated)
    problems += _missing(record, stated)
    return tuple(dict.fromkeys(problems))


@cache
def _own_sentences(record: BreastRecord) -> frozenset[str]:
    """Return what may be said beside findings: composition, assessment, outcome, view, and that nothing is there."""
    sentences_of_record = [*view_sentences(record)]
    sentences_of_record += [*composition_sentences(record.composition)] if record.composition else []
    sentences_of_record += [] if record.birads is None else [*assessment_sentences(record.birads)]
    sentences_of_record += PATHOLOGY[record.pathology] if record.pathology else []
    sentences_of_record += [*clear_sentences(record)] if record.is_clear else []
    if record.implant:
        sentences_of_record += [i.format(p=p) for i in IMPLANTS for p in places_of(LYMPH_NODE, "", "", record.side)]
    return frozenset(s.lower() for s in sentences_of_record)


def _missing(record: BreastRecord, stated: Sequence[_Statement]) -> Iterator[str]:
    """Yield the kinds of findings of which not every one is stated: two sentences of one of two masses are one."""
    findings = list(dict.fromkeys(record.findings))
    for kind in dict.fromkeys(f.kind for f in findings):
        traits = [_traits(f) for f in findings if f.kind == kind]
        looks = [terms & set().union(*traits) for of, terms in stated if of == kind]
        if len(looks) < len(traits):
            yield f"missing: {kind!r} of the record is not stated"
        elif len(looks) == len(traits) <= _MOST_ALIKE and not any(
            all(look <= own_traits for look, own_traits in zip(looks, order, strict=True))
            for order in permutations(traits)
        ):
            yield f"missing: the sentences do not state every {kind!r} of the record"


def _of_sentence(lowered: str, record: BreastRecord, stated: list[_Statement]) -> Iterator[str]:
    yield from _sides(lowered, record)
    claims = asserted(FINDINGS_TASK, lowered)
    affirmed = [kind for kind, value in claims.items() if value]
    findings: list[BreastFinding] = []
    for kind, value in claims.items():
        of_kind = [f for f in record.findings if f.kind == kind]
        findings += of_kind if value else []
        if value and not of_kind:
            yield f"finding: {kind!r} is stated, the record does not state it"
        elif not value and (of_kind or kind not in record.absent):
            yield f"finding: {kind!r} is denied, the record does not deny it"
        elif value and sum(of == kind for of, _ in stated) >= len(dict.fromkeys(of_kind)):
            yield f"twice: {kind!r} is stated more often than the record has it"
    terms = frozenset([*_terms(_TERMS, _bare(lowered)), *(f"{float(m[1]):g} mm" for m in _SIZE.finditer(lowered))])
    stated += [(kind, terms) for kind in affirmed]
    if not claims:
        yield from _of_other_facts(lowered)
    yield from _looks(lowered, findings)
    if affirmed:
        yield from _denied_looks(lowered)
        yield from _judgements(lowered, findings)
    remaining = _left(_SIZE.sub(" ", _SUSPICIOUS.sub(" ", lowered)))
    yield from (f"hedge: {m[0]!r} leaves open" for m in HEDGES.finditer(remaining))
    vocabulary = _vocabulary() if affirmed else _vocabulary() | {"or"}
    yield from (f"unknown word: {word!r}" for word in _WORD.findall(remaining) if word not in vocabulary)


def _sides(lowered: str, record: BreastRecord) -> Iterator[str]:
    for match in _SIDE_WORDS.finditer(lowered):
        if match[0] != SIDES.get(record.side):
            yield f"side: {match[0]!r} is not the side of the record"


def _of_other_facts(lowered: str) -> Iterator[str]:
    """Yield why a sentence that names no finding, and is none of the record's own, cannot be used."""
    kinds: Mapping[str, re.Pattern[str]] = {
        "composition": re.compile(r"\b(?:dense|density|fatty|fat|fibroglandular|composition)\b"),
        "assessment": re.compile(r"\b(?:bi-?rads|assessment|category|biopsy|recall|follow-up|screening)\b"),
        "outcome": re.compile(r"\b(?:malignan\w*|cancer|benign|carcinoma|diagnosis|outcome|normal)\b"),
        "implant": re.compile(r"\bimplant"),
        "view": re.compile(r"\b(?:views?|craniocaudal|mediolateral|cc|mlo|subtracted|low-energy|synthetic)\b"),
    }
    named = [kind for kind, pattern in kinds.items() if pattern.search(lowered)]
    yield f"{named[0] if named else 'form'}: {lowered!r} is no sentence of the record"


def _looks(lowered: str, findings: Sequence[BreastFinding]) -> Iterator[str]:
    """Yield places, looks and sizes that no finding of the sentence has, or that are not those of one finding."""
    terms = {term: "place" if term in _PLACES else "look" for term in _terms(_TERMS, _bare(lowered))}
    for term, kind in terms.items():
        if not any(term in _traits(f) for f in findings):
            yield f"{kind}: {term!r} is not in the record"
    for size in (float(m[1]) for m in _SIZE.finditer(lowered)):
        if not any(f.size_mm == size for f in findings):
            yield f"size: {size:g} mm is not in the record"
    if len({f.kind for f in findings}) == 1 and not any(set(terms) <= _traits(f) for f in findings):
        yield "look: the words are true of several findings, and not of one"


def _denied_looks(lowered: str) -> Iterator[str]:
    """Yield places and looks that are denied of a finding that is stated: "a mass without spiculated margins"."""
    for match in _denied_part().finditer(lowered):
        yield from (f"look: {term!r} is denied" for term in _terms(_TERMS, _bare(match[0])))


def _judgements(lowered: str, findings: Sequence[BreastFinding]) -> Iterator[str]:
    """Yield "benign" and "suspicious" where no calcifications and no lymph node of the sentence were judged so."""
    affirmed = _denied_part().sub(" ", lowered)
    for suspicious, words in _JUDGED.items():
        if not any(_is_judged(f, suspicious) for f in findings):
            yield from (f"look: {m[0]!r} is not in the record" for m in words.finditer(affirmed))


def _is_judged(f: BreastFinding, suspicious: bool) -> bool:
    if f.kind == LYMPH_NODE and f.suspicious is None:
        return suspicious  # its wordings are those of a suspicious one
    return f.kind in (CALCIFICATION, LYMPH_NODE) and f.suspicious is suspicious


def _traits(f: BreastFinding) -> set[str]:
    size = "" if f.size_mm is None else f"{f.size_mm:g} mm"
    return {t for t in (f.quadrant, f.depth, f.shape, *f.margins, f.density, *f.forms, f.distribution, size) if t}


def _bare(lowered: str) -> str:
    """Return a text in which terms are looked for: without findings of the skin, "high-density" as two words."""
    return _without_skin().sub(" ", lowered.replace("-density", " density"))


def _left(lowered: str) -> str:
    """Return a text without the terms: what is left is to be words of the grammar. "A large mass" has no term."""
    text = lowered.replace("-density", " density")
    for term in sorted(_TERMS, key=len, reverse=True):
        text = _term(term).sub(" ", text)
    return text


def _terms(terms: Sequence[str], text: str) -> list[str]:
    """Return the terms that a sentence has, the longest first: "upper outer" is not "upper" as well."""
    named = []
    for term in sorted(terms, key=len, reverse=True):
        pattern = _term(term)
        if pattern.search(text):
            named.append(term)
            text = pattern.sub(" ", text)
    return named


@cache
def _term(term: str) -> re.Pattern[str]:
    spelt = "[ -]".join(re.escape(word) for word in term.split())
    return re.compile(rf"(?<![\w-]){spelt}(?![\w-])")


@cache
def _without_skin() -> re.Pattern[str]:
    """Match the findings of the skin: "skin" alone is a form of calcifications."""
    nouns = [noun for kind in finding_kinds() if kind.startswith("skin") for noun in NOUNS[kind]]
    return re.compile("|".join(sorted(nouns, key=len, reverse=True)))


@cache
def _denied_part() -> re.Pattern[str]:
    return re.compile(rf"{NEGATIONS.pattern}(?:(?!{TURN.pattern})[^,;.])*")


@cache
def _vocabulary() -> frozenset[str]:
    texts: list[str] = [*OPENERS, *DENIALS, *CLEAR, *IMPLANTS, "measuring"]
    for kind in finding_kinds():
        texts += [*denied_nouns(kind), *noun_phrases(BreastFinding(kind))]
        texts += [p for side in ("", "L", "R") for q in ("", *QUADRANTS) for p in places_of(kind, q, DEPTHS[0], side)]
        texts += noun_phrases(BreastFinding(kind, suspicious=False)) if kind in (CALCIFICATION, LYMPH_NODE) else ()
    for density in MASS_DENSITIES:
        texts += noun_phrases(BreastFinding(MASS, margins=("obscured",), density=density))
    for form in ("milk of calcium", "oil cyst"):
        texts += noun_phrases(BreastFinding(CALCIFICATION, forms=(form,), distribution="linear"))
    words = {word for text in texts for word in _WORD.findall(_left(text.lower()))}
    return frozenset(words | NEUTRAL)


def _prompt(task: str, name: str) -> str:
    return load_task(task).class_named(name).prompts[0]
