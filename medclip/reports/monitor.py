"""The page of watched runs: alarms first, then each period beside the reference, in sentences, drawings and tables.

The sentences name what differs and blame nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.errors import printable
from medclip.files.output import write_file
from medclip.monitoring.alarms import Alarm, Alarms
from medclip.monitoring.changes import FEWEST_PATIENTS, Change
from medclip.monitoring.run import REPORT, Finding, Monitored, PeriodRow
from medclip.monitoring.side_by_side import Compared
from medclip.reports.drawings import BAD, FIRST, LINE, SECOND, SOFT, dress, name_periods, themed_svg
from medclip.reports.html_page import render_page, svg_uri
from medclip.reports.monitor_alarms import (
    SHOWN,
    count_of_rate,
    draw_chart,
    events_of,
    row_of,
    sentence_of,
    watched_in_words,
)
from medclip.version import __version__
from medclip.wording import capital, count, figure, interval, number, percent, percent_of

DRAWN = 8
"""Figures with a drawing; the others stand in changes.csv."""
_ROWS_SHOWN = 40
_STUDIES_SHOWN = 20
_PERIODS_SHOWN = 60
_STYLES = ("style.css", "pretrain.css", "monitor.css")
_ORDER = ("alarm", "over", "large", "clear", "small", "note")


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
    def beyond_chance(self) -> tuple[Change, ...]:
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
    return sorted(series, key=lambda one: (not one.beyond_chance, -_strength(one.worst)))


def findings_of(result: Monitored) -> tuple[Finding, ...]:
    """Return what stands out: alarms, then what differs, the largest first."""
    largest: dict[tuple[str, ...], Series] = {}
    for series in series_of(result.changes):
        if series.beyond_chance:  # of mean and tail the one that changed more stands for both
            largest.setdefault((series.worst.about, series.worst.subject, series.worst.name), series)
    findings = [Finding(*sentence_of(event)) for event in events_of(result.alarms)]
    findings += [Finding(series.worst.size, _sentence(series, result)) for series in largest.values()]
    findings += list(_of_packs(result))
    if result.changes and not any(one.size for one in result.changes):
        findings.append(Finding("note", _nothing(result)))
    if not result.has_compared:
        findings.append(Finding("note", _too_small(result)))
    return tuple(sorted(findings, key=lambda one: _ORDER.index(one.size)))


def _strength(one: Change) -> float:
    return 0.0 if math.isnan(one.effect) else abs(one.effect)


def _sentence(series: Series, result: Monitored) -> str:
    worst, num = series.worst, len(series.beyond_chance)
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
        share = _changed(one)
        if not share:
            continue
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


def _changed(one: Compared) -> float:
    """Return the share of decisions that differ."""
    return (one.num_to_yes + one.num_to_no) / one.num_studies


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


def write_monitor_report(result: Monitored, folder: Path) -> Path:
    """Write report.html into a folder, and return its path."""
    changed = sorted((one for one in result.changes if one.size), key=lambda one: -abs(one.effect))
    watch = result.watch
    events = events_of(result.alarms)
    values = {
        "result": result,
        "watch": watch,
        "watched": "" if watch is None else watched_in_words(watch, result.by),
        "rate": "" if watch is None else count_of_rate(watch.rate),
        "num_standing": sum(any(not alarm.until for alarm in event) for event in events),
        "charts": [] if watch is None else [_chart(event, watch) for event in events[:SHOWN]],
        "num_events": len(events),
        "alarms": [row_of(alarm) for event in events for alarm in event][:_ROWS_SHOWN],
        "medclip": __version__,
        "counts": svg_uri(draw_counts(result.periods[-_PERIODS_SHOWN:])),
        "drawings": [_drawing(one) for one in series_of(result.changes)[:DRAWN]],
        "changes": [_row(one) for one in changed[:_ROWS_SHOWN]],
        "num_changed": len(changed),
        "compared": [_compared_row(one) for one in sorted(result.compared, key=lambda one: -_changed(one))],
        "studies": result.changed_studies[:_STUDIES_SHOWN],
        "about": {one.about for one in result.changes},
        "fewest": FEWEST_PATIENTS,
    }
    path = folder / REPORT
    write_file(path, render_page("monitor.html.j2", _STYLES, values))
    return path


def _chart(event: Sequence[Alarm], watch: Alarms) -> tuple[str, str, str]:
    """Return state and sentence of a change, and the chart of its leader."""
    points = [point for point in watch.points if point.event == event[0].event]
    return *sentence_of(event), svg_uri(draw_chart(event[0], points))


def _drawing(series: Series) -> tuple[str, str, str]:
    """Return the title of a figure over time, its drawing, and the same in words."""
    worst = series.worst
    before, now = (_plain(worst, value) for value in (worst.reference, worst.value))
    words = f"{series.title}: {before} in the reference, {now} in {worst.period}"
    return capital(series.title), svg_uri(draw_series(series)), words


def _row(one: Change) -> tuple[str, str, tuple[str, ...], str]:
    """Return period, figure, its numbers and its size."""
    scale = 1.0 if one.measure in ("mean", "AUROC of a classifier") else 100.0
    around = interval(scale * one.low, scale * one.high, signed=True)
    numbers = (_plain(one, one.reference), _plain(one, one.value), around)
    return printable(one.period), capital(Series((one,)).title), numbers, one.size


def _compared_row(one: Compared) -> tuple[str, tuple[str, ...], str]:
    """Return the question, its numbers, and how many decisions differ."""
    difference = f"{figure(one.difference, signed=True)} ({interval(one.low, one.high, signed=True)})"
    numbers = (figure(one.before), figure(one.now), difference, figure(one.largest), figure(one.rank_correlation))
    return title_of(one), (number(one.num_studies), *numbers), decisions(one)


def _plain(one: Change, value: float) -> str:
    if one.measure in ("mean", "AUROC of a classifier"):
        return figure(value)
    return "none" if value <= 0 else percent(value)


def draw_counts(rows: Sequence[PeriodRow]) -> str:
    """Draw how much came in each period, and how it ended, as SVG; the same counts give the same bytes."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        places = range(len(rows))
        floor = [0] * len(rows)
        for name, title, colour in (
            ("num_scored", "scored", FIRST),
            ("num_skipped", "skipped", SOFT),
            ("num_failed", "failed", BAD),
        ):
            heights = [getattr(row, name) for row in rows]
            axes.bar(places, heights, bottom=floor, color=colour, width=0.72, label=title)
            floor = [low + height for low, height in zip(floor, heights, strict=True)]
        num_reference = sum(row.is_reference for row in rows)
        if num_reference:
            axes.axvline(num_reference - 0.5, color=SOFT, linestyle=":", linewidth=1.2)
        name_periods(axes, [row.period for row in rows])
        dress(axes, "units")
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.0), labelcolor=SOFT)

    return themed_svg((9.2, 2.7), draw)


