"""What changed, in sentences made of its numbers, the largest first. They name what differs and blame nobody."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medclip.monitoring.changes import FAR, FEWEST_PATIENTS, TAIL, Change
from medclip.monitoring.run import Finding, Monitored
from medclip.monitoring.side_by_side import Compared
from medclip.wording import capital, count, figure, interval, number, percent, percent_of

_ORDER = ("large", "clear", "small", "note")


@dataclass(frozen=True)
class Series:
    """One figure over the periods."""

    changes: tuple[Change, ...]
    """In the order of time."""

    @property
    def worst(self) -> Change:
        """The largest change that chance does not explain; the largest of all where it explains all."""
        return max(self.changes, key=lambda one: (bool(one.size), _strength(one)))

    @property
    def found(self) -> tuple[Change, ...]:
        """Changes that chance does not explain."""
        return tuple(one for one in self.changes if one.size)

    @property
    def title(self) -> str:
        """What it is the figure of."""
        one = self.changes[0]
        of = one.subject.replace("_", " ")
        if one.about == "files":
            return f"not read or not scored for the reason “{one.name.replace('_', ' ')}”, share of all"
        if one.about == "mix":
            return f"{of} “{one.name}”, share of all that was scored"
        if one.about == "distance":
            what = "share far from" if "share" in one.measure else "mean distance to"
            return f"{of}: {what} the images that the pack was measured on"
        if one.about == "embeddings":
            return "vectors: how well a classifier tells them from those of the reference (AUROC)"
        return f"{of}: {'mean probability' if one.measure == 'mean' else 'share of the highest scores'}"


def series_of(changes: Sequence[Change]) -> list[Series]:
    """Return the figures over time, the one with the largest change first."""
    groups: dict[tuple[str, ...], list[Change]] = {}
    for one in changes:
        groups.setdefault((one.about, one.subject, one.name, one.measure), []).append(one)
    series = [Series(tuple(group)) for group in groups.values()]
    return sorted(series, key=lambda one: (not one.found, -_strength(one.worst)))


def findings_of(result: Monitored) -> tuple[Finding, ...]:
    """Return what stands out, the largest change first.

    Args:
        result: The comparison; its own findings are not looked at.
    """
    largest: dict[tuple[str, ...], Series] = {}
    for series in series_of(result.changes):
        if series.found:  # of mean and tail the one that changed more stands for both
            largest.setdefault((series.worst.about, series.worst.subject, series.worst.name), series)
    findings = [Finding(series.worst.size, _sentence(series, result)) for series in largest.values()]
    findings += list(_of_packs(result))
    if result.changes and not any(one.size for one in result.changes):
        findings.append(Finding("note", _nothing(result)))
    if not result.has_compared:
        findings.append(Finding("note", _too_small(result)))
    return tuple(sorted(findings, key=lambda one: _ORDER.index(one.size)))


def _strength(one: Change) -> float:
    return 0.0 if math.isnan(one.effect) else abs(one.effect)


def _sentence(series: Series, result: Monitored) -> str:
    worst, num = series.worst, len(series.found)
    periods = len(series.changes)
    among = f"in {num} of {count(periods, result.by)} that could be compared"
    if periods == 1:
        among = f"in the one {result.by} that could be compared"
    largest = worst.period if num == 1 else f"most in {worst.period}"
    return f"{capital(series.title)}: {_values(worst)}; {among}, {largest}."


def _values(one: Change) -> str:
    if one.about == "embeddings":
        return f"{figure(one.value)} where chance gives 0.5 ({count(one.num, 'study')} there)"
    if one.measure == "mean":
        before, now = figure(one.reference), figure(one.value)
        around = interval(one.low, one.high, signed=True)
        return f"{before} in the reference and {now} there (difference {around})"
    before, now = _share(one.reference), _share(one.value)
    around = interval(100 * one.low, 100 * one.high, signed=True)
    return f"{before} in the reference and {now} there (difference {around} points)"


def _share(value: float) -> str:
    return "none" if value <= 0 else "all" if value >= 1 else percent(value)


def _of_packs(result: Monitored) -> Iterator[Finding]:
    for one in result.compared:
        changed = one.num_to_yes + one.num_to_no
        if not changed:
            continue
        share = changed / one.num_studies
        size = "large" if share >= 0.1 else "clear" if share >= 0.02 else "small"
        yield Finding(
            size, f"{capital(title_of(one))}: {decisions(one)} (rank correlation {figure(one.rank_correlation)})."
        )
    if result.compared and not any(one.num_to_yes or one.num_to_no for one in result.compared):
        largest = max(one.largest for one in result.compared)
        yield Finding(
            "note",
            f"No decision of {count(result.num_paired[0], 'study')} differs between the two packs; the largest "
            f"difference of a probability is {figure(largest)}.",
        )


def title_of(one: Compared) -> str:
    """Return task and class in words."""
    return f"{one.task}: {one.name}".replace("_", " ")


def decisions(one: Compared) -> str:
    """Return how many decisions differ, and in which direction."""
    changed = one.num_to_yes + one.num_to_no
    if not changed:
        return f"no decision of {number(one.num_studies)} differs"
    share = percent_of(changed, one.num_studies)
    return (
        f"{number(changed)} of {count(one.num_studies, 'decision')} ({share}) "
        f"{'differs' if changed == 1 else 'differ'}, {number(one.num_to_yes)} to yes and {number(one.num_to_no)} to no"
    )


def _nothing(result: Monitored) -> str:
    num = len(result.changes)
    least = min(one.num_patients for one in result.changes)
    few = (
        f" The smallest {result.by} has {count(least, 'patient')}, where only large changes can be seen."
        if least < 100
        else ""
    )
    return f"Of {count(num, 'figure')} that were compared none differs from the reference by more than chance.{few}"


def _too_small(result: Monitored) -> str:
    return (
        f"Nothing was compared: {count(FEWEST_PATIENTS, 'patient')} are needed in a {result.by} and in the reference. "
        "Watch longer periods, or more results at once."
    )


MEANING = {
    "tail": f"share of scores above the {TAIL:.0%} quantile of the reference".replace("%", " %"),
    "far": f"distance above {FAR:g}: one in twenty of the images lies there that the pack was measured on",
}
