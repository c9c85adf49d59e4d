"""What the page of watched runs shows, as plain data: picked from the result, nothing computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medclip.auditing.monitoring.changes import FEWEST_PATIENTS, Change
from medclip.auditing.monitoring.result import Monitored
from medclip.errors import printable
from medclip.reports.html_page import svg_uri
from medclip.reports.monitor.drawings import draw_counts, draw_series
from medclip.reports.monitor.findings import Series, decisions, series_of, title_of
from medclip.version import __version__
from medclip.wording import capital, figure, interval, number, p_value, percent

DRAWN = 8
"""Figures with a drawing; the others stand in changes.csv."""
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
