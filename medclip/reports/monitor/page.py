"""What the page of watched runs shows: picked from the result, nothing computed anew, and drawn over the periods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medclip.errors import printable
from medclip.monitoring.changes import FEWEST_PATIENTS, Change
from medclip.monitoring.run import Monitored, PeriodRow
from medclip.reports.html_page import svg_uri
from medclip.reports.monitor.findings import Series, decisions, series_of, title_of
from medclip.reports.themed_drawing import BAD, FIRST, LINE, SECOND, SOFT, dress, themed_svg
from medclip.version import __version__
from medclip.wording import capital, figure, interval, number, p_value, percent

DRAWN = 8
"""Figures with a drawing; the others stand in changes.csv."""
_MOST_TICKS = 9
_ROWS_SHOWN = 40
_STUDIES_SHOWN = 20
_PERIODS_SHOWN = 60


@dataclass(frozen=True)
class Drawing:
    """One figure over time."""

    title: str
    image: str
    text: str
    """For those who cannot see it."""


@dataclass(frozen=True)
class ChangeRow:
    """One change as the table shows it."""

    period: str
    what: str
    reference: str
    value: str
    interval: str
    p: str
    size: str


@dataclass(frozen=True)
class ComparedRow:
    """One question of two packs."""

    question: str
    studies: str
    before: str
    now: str
    difference: str
    largest: str
    rank: str
    decisions: str


@dataclass(frozen=True)
class StudyRow:
    """One study whose score differs."""

    study: str
    question: str
    before: str
    now: str


@dataclass(frozen=True)
class Page:
    """Everything on the page."""

    result: Monitored
    medclip: str
    counts: str
    """The drawing of units by period."""
    drawings: tuple[Drawing, ...]
    rows: tuple[ChangeRow, ...]
    num_more: int
    """Changes that chance does not explain beyond those in `rows`."""
    num_compared: int
    num_found: int
    compared: tuple[ComparedRow, ...]
    studies: tuple[StudyRow, ...]
    has_distances: bool
    has_vectors: bool
    fewest: int


def view(result: Monitored) -> Page:
    """Return what the page of a comparison shows."""
    series = series_of(result.changes)
    changed = sorted((one for one in result.changes if one.size), key=lambda one: -abs(one.effect))
    return Page(
        result=result,
        medclip=__version__,
        counts=svg_uri(draw_counts(result.periods[-_PERIODS_SHOWN:])),
        drawings=tuple(_drawing(one) for one in series[:DRAWN]),
        rows=tuple(_row(one) for one in changed[:_ROWS_SHOWN]),
        num_more=max(0, len(changed) - _ROWS_SHOWN),
        num_compared=len(result.changes),
        num_found=len(changed),
        compared=tuple(_compared(result)),
        studies=tuple(_studies(result)),
        has_distances=any(one.about == "distance" for one in result.changes),
        has_vectors=any(one.about == "embeddings" for one in result.changes),
        fewest=FEWEST_PATIENTS,
    )


def _drawing(series: Series) -> Drawing:
    worst = series.worst
    before, now = (_plain(worst, value) for value in (worst.reference, worst.value))
    text = f"{series.title}: {before} in the reference, {now} in {worst.period}"
    return Drawing(capital(series.title), svg_uri(draw_series(series)), text)


def _row(one: Change) -> ChangeRow:
    scale = 1.0 if one.measure in ("mean", "AUROC of a classifier") else 100.0
    return ChangeRow(
        printable(one.period),
        capital(Series((one,)).title),
        _plain(one, one.reference),
        _plain(one, one.value),
        interval(scale * one.low, scale * one.high, signed=True),
        p_value(one.p_adjusted),
        one.size,
    )


def _plain(one: Change, value: float) -> str:
    if one.measure in ("mean", "AUROC of a classifier"):
        return figure(value)
    return "none" if value <= 0 else percent(value)


def _compared(result: Monitored) -> list[ComparedRow]:
    rows = sorted(result.compared, key=lambda one: -(one.num_to_yes + one.num_to_no) / one.num_studies)
    return [
        ComparedRow(
            title_of(one),
            number(one.num_studies),
            figure(one.before),
            figure(one.now),
            f"{figure(one.difference, signed=True)} ({interval(one.low, one.high, signed=True)})",
            figure(one.largest),
            figure(one.rank_correlation),
            decisions(one),
        )
        for one in rows
    ]


def _studies(result: Monitored) -> Sequence[StudyRow]:
    return [
        StudyRow(one.study, f"{one.task}: {one.class_}".replace("_", " "), figure(one.before), figure(one.now))
        for one in result.changed_studies[:_STUDIES_SHOWN]
    ]


def draw_counts(rows: Sequence[PeriodRow]) -> str:
    """Draw how much came in each period, and how it ended.

    Returns:
        An SVG document; the same counts give the same bytes.
    """

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
        _name(axes, [row.period for row in rows])
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
        _name(axes, [one.period for one in changes])
        dress(axes, "")

    return themed_svg((4.5, 2.3), draw)


def _name(axes: Any, names: Sequence[str]) -> None:
    """Write the names of some periods below the axis, so many that none covers another."""
    step = -(-len(names) // _MOST_TICKS)
    places = range(0, len(names), step)
    short = [names[place] if len(names[place]) <= 16 else names[place][:15] + "…" for place in places]
    long = max(map(len, short)) * len(short) > 40
    axes.set_xticks(list(places), short, rotation=35 if long else 0, ha="right" if long else "center")
