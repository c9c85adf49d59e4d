"""Notice which classes a sentence speaks of, and whether it affirms or denies them. Plain word lists, no model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache

from medclip.text.vocabulary.load import load_task

_DENIES_BEFORE = re.compile(
    r"\b(no|not|without|nor|neither|never|absence of|free of|clear of|negative for|rather than|instead of|excludes?"
    r"|ruled? out|resolved|resolution of|lacks?|lacking|lack of|hardly|scarcely|unlikely|doubtful|dismiss(?:es|ed))\b"
    r"[^.;:]*$"
)
_DENIES_AFTER = re.compile(
    r"^[^.;:,]{0,40}\b(absent"
    r"|not (seen|present|visible|identified|detected|found|observed|evident|demonstrated|made out)"
    r"|ruled out|excluded|unlikely|doubtful|lacking|dismissed)\b"
)
_DENIES_NOTHING = re.compile(
    r"\b(?:no doubt|without (?:any )?doubt|not only|no shortage of"
    r"|(?:cannot|can't|can not|could not)(?: \w+){0,2} (?:excluded|ruled out|exclude|rule out)"
    r"|not (?:excluded|ruled out))\b"
)
"""Where the word of a denial stands in what is none."""
_TURNS = re.compile(r"\b(but|however|although|except|with|suggesting|indicating)\b")
"""Words after which an earlier "no" no longer reaches."""


@cache
def _patterns(task_name: str) -> Mapping[str, re.Pattern[str]]:
    return {
        c.name: re.compile(r"\b(" + "|".join(re.escape(s.lower()) for s in c.stems) + r")")
        for c in load_task(task_name).classes
        if c.stems
    }


@lru_cache(maxsize=16384)
def mentioned(task_name: str, sentence: str) -> frozenset[str]:
    """Return the classes of a task that a sentence speaks of, affirmed or denied."""
    return frozenset(name for name, _ in _mentions(task_name, sentence.lower()))


@lru_cache(maxsize=16384)
def asserted(task_name: str, sentence: str) -> Mapping[str, bool]:
    """Return the classes that a sentence speaks of: True where it affirms the class somewhere, False where it denies.

    A mention is denied when a word such as "no" or "without" stands before it in the same clause, or "absent" or
    "unlikely" after it. A phrase that only holds such a word ("no doubt", "cannot be excluded") denies nothing.
    """
    lowered = sentence.lower()
    answers: dict[str, bool] = {}
    for name, match in _mentions(task_name, lowered):
        answers[name] = answers.get(name, False) or not denied(lowered, match)
    return answers


def _mentions(task_name: str, lowered: str) -> list[tuple[str, re.Match[str]]]:
    """Return the classes with the places that speak of them: of two that lie in each other the longer one counts, so
    that "focal asymmetry" is no asymmetry of another kind.
    """
    spans = [(name, m) for name, pattern in _patterns(task_name).items() for m in pattern.finditer(lowered)]

    def lies_in(inner: re.Match[str], outer: re.Match[str]) -> bool:
        return outer.start() <= inner.start() and inner.end() <= outer.end() and outer.span() != inner.span()

    return [(name, m) for name, m in spans if not any(lies_in(m, other) for _, other in spans)]


def denied(lowered: str, match: re.Match[str]) -> bool:
    """Return whether a mention is denied.

    Args:
        lowered: The whole sentence in lower case.
        match: Match of the mention in the sentence.
    """
    before = _DENIES_NOTHING.sub(" ", lowered[: match.start()])
    denial = _DENIES_BEFORE.search(before)
    if denial and not _TURNS.search(before[denial.start() + len(denial.group(1)) :]):
        return True
    return bool(_DENIES_AFTER.search(_DENIES_NOTHING.sub(" ", lowered[match.end() :])))


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
