"""Drawings by matplotlib: those that follow dark mode and print, though they are images, and curves over K.

The colours of the first have names. Of curves over K a few methods stand out, each with colour, line and marker of its
own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from math import log2
from typing import Any

from medclip.evaluation.few_shot.comparison import METRIC_TITLES, Cell, Comparison
from medclip.statistics.metrics.classification import SIGNED

INK, SOFT, LINE, FIRST, SECOND, BAD = "#18202a", "#525d6a", "#d5dae0", "#0b5fa5", "#b24a00", "#a3302a"
STYLES = (
    ("#0b5fa5", "-", "o"),
    ("#b24a00", "--", "s"),
    ("#00755a", "-.", "^"),
    ("#8c3f78", (0, (6, 1, 1, 1, 1, 1)), "D"),
    ("#3b3b3b", ":", "v"),
)
"""Colour (told apart by colour-blind readers, 4.5:1 on white), line and marker of the highlighted methods."""
_GREY = "#8a9099"
_GREY_TEXT = "#5c6570"
_SIZE = (9.2, 4.9)
_MOST_TICKS = 9
_GAP = 0.036
"""Least distance of two labels, as a share of the axis."""
_NAMES = {INK: "ink", SOFT: "soft", LINE: "line", FIRST: "first", SECOND: "second", BAD: "bad"}
_DARK = {
    "ink": "#e6e9ed",
    "soft": "#a6b0bb",
    "line": "#2e3740",
    "first": "#82bdf0",
    "second": "#f2a56b",
    "bad": "#ee9a92",
}


def themed_svg(size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """Return what is drawn on an empty figure of a width and height in inches as an SVG document."""

    def draw_themed(figure: Any) -> None:
        figure.patch.set_alpha(0.0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
            axes.yaxis.get_offset_text().set_color(SOFT)
        figure.align_ylabels()

    return _coloured(_svg(draw_themed, figsize=size, layout="constrained"))


def _svg(draw: Callable[[Any], None], **options: Any) -> str:
    """Return what is drawn on a figure of these options; the same values give the same bytes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "path", "svg.hashsalt": "medclip", "font.family": "DejaVu Sans", "font.size": 9.5}
    with rc_context(style):
        figure = Figure(**options)
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "medclip"})
    return buffer.getvalue().decode()


def _coloured(svg: str) -> str:
    """Name the colours, so that the image has those of the reader's light or dark page; on paper they are light."""
    for colour, name in _NAMES.items():
        svg = svg.replace(colour, f"var(--{name})")
    light = _rule({name: colour for colour, name in _NAMES.items()})
    style = f"<style>{light} @media (prefers-color-scheme: dark) {{{_rule(_DARK)}}} @media print {{{light}}}</style>"
    start = svg.index("<defs>")
    return svg[:start] + style + svg[start:]


def _rule(colours: Mapping[str, str]) -> str:
    return ":root { " + " ".join(f"--{name}: {colour};" for name, colour in colours.items()) + " }"


def dress(axes: Any, name: str, below: str = "") -> None:
    """Dress axes as all drawings are: a name at the left, perhaps one below, faint lines across."""
    axes.set_ylabel(name, color=INK)
    axes.set_xlabel(below, color=INK)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelcolor=SOFT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(SOFT)


