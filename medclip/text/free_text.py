"""Free text that came with an image: reports split into sections, and sentences that may stand beside its labels.

A draw takes a report's findings and impression, or a text as it stands, or a sentence or two that the labels do not
contradict. What no image shows is set aside: other examinations, technique, talk, people, dates. Word lists, no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from medclip.text.mentions import asserted, contradicts, is_all_clear, some_present
from medclip.text.vocabulary.load import task_names

if TYPE_CHECKING:
    from numpy.random import Generator

_MONTHS = "january|february|march|april|june|july|august|september|october|november|december"
_STUDY = r"(?:exam\w*|stud(?:y|ies)|films?|radiographs?|images?|imaging|scans?|x-?rays?|views?|mammogra\w+|ct|mri?)"
_TAKEN = r"(?:obtained|performed|submitted|acquired|provided|reviewed|taken|presented|available)"
_VIEW = r"(?:frontal|lateral|ap|pa|oblique|decubitus|craniocaudal|cc|mlo|portable)"

_MARKUP = r"(?:b|br|i|em|p|u|strong|su[bp]|span|div|li|[uo]l|h\d|t[dhr])"

KINDS: Mapping[str, re.Pattern[str]] = {
    "placeholder": re.compile(
        rf"x{{3,}}|_{{2,}}|\[\*\*|\*\*\]|<(?!{_MARKUP}\s?>)[a-z_ ]+>"
        r"|\[(?:redacted|removed|name|date|age|location|hospital|doctor)[^\]]*\]"
        r"|\b(?:redacted|deidentified|de-identified)\b"
    ),
    "comparison": re.compile(
        r"\b(?:compar(?:ed|ison|isons|ing)|interval|unchanged|stable|stably|again|since|previous(?:ly)?"
        r"|priors?(?! granul)|now|newly|new|no (?:significant |appreciable )?change|persist\w*|remain(?:s|ed|ing)?"
        r"|improv\w+|worsen\w*|progress(?:ed|ion|ing)?|resolv\w+|resolution|clearing of|(?:in|de)crease in"
        r"|(?:has|have) (?:increased|decreased|enlarged|cleared)|(?:in|de)creased (?:from|since)"
        r"|(?:slightly|mildly|markedly) (?:more|less)|follow(?:ing)?[- ]?up|earlier|yesterday|today|formerly)\b"
    ),
    "technique": re.compile(
        rf"\b{_STUDY}\b[^.]{{0,60}}\b{_TAKEN}\b"
        rf"|\b{_VIEW}(?:,? (?:and )?{_VIEW})*(?: chest)? (?:projections?|{_STUDY})\b"
        r"|\b(?:technique|contrast (?:was|material|medium)|field of view|two views?|single view"
        r"|\d+ (?:views?|images?))\b"
    ),
    "talk": re.compile(
        r"\b(?:discussed|telephon\w*|phoned?|notified|communicated|dictated|transcribed|signed|attending|resident"
        r"|reported (?:to|by)|recommend\w*|advis\w+|suggest(?:ed)? (?:follow|repeat|further)|correlat\w+|please"
        r"|clinically|further (?:evaluation|imaging|work-?up|assessment)"
        r"|consider (?:a |an )?(?:ct|mri?|dedicated|repeat|biopsy)|would be (?:helpful|useful)"
        r"|if (?:clinically|there is)|history|symptoms?"
        r"|(?:as|described|noted|mentioned) (?:described|noted|above|below|mentioned)|see (?:above|below))\b"
    ),
    "person": re.compile(
        r"\b(?:dr|mr|mrs|ms|md|prof)\b|\bpatient'?s?\b|\b\d+[- ]?(?:year|yr|month|week|day)s?[- ]?old\b|\b\d*\s?y/?o\b"
        r"|\b(?:man|woman|male|female|boy|girl|gentleman|lady|he|she|his|her)\b"
    ),
    "date": re.compile(
        rf"\b\d{{1,2}}/\d{{1,2}}\b|\b\d{{1,4}}-\d{{1,2}}-\d{{1,4}}\b|\b(?:19|20)\d\d\b|\b(?:{_MONTHS})\b|\bmay \d"
        r"|\b\d{1,2}:\d\d\b|\b\d+ hours\b|\b\d+ ?[ap]\.?m\b"
    ),
    "address": re.compile(r"\bhttps?://|\bwww\.\w"),
    "question": re.compile(
        r"(?<!\w)\?|\?(?!\w)|^\W*(?:is|are|was|were|does|has) (?:there|any)\b|\b(?:evaluat|assess)(?:e|ion|ment)? for\b"
        r"|^\W*(?:evaluate|assess|rule out|exclude)\b|\b(?:[hr]/o|query|question of|to rule out)\b"
    ),
}
"""By kind, on lower-case text. "Now", "new" and "stable" speak of an earlier image as much as "compared" does."""


@lru_cache(maxsize=16384)
def aside(sentence: str) -> str | None:
    """Return what kind of thing a sentence holds that its image cannot show.

    Args:
        sentence: One sentence of a report.

    Returns:
        The first kind of `KINDS` that is found, or None for a sentence that describes the image.

    Example:
        >>> aside("The effusion is unchanged."), aside("There is a small effusion.")
        ('comparison', None)
    """
    lowered = sentence.lower()
    return next((kind for kind, pattern in KINDS.items() if pattern.search(lowered)), None)


Native = Literal["sentences", "whole", "shuffled"]
"""How texts and reports are quoted: sentences that fit the labels, one whole text unchanged, or one whole text with its
sentences in a new order each time."""
MAX_WORDS = 60
_MIN_WORDS = 3
_END = re.compile(
    r"(?<=[.!?;])(?<![\s(]\?)(?<!\b[A-Za-z]\.)(?<!\bDr\.)(?<!\bvs\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bapprox\.)\s+|\n+"
)


@lru_cache(maxsize=8192)
def sentences(text: str, min_words: int = _MIN_WORDS) -> tuple[str, ...]:
    """Split text at sentence ends and line breaks; pieces under three words (or `min_words`) are dropped.

    Example:
        >>> sentences("Clear lungs on both sides. pH 7.4 was measured.")
        ('Clear lungs on both sides.', 'pH 7.4 was measured.')
    """
    pieces = (" ".join(p.split()) for p in _END.split(text))
    return tuple(p if p[-1] in ".!?;" else f"{p}." for p in pieces if len(p.split()) >= min_words)


def shuffled(text: str, rng: Generator) -> str:
    """Shuffle the sentences of a text.

    Mammo-CLIP's augmentation of reports, whose own code never uses the new order. Only for texts whose sentences can
    stand anywhere; that of a report of findings can, "It is new." cannot.

    Example:
        >>> import numpy as np
        >>> shuffled("A mass. No skin thickening. BI-RADS 4.", np.random.default_rng(0))
        'BI-RADS 4. A mass. No skin thickening.'
    """
    pieces = sentences(text, min_words=1)
    return " ".join(pieces[int(i)] for i in rng.permutation(len(pieces))) or text


def draw_native(texts: tuple[str, ...], labels: Mapping[str, str | Mapping[str, int]], rng: Generator) -> str | None:
    """Quote one sentence, or two that follow each other, from one of the texts.

    Args:
        texts: Free texts of one image.
        labels: Labels of the image; sentences that say otherwise are never quoted.
        rng: Source of chance.

    Returns:
        At most 60 words, or None when no sentence is fit to be quoted.
    """
    fit = [[s for s in sentences(t) if not contradicts(s, labels)] for t in texts]
    fit = [s for s in fit if s]
    if not fit:
        return None
    chosen = fit[int(rng.integers(len(fit)))]
    start = int(rng.integers(len(chosen)))
    count = 1 + int(rng.random() < 0.5)
    return " ".join(" ".join(chosen[start : start + count]).split()[:MAX_WORDS])


def draw_whole(texts: tuple[str, ...], rng: Generator) -> str | None:
    """Quote one of the texts just as it is, each as often as the others; None where there is none.

    Nothing is left out or added, whatever the labels say: for texts that were written to be captions. Follows the
    caption choice of UniMed-CLIP.
    """
    quotable = [t for t in texts if t.strip()]
    return quotable[int(rng.integers(len(quotable)))] if quotable else None


_EXAM = r"(?:exam(?:ination)?s?|stud(?:y|ies))"
_SPELLINGS: Mapping[str, str] = {
    "indication": r"(?:clinical |brief |relevant |patient )?(?:indications?|history|information|details|data|question)"
    rf"(?: for (?:the )?{_EXAM})?|reason for (?:the )?(?:{_EXAM}|order|visit)|symptoms?",
    "technique": rf"techniques?|procedures?|(?:type of )?{_EXAM}(?: type| date)?|protocol|(?:number of )?views?"
    r"|contrast|dose",
    "comparison": rf"comparisons?(?: {_EXAM}| films?| made)?|compared (?:to|with)|(?:prior|previous) {_EXAM}",
    "specimen": r"specimens?(?: submitted)?|gross(?: description| examination)?|macroscop(?:y|ic)(?: description)?",
    "impression": r"(?:final )?impressions?|conclusions?|opinion|summary|interpretation|assessment"
    r"|(?:final )?diagnos[ie]s|findings? ?(?:and|/|&) ?impressions?",
    "findings": r"(?:radiographic |radiological |imaging |microscopic )?findings?|observations?|description|report"
    r"|microscop(?:y|ic)(?: description| examination)?",
    "addendum": r"addend(?:um|a)",
    "advice": r"recommendations?|notifications?|communication|follow[- ]?up|comments?|notes?",
}
"""How each section is headed, in lower case. The names are the keys of `split_report`."""
BODY = "body"
"""Key of what stands under no heading."""
_ONE_PARAGRAPH = ("indication", "technique", "comparison", "specimen")
"""Sections that end at an empty line: what follows is the text of the report itself."""

_NAME = "|".join(_SPELLINGS.values())
_AT_LINE_START = re.compile(
    rf"^[ \t>#*•]*(?P<before>(?:[A-Z]+ ){{0,3}}?)(?P<name>{_NAME})\**[ \t]*(?::\**|[ \t]-(?=[ \t])|$)", re.I | re.M
)
_IN_CAPITALS = re.compile(rf"^[ \t]*(?P<before>)(?P<name>{_NAME})(?=[ \t]+[A-Z\d]?[a-z.)])", re.I | re.M)
_IN_LINE = re.compile(rf"(?<=[.!?;)\]\s])(?P<before>)(?P<name>{_NAME})[ \t]*:", re.I)
LIST_MARK = re.compile(r"^\s*(?:[-•*]|\(?\d{1,2}[.)])\s*(?=[^\s\d])")
"""Of an item of a list; the number of "3.2 cm" is none."""
_LEANS = re.compile(r"(?:otherwise|this|these|those|they|it|which|that|such|the (?:latter|former))\b", re.I)
_AS_BEFORE = re.compile(
    r"(?<!and )\b(?:stable|unchanged|persistent|persisting)\s+(?=[a-z])(?!and\b|in\b|since\b|from\b)", re.I
)
_WRAPPED = 50
"""A line this long that does not end a sentence goes on in the next one."""
IMPRESSION_SHARE, BOTH_SHARE = 0.35, 0.35
"""Shares of draws that give the impression alone, and impression and findings; the others give findings alone."""


def split_report(text: str) -> dict[str, str]:
    """Split a report at its headings.

    Headings are known in many spellings, in capitals or not, with a colon or on a line of their own, at the start of a
    line or after a sentence.

    Args:
        text: The report as it was written.

    Returns:
        Text by section, in the order of the report: `indication`, `technique`, `comparison`, `specimen`, `findings`,
        `impression`, `addendum`, `advice`, and `body` for text under no heading (a whole report without headings).
        Sections that stand twice are joined; hard line breaks inside a sentence are gone.

    Example:
        >>> split_report("HISTORY: Cough. FINDINGS: Clear lungs. Impression: Normal chest.")
        {'indication': 'Cough.', 'findings': 'Clear lungs.', 'impression': 'Normal chest.'}
    """
    pieces: dict[str, list[str]] = {}
    for name, piece in _pieces(text.replace("\r\n", "\n").replace("\r", "\n")):
        unwrapped = _unwrap(piece)
        if unwrapped:
            pieces.setdefault(name, []).append(unwrapped)
    return {name: "\n".join(sentences) for name, sentences in pieces.items()}


def draw_report(
    report: str,
    labels: Mapping[str, str | Mapping[str, int]],
    rng: Generator,
    *,
    max_words: int = 60,
    other_side: str | None = None,
) -> str | None:
    """Draw sentences of a report that describe its image.

    Sentences are whole and come from the findings and the impression (a report without headings is taken as findings).
    Left out are those that contradict the labels or an addendum, that compare with other examinations, tell of
    technique, people, dates or advice, and those with a placeholder of de-identification (XXXX, ___, [** **]), whose
    sense it may have taken. Follows the report sampling of contrastive radiology training (ConVIRT, MedCLIP).

    Args:
        report: The report as it was written.
        labels: Labels of the image.
        rng: Source of chance.
        max_words: Most words that are given. The impression comes first, so that it also stays where a tokenizer cuts
            the end.
        other_side: Side "left" or "right" of a paired organ that this image does not show.

    Returns:
        1 to `max_words` words, or None when no sentence is fit.
    """
    impression, findings = (
        [s for s in sentences if len(s.split()) <= max_words and _fits(s, labels, other_side)]
        for sentences in _pools(report)
    )
    if not impression and not findings:
        return None
    how = rng.random()
    chosen: list[str] = []
    if impression and (how < IMPRESSION_SHARE + BOTH_SHARE or not findings):
        chosen = _run(impression, 0, len(impression), max_words)
    if findings and (how >= IMPRESSION_SHARE or not impression):
        others = [s for s in findings if s not in chosen]
        room = max_words - sum(len(s.split()) for s in chosen)
        if others:
            start = int(rng.integers(len(others)))
            chosen += _run(others, start, start + 1 + int(rng.integers(len(others))), room)
    return " ".join(chosen)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield section names and raw texts in order."""
    at, section = 0, BODY
    for start, end, name in _headings(text):
        yield from _paragraphs(section, text[at:start])
        at, section = end, name
    yield from _paragraphs(section, text[at:])


