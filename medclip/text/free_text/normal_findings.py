"""Sentences that say that nothing is wrong, and whether an image's labels let them stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.outcomes import spoken_labels
from medclip.text.vocabulary.task import Task

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
