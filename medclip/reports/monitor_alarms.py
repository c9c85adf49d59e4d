"""Alarms on the page of watched runs: which scanner, since when, before and after, and its chart over the periods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from medclip.monitoring.alarms import Alarm, Alarms, ChartPoint
from medclip.monitoring.charts import EVERYTHING
from medclip.reports.drawings import BAD, FIRST, SECOND, SOFT, dress, name_periods, themed_svg
from medclip.wording import capital, count, figure, interval, list_of, number, percent

SHOWN = 6
"""Changes with a chart, the latest first; all stand in the table."""
_CHARTS_NAMED = 3


def events_of(alarms: Sequence[Alarm]) -> list[tuple[Alarm, ...]]:
    """Return the alarms of each change, its leader first: those that stand first, then the latest."""
    events: dict[int, list[Alarm]] = {}
    for alarm in alarms:
        events.setdefault(alarm.event, []).append(alarm)
    return sorted((tuple(of_event) for of_event in events.values()), key=lambda one: (not _stands(one), -one[0].event))


def _stands(event: Sequence[Alarm]) -> bool:
    return any(not alarm.until for alarm in event)


def stratum_of(alarm: Alarm) -> str:
    """Return what a chart is of, in words."""
    return EVERYTHING if alarm.fact == EVERYTHING else f"{alarm.fact} “{alarm.stratum}”"


def subject_of(alarm: Alarm) -> str:
    """Return which figure a chart is of, in words."""
    of = alarm.subject.replace("_", " ")
    if alarm.about == "scores":
        return f"{alarm.measure} of {of}"
    if alarm.about == "distance":
        return f"mean distance to the images that the pack was measured on ({of})"
    return "share of patients with a file that was not scored" if alarm.about == "files" else f"vectors, {of}"


def values_of(alarm: Alarm) -> tuple[str, str, str]:
    """Return before, after and the difference with its interval, in words."""
    if alarm.about != "files":
        around = interval(alarm.low, alarm.high, signed=True)
        return figure(alarm.before), figure(alarm.after), f"{figure(alarm.difference, signed=True)} ({around})"
    around = interval(100 * alarm.low, 100 * alarm.high, signed=True)
    points = figure(100 * alarm.difference, signed=True)
    return percent(alarm.before), percent(alarm.after), f"{points} points ({around})"


def sentence_of(event: Sequence[Alarm]) -> tuple[str, str]:
    """Return "alarm", or "over" for one that has ended, and the sentence of a change."""
    leader, others = event[0], event[1:]
    before, after, difference = values_of(leader)
    text = (
        f"{capital(stratum_of(leader))}, since {leader.since}: {subject_of(leader)} {before} before and {after} after, "
        f"difference {difference}; seen in {leader.period}."
    )
    if leader.about == "distance" and leader.difference > 0:
        text += " The images look less like those than before."
    if others:
        named = list(dict.fromkeys(stratum_of(one) for one in others if stratum_of(one) != stratum_of(leader)))
        figures = list(dict.fromkeys(subject_of(one) for one in others if stratum_of(one) == stratum_of(leader)))
        moved = list_of([*figures, *(f"charts of {one}" for one in named)], most=_CHARTS_NAMED)
        text += f" {capital(count(len(others), 'chart'))} moved with it: {moved}."
    if not _stands(event):
        text += f" As before again by {max(one.until for one in event)}."
    return ("alarm" if _stands(event) else "over"), text


def watched_in_words(watch: Alarms, by: str) -> str:
    """Return what was watched, and the one rate of false alarms."""
    strata = [
        count(num, fact) if fact != "modality" else count(num, "modality", "modalities") for fact, num in watch.strata
    ]
    of_which = f": of everything and of {list_of(strata)}" if strata else ""
    return (
        f"{count(watch.num_charts, 'chart')} over {count(watch.num_looks, by)}{of_which}. Where nothing changes, all "
        f"of them together give about {count_of_rate(watch.rate)} a year."
    )


def count_of_rate(rate: float) -> str:
    """Return a rate of false alarms in words."""
    return "one false alarm" if rate == 1 else f"{rate:g} false alarms"


def row_of(alarm: Alarm) -> tuple[str, str, tuple[str, ...], str]:
    """Return stratum, figure, numbers and state of a line of the table."""
    before, after, difference = values_of(alarm)
    strength = f"{figure(abs(alarm.statistic))} ({figure(alarm.limit)})"
    state = f"over by {alarm.until}" if alarm.until else "stands"
    return (
        capital(stratum_of(alarm)),
        subject_of(alarm),
        (alarm.since, alarm.period, before, after, difference, strength, number(alarm.num_patients_after)),
        state,
    )


def draw_chart(leader: Alarm, points: Sequence[ChartPoint]) -> str:
    """Draw the chart of an alarm: the means of the periods beside the two levels, and the statistic with its limit.

    Returns:
        An SVG document.
    """
    names = [point.period for point in points]
    since, alarmed = names.index(leader.since), names.index(leader.period)
    until = names.index(leader.until) if leader.until else len(names) - 1

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for place, point in enumerate(points):
            colour = SECOND if since <= place <= until else FIRST
            if not math.isnan(point.value):
                left.plot([place], [point.value], marker="o", markersize=4, color=colour)
        left.plot([-0.4, since - 0.5], [leader.before] * 2, color=FIRST, linewidth=1.4)
        left.plot([since - 0.5, until + 0.4], [leader.after] * 2, color=SECOND, linewidth=1.4)
        places = range(len(points))
        right.plot(places, [abs(point.statistic) for point in points], color=FIRST, marker="o", markersize=3)
        limits = [(place, point.limit) for place, point in enumerate(points) if math.isfinite(point.limit)]
        for place, limit in limits:
            right.plot([place - 0.5, place + 0.5], [limit] * 2, color=BAD, linestyle="--", linewidth=1.2)
        right.axvline(alarmed, color=BAD, linewidth=0.9, linestyle=":")
        reached = [abs(point.statistic) for point in points if math.isfinite(point.statistic)]
        right.set_ylim(0, 1.15 * max([*reached, *(limit for _, limit in limits)]))
        for axes, title in ((left, leader.measure), (right, "statistic")):
            axes.axvline(since - 0.5, color=SOFT, linestyle=":", linewidth=1.1)
            axes.set_xlim(-0.8, len(points) - 0.2)
            name_periods(axes, ["before", *names[1:]])
            dress(axes, title)

    return themed_svg((9.2, 2.5), draw)
