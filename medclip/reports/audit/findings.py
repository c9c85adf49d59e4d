"""A finding: one thing that an audit is sure of, with the harm it does; every part of the page makes its own.

Those about groups are here: who differs from all others beyond chance, which gap does, and whose scores are reversed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from medclip.auditing.groups.gaps import gap_info, is_gap
from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.names import (
    cell_name,
    gap_head,
    group_name,
    is_all,
    metric_head,
    metric_in_words,
    of_model,
    parts,
    plain,
    survives,
    with_interval,
)
from medclip.statistics.metrics.catalogue import METRICS
from medclip.wording import capital, count, figure, number, p_value, real


class Harm(IntEnum):
    """What a finding does to patients; the first of these stands first on the page."""

    LEAKED = 0
    """Training and audit share something that they must not, so that no other figure holds for new patients."""
    CONSTANT = 1
    """The scores tell nobody apart, or have so few values that ranking and calibration say little."""
    DECLARED = 2
    """What was required before the data were seen is not met."""
    MISSED = 3
    """The ill are called healthy more often in a group."""
    REVERSED = 4
    """The ill get the lower scores."""
    FALSE_ALARM = 5
    """The healthy are called ill more often in a group."""
    RANKING = 6
    """The ill and the healthy are told apart less well in a group."""
    FRAGILE = 7
    """Images that are not as they should be cost answers, or cost a group more."""
    SHORTCUT = 8
    """The score follows a site, a device or a view."""
    CALIBRATION = 9
    """The score means another probability in a group."""
    UNSCORED = 10
    """More patients of a group have no score at all."""
    OTHER = 11

    @property
    def head(self) -> str:
        """The words by which findings of this kind are counted."""
        return _HEADS[self]


_HEADS = {
    Harm.LEAKED: "leakage",
    Harm.CONSTANT: "scores that hardly differ",
    Harm.DECLARED: "not as required beforehand",
    Harm.MISSED: "missed disease",
    Harm.REVERSED: "reversed scores",
    Harm.FALSE_ALARM: "false alarms",
    Harm.RANKING: "ranking (AUROC)",
    Harm.FRAGILE: "under stress",
    Harm.SHORTCUT: "shortcuts",
    Harm.CALIBRATION: "calibration",
    Harm.UNSCORED: "missing scores",
    Harm.OTHER: "others",
}


_PLACE = ("model", "label", "attribute")
_CHANCE = 0.5
_AT_LEAST = 0.0005
"""What a difference must be to be written with three digits; smaller ones are no other side of each other."""
BETTER = "groups that fare better"


@dataclass(frozen=True)
class Finding:
    """One finding of the summary; `findings(result)` of a part of the page returns a list of these."""

    harm: Harm
    sentence: str
    """Everything of it: who, how large, on how many patients, how sure. It ends with a full stop."""
    size: float
    """Distance from no harm: of one kind the largest comes first. Below 0 for the other side of a difference (a group
    that fares better than all others), which comes behind every harm."""
    what: str = ""
    """In the table of findings: the measure and where it was found. Blank: the sentence fills the row."""
    value: str = ""
    """The group's value, and that of those it is compared with."""
    difference: str = ""
    """With its interval."""
    counts: str = ""
    """What it rests on."""
    p: str = ""
    """By itself, and adjusted."""

    @property
    def fares_better(self) -> bool:
        """Whether it is the other side of a harm: a group that fares better than all others."""
        return self.size < 0

    @property
    def head(self) -> str:
        """The words by which findings like this are counted, and which stand above them."""
        return BETTER if self.fares_better else self.harm.head


