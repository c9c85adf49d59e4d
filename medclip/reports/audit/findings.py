"""A finding: one thing that an audit is sure of, with the harm it does; every part of the page makes its own.

Those about groups are here, one for each mechanism (`mechanisms`): who fares worse than all others beyond chance, whose
scores are reversed, and whether scores mean what they say. What was declared a primary hypothesis is answered here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from medclip.auditing.groups.family import IDEAL
from medclip.auditing.groups.gaps import gap_info, is_gap
from medclip.auditing.groups.measure import PRIMARY
from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.mechanisms import Mechanism, join_coinciding, mechanisms
from medclip.reports.audit.names import (
    alone_and_adjusted,
    alpha,
    cell_name,
    gap_head,
    group_name,
    is_all,
    metric_head,
    metric_in_words,
    of_model,
    parts,
    plain,
    select,
    survives,
    with_interval,
)
from medclip.statistics.metrics.catalogue import METRICS, of_negatives
from medclip.wording import (
    capital,
    count,
    figure,
    list_of,
    number,
    p_value,
    percent,
    real,
    told_apart,
    value_and_interval,
)


class Harm(IntEnum):
    """What a finding does to patients; the first of these stands first on the page."""

    LEAKED = 0
    """Training and audit share something that they must not, so that no other figure holds for new patients."""
    CONSTANT = 1
    """The scores tell nobody apart, or have so few values that ranking and calibration say little."""
    BLIND = 2
    """What is marked fits no better than what needs no model."""
    DECLARED = 3
    """What was required before the data were seen is not met."""
    MISSED = 4
    """The ill are called healthy more often in a group."""
    REVERSED = 5
    """The ill get the lower scores."""
    FALSE_ALARM = 6
    """The healthy are called ill more often in a group."""
    RANKING = 7
    """The ill and the healthy are told apart less well in a group."""
    OUTLINES = 8
    """What is marked fits the true mask less well in a group."""
    FRAGILE = 9
    """Images that are not as they should be cost answers, or cost a group more."""
    SHORTCUT = 10
    """The score follows a site, a device or a view."""
    CALIBRATION = 11
    """The score means another probability in a group."""
    UNSCORED = 12
    """More patients of a group have no score at all."""
    OTHER = 13

    @property
    def head(self) -> str:
        """The words by which findings of this kind are counted."""
        return _HEADS[self]


_HEADS = {
    Harm.LEAKED: "leakage",
    Harm.CONSTANT: "scores that hardly differ",
    Harm.BLIND: "no better than without a model",
    Harm.DECLARED: "not as required beforehand",
    Harm.MISSED: "missed disease",
    Harm.REVERSED: "reversed scores",
    Harm.FALSE_ALARM: "false alarms",
    Harm.RANKING: "ranking (AUROC)",
    Harm.OUTLINES: "outlines (Dice)",
    Harm.FRAGILE: "under stress",
    Harm.SHORTCUT: "shortcuts",
    Harm.CALIBRATION: "calibration",
    Harm.UNSCORED: "missing scores",
    Harm.OTHER: "others",
}


_PLACE = ("model", "label", "attribute")
_CHANCE = 0.5
_MOST = 3
"""Labels, and groups at the worse end, that a sentence names."""


@dataclass(frozen=True)
class Finding:
    """One finding of the summary; `findings(result)` of a part of the page returns a list of these."""

    harm: Harm
    sentence: str
    """Everything of it: who, how large, on how many patients, how sure. It ends with a full stop."""
    size: float
    """Distance from no harm: of one kind the largest comes first."""
    what: str = ""
    """In the table of findings: the measure and where it was found. Blank: the sentence fills the row."""
    value: str = ""
    """The group's value, and that of those it is compared with."""
    difference: str = ""
    """With its interval."""
    given: str = ""
    """Sentences on attributes that coincide: what is left of the difference, given them."""
    counts: str = ""
    """What it rests on."""
    p: str = ""
    """By itself, and adjusted."""
    row: Row | None = None
    """Row with the difference and its interval as numbers, which the first page draws; None where shares and areas are
    not its unit."""

    @property
    def head(self) -> str:
        """The words by which findings like this are counted, and which stand above them."""
        return self.harm.head