def name_periods(axes: Any, names: Sequence[str]) -> None:
    """Write the names of some periods below the axis, so many that none covers another."""
    step = -(-len(names) // _MOST_TICKS)
    places = range(0, len(names), step)
    short = [names[place] if len(names[place]) <= 16 else names[place][:15] + "…" for place in places]
    long = max(map(len, short)) * len(short) > 40
    axes.set_xticks(list(places), short, rotation=35 if long else 0, ha="right" if long else "center")


def curves(result: Comparison, highlighted: Sequence[str], metric: str | None = None) -> str:
    """Draw a metric, else the primary one, over K, with bands for highlighted methods; the others are thin grey lines.

    The same figures give the same bytes.
    """

    def draw(figure: Any) -> None:
        axes = figure.add_axes((0.07, 0.12, 0.68, 0.84))
        ends: list[tuple[float, str, str, str]] = []
        for method in sorted(result.titles, key=lambda m: m in highlighted):
            cells = [c for k in result.shots if (c := result.cell(method, k, name)) is not None]
            if cells:
                look = STYLES[highlighted.index(method)] if method in highlighted else None
                _curve(axes, result, cells, look)
                colour, weight = (_GREY_TEXT, "normal") if look is None else (str(look[0]), "bold")
                ends.append((cells[-1].value, result.titles[method], colour, weight))
        _dress_curves(axes, result, name)
        _label(axes, result, ends)

    name = metric or result.primary
    return _svg(draw, figsize=_SIZE, facecolor="white")


def _curve(axes: Any, result: Comparison, cells: Sequence[Cell], look: tuple[Any, ...] | None) -> None:
    places = [_place(result, c.shots) for c in cells]
    values = [c.value for c in cells]
    if look is None:
        axes.plot(places, values, color=_GREY, linewidth=0.9, marker=".", markersize=3.5, zorder=1)
        return
    colour, line, marker = look
    low = [c.value if c.low is None else c.low for c in cells]
    high = [c.value if c.high is None else c.high for c in cells]
    axes.fill_between(places, low, high, color=colour, alpha=0.09, linewidth=0, zorder=2)
    for edge in (low, high):  # else bands on top of each other are one grey field
        axes.plot(places, edge, color=colour, linestyle=line, linewidth=0.7, alpha=0.7, zorder=2)
    axes.plot(places, values, color=colour, linestyle=line, marker=marker, markersize=5, linewidth=1.9, zorder=3)
    if len(cells) == 1:
        axes.errorbar(places, values, [[values[0] - low[0]], [high[0] - values[0]]], color=colour, zorder=3)


def _dress_curves(axes: Any, result: Comparison, metric: str) -> None:
    places = [_place(result, k) for k in result.shots]
    axes.set_xticks(places, [str(k) for k in result.shots])
    axes.set_xlim(places[0] - 0.15, places[-1] + 0.15)
    low, high = axes.get_ylim()
    least = -1.0 if metric in SIGNED else 0.0
    axes.set_ylim(max(least, low), min(1.0, high))
    axes.set_xlabel("Shots K: patients of each class that were learned from")
    axes.set_ylabel(METRIC_TITLES[metric])
    axes.grid(axis="y", color="#e2e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9aa3ad")


def _label(axes: Any, result: Comparison, ends: Sequence[tuple[float, str, str, str]]) -> None:
    """Write each method's name at the end of its line, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    ordered = sorted(ends)
    wanted = [(value - low) / (high - low) for value, *_ in ordered]
    right = _place(result, result.shots[-1])
    for place, (value, title, colour, weight) in zip(_apart(wanted), ordered, strict=True):
        axes.annotate(
            title,
            xy=(right + 0.03, value),
            xytext=(1.035, place),
            textcoords=axes.transAxes,
            color=colour,
            fontsize=9,
            fontweight=weight,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def _apart(wanted: Sequence[float]) -> list[float]:
    """Move ascending places apart by `_GAP`, keeping their order and, as well as it goes, inside 0 to 1."""
    groups: list[tuple[float, int]] = []
    """Centre and size of labels that stand in one block."""
    for place in wanted:
        groups.append((place, 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < _GAP * (groups[-1][1] + groups[-2][1]) / 2:
            (a, n), (b, m) = groups[-2:]
            groups[-2:] = [((a * n + b * m) / (n + m), n + m)]
    positions: list[float] = []
    for centre, count in groups:
        positions += [centre + _GAP * (k - (count - 1) / 2) for k in range(count)]
    over = max(0.0, positions[-1] - 1.0) if positions else 0.0
    for n in range(len(positions) - 1, -1, -1):  # blocks that stuck out at the top push the others down
        limit = 1.0 - _GAP * (len(positions) - 1 - n)
        positions[n] = min(positions[n], limit) if over else positions[n]
    return positions


def _place(result: Comparison, shots: int | None) -> float:
    return log2(shots or result.shots[0])
