"""Mark in a caption what its record says in the very words of the vocabularies; what is left over is then judged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from medclip.text.captions.phrases import person_phrases, side_phrases
from medclip.text.captions.record import CaptionRecord
from medclip.text.captions.true_wordings import (
    VIEW_TASK,
    image_names,
    labelled,
    modality_names,
    speaking_only_of,
    view_names,
)
from medclip.text.checks.closed_words import NEUTRAL, REPORTING
from medclip.text.checks.fact_words import FACTS, any_modality_words, modality_words
from medclip.text.free_text.normal_findings import NONE
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import without_article

IMAGE, PRESENT, ALL_CLEAR, ABSENT = "I", "P", "D", "N"
"""Capital letters that stand for a wording in a lower-case caption: of image or person, of a thing that is there,
of a whole denial, and of a thing that is not there and has yet to be denied."""
_NO_SUCH = re.compile(r"(?:no|without|free of) (?:(?:evidence|signs?) of )?", re.I)
_OF_THE_IMAGE = (VIEW_TASK, "modality")


@dataclass(frozen=True)
class Known:
    """Wordings of a record, in lower case."""

    kinds: Mapping[str, str]
    """Wording to its letter."""

    @property
    def stated(self) -> frozenset[str]:
        """What may stand in a caption as it is: the wordings, with a "no" before what is absent."""
        return frozenset(f"no {w}" if kind == ABSENT else w for w, kind in self.kinds.items())

    def mark(self, caption: str) -> str:
        """Put a letter in the place of each wording, the longest first.

        Args:
            caption: The caption in lower case, with single spaces.
        """
        pattern, kind_of = _pattern(tuple(sorted(self.kinds.items(), key=lambda k: (-len(k[0]), k))))
        return pattern.sub(lambda m: kind_of[m.lastgroup or ""], caption)


def known_spans(record: CaptionRecord) -> Known:
    """Gather every wording that is true of an image, and the names of what it is labelled not to have."""
    kinds: dict[str, str] = {}
    for kind, wording in _wordings(record):
        for w in (wording.lower(), without_article(wording).lower()):
            kinds.setdefault(w, kind)
    return Known(kinds)


def _wordings(record: CaptionRecord) -> Iterator[tuple[str, str]]:
    yield from ((IMAGE, w) for w in _of_the_image(record))
    for name, label in record.labels.items():
        if name in _OF_THE_IMAGE:
            continue
        task = load_task(name)
        if isinstance(label, str):
            c = task.class_named(label)
            kind = ALL_CLEAR if label.startswith(NONE) else PRESENT
            yield from ((kind, w) for w in (*c.prompts, c.title, *c.stems))
            continue
        if task.denies_all(label):
            yield from ((ALL_CLEAR, w) for w in task.none_prompts)
        for c in labelled(task, label, 0):
            yield from ((ABSENT, w) for w in speaking_only_of(task, c, label, 0, (*c.nouns, c.title, *c.stems)))
            yield from (_denial(w) for w in speaking_only_of(task, c, label, 0, c.negative_prompts))
        for c in labelled(task, label, 1):
            yield from (
                (PRESENT, w) for w in speaking_only_of(task, c, label, 1, (*c.prompts, *c.nouns, c.title, *c.stems))
            )


def _denial(wording: str) -> tuple[str, str]:
    """Take the "no" off a denial, so that a list may begin with it: "no effusion or mass"."""
    of_one = _NO_SUCH.match(wording)
    return (ABSENT, wording[of_one.end() :]) if of_one and "," not in wording else (ALL_CLEAR, wording)


def _of_the_image(record: CaptionRecord) -> Iterator[str]:
    sides = side_phrases(record.modality or "", record.laterality)
    people = person_phrases(record.age_years, record.sex)
    views = view_names(record)
    yield from (*image_names(record), *modality_names(record.modality), *views, *sides, *people)
    for kinds, phrases in ((("view",), views), (("side",), sides), (("age", "sex"), people)):
        phrase_text = " ".join(phrases).lower()
        yield from (m[0] for kind in kinds for m in FACTS[kind].finditer(phrase_text))
    yield from REPORTING
    of_modality = modality_words().get(record.modality) if record.modality else None
    if of_modality:
        phrase_text = " ".join([*image_names(record), *modality_names(record.modality)]).lower()
        yield from (m[0] for m in of_modality.finditer(phrase_text))
    for name in image_names(record):  # "chest", "brain": the part of the body may be named alone
        yield from (w for w in any_modality_words().sub(" ", name.lower()).split() if w not in NEUTRAL)
    for name in ("modality", *record.labels):
        for template in load_task(name).templates:
            yield from (p for piece in template.split("{}") if " " in (p := piece.strip(" :,")))


@lru_cache(maxsize=1024)
def _pattern(kinds: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], Mapping[str, str]]:
    spelt = [f"(?P<k{i}>{_spelt(wording)})" for i, (wording, _) in enumerate(kinds)]
    pattern = re.compile(r"(?<![\w-])(?:" + "|".join(spelt) + r")(?:e?s)?(?![\w-])")
    return pattern, {f"k{i}": kind for i, (_, kind) in enumerate(kinds)}


def _spelt(wording: str) -> str:
    """Match a wording with a hyphen or a space, in British or American spelling."""
    joined = r"[\s-]".join(re.escape(w) for w in re.split(r"[\s-]", wording))
    return joined.replace("tumour", "tumou?r").replace("colour", "colou?r")
