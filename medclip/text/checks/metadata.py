"""Entries that captions are held against: wordings of concepts, how they are spaced, and which are taken.

Two kinds. Reference metadata are MetaCLIP's (Xu et al., ICLR 2024): entries as they stand, matched letter by letter,
each its own concept. Medical metadata are wordings of concepts in one form (NFKC, lower case, brackets, slashes,
hyphens and quotes as blanks), of which those are left out that match what they do not mean; abbreviations keep their
case, because they collide with words (PE, MS, RA).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.text.captions.record import VIEW_TASK
from medclip.text.checks.closed_words import IMAGE_TASKS
from medclip.text.mentions import NONE
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.prompts import without_article
from medclip.wording import by_reason, count, number

BUILT_IN = "built-in"
STOP_WORDS = frozenset({"left", "right", "normal", "image", "figure", "patient", "year"})
"""Words that say nothing of a concept when they stand alone."""
MOST_WORDS, LEAST_LETTERS = 6, 3
_SPACED = ",.;:?!`"
_BLANKS = str.maketrans(dict.fromkeys("-/()[]<>'\"", " "))
_ABBREVIATION = re.compile(r"[A-Z][A-Z0-9]{1,5}")


@dataclass(frozen=True, eq=False)
class Metadata:
    """E entries of K concepts."""

    name: str
    entries: tuple[str, ...]
    """Wordings as they are matched, all different."""
    concept_E: NDArray[np.int32]
    """Number of the concept of each entry."""
    concepts: tuple[str, ...]
    """Names of the K concepts."""
    keeps_case_E: NDArray[np.bool_]
    """Abbreviations: their letters match in their case only."""
    reference: bool = False
    """Whether texts are spaced as MetaCLIP does, and nothing else is done to them."""
    left_out: Mapping[str, int] | None = None
    """How many wordings were left out, by reason."""

    def __len__(self) -> int:
        """Return E."""
        return len(self.entries)

    def about(self) -> dict[str, object]:
        """Return the counts that a report names, as plain values of JSON."""
        counts = {"metadata": self.name, "entries": len(self), "concepts": len(self.concepts)}
        return counts | {"abbreviations": int(self.keeps_case_E.sum()), "left_out": dict(self.left_out or {})}


def left_out_notes(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Write how many wordings of a user's metadata are not looked for, of what `Metadata.about` says; or nothing.

    Example:
        >>> left_out_notes({"metadata": "mine", "entries": 3, "left_out": {"stop words": 1}})
        ('1 of 4 entries of mine is not looked for: stop words 1.',)
    """
    num = sum(about["left_out"].values())
    if not num or about["metadata"] == BUILT_IN:
        return ()
    entries = f"{number(num)} of {count(num + about['entries'], 'entry', 'entries')}"
    why = by_reason(about["left_out"])
    return (f"{entries} of {about['metadata']} {'is' if num == 1 else 'are'} not looked for: {why}.",)


def spaced(text: str) -> str:
    """Set blanks around each mark and each text, as MetaCLIP does; nothing else changes, line breaks apart.

    Args:
        text: Text, or several, a line each: they stay lines.
    """
    for mark in _SPACED:
        text = text.replace(mark, f" {mark} ")
    return f" {text.replace(chr(9), ' ').replace(chr(13), ' ').replace(chr(10), f' {chr(10)} ')} "


def normalised(text: str) -> str:
    """Return texts in the form in which medical entries are compared; case stays, lines stay.

    Example:
        >>> normalised("Ground-glass  opacity (left)")
        ' Ground glass opacity left '
    """
    return re.sub(r"[^\S\n]+", " ", spaced(unicodedata.normalize("NFKC", text).translate(_BLANKS)))


def plain_metadata(entries: Iterable[str], name: str) -> Metadata:
    """Take entries as they stand, each its own concept: the metadata of the reference.

    Raises:
        MedclipError: NOTHING_TO_DO where there are none.
    """
    texts = list(entries)
    unique = tuple(dict.fromkeys(e for e in texts if e.strip() and not (len(e) == 1 and not e.isalnum())))
    if not unique:
        raise MedclipError(Reason.NOTHING_TO_DO, "the metadata have no entry.", where=name)
    left_out = {"empty, a mark or said twice": len(texts) - len(unique)} if len(texts) > len(unique) else {}
    numbers_E = np.arange(len(unique), dtype=np.int32)
    return Metadata(name, unique, numbers_E, unique, np.zeros(len(unique), bool), True, left_out)


def medical_metadata(concepts: Iterable[tuple[str, Iterable[str]]], name: str) -> Metadata:
    """Take the wordings of concepts that are fit to be matched.

    Args:
        concepts: Names of concepts, each with its wordings; concepts of one name are one.
        name: Name of the list, for reports and errors.

    Raises:
        MedclipError: NOTHING_TO_DO where no wording is fit.

    Example:
        >>> metadata = medical_metadata([("Lung", ["lung", "Lungs", "PE", "L"])], "mine")
        >>> metadata.entries, metadata.left_out
        (('lung', 'lungs', 'PE'), {'shorter than 3 letters': 1})
    """
    entries: dict[str, int] = {}
    numbers: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    for concept, wordings in concepts:
        for wording in wordings:
            entry, why = _entry_of(wording)
            if not why and entry in entries:
                same = concept in numbers and entries[entry] == numbers[concept]
                why = "" if same else "wordings of an earlier concept"
            if why:
                left_out[why] += 1
            else:  # a concept without a fit wording gets no number
                entries.setdefault(entry, numbers.setdefault(concept, len(numbers)))
    if not entries:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "no entry of the metadata is fit to be matched.",
            where=name,
            hint=f"Entries have up to {MOST_WORDS} words, and {LEAST_LETTERS} letters or more.",
        )
    keeps_case_E = np.array([entry != entry.lower() for entry in entries])
    concept_E = np.fromiter(entries.values(), np.int32, len(entries))
    return Metadata(name, tuple(entries), concept_E, tuple(numbers), keeps_case_E, False, dict(left_out))


def _entry_of(wording: str) -> tuple[str, str]:
    """Return a wording in the form that is matched, and why it is left out; "" where it is not."""
    form = " ".join(normalised(wording).split())
    if _ABBREVIATION.fullmatch(form):
        return form, ""
    form = form.lower()
    words = [word for word in form.split() if any(c.isalnum() for c in word)]
    if not any(c.isalpha() for c in form):
        return form, "without letters"
    if len(words) == 1 and len(words[0]) < LEAST_LETTERS:
        return form, f"shorter than {LEAST_LETTERS} letters"
    if len(words) == 1 and words[0] in STOP_WORDS:
        return form, "stop words"
    return form, f"longer than {MOST_WORDS} words" if len(words) > MOST_WORDS else ""


@cache
def built_in_metadata() -> Metadata:
    """Return the findings of the vocabulary: titles, nouns and stems of a class are wordings of one concept.

    Classes that say that nothing is there, and tasks about what an image is of (modality, region, view), are not among
    them. Stems that are beginnings of words match where they are words.
    """
    concepts = [
        (c.title, (c.title, *map(without_article, c.nouns), *c.stems))
        for task in map(load_task, task_names())
        if task.has_words and task.name not in (*IMAGE_TASKS, VIEW_TASK)
        for c in task.classes
        if not c.name.startswith(NONE)
    ]
    return medical_metadata(concepts, BUILT_IN)