def _headings(text: str) -> Iterator[tuple[int, int, str]]:
    headings = [m for m in _AT_LINE_START.finditer(text) if not m["before"] or m["before"].isupper()]
    headings += [m for m in _IN_CAPITALS.finditer(text) if m["name"].isupper()]
    headings += [m for m in _IN_LINE.finditer(text) if m["name"][0].isupper()]
    last = 0
    for match in sorted(headings, key=lambda m: (m.start("name"), -m.end())):
        if match.start() >= last:
            last = match.end()
            yield match.start(), last, _section(match["name"].lower())


def _section(name: str) -> str:
    return next(section for section, spelling in _SPELLINGS.items() if re.fullmatch(spelling, name))


def _paragraphs(section: str, piece: str) -> Iterator[tuple[str, str]]:
    if section in _ONE_PARAGRAPH:
        first, *rest = re.split(r"\n[ \t]*\n", piece.strip(), maxsplit=1)
        yield section, first
        yield BODY, "".join(rest)
    else:
        yield section, piece


def _unwrap(piece: str) -> str:
    lines: list[str] = []
    goes_on = False
    for raw in piece.split("\n"):
        line = " ".join(raw.split())
        if not line:
            goes_on = False
            continue
        if lines and not LIST_MARK.match(line) and (goes_on or line[0].islower()):
            lines[-1] = f"{lines[-1]} {line}"
        else:
            lines.append(line)
        goes_on = len(line) >= _WRAPPED and line[-1] not in ".!?;:"
    return "\n".join(lines)


