"""The plots of an audit as inline SVG: findings, reliability, net benefit, embeddings, and curves under stress."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from medclip.auditing.checks.stress.shifts import CLEAN
from medclip.auditing.result import Row
from medclip.reports.audit.findings import Finding
from medclip.reports.audit.names import group_name, select
from medclip.reports.forest_plot import (
    LARGE,
    SHAPES,
    Line,
    Mark,
    Scale,
    drawing,
    forest,
    marker,
    round_step,
    stroke,
    tick_text,
    words,
)
from medclip.wording import capital, count, real

MOST_POINTS = 1200
"""Points of a 2-D view that are drawn; all are in the table."""
_SIDE, _EDGE = 168, 30
_DASHES = ("", " dash-a", " dash-b", " dash-c")
_WIDTH, _LEFT, _GAP, _TOP, _TALL, _FOOT = 850, 34, 14, 44, 118, 24
_STRESS_DASHES = ("", " dash-a", " dash-b", " dash-c", " dash-a", " dash-b")
MOST_GROUPS = len(SHAPES)
"""Lines of a plot; further groups are in the table."""
_GRADES = "clean", "mild", "mod.", "severe"


def findings_forest(findings: Sequence[Finding]) -> Markup | None:
    """Draw the difference of each finding with its interval, the worst first, in type that can be read in print; None
    for nothing to draw.
    """
    lines: list[Line] = []
    head = ""
    for finding in findings:
        row = finding.row or {}
        value, low, high = (real(row.get(name)) for name in ("value", "low", "high"))
        if value is None:
            continue
        if finding.head != head:
            head = finding.head
            lines.append(Line(capital(head), head=True))
        p = f"p {finding.p.rpartition(', ')[2]} adjusted" if finding.p else ""
        # who the others are, what goes with it, and all rows stand in the table of the annex
        in_short = finding.value.partition("; with it")[0].removesuffix(" in all others")
        counts = re.sub(r" of [\d,]+ rows?", "", finding.counts)
        below = "; ".join(filter(None, (in_short, counts, p)))
        lines.append(Line(finding.what, (Mark(value, low, high, finding.difference),), below=below))
    if not lines:
        return None
    title = "The worst findings: difference from those that each is held against, with its 95 % interval"
    return forest(
        lines,
        identity="worst",
        title=title,
        axis="Difference from all others, 95 % interval",
        reference=0.0,
        width=LARGE,
    )


def reliability(bins: Sequence[Row], *, identity: str, title: str) -> Markup:
    """Draw observed shares over mean scores of one group, as scored and after the temperature; on the diagonal is what
    is wanted.
    """
    x, y = Scale(0, 1, _EDGE, _SIDE), Scale(0, 1, _SIDE - 22, 8)
    body = [
        stroke(x.at(0), y.at(0), x.at(1), y.at(1), "reference"),
        *_axes(x, y, (0.0, 0.5, 1.0), (0.0, 0.5, 1.0)),
    ]
    for series, after in enumerate(("raw", "temperature")):
        body += _curve([row for row in bins if row.get("after") == after], x, y, series)
    description = f"{len(bins)} bins; the share that is positive over the mean score. calibration.csv has the numbers."
    return drawing(identity, title, description, _SIDE + 8, _SIDE + 4, body, "square")


def net_benefit(curves: Mapping[str, Sequence[Row]], *, identity: str, title: str) -> Markup:
    """Draw net benefit over thresholds for each model, of one label and group, beside calling everybody positive, and
    nobody.
    """
    drawn = dict(list(curves.items())[: len(_DASHES)])
    rows = [row for points in drawn.values() for row in points]
    best = max([v for row in rows for k in ("net_benefit", "high") if (v := real(row.get(k))) is not None], default=0.1)
    end = max([v for row in rows if (v := real(row.get("threshold"))) is not None], default=0.5)
    x, y = Scale(0, end, 50, 620), Scale(-0.25 * max(best, 0.01), 1.12 * max(best, 0.01), 290, 50)
    body = [*_axes(x, y, x.ticks(), y.ticks())]
    body.append(stroke(x.at(0), y.at(0), x.at(end), y.at(0), "nobody"))
    first = next(iter(drawn.values()), ())
    body.append(_path(((row.get("threshold"), row.get("treat_all")) for row in first), x, y, "everybody"))
    for series, (name, points) in enumerate(drawn.items()):
        if series == 0:
            body.append(_band(points, x, y))
        css = f"run w{series}{_DASHES[series]}"
        body.append(_path(((row.get("threshold"), row.get("net_benefit")) for row in points), x, y, css))
        last = [row for row in points if real(row.get("net_benefit")) is not None][:: max(1, len(points) // 6)]
        body += [marker(x.at(row["threshold"]), y.at(row["net_benefit"]), series) for row in last]
        body += [marker(60 + 150 * series, 13, series), words(71 + 150 * series, 17.5, name, longest=18)]
    body += [stroke(52, 32, 76, 32, "nobody"), words(82, 36.5, "acting on nobody")]
    body += [stroke(212, 32, 236, 32, "everybody"), words(242, 36.5, "acting on everybody")]
    body.append(words((x.start + x.end) / 2, 324, "threshold", "t soft-t", anchor="middle"))
    names = ", ".join(drawn)
    description = (
        f"Net benefit of {names}, of calling everybody positive and of calling nobody. decision.csv has the numbers."
    )
    return drawing(identity, title, description, 640, 330, body, "wide")


def scatter(points: Sequence[Row], groups: Sequence[str], *, identity: str, title: str) -> Markup:
    """Draw embeddings of one model and attribute in two dimensions; up to six groups have a colour and a shape each."""
    places = [(r["x"], r["y"], groups.index(str(r["group"]))) for r in points if str(r["group"]) in groups]
    step = -(-len(places) // MOST_POINTS) if places else 1
    places = places[::step]
    x = Scale(*_ends([p[0] for p in places]), 10, 350)
    y = Scale(*_ends([p[1] for p in places]), 350, 10)
    body = ['<rect class="frame" x="4" y="4" width="352" height="352"/>']
    body += [marker(x.at(a), y.at(b), g, size=3.2, hollow=True) for a, b, g in places if g < len(SHAPES)]
    named = groups[: len(SHAPES)]
    for n, group in enumerate(named):
        body += [
            marker(370, 20 + 22 * n, n, size=5, hollow=True),
            words(382, 24.5 + 22 * n, group, longest=18),
        ]
    description = f"{len(places)} points of {len(named)} groups along the first two principal components."
    return drawing(identity, title, description, 520, 360, body, "scatter")


def _axes(x: Scale, y: Scale, ticks_x: Sequence[float], ticks_y: Sequence[float]) -> Iterator[str]:
    for tick in ticks_x:
        yield stroke(x.at(tick), y.start, x.at(tick), y.end, "grid-line")
        yield words(x.at(tick), y.start + 15, tick_text(tick, round_step(x.high - x.low)), "t soft-t", anchor="middle")
    for tick in ticks_y:
        yield stroke(x.start, y.at(tick), x.end, y.at(tick), "grid-line")
        yield words(x.start - 5, y.at(tick) + 4, tick_text(tick, round_step(y.high - y.low)), "t soft-t", anchor="end")
    yield stroke(x.start, y.start, x.end, y.start, "axis")
    yield stroke(x.start, y.start, x.start, y.end, "axis")


def _curve(bins: Sequence[Row], x: Scale, y: Scale, series: int) -> Iterator[str]:
    """Join the bins of a reliability plot."""
    drawn = [row for row in bins if real(row.get("mean_score")) is not None and real(row.get("observed")) is not None]
    if len(drawn) > 1:
        steps = ((row["mean_score"], row["observed"]) for row in drawn)
        yield _path(steps, x, y, f"run thin w{series}{_DASHES[series]}")
    for row in drawn:
        place = x.at(row["mean_score"])
        low, high = real(row.get("low")), real(row.get("high"))
        if series == 0 and low is not None and high is not None:
            yield stroke(place, y.at(low), place, y.at(high), "whisker thin w0")
        yield marker(place, y.at(row["observed"]), series, size=3, hollow=series > 0)


def _path(steps: Iterator[tuple[float | None, float | None]], x: Scale, y: Scale, css: str) -> str:
    """Join points; what lies below the plot is left out, not drawn along its edge."""
    drawn = [(x.at(a), y.at(b)) for a, b in steps if a is not None and b is not None and b >= min(y.low, y.high)]
    return f'<polyline class="{css}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in drawn)}"/>'


def _band(points: Sequence[Row], x: Scale, y: Scale) -> str:
    """Draw the interval of a curve."""
    drawn = [row for row in points if real(row.get("low")) is not None and real(row.get("high")) is not None]
    upper = [(x.at(row["threshold"]), y.at(row["high"])) for row in drawn]
    back = [(x.at(row["threshold"]), y.at(row["low"])) for row in reversed(drawn)]
    return f'<polygon class="band" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in upper + back)}"/>'


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.03 * (high - low) or 1.0
    return low - room, high + room


def stress_curves(rows: Sequence[Row], corruptions: Sequence[tuple[str, str]], *, identity: str, title: str) -> Markup:
    """Draw a measure from clean to severe: a plot for each corruption, by name and title, and a line for each group."""
    groups = list(dict.fromkeys(group_name(row) for row in rows))[:MOST_GROUPS]
    grades = sorted({int(row["grade"]) for row in rows if real(row.get("grade")) is not None})
    values = [v for row in rows for key in ("value", "low", "high") if (v := real(row.get(key))) is not None]
    low = min(0.5, *values) if values else 0.0
    y = Scale(max(0.0, int(10 * low) / 10), 1.0, _TOP + _TALL, _TOP)
    width = (_WIDTH - _LEFT - _GAP * (len(corruptions) - 1)) / max(1, len(corruptions))
    body = [
        words(_LEFT, 16.5, title, "t head-t", longest=60),
        *_stress_legend(groups, _LEFT + 24 + 7.6 * min(60, len(title))),
    ]
    for n, (name, head) in enumerate(corruptions):
        start = _LEFT + n * (width + _GAP)
        x = Scale(0, max(1, len(grades)), start + 8, start + width - 8)
        body += _stress_frame(x, y, start, start + width, len(grades), first=n == 0)
        body.append(words(start, _TOP - 8, head, "t soft-t head-t", longest=int(width / 6.6)))
        for series, group in enumerate(groups):
            of_group = [row for row in rows if group_name(row) == group]
            points = select(of_group, kind=CLEAN)
            points += sorted(select(of_group, name=name), key=lambda row: row.get("grade") or 0)
            body += _stress_line(points, x, y, series)
    description = f"{count(len(groups), 'line')} in {count(len(corruptions), 'plot')}. stress.csv has the numbers."
    return drawing(identity, title, description, _WIDTH, _TOP + _TALL + _FOOT, body, "forest stress")


def _stress_line(points: Sequence[Row], x: Scale, y: Scale, series: int) -> Iterator[str]:
    """Draw a band, a line and a mark for each grade; hollow marks are of few cases."""
    places = [(n, v, row) for n, row in enumerate(points) if (v := real(row.get("value"))) is not None]
    upper, lower = [], []
    for n, _, row in places:
        low, high = real(row.get("low")), real(row.get("high"))
        if low is not None and high is not None:
            upper.append((x.at(n), y.at(high)))
            lower.append((x.at(n), y.at(low)))
    if len(upper) > 1:
        yield f'<polygon class="band c{series}" points="{_stress_points(upper + lower[::-1])}"/>'
    if len(places) > 1:
        steps = _stress_points([(x.at(n), y.at(v)) for n, v, _ in places])
        yield f'<polyline class="run thin w{series}{_STRESS_DASHES[series]}" points="{steps}"/>'
    for n, v, row in places:
        yield marker(x.at(n), y.at(v), series, size=3, hollow=row.get("flag") == "underpowered")


def _stress_points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _stress_frame(x: Scale, y: Scale, left: float, right: float, num_grades: int, *, first: bool) -> Iterator[str]:
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


def _stress_legend(groups: Sequence[str], place: float) -> Iterator[str]:
    for series, group in enumerate(groups):
        yield marker(place + 5, 12, series)
        yield words(place + 15, 16.5, group, longest=20)
        place += 34 + 7.2 * min(20, len(group))
