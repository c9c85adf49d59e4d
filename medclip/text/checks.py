"""Check a caption that somebody else wrote against the record: it may say what is in it, and nothing else.

The check knows words, not meaning (see `claims`): it is strict, so that a good sentence is sometimes refused, and it
cannot promise that a sentence in unusual words is true.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from medclip.text.claims import claims
from medclip.text.fact_words import ALSO_SAID_OF, FACTS, MODALITIES
from medclip.text.mentions import asserted
from medclip.text.normal import all_absent
from medclip.text.phrases import person_phrases, side_phrases
from medclip.text.prompts import without_article
from medclip.text.record import CaptionRecord
from medclip.text.vocabularies import TaskClass, load_task, task_names
from medclip.text.wordings import image_names, labelled, modality_names, view_names

MAX_WORDS = 60
_TOLD = "¤"
"""Stands where words of the record's own wordings stood."""
_DENIAL = re.compile(
    r"\b(?:no|not|without|nor|neither|never|absence|absent|free of|clear of|ruled out|excluded|lacks?)\b"
)
_DENIES_NOTHING_KNOWN = re.compile(
    rf"\b(?:no|not|without|nor|neither|never|absence of|free of)\b(?![^.;:]{{0,80}}{_TOLD})"
)
_TWICE_DENIED = re.compile(
    r"\b(?:no|not|never|cannot|can't|without)\b[^.,;:]{0,25}?\b(?:no|not|without|free of|absen\w+|exclu\w+"
    r"|rul\w+ out)\b"
)
_TURN = re.compile(r"^\s*(?:but|however|although|except|with|suggesting|indicating)\b")
_NORMAL = re.compile(
    r"\b(?:normal\w*|negative|not remarkable|unremarkable|healthy|clear|intact|nothing"
    r"|no (?:acute |significant |other |further )*"
    r"(?:abnormal\w+|diseases?|patholog\w+|findings?|process(?:es)?|problems?)|disease-free|well)\b"
)


def check_caption(caption: str, record: CaptionRecord) -> tuple[str, ...]:
    """Say what a caption states that its record does not.

    Args:
        caption: One caption, in English.
        record: What is known of the image. Only its labels, modality, view, side, age and sex count, not its texts.

    Returns:
        Problems, each as `kind: what was found`; empty when the caption may be used. Kinds: `form`, `finding` (stated
        and not labelled present, denied and not labelled absent, not labelled at all), `unclear`, `normal`,
        `modality`, `view`, `age`, `sex`, `side`, `place`, `degree`, `count`, `measurement`, `date`, `number`,
        `history` (other examinations), `talk`, `person`.

    Raises:
        MedclipError: NO_TASK or TABLE_INVALID when the record names an unknown task or class.

    Example:
        >>> from medclip.sample import Modality
        >>> record = CaptionRecord(Modality.FUNDUS, labels={"fundus_cataract": {"cataract": 0}})
        >>> check_caption("Fundus photograph without cataract.", record)
        ()
        >>> check_caption("A fundus photograph with a cataract.", record)
        ("finding: 'cataract' is stated, the record denies it",)
    """
    form = _form(caption)
    if form:
        return (f"form: {form}",)
    said = " ".join(caption.lower().split())
    known = _known_wordings(record)
    left = _any_of(known | _denied_nouns(record)).sub(_TOLD, said)
    problems = [*_findings(said, record, known), *_unclear(said, left), *_modality(left, record)]
    if (match := _NORMAL.search(left)) and not all_absent(record.labels):
        problems.append(f"normal: {match[0]!r} says more than the record")
    problems += _facts(left, record)
    return tuple(dict.fromkeys(problems))


def _form(caption: str) -> str | None:
    words = caption.split()
    if not words:
        return "the caption is empty"
    if len(words) > MAX_WORDS:
        return f"the caption has {len(words)} words, more than {MAX_WORDS}"
    if any(c.isalpha() and ord(c) > 0x24F and c != "µ" for c in caption):
        return "the caption is not in Latin letters, and cannot be checked"
    return None


