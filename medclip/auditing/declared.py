"""The small language of what is declared: `tpr>=0.80 in each sex`, `tpr gap<=0.05 in sex`, `auroc for flu in age`.

    requirement  METRIC >= NUMBER | METRIC <= NUMBER      then, in any order: for LABEL, and one of: in each ATTRIBUTE,
                                                          overall (the default)
    margin       METRIC gap <= NUMBER in ATTRIBUTE        every two groups differ by less: an equivalence
    hypothesis   METRIC in ATTRIBUTE                      then perhaps: for LABEL

Without `for LABEL` it is declared for every label of the audit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.tables.table import plain_name
from medclip.statistics.metrics.catalogue import METRICS

CONFIDENCE = 0.95
"""Of each verdict, one-sided, unless asked otherwise."""
_FORMS = '"tpr>=0.80 in each sex", "auroc>=0.8 for pneumonia", "fpr<=0.1 overall" or "tpr gap<=0.05 in sex"'
_REQUIREMENT = re.compile(r"(?P<metric>[^<>=≤≥]+?)(?P<gap>\s+gap)?\s*(?P<sign>[<>=≤≥]+)\s*(?P<rest>.*)", re.IGNORECASE)
_NUMBER = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<percent>%?)(?=\s|$)(?P<rest>.*)")
_CLAUSE = re.compile(
    r"\s*(?:\b(?P<overall>overall)(?=\s|$)|\b(?P<word>for|in\s+each|in)\s+"
    r"(?P<name>\"[^\"]+\"|(?:(?!\s(?:for|in|overall)(?:\s|$)).)+))",
    re.IGNORECASE,
)
"""A name that has one of these words in it stands in quotation marks."""
_AT_LEAST, _AT_MOST = (">=", "≥"), ("<=", "≤")


@dataclass(frozen=True)
class Requirement:
    """One sentence that a model has to fulfil."""

    text: str
    """As it was declared."""
    metric: str
    at_least: bool
    bound: float
    label: str | None = None
    """As it was written; None: every label."""
    attribute: str | None = None
    """None: everybody together."""
    gap: bool = False
    """Whether it is a margin within which every two groups of the attribute lie."""


@dataclass(frozen=True)
class Hypothesis:
    """One gap whose test was declared to be what the audit is made for."""

    text: str
    metric: str
    attribute: str
    label: str | None = None


@dataclass(frozen=True)
class Declared:
    """All that was declared."""

    requirements: tuple[Requirement, ...] = ()
    primary: tuple[Hypothesis, ...] = ()
    confidence: float = CONFIDENCE
    """One-sided: 0.95 holds a requirement against the ends of a 90 % interval."""

    def __post_init__(self) -> None:
        """Refuse a confidence that is none, and one thing declared twice."""
        if not 0.5 < self.confidence < 1:
            raise MedclipError(
                Reason.WRONG_USE, f"the confidence is {self.confidence:g}; it lies between 0.5 and 1, such as 0.95."
            )
        for things in (self.requirements, self.primary):
            texts = [thing.text for thing in things]
            if twice := [text for text in texts if texts.count(text) > 1]:
                raise MedclipError(Reason.WRONG_USE, f"{twice[0]!r} is declared twice.", hint="Leave one of them out.")


def declared(
    require: Sequence[str] = (),
    margins: Mapping[str, str] | None = None,
    primary: Sequence[str] = (),
    confidence: float = CONFIDENCE,
) -> Declared:
    """Read all that is declared.

    Raises:
        MedclipError: WRONG_USE, saying what was not understood and how it is written.
    """
    requirements = [requirement(text) for text in require]
    for name, margin in (margins or {}).items():
        metric, colon, attribute = name.partition(":")
        if not colon:
            raise MedclipError(
                Reason.WRONG_USE,
                f"the margin of {name!r} names no attribute.",
                hint="Write METRIC:ATTRIBUTE=MARGIN, such as tpr:sex=0.05.",
            )
        requirements.append(requirement(f"{metric.strip()} gap<={margin} in {attribute.strip()}"))
    return Declared(tuple(requirements), tuple(hypothesis(text) for text in primary), confidence)


def requirement(text: str) -> Requirement:
    """Read one requirement.

    Example:
        >>> requirement("sensitivity >= 80 % for pneumonia in each sex")
        Requirement(text='sensitivity >= 80 % for pneumonia in each sex', metric='tpr', at_least=True, bound=0.8, \
label='pneumonia', attribute='sex', gap=False)
    """
    written = " ".join(text.split())
    match = _REQUIREMENT.fullmatch(written)
    if match is None:
        raise _refuse(written, "has no >= or <=", f"Write {_FORMS}.")
    sign, gap = match["sign"], match["gap"] is not None
    if sign not in (*_AT_LEAST, *_AT_MOST):
        raise _refuse(written, f"has {sign!r}", "Write >= (at least) or <= (at most).")
    at_least = sign in _AT_LEAST
    metric = _metric(match["metric"], written)
    number = _NUMBER.fullmatch(match["rest"])
    if number is None:
        raise _refuse(written, f"has no number behind {sign}", f"Write {_FORMS}.")
    bound = float(number["number"]) / (100 if number["percent"] else 1)
    label, attribute, each, overall = _places(number["rest"], written)
    _check_direction(written, metric, at_least, bound, gap)
    if gap and attribute is None:
        raise _refuse(written, "names no attribute whose groups are compared", "Write: tpr gap<=0.05 in sex.")
    if not gap and attribute is not None and not each:
        raise _refuse(
            written,
            f"says “in {attribute}”",
            f"Write “in each {attribute}” for every group by itself, or “{metric} gap<=...” for how far they differ.",
        )
    if overall and gap:
        raise _refuse(written, "compares groups and says overall", "Write: tpr gap<=0.05 in sex.")
    return Requirement(written, metric, at_least, bound, label, attribute, gap)


def hypothesis(text: str) -> Hypothesis:
    """Read one primary hypothesis.

    Example:
        >>> hypothesis("tpr for pneumonia in sex")
        Hypothesis(text='tpr for pneumonia in sex', metric='tpr', attribute='sex', label='pneumonia')
    """
    written = " ".join(text.split())
    match = re.fullmatch(r"(?P<metric>.+?)\s+(?P<rest>(?:for|in)\s.*)", written, re.IGNORECASE)
    form = "Write METRIC for LABEL in ATTRIBUTE, such as “tpr for pneumonia in sex”."
    if match is None:
        raise _refuse(written, "names no attribute", form, "primary hypothesis")
    label, attribute, _, _ = _places(match["rest"], written)
    if attribute is None:
        raise _refuse(written, "names no attribute", form, "primary hypothesis")
    return Hypothesis(written, _metric(match["metric"], written), attribute, label)


def is_primary(declared: Declared, gap: str, label: str, attribute: str) -> bool:
    """Whether the test of a gap was declared a primary hypothesis."""
    return any(
        gap == f"{one.metric}_max_min"
        and plain_name(one.attribute) == plain_name(attribute)
        and (one.label is None or plain_name(one.label) == plain_name(label))
        for one in declared.primary
    )


def _places(rest: str, written: str) -> tuple[str | None, str | None, bool, bool]:
    """Return label, attribute, whether it is each of its groups, and whether everybody was said."""
    clauses: dict[str, str] = {}
    end = 0
    while (match := _CLAUSE.match(rest, end)) is not None:
        word, _, each = (match["overall"] or match["word"]).casefold().partition(" ")
        if word in clauses:
            break
        clauses[word] = (match["name"] or "").strip().strip('"')
        clauses["each"], end = clauses.get("each", "") or each, match.end()
    if rest[end:].strip() or {"in", "overall"} <= set(clauses):
        raise _refuse(written, f"ends in {rest.strip()!r}", f"Write {_FORMS}.")
    return clauses.get("for"), clauses.get("in"), bool(clauses.get("each")), "overall" in clauses


def _metric(name: str, written: str) -> str:
    words = {word: metric for metric, row in METRICS.items() for word in (metric, *row.aliases)}
    # Of what chance alone makes larger no bound is to be had.
    biased = [metric for metric, row in METRICS.items() if row.interval == "distance"]
    metric = {plain_name(word): metric for word, metric in words.items()}.get(plain_name(name))
    if metric is None:
        hint = did_you_mean(plain_name(name), [word for word in words if word not in biased], "Metrics are")
        raise _refuse(written, f"names no metric known here ({name.strip()!r})", hint)
    if metric in biased:
        others = [m for m, row in METRICS.items() if row.what == METRICS[metric].what and m not in biased]
        raise _refuse(
            written,
            f"is about {METRICS[metric].title}, which chance alone makes larger",
            f"Require {', '.join(others[:-1])} or {others[-1]}.",
        )
    return metric


def _check_direction(written: str, metric: str, at_least: bool, bound: float, gap: bool) -> None:
    if gap and (at_least or not bound > 0):
        raise _refuse(
            written, "is no margin", "A gap is required to be at most a number above 0: tpr gap<=0.05 in sex."
        )
    if bound > 1 and METRICS[metric].what in ("discrimination", "threshold"):
        raise _refuse(written, f"asks for {bound:g} of what lies between 0 and 1", "Write 0.8, or 80 %.")
    better = METRICS[metric].better
    if not gap and better is not None and (better == "high") != at_least:
        good, sign = ("higher", ">=") if better == "high" else ("lower", "<=")
        raise _refuse(written, f"has the sign of a worse {METRICS[metric].title}", f"{good} is better: write {sign}.")


def _refuse(written: str, what: str, hint: str, kind: str = "requirement") -> MedclipError:
    return MedclipError(Reason.WRONG_USE, f"the {kind} {written!r} {what}.", hint=hint)
