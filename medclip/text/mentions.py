"""Notice which classes a sentence speaks of, and whether it affirms or denies them. Plain word lists, no model.

Sentences that say that nothing is wrong are noticed, too, and whether an image's labels let them stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache

from medclip.text.checks.negation import asked, denied
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import Task, spoken_labels


@cache
def _patterns(task_name: str) -> Mapping[str, re.Pattern[str]]:
    return {
        c.name: re.compile(r"\b(" + "|".join(re.escape(s.lower()) for s in c.stems) + r")")
        for c in load_task(task_name).classes
        if c.stems
    }


_REST_OF_WORD = re.compile(r"^\w+")


@lru_cache(maxsize=16384)
def mentioned(task_name: str, sentence: str) -> frozenset[str]:
    """Return the classes of a task that a sentence speaks of, affirmed or denied."""
    return frozenset(name for name, _ in _mentions(task_name, sentence.lower()))


@lru_cache(maxsize=16384)
def asserted(task_name: str, sentence: str) -> Mapping[str, bool]:
    """Return the classes that a sentence speaks of: True where it affirms the class somewhere, False where it denies.

    A mention is denied when a word such as "no" or "without" stands before it in the same clause, or "absent" or
    "unlikely" after it. A phrase that only holds such a word ("no doubt", "cannot be excluded") denies nothing. What is
    asked ("evaluate for effusion", "effusion?") or told of the past ("history of effusion") is neither.
    """
    lowered = sentence.lower()
    answers: dict[str, bool] = {}
    for name, match in _mentions(task_name, lowered):
        before, after = lowered[: match.start()], _REST_OF_WORD.sub("", lowered[match.end() :])
        if not asked(before, after):
            answers[name] = answers.get(name, False) or not denied(before, after)
    return answers


def _mentions(task_name: str, lowered: str) -> list[tuple[str, re.Match[str]]]:
    """Return the classes with the places that speak of them: of two that lie in each other the longer one counts, so
    that "focal asymmetry" is no asymmetry of another kind.
    """
    spans = [(name, m) for name, pattern in _patterns(task_name).items() for m in pattern.finditer(lowered)]

    def lies_in(inner: re.Match[str], outer: re.Match[str]) -> bool:
        return outer.start() <= inner.start() and inner.end() <= outer.end() and outer.span() != inner.span()

    return [(name, m) for name, m in spans if not any(lies_in(m, other) for _, other in spans)]


def contradicts(sentence: str, labels: Mapping[str, str | Mapping[str, int]]) -> bool:
    """Return whether a sentence affirms a class labelled absent, or denies one labelled present."""
    for task_name, label in labels.items():
        assertions = asserted(task_name, sentence)
        if isinstance(label, str):
            if any(affirmed != (name == label) for name, affirmed in assertions.items()):
                return True
        elif any(affirmed != bool(label[name]) for name, affirmed in assertions.items() if name in label):
            return True
    return False


_THING = r"(?:abnormalit\w+|diseases?|process(?:es)?|findings?|patholog\w+|lesions?|changes?|problems?)"
_IMAGE = (
    r"(?:chest|stud(?:y|ies)|exam\w*|radiograph\w*|x-?rays?|films?|mammogra\w+|lungs?|brain|retina|fundus|image|scan"
    r"|appearance|tissue|heart and lungs)"
)
_ALL_CLEAR = re.compile(
    rf"\b(?:no|without|negative for|free of)\b[^.;,]{{0,40}}?\b{_THING}\b"
    rf"|\b(?:normal|unremarkable|negative|healthy) (?:\w+ ){{0,2}}?{_IMAGE}\b"
    r"|\bclear lungs?\b|\bnothing abnormal\b|\bwithin normal limits\b"
    r"|\blungs?(?: fields?)?(?: (?:are|is|appear|remain|both|grossly|otherwise|well|expanded|and)){0,4}"
    r" (?:clear|normal|unremarkable|healthy)\b"
)
NONE = ("no_", "none", "normal", "healthy")
"""How the class of a multi-class task is named that says that nothing is there."""


@lru_cache(maxsize=16384)
def is_all_clear(sentence: str) -> bool:
    """Return whether a sentence says of the whole image, or of the lungs, that nothing is wrong.

    Example:
        >>> is_all_clear("No acute cardiopulmonary abnormality."), is_all_clear("No pleural effusion.")
        (True, False)
    """
    return bool(_ALL_CLEAR.search(sentence.lower()))


def some_present(labels: Mapping[str, str | Mapping[str, int]]) -> bool:
    """Return whether the labels name something abnormal: a class of a multi-label task that is there, or a class of a
    multi-class task that has a class for "none" and is another.
    """
    for name, label in spoken_labels(labels).items():
        if isinstance(label, str):
            if _has_none(load_task(name)) and not label.startswith(NONE):
                return True
        elif any(label.values()):
            return True
    return False


def all_absent(labels: Mapping[str, str | Mapping[str, int]]) -> bool:
    """Return whether the labels say that nothing is there: the classes of a task were looked for and none was found."""
    if some_present(labels):
        return False
    return any(
        task.normal_if_none and (label.startswith(NONE) if isinstance(label, str) else task.denies_all(label))
        for task, label in ((load_task(name), label) for name, label in spoken_labels(labels).items())
    )


def _has_none(task: Task) -> bool:
    return any(c.name.startswith(NONE) for c in task.classes)