def _known_wordings(record: CaptionRecord) -> frozenset[str]:
    """Give every wording, in lower case, that is true of the image by its record."""
    known = [*image_names(record), *modality_names(record.modality), *view_names(record)]
    known += side_phrases(record.modality or "", record.laterality)
    known += person_phrases(record.age_years, record.sex)
    for name, label in record.labels.items():
        task = load_task(name)
        if isinstance(label, str):
            known += _affirming(task.class_named(label))
            continue
        for c in labelled(task, label, 1):
            known += _affirming(c)
        absent = labelled(task, label, 0)
        for c in absent:
            known += [*c.negative_prompts, *(f"no {without_article(n)}" for n in c.nouns)]
        if len(absent) == len(task.classes):
            known += task.none_prompts
    return frozenset(w.lower() for k in known for w in (k, without_article(k)))


def _denied_nouns(record: CaptionRecord) -> frozenset[str]:
    """Give the names of what is absent: they may stand after "no", and their digits are no facts ("SARS-CoV-2")."""
    several = [(load_task(n), label) for n, label in record.labels.items() if not isinstance(label, str)]
    return frozenset(
        without_article(noun).lower()
        for task, label in several
        for c in labelled(task, label, 0)
        for noun in (*c.nouns, *c.stems)
    )


def _affirming(c: TaskClass) -> tuple[str, ...]:
    return (*c.prompts, *c.nouns, c.title)


@lru_cache(maxsize=1024)
def _any_of(known: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(known, key=lambda w: (-len(w), w))
    return re.compile(r"(?<!\w)(?:" + "|".join(re.escape(w) for w in longest_first) + r")(?!\w)")


def _findings(said: str, record: CaptionRecord, known: frozenset[str]) -> Iterator[str]:
    spoken_of = set(record.labels)
    spoken_of |= {t for t in task_names() if record.modality in load_task(t).modalities}
    for name in sorted(spoken_of):
        label = record.labels.get(name, {})
        for cls, affirmed in asserted(name, said).items():
            value = label == cls if isinstance(label, str) else label.get(cls)
            if value is None:
                yield f"finding: {cls!r} is spoken of, nobody labelled it"
            elif affirmed != bool(value):
                yield f"finding: {cls!r} is {'stated' if affirmed else 'denied'}, the record {_says(bool(value))} it"
    allowed = _claims_of(known)
    class_stems = {s.lower() for t in spoken_of for c in load_task(t).classes for s in c.stems}
    for term, affirmed in sorted(claims(said) - allowed):
        if not any(term.startswith(s) or (s.startswith(term) and " " not in s) for s in class_stems):
            yield f"finding: {term!r} is {'stated' if affirmed else 'denied'}, the record does not speak of it"


def _says(value: bool) -> str:
    return "states" if value else "denies"


@lru_cache(maxsize=1024)
def _claims_of(known: frozenset[str]) -> frozenset[tuple[str, bool]]:
    return frozenset(c for wording in known for c in claims(wording))


def _unclear(said: str, left: str) -> Iterator[str]:
    if match := _DENIES_NOTHING_KNOWN.search(left):
        yield f"unclear: what {match[0]!r} denies is not in the record"
    if match := _TWICE_DENIED.search(said):
        yield f"unclear: {match[0]!r} denies twice"
    for clause in re.split(r"[.;:!?]", said):
        parts = clause.split(",")
        denying = False
        for i, part in enumerate(parts):
            if _TURN.search(part):
                denying = False
            if _DENIAL.search(part):
                denying = True
            elif denying and claims(part) and not re.search(r"\b(?:or|nor)\b", ",".join(parts[i:])):
                yield f"unclear: is {part.strip()!r} denied by what stands before it?"


def _modality(left: str, record: CaptionRecord) -> Iterator[str]:
    own = set() if record.modality is None else {record.modality, *ALSO_SAID_OF.get(record.modality, ())}
    for modality, pattern in MODALITIES.items():
        if modality not in own and (match := pattern.search(left)):
            yield f"modality: {match[0]!r} is not what the record says"


def _facts(left: str, record: CaptionRecord) -> Iterator[str]:
    """Give facts of the image or of a person in words that no phrase of the record holds."""
    phrases = (
        *view_names(record),
        *side_phrases(record.modality or "", record.laterality),
        *person_phrases(record.age_years, record.sex),
    )
    words = {w.lower() for phrase in phrases for w in phrase.split()}
    for kind, pattern in FACTS.items():
        for match in pattern.finditer(left):
            if match[0] not in words:
                yield f"{kind}: {match[0]!r} is not in the record"
