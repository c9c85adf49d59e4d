"""Is what was declared met? Each requirement against the intervals that resample patients.

Met: the one-sided bound at the declared confidence is on the right side, in every group that the requirement names.
All groups have to pass, so the chance that a model is called met although one group fails is at most 1 − confidence,
however many groups there are (an intersection-union test). A margin is met where both one-sided bounds of the
difference of every two groups lie within it: two one-sided tests, or the 90 % interval within the margin.

Not met: the other bound is on the wrong side, in one group or pair. There each of K groups could fail by chance, so
that bound is taken at a confidence of 1 − (1 − confidence)/K (Bonferroni).

All else is undecided, and so is a group that is not shown or has no interval: what was not seen is not met.

References: Berger, Technometrics 24 (1982) 295-300 (intersection-union tests); Schuirmann, J. Pharmacokinet. Biopharm.
15 (1987) 657-680 (two one-sided tests).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medclip.auditing.declared import Declared, Hypothesis, Requirement
from medclip.auditing.disclosure import CellState
from medclip.auditing.groups.differences import against
from medclip.auditing.groups.measure import Measured, Row, exported, fewest_of, gaps_tested, rounded_values
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.tables.table import plain_name
from medclip.statistics.cohort import ALL, CONFLICT, MISSING, Cohort, Label
from medclip.statistics.resampling.intervals import of
from medclip.statistics.resampling.standard_errors import clusters_of

MET, NOT_MET, UNDECIDED = "met", "not met", "undecided"
EVERY = "everything it names"
"""What the row of a requirement as such stands for, beside those of its groups."""


@dataclass(frozen=True)
class _Bounds:
    """What one group or pair is judged by."""

    value: float
    low: float
    high: float
    """At the declared confidence, each one-sided."""
    wide_low: float
    wide_high: float
    """At the confidence that holds for all groups of the requirement at once."""


_Part = tuple[Label, tuple[int, ...]]
"""A label, and the cell of a group or the two cells of a pair of groups."""


def check_declared(declared: Declared, cohort: Cohort) -> None:
    """Refuse what names a label or an attribute that is not audited.

    Raises:
        MedclipError: WRONG_USE, with the name that was perhaps meant.
    """
    statements: Sequence[Requirement | Hypothesis] = (*declared.requirements, *declared.primary)
    attributes, labels = [a.name for a in cohort.attributes], [x.name for x in cohort.labels]
    for one in statements:
        for what, name, names in (("attribute", one.attribute, attributes), ("label", one.label, labels)):
            if name is not None and plain_name(name) not in map(plain_name, names):
                hint = did_you_mean(name, names, f"Audited {what}s are") or f"No {what} is audited; name it (--by)."
                raise MedclipError(Reason.WRONG_USE, f"{one.text!r} names no audited {what}: {name!r}.", hint=hint)
    for one in declared.primary:
        if f"{one.metric}_max_min" not in gaps_tested():
            names = [name.removesuffix("_max_min") for name in gaps_tested()]
            raise MedclipError(
                Reason.WRONG_USE,
                f"the gap of {one.metric!r} is not tested, so {one.text!r} cannot be a primary hypothesis.",
                hint=f"Tested are gaps of {', '.join(names)}.",
            )


def requirement_rows(measured: Measured, declared: Declared) -> list[Row]:
    """Return the table `requirements`: each requirement, then each of its groups, or pairs of groups, with numbers."""
    rows: list[Row] = []
    for requirement in declared.requirements:
        parts = list(_parts(measured, requirement))
        of_parts = [_judged(measured, requirement, part, len(parts), declared.confidence) for part in parts]
        head = _head(measured, requirement, declared.confidence)
        # A group of blanks is judged where it can be; where it cannot, nothing was declared of it.
        counted = [row for row in of_parts if row["verdict"] != UNDECIDED or row["group"] not in (MISSING, CONFLICT)]
        verdicts = [row["verdict"] for row in counted]
        verdict = NOT_MET if NOT_MET in verdicts else MET if {*verdicts} == {MET} else UNDECIDED
        reason = "; ".join(dict.fromkeys(row["reason"] for row in counted if row["reason"])) if verdict != MET else ""
        several = {"label": requirement.label or EVERY, "attribute": requirement.attribute or ALL, "group": EVERY}
        rows.append({**head, **several, "part": "requirement", "verdict": verdict, "reason": reason})
        rows += of_parts
    return rows


def _head(measured: Measured, requirement: Requirement, confidence: float) -> Row:
    return {
        "model": measured.name,
        "requirement": requirement.text,
        "metric": requirement.metric,
        "bound": requirement.bound,
        "confidence": confidence,
    }


def _parts(measured: Measured, requirement: Requirement) -> Iterator[_Part]:
    """Yield what has to pass: everybody, every group, or every two groups that are no blanks."""
    for label in measured.cohort.labels:
        if requirement.label is not None and plain_name(label.name) != plain_name(requirement.label):
            continue
        states = measured.states[label.name]
        if requirement.attribute is None:
            yield label, (0,)
            continue
        wanted = plain_name(requirement.attribute)
        cells = [g for g, s in enumerate(states) if g and plain_name(s.cell.attribute) == wanted]
        if not requirement.gap:
            yield from ((label, (g,)) for g in cells if states[g].n)
            continue
        stated = [g for g in cells if states[g].n and states[g].cell.group not in (MISSING, CONFLICT)]
        yield from ((label, pair) for pair in combinations(stated, 2))


def _judged(measured: Measured, requirement: Requirement, part: _Part, num_parts: int, confidence: float) -> Row:
    """Judge one group or pair."""
    label, cells = part
    states = [measured.states[label.name][g] for g in cells]
    cell = states[0].cell
    row = {
        **_head(measured, requirement, confidence),
        **{"label": label.name, "attribute": cell.attribute, "group": cell.group, "part": "group"},
        **{"reference": states[1].cell.group if len(states) > 1 else None, "verdict": UNDECIDED, "reason": ""},
    }
    hidden = next((state for state in states if not state.shown), None)
    if hidden is not None:
        return row | {"reason": f"{_named(hidden)}: {hidden.reason}"}
    if requirement.metric not in measured.replicates[label.name].point:
        return row | {"reason": f"{requirement.metric} was not measured for {label.name}"}
    bounds = _bounds(measured, requirement.metric, part, num_parts, confidence)
    fewest = min(fewest_of(requirement.metric, state) for state in states)
    ends = _deciding(requirement, bounds)
    rounded = measured.roundings.of(cell.attribute)
    row |= rounded_values(rounded, fewest, bounds.value, *ends)
    counts = {name: min(getattr(s, name) for s in states) for name in ("n", "n_pos", "n_neg", "n_patients")}
    row |= {name: exported(rounded, n) for name, n in counts.items()}
    if not (bounds.low < bounds.high):
        return row | {"reason": f"{_named(states[0])}: no interval"}
    verdict = verdict_of(requirement, bounds)
    beyond = requirement.gap and max(bounds.low, -bounds.high) > requirement.bound
    alone = f"beyond the margin by itself, but not with all {num_parts} pairs allowed for"
    return row | {"verdict": verdict, "reason": alone if beyond and verdict == UNDECIDED else ""}


def _deciding(requirement: Requirement, bounds: _Bounds) -> tuple[float, float]:
    """Return the two ends that decide: the one that has to be passed, and the one beyond which it is not met."""
    if requirement.gap:
        return bounds.low, bounds.high
    return (bounds.low, bounds.wide_high) if requirement.at_least else (bounds.wide_low, bounds.high)


def _named(state: CellState) -> str:
    return "everybody" if state.cell.attribute == ALL else f"{state.cell.group} ({state.cell.attribute})"


def verdict_of(requirement: Requirement, bounds: _Bounds) -> str:
    """Hold bounds against what is required."""
    if requirement.gap:
        if -requirement.bound < bounds.low and bounds.high < requirement.bound:
            return MET
        return NOT_MET if max(bounds.wide_low, -bounds.wide_high) > requirement.bound else UNDECIDED
    low, high = _deciding(requirement, bounds)
    passed, failed = low >= requirement.bound, high < requirement.bound
    if not requirement.at_least:
        passed, failed = high <= requirement.bound, low > requirement.bound
    return MET if passed else NOT_MET if failed else UNDECIDED


def _bounds(measured: Measured, metric: str, part: _Part, num_parts: int, confidence: float) -> _Bounds:
    """Compute value and bounds of one group, or of the difference of two."""
    label, cells = part
    replicates = measured.replicates[label.name]
    clusters = clusters_of(measured.cohort, label)
    alone, all_at_once = 1 - confidence, (1 - confidence) / num_parts
    if len(cells) == 1:
        value = float(replicates.point[metric][cells[0]])
        (low, high), (wide_low, wide_high) = (
            tuple(float(end[cells[0]]) for end in of(replicates, metric, clusters, level=1 - 2 * tail)[:2])
            for tail in (alone, all_at_once)
        )
        return _Bounds(value, low, high, wide_low, wide_high)
    from scipy.special import stdtrit

    (d,) = against(replicates, metric, [cells[0]], cells[1], clusters)
    error = d.standard_error if d.standard_error > 0 else math.nan
    near, wide = (float(stdtrit(d.degrees_of_freedom, 1 - tail)) * error for tail in (alone, all_at_once))
    ends = np.array([-near, near, -wide, wide]) + d.value
    return _Bounds(d.value, *map(float, ends))