def by_harm(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Order findings: the worst harm first, and of one harm the largest; behind all of them the groups that fare better
    than all others, so that they take no harm's place on the first pages.
    """
    return tuple(sorted(findings, key=lambda finding: (finding.fares_better, finding.harm, -finding.size)))


class _Kind(NamedTuple):
    """What a measure that differs means for patients."""

    harm: Harm
    is_worse: bool
    """Whether the group fares worse than the others."""
    text: str
    """What happens more often in the group, with {label}, {cell} and {more} for the direction."""


def findings(result: AuditResult) -> list[Finding]:
    """Return every difference between a group and all others that survives its family, every gap between groups that
    does where no single group was found, and every score that is reversed.
    """
    counts = {tuple(row.get(k) for k in (*_PLACE, "group", "metric")): row for row in result.metrics}
    tests = Counter(str(row.get("family")) for row in result.differences)
    by_place: dict[tuple[Any, ...], list[Row]] = {}
    for row in result.differences:
        if survives(result, row) and real(row.get("value")) is not None:
            by_place.setdefault(tuple(row.get(k) for k in (*_PLACE, "metric")), []).append(row)
    kept = [row for rows in by_place.values() for row in rows if not _is_mirror(result, row, rows)]
    return [
        *(_difference(result, row, counts, tests[str(row.get("family"))]) for row in kept),
        *_gaps(result, set(by_place)),
        *_reversed(result),
    ]


def _kind_of(result: AuditResult, metric: str, label: str, difference: float) -> _Kind:
    """Return what a difference of a measure means. Of a label that means "healthy" the rates change their places."""
    healthy = label in result.settings.get("no_finding", ())
    info = METRICS.get(metric)
    worse = info is None or info.better is None or (difference > 0) != (info.better == "high")
    if info is not None and info.errors is not None:
        if info.errors[healthy] == "false alarm":
            return _Kind(Harm.FALSE_ALARM, worse, "False alarms about {label} are {more} frequent in {cell}")
        missed = "Disease is missed" if healthy else "{label} is missed"
        who = " (called {label})" if healthy else ""
        return _Kind(Harm.MISSED, worse, f"{missed} {{more}} often in {{cell}}{who}")
    if info is not None and info.what in ("discrimination", "survival"):
        return _Kind(Harm.RANKING, worse, "The score for {label} ranks patients {order} in {cell}")
    if info is not None and info.what == "calibration":
        return _Kind(Harm.CALIBRATION, True, "The score for {label} is calibrated otherwise in {cell}")
    return _Kind(Harm.OTHER, worse, f"{{label}}: {metric_head(metric)} is {{size}} in {{cell}}")


def _beginning(result: AuditResult, metric: str, row: Row, difference: float) -> tuple[_Kind, str]:
    """Return the kind of a difference, and the beginning of its sentence."""
    kind = _kind_of(result, metric, str(row.get("label")), difference)
    more, order = ("more", "less well") if kind.is_worse else ("less", "better")
    words = {"more": more, "order": order, "size": "higher" if difference > 0 else "lower"}
    cell = f"{cell_name(row)}{of_model(result, row)}"
    return kind, capital(kind.text.format(label=plain(row.get("label")), cell=cell, **words))


def _difference(result: AuditResult, row: Row, counts: Mapping[Any, Row], num_tests: int) -> Finding:
    metric, difference = str(row.get("metric")), float(row["value"])
    kind, beginning = _beginning(result, metric, row, difference)
    of_group = counts.get(tuple(row.get(k) for k in (*_PLACE, "group", "metric")), {})
    value = real(of_group.get("value"))
    reference = str(row.get("reference"))
    others = "all others" if reference == "rest" else plain(reference)
    against = "" if value is None else f"{figure(value)} against {figure(value - difference)} in {others}"
    size, around = parts(row, signed=True)
    people = _counts(of_group)
    sentence = (
        f"{beginning}: {metric_in_words(metric)} {f'{against}, ' if against else ''}a difference of {size} ({around})"
        f"{f'; {people}' if people else ''}; {_p_values(row, num_tests)}."
    )
    return Finding(
        kind.harm,
        sentence,
        abs(difference) - (0 if kind.is_worse else 1),
        what=f"{capital(plain(row.get('label')))}, {cell_name(row)}{of_model(result, row)}: {metric_head(metric)}",
        value=against,
        difference=f"{size} ({around})",
        counts=people,
        p=f"{p_value(row.get('p'))}, {p_value(row.get('p_holm'))}",
    )


def _p_values(row: Row, num_tests: int) -> str:
    adjusted = f"after adjusting for {count(num_tests, 'test')} {p_value(row.get('p_holm'))}"
    return f"p\u00a0{p_value(row.get('p'))}, {adjusted}"


def _counts(row: Row) -> str:
    """Write what a value rests on: positives, rows and patients, as far as they may be shown."""
    if real(row.get("n")) is None:
        return ""
    positives = real(row.get("n_pos"))
    of = "" if positives is None else f"{number(positives)} positives of "
    patients = real(row.get("n_patients"))
    return f"{of}{count(int(row['n']), 'row')}" + ("" if patients is None else f", {count(int(patients), 'patient')}")


def _is_mirror(result: AuditResult, row: Row, rows: Sequence[Row]) -> bool:
    """Whether a row is the other side of one that fares worse: of two groups each is "all others" of the other."""
    metric, difference = str(row.get("metric")), float(row["value"])
    kind = _kind_of(result, metric, str(row.get("label")), difference)
    info = METRICS.get(metric)
    no_side = kind.harm is Harm.CALIBRATION or (kind.harm is Harm.OTHER and info is not None and info.better is None)
    first_of_two = no_side and difference > 0  # neither side is the worse one
    if kind.is_worse and not first_of_two:
        return False
    return any(
        other is not row
        and other.get("reference") == row.get("reference")
        and abs(float(other["value"]) + difference) < _AT_LEAST
        for other in rows
    )


def _gaps(result: AuditResult, places: set[tuple[Any, ...]]) -> Iterator[Finding]:
    """Yield gaps that are larger than chance and are not told of by one of their groups."""
    tests = Counter(str(row.get("family")) for row in result.gaps if not row.get("same_as"))
    for row in result.gaps:
        name = str(row.get("gap"))
        if row.get("same_as") or not survives(result, row) or real(row.get("value")) is None:
            continue
        metrics = gap_info(name).metrics if is_gap(name) else (name,)
        if any((*(row.get(k) for k in _PLACE), metric) in places for metric in metrics):
            continue
        metric = metrics[0]
        kind = _kind_of(result, metric, str(row.get("label")), 1.0)
        harm = kind.harm if len(metrics) == 1 else Harm.OTHER
        size, around = parts(row)
        what = (
            f"{capital(plain(row.get('label')))} by {plain(row.get('attribute'))}{of_model(result, row)}: "
            f"{gap_head(name)}"
        )
        ends = ""
        if row.get("worst_group") and row.get("best_group"):
            ends = f"worst for {group_name(row, 'worst_group')}, best for {group_name(row, 'best_group')}"
        chance = real(row.get("null_mean"))
        alone = "" if chance is None else f"; chance alone would give {figure(chance)} on average"
        yield Finding(
            harm,
            f"{what}, {size} ({around}){f'; {ends}' if ends else ''}; "
            f"{_p_values(row, tests[str(row.get('family'))])}{alone}.",
            float(row["value"]),
            what=what,
            value=ends,
            difference=f"{size} ({around})",
            counts=count(int(real(row.get("num_groups")) or 0), "group"),
            p=f"{p_value(row.get('p'))}, {p_value(row.get('p_holm'))}",
        )


def _reversed(result: AuditResult) -> Iterator[Finding]:
    """Yield the scores whose AUROC is below one half with its whole interval: for everybody, else for a group."""
    everybody: set[tuple[Any, ...]] = set()
    for row in sorted(result.metrics, key=lambda row: not is_all(row)):
        value, high = real(row.get("value")), real(row.get("high"))
        if row.get("metric") not in ("auroc", "c_index") or value is None or high is None or high >= _CHANCE:
            continue
        place = (row.get("model"), row.get("label"), row.get("metric"))
        if place in everybody:
            continue
        if is_all(row):
            everybody.add(place)
        where = "" if is_all(row) else f" in {cell_name(row)}"
        name = metric_head(str(row.get("metric")))
        what = (
            f"{capital(plain(row.get('label')))}{', ' + cell_name(row) if where else ''}{of_model(result, row)}: {name}"
        )
        people = _counts(row)
        yield Finding(
            Harm.REVERSED,
            f"The score for {plain(row.get('label'))} is reversed{where}{of_model(result, row)}: {name} "
            f"{with_interval(row)}, so that those who have it get the lower scores (a wrong column or a wrong sign?)"
            f"{f'; {people}' if people else ''}.",
            _CHANCE - value,
            what=f"{what} is reversed",
            value=with_interval(row),
            counts=people,
        )