def draw_series(series: Series) -> str:
    """Draw one figure over the periods: intervals are those of the difference, hollow points what chance explains.

    An interval ends where the figure does: a share, a probability and an AUROC lie between 0 and 1, a distance above 0.

    Returns:
        An SVG document.
    """
    changes = series.changes
    most = 1.0 if changes[0].about != "distance" or "share" in changes[0].measure else math.inf

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        places = list(range(len(changes)))
        for place, one in zip(places, changes, strict=True):
            colour = SECOND if one.size else FIRST
            if one.low == one.low and one.high == one.high:
                ends = [min(max(one.reference + end, 0.0), most) for end in (one.low, one.high)]
                axes.plot([place, place], ends, color=colour, linewidth=1.4)
            face = colour if one.size else "none"
            marker = {"marker": "o", "markersize": 5.5, "markerfacecolor": face, "markeredgecolor": colour}
            axes.plot([place], [one.value], clip_on=False, zorder=3, **marker)
        axes.plot(places, [one.reference for one in changes], color=SOFT, linestyle="--", linewidth=1.1)
        axes.set_xlim(-0.6, max(places) + 0.6)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0.0), min(high, most))
        axes.axhline(changes[0].reference, color=LINE, linewidth=0.8, zorder=0)
        name_periods(axes, [one.period for one in changes])
        dress(axes, "")

    return themed_svg((4.5, 2.3), draw)