def by_harm(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Order findings: the worst harm first, and of one harm the largest."""
    return tuple(sorted(findings, key=lambda finding: (finding.harm, -finding.size)))


class _Kind(NamedTuple):
    """What a measure that differs means for patients."""

    harm: Harm
    is_worse: bool
    """Whether the group fares worse than the others."""
    text: str
    """What happens more often in the group, with {label}, {cell} and {more} for the direction."""


def findings(result: AuditResult) -> list[Finding]:
    """Return every mechanism by which a group fares worse and that survives its family, every gap that does where no
    single group was found, every score that is reversed, and scores that do not mean what they say.
    """
    harmed = _mechanisms(result, lambda row: survives(result, row))
    places = {tuple(row.get(k) for k in (*_PLACE, "metric")) for row in result.differences if survives(result, row)}
    joined = join_coinciding(harmed, result.coinciding)
    calibrated = _calibration(result, lambda row: survives(result, row))
    return [*_of_mechanisms(result, joined), *_gaps(result, places), *_reversed(result), *calibrated]


def leads(result: AuditResult) -> list[Finding]:
    """Return what is small by itself only, each mechanism once, the smallest p first: no findings."""

    def is_lead(row: Row) -> bool:
        p = real(row.get("p"))
        return p is not None and p <= alpha(result) and not survives(result, row)

    # What a finding explains is no lead.
    every = _mechanisms(result, lambda row: survives(result, row) or is_lead(row))
    of_groups = [one for one in every if all(map(is_lead, one.rows))]
    of_groups.sort(key=lambda one: min(float(row["p"]) for row in one.rows))
    return [*_of_mechanisms(result, of_groups), *_calibration(result, is_lead)]


def _mechanisms(result: AuditResult, is_found: Callable[[Row], bool]) -> list[Mechanism]:
    def harm_of(row: Row) -> int | None:
        kind = _kind_of(result, str(row.get("metric")), str(row.get("label")), float(row["value"]))
        return kind.harm if kind.is_worse else None

    of_groups = [row for row in result.differences if row.get("reference") != IDEAL]
    return mechanisms(of_groups, result.metrics, is_found, harm_of)


def _of_mechanisms(result: AuditResult, every: Iterable[Mechanism]) -> Iterator[Finding]:
    counts = {tuple(row.get(k) for k in (*_PLACE, "group", "metric")): row for row in result.metrics}
    tests = Counter(str(row.get("family")) for row in result.differences if real(row.get("p")) is not None)
    for one in every:
        yield _difference(result, one, counts, tests[str(one.lead.get("family"))])


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


def _difference(result: AuditResult, one: Mechanism, counts: Mapping[Any, Row], num_tests: int) -> Finding:
    row = one.lead
    metric, difference = str(row.get("metric")), float(row["value"])
    kind, beginning = _beginning(result, metric, row, difference)
    of_group = _of_group(row, counts)
    against = _against(row, counts)
    size, around = parts(row, signed=True)
    people = _counts(of_group)
    others = [other for other in (*one.rows[1:], *one.beside) if other.get("metric") != "ppv"]
    besides = [f"{metric_head(str(other.get('metric')))} {_against(other, counts, short=True)}" for other in others]
    with_it = f"; with it {list_of(besides)}" if besides else ""
    sentence = (
        f"{beginning}: {metric_in_words(metric)} {f'{against}, ' if against else ''}a difference of {size} ({around})"
        f"{with_it}{f'; {people}' if people else ''}; {_p_values(row, num_tests)}.{_given(one)}"
    )
    coincide = "".join(f", or {_as_coinciding(one, other)}" for other in one.merged)
    return Finding(
        kind.harm,
        sentence,
        abs(difference),
        what=f"{capital(plain(row.get('label')))}, {cell_name(row)}{coincide}{of_model(result, row)}: "
        f"{metric_head(metric)}",
        value=f"{against}{with_it}",
        difference=f"{size} ({around})",
        given=_given(one).strip(),
        counts=people,
        p=f"{p_value(row.get('p'))}, {p_value(row.get('p_holm'))}",
        row=None if kind.harm is Harm.CALIBRATION else row,
    )


def _of_group(row: Row, counts: Mapping[Any, Row]) -> Row:
    return counts.get(tuple(row.get(k) for k in (*_PLACE, "group", "metric")), {})


def _against(row: Row, counts: Mapping[Any, Row], *, short: bool = False) -> str:
    """Write the value of a group, and that of those it is compared with."""
    value, reference = real(_of_group(row, counts).get("value")), str(row.get("reference"))
    if value is None:
        return "" if row.get("metric") is None else f"{figure(row.get('value'), signed=True)}"
    others = "all others" if reference == "rest" else plain(reference)
    against = " against ".join(told_apart(value, value - float(row["value"])))
    return against if short else f"{against} in {others}"


def _as_coinciding(one: Mechanism, other: Mechanism) -> str:
    """Name the group of another attribute that a group goes with; the other mechanism may be of its counterpart."""
    attribute = other.lead.get("attribute")
    row = next((row for row in one.given if row.get("given") == attribute), None)
    return cell_name(other.lead) if row is None else f"{group_name(row, 'other_group')} ({plain(attribute)})"


def _given(one: Mechanism) -> str:
    """Name which attributes coincide with that of a mechanism, and what is left of the difference, given them."""
    sentences = []
    for row in one.given:
        given = plain(row.get("given"))
        share = percent(float(row["share"]))
        sentence = f" {share} of {cell_name(row)} are {group_name(row, 'other_group')} ({given}): "
        if real(row.get("value")) is None:
            sentences.append(f"{sentence}they cannot be told apart here.")
            continue
        sentence += f"given the {given}, the difference is {with_interval(row, signed=True)}"
        for other in one.merged:
            back = [r for r in other.given if r.get("given") == one.lead.get("attribute")]
            if other.lead.get("attribute") == row.get("given") and back and real(back[0].get("value")) is not None:
                name = metric_head(str(other.lead.get("metric")))
                sentence += (
                    f"; given the {plain(one.lead.get('attribute'))}, the {name} of {cell_name(other.lead)} differs by "
                    f"{with_interval(back[0], signed=True)}"
                )
        sentences.append(f"{sentence}.")
    return "".join(sentences)


def _p_values(row: Row, num_tests: int) -> str:
    adjusted = f"after adjusting for {count(num_tests, 'test')} {p_value(row.get('p_holm'))}"
    return f"p\u00a0{p_value(row.get('p'))}, {adjusted}"


def _counts(row: Row) -> str:
    """Write what a value rests on: positives or negatives, rows and patients, as far as they may be shown."""
    if real(row.get("n")) is None:
        return ""
    metric = METRICS.get(str(row.get("metric")))
    column, noun = (
        ("n_neg", "negative") if metric is not None and metric.cases is of_negatives else ("n_pos", "positive")
    )
    cases = real(row.get(column))
    of = "" if cases is None else f"{count(int(cases), noun)} of "
    patients = real(row.get("n_patients"))
    return f"{of}{count(int(row['n']), 'row')}" + ("" if patients is None else f", {count(int(patients), 'patient')}")


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


def _calibration(result: AuditResult, is_found: Callable[[Row], bool]) -> Iterator[Finding]:
    """Yield for each model what its scores are not: as high as the cases that came, and as far apart."""
    every = [row for row in result.differences if row.get("reference") == IDEAL and is_found(row)]
    for model in dict.fromkeys(row.get("model") for row in every):
        of_labels: dict[str, list[Row]] = {}
        for row in (row for row in every if row.get("model") == model):
            of_labels.setdefault(str(row.get("label")), []).append(row)
        ordered = sorted(of_labels.items(), key=lambda item: -max(_off(row) for row in item[1]))
        rows = [row for _, of_label in ordered for row in of_label]
        texts = [f"{plain(label)}: {list_of([_uncalibrated(row) for row in of])}" for label, of in ordered[:_MOST]]
        more = f"; {count(len(ordered) - _MOST, 'more label')} in the annex" if len(ordered) > _MOST else ""
        first = min(rows, key=lambda row: float(row["p"]))
        yield Finding(
            Harm.CALIBRATION,
            f"Scores do not mean what they say{of_model(result, first)}. {capital('; '.join(texts))}{more}; smallest "
            f"{alone_and_adjusted(first)}.",
            max(_off(row) for row in rows),
            what=f"{capital(list_of([plain(label) for label, _ in ordered[:_MOST]]))}{of_model(result, first)}: "
            "calibration of everybody",
            value=f"{'; '.join(texts)}{more}",
            p=f"{p_value(first.get('p'))}, {p_value(first.get('p_holm'))}",
        )


def _off(row: Row) -> float:
    """Return how far a measure of calibration is from 1."""
    return abs(float(row["value"]))


def _uncalibrated(row: Row) -> str:
    ends = [None if real(row.get(end)) is None else float(row[end]) + 1 for end in ("value", "low", "high")]
    value, around = value_and_interval(*ends)
    too = {("observed_expected", True): "too low", ("observed_expected", False): "too high"}
    too |= {("calibration_slope", True): "too much alike", ("calibration_slope", False): "too extreme"}
    name = "observed/expected" if row.get("metric") == "observed_expected" else "slope"
    return f"{too[str(row.get('metric')), float(row['value']) > 0]} ({name} {value}, {around}, ideal 1)"


def primary_answers(result: AuditResult) -> tuple[str, ...]:
    """Return a sentence for each test of a primary hypothesis: verdict, gap, p, and the value of each group."""
    rows = [row for row in result.gaps if str(row.get("family")).startswith(PRIMARY) and not row.get("same_as")]
    return tuple(_primary(result, row) for row in rows)


def _primary(result: AuditResult, row: Row) -> str:
    (metric,) = gap_info(str(row.get("gap"))).metrics
    what = f"{metric_in_words(metric)} for {plain(row.get('label'))} by {plain(row.get('attribute'))}"
    head = f"Primary hypothesis, {what}{of_model(result, row)}: "
    if real(row.get("value")) is None or real(row.get("p")) is None:
        return f"{head}not tested, since fewer than two groups were large enough or had the measure."
    verdict = "groups differ beyond chance" if survives(result, row) else "groups were not shown to differ"
    holds_0 = real(row.get("low")) is not None and float(row["low"]) <= 0
    barely = "; barely, for the interval still holds 0" if holds_0 else ""
    smallest = real(row.get("smallest_gap"))
    seen = f"; a difference of {figure(smallest)} would probably have been seen" if smallest and smallest <= 1 else ""
    place = {name: row.get(name) for name in _PLACE}
    groups = [one for one in select(result.metrics, metric=metric, **place) if real(one.get("value")) is not None]
    worst_first = sorted(groups, key=lambda one: float(one["value"]), reverse=METRICS[metric].better == "low")
    shown = worst_first if len(worst_first) <= 2 * _MOST else [*worst_first[:_MOST], worst_first[-1]]
    rest = len(worst_first) - len(shown)
    values = list_of([f"{group_name(one)} {with_interval(one)}" for one in shown])
    return (
        f"{head}{verdict}. {capital(values)}{f' ({number(rest)} groups between)' if rest else ''}; highest − lowest "
        f"{with_interval(row)}; {alone_and_adjusted(row)}{barely if survives(result, row) else seen}."
    )