@lru_cache(maxsize=8192)
def _pools(report: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the sentences of impression and findings that speak of the image."""
    sections = split_report(report)
    corrected = sentences(sections.get("addendum", ""), min_words=2)
    impression = tuple(_told(sections.get("impression", ""), corrected))
    findings = sections.get("findings")
    if findings is None:
        findings = _without_titles(sections.get(BODY, ""))
    return impression, tuple(s for s in _told(findings, corrected) if s not in impression)


def _without_titles(body: str) -> str:
    """Drop lines in capitals ("CHEST RADIOGRAPH") of a report that is not all in capitals."""
    if body.isupper():
        return body
    return "\n".join(line for line in body.split("\n") if not line.isupper())


def _told(section: str, corrected: Sequence[str]) -> Iterator[str]:
    text = re.sub(r"\.(?:\s*\.)+", ".", section)
    text = re.sub(r"(?<=[a-z)])\.(?=[A-Z][a-z])", ". ", text)  # "apex.There"
    text = re.sub(r"\bx-X{3,}", "x-ray", text)  # the one word whose other half is still there
    text = re.sub(r"\s*[(\[]\s*(?:X{3,}|_{2,}|\[\*\*[^\]]*\*\*\])\s*[)\]]", "", text)
    before = ""
    for sentence in (s for line in text.split("\n") for s in sentences(LIST_MARK.sub("", line), min_words=1)):
        current = _as_of_now(LIST_MARK.sub("", sentence).strip())
        fits = (
            (" " in current or _finds(current))
            and aside(current) is None
            and not any(_corrects(c, current) for c in corrected)
        )
        if _LEANS.match(current):  # "This may be pneumonia." means nothing without the sentence before it
            before = f"{before} {current}" if before and fits else ""
            continue
        if before:
            yield before
        before = current[0].upper() + current[1:] if fits else ""
    if before:
        yield before


def _as_of_now(sentence: str) -> str:
    """Take the earlier image out of "Stable cardiomegaly." where a finding of some task stays."""
    now = _AS_BEFORE.sub("", sentence)
    return now if now != sentence and aside(now) is None and _finds(now) else sentence


def _finds(sentence: str) -> bool:
    return any(True in asserted(task, sentence).values() for task in task_names())


def _corrects(correction: str, sentence: str) -> bool:
    """Return whether an addendum contradicts the sentence on a class, or finds what the sentence denies."""
    for task in task_names():
        now, then = asserted(task, correction), asserted(task, sentence)
        if any(then.get(name, affirmed) != affirmed for name, affirmed in now.items()):
            return True
        if True in now.values() and is_all_clear(sentence):
            return True
    return False


def _fits(sentence: str, labels: Mapping[str, str | Mapping[str, int]], other_side: str | None) -> bool:
    if other_side is not None and re.search(rf"\b(?:{other_side}|bilateral\w*|both)\b", sentence, re.I):
        return False
    return not contradicts(sentence, labels) and not (is_all_clear(sentence) and some_present(labels))


def _run(sentences: Sequence[str], start: int, end: int, room: int) -> list[str]:
    """Take sentences that follow each other until the room is used up."""
    taken: list[str] = []
    for sentence in sentences[start:end]:
        room -= len(sentence.split())
        if room < 0:
            break
        taken.append(sentence)
    return taken
