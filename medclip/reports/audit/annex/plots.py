"""The square plots of an audit as inline SVG: reliability, net benefit, and the 2-D view of embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from medclip.auditing.result import Row
from medclip.reports.forest_plot import SHAPES, Scale, drawing, marker, round_step, stroke, tick_text, words
from medclip.wording import real

MOST_POINTS = 1200
"""Points of a 2-D view that are drawn; all are in the table."""
_SIDE, _EDGE = 168, 30
_DASHES = ("", " dash-a", " dash-b", " dash-c")


def reliability(bins: Sequence[Row], *, identity: str, title: str) -> Markup:
    """Draw observed shares over mean scores, as scored and after the temperature; on the diagonal is what is wanted.

    Args:
        bins: Rows of the calibration table, of one group.
        identity: Identity of the drawing, unique on the page.
        title: Title of the drawing.
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
    """Draw net benefit over thresholds for each model, beside calling everybody positive, and nobody.

    Args:
        curves: Rows of the decision table of one label and one group, by model.
        identity: Identity of the drawing, unique on the page.
        title: Title of the drawing.
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
    """Draw embeddings in two dimensions; each group has a colour and a shape, up to six groups.

    Args:
        points: Rows of the projection table, of one model and attribute.
        groups: Names in printed order.
        identity: Identity of the drawing, unique on the page.
        title: Title of the drawing.
    """
    known = [(r["x"], r["y"], groups.index(str(r["group"]))) for r in points if str(r["group"]) in groups]
    step = -(-len(known) // MOST_POINTS) if known else 1
    known = known[::step]
    x = Scale(*_ends([p[0] for p in known]), 10, 350)
    y = Scale(*_ends([p[1] for p in known]), 350, 10)
    body = ['<rect class="frame" x="4" y="4" width="352" height="352"/>']
    body += [marker(x.at(a), y.at(b), g, size=3.2, hollow=True) for a, b, g in known if g < len(SHAPES)]
    shown = groups[: len(SHAPES)]
    for n, group in enumerate(shown):
        body += [
            marker(370, 20 + 22 * n, n, size=5, hollow=True),
            words(382, 24.5 + 22 * n, group, longest=18),
        ]
    description = f"{len(known)} points of {len(shown)} groups along the first two principal components."
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
    known = [row for row in bins if real(row.get("mean_score")) is not None and real(row.get("observed")) is not None]
    if len(known) > 1:
        steps = ((row["mean_score"], row["observed"]) for row in known)
        yield _path(steps, x, y, f"run thin w{series}{_DASHES[series]}")
    for row in known:
        place = x.at(row["mean_score"])
        low, high = real(row.get("low")), real(row.get("high"))
        if series == 0 and low is not None and high is not None:
            yield stroke(place, y.at(low), place, y.at(high), "whisker thin w0")
        yield marker(place, y.at(row["observed"]), series, size=3, hollow=series > 0)


def _path(steps: Iterator[tuple[float | None, float | None]], x: Scale, y: Scale, css: str) -> str:
    """Join points; what lies below the plot is left out, not drawn along its edge."""
    known = [(x.at(a), y.at(b)) for a, b in steps if a is not None and b is not None and b >= min(y.low, y.high)]
    return f'<polyline class="{css}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in known)}"/>'


def _band(points: Sequence[Row], x: Scale, y: Scale) -> str:
    """Draw the interval of a curve."""
    known = [row for row in points if real(row.get("low")) is not None and real(row.get("high")) is not None]
    upper = [(x.at(row["threshold"]), y.at(row["high"])) for row in known]
    back = [(x.at(row["threshold"]), y.at(row["low"])) for row in reversed(known)]
    return f'<polygon class="band" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in upper + back)}"/>'


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.03 * (high - low) or 1.0
    return low - room, high + room
