"""Measures over the grade of corruptions as inline SVG: one small plot for each corruption, one line for each group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from medclip.auditing.checks.stress.shifts import CLEAN
from medclip.auditing.result import Row
from medclip.reports.audit.names import group_name
from medclip.reports.forest_plot import SHAPES, Scale, drawing, marker, stroke, tick_text, words
from medclip.wording import count, real

_WIDTH, _LEFT, _GAP, _TOP, _TALL, _FOOT = 850, 34, 14, 44, 118, 24
_DASHES = ("", " dash-a", " dash-b", " dash-c", " dash-a", " dash-b")
MOST_GROUPS = len(SHAPES)
"""Lines of a plot; further groups are in the table."""
_GRADES = "clean", "mild", "mod.", "severe"


def curves(rows: Sequence[Row], corruptions: Sequence[tuple[str, str]], *, identity: str, title: str) -> Markup:
    """Draw a measure from clean to severe.

    Args:
        rows: Rows of the table `stress`: one model, label, attribute and measure; clean rows and those of corruptions.
        corruptions: Name and title of each, in the order of the plots.
        identity: Identity of the drawing, unique on the page.
        title: Title of the drawing.
    """
    groups = list(dict.fromkeys(group_name(row) for row in rows))[:MOST_GROUPS]
    grades = sorted({int(row["grade"]) for row in rows if real(row.get("grade")) is not None})
    values = [v for row in rows for key in ("value", "low", "high") if (v := real(row.get(key))) is not None]
    low = min(0.5, *values) if values else 0.0
    y = Scale(max(0.0, int(10 * low) / 10), 1.0, _TOP + _TALL, _TOP)
    width = (_WIDTH - _LEFT - _GAP * (len(corruptions) - 1)) / max(1, len(corruptions))
    body = [words(_LEFT, 16.5, title, "t head-t", longest=60), *_legend(groups, _LEFT + 24 + 7.6 * min(60, len(title)))]
    for n, (name, head) in enumerate(corruptions):
        start = _LEFT + n * (width + _GAP)
        x = Scale(0, max(1, len(grades)), start + 8, start + width - 8)
        body += _frame(x, y, start, start + width, len(grades), first=n == 0)
        body.append(words(start, _TOP - 8, head, "t soft-t head-t", longest=int(width / 6.6)))
        for series, group in enumerate(groups):
            own = [row for row in rows if group_name(row) == group]
            points = [row for row in own if row.get("kind") == CLEAN]
            points += sorted((r for r in own if r.get("name") == name), key=lambda r: r.get("grade") or 0)
            body += _line(points, x, y, series)
    description = f"{count(len(groups), 'line')} in {count(len(corruptions), 'plot')}. stress.csv has the numbers."
    return drawing(identity, title, description, _WIDTH, _TOP + _TALL + _FOOT, body, "forest stress")


def _line(points: Sequence[Row], x: Scale, y: Scale, series: int) -> Iterator[str]:
    """Draw a band, a line and a mark for each grade; hollow marks are of few positives."""
    places = [(n, v, row) for n, row in enumerate(points) if (v := real(row.get("value"))) is not None]
    upper, lower = [], []
    for n, _, row in places:
        low, high = real(row.get("low")), real(row.get("high"))
        if low is not None and high is not None:
            upper.append((x.at(n), y.at(high)))
            lower.append((x.at(n), y.at(low)))
    if len(upper) > 1:
        yield f'<polygon class="band c{series}" points="{_points(upper + lower[::-1])}"/>'
    if len(places) > 1:
        steps = _points([(x.at(n), y.at(v)) for n, v, _ in places])
        yield f'<polyline class="run thin w{series}{_DASHES[series]}" points="{steps}"/>'
    for n, v, row in places:
        yield marker(x.at(n), y.at(v), series, size=3, hollow=row.get("flag") == "underpowered")


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _frame(x: Scale, y: Scale, left: float, right: float, num_grades: int, *, first: bool) -> Iterator[str]:
    for tick in y.ticks():
        yield stroke(left, y.at(tick), right, y.at(tick), "grid-line")
        if first:
            yield words(left - 5, y.at(tick) + 4, tick_text(tick, 0.1), "t soft-t", anchor="end")
    yield stroke(left, y.start, right, y.start, "axis")
    names = _GRADES if num_grades == len(_GRADES) - 1 else ("clean", *map(str, range(1, num_grades + 1)))
    for n, name in enumerate(names):
        anchor = "start" if n == 0 else "end" if n == len(names) - 1 else "middle"
        place = left if n == 0 else right if n == len(names) - 1 else x.at(n)
        yield words(place, y.start + 15, name, "t soft-t tiny", anchor=anchor)


def _legend(groups: Sequence[str], place: float) -> Iterator[str]:
    for series, group in enumerate(groups):
        yield marker(place + 5, 12, series)
        yield words(place + 15, 16.5, group, longest=20)
        place += 34 + 7.2 * min(20, len(group))
