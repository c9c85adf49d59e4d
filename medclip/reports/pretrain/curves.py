"""Curves over the steps of a run, drawn with matplotlib: they follow dark mode and print, though they are images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medclip.reports.pretrain.history import History
from medclip.training.log import SHARES

_MOST_POINTS = 600
"""Points of a line; of a longer run each is the mean of some, with a band from the least to the largest."""
_INK, _SOFT, _LINE, _FIRST, _SECOND, _BAD = "#18202a", "#525d6a", "#d5dae0", "#0b5fa5", "#b24a00", "#a3302a"
_NAMES = {_INK: "ink", _SOFT: "soft", _LINE: "line", _FIRST: "first", _SECOND: "second", _BAD: "bad"}
_DARK = {
    "ink": "#e6e9ed", "soft": "#a6b0bb", "line": "#2e3740", "first": "#82bdf0", "second": "#f2a56b", "bad": "#ee9a92",
}  # fmt: skip


def learning(history: History) -> str:
    """Draw the loss of training and validation, the steps that were left out, and the learning rate below.

    Returns:
        An SVG document; the same log gives the same bytes.
    """

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
        _line(upper, history.column("loss"), _FIRST, "training")
        validation = history.validation("val_loss")
        if validation:
            upper.plot(*zip(*validation, strict=True), color=_SECOND, marker="o", markersize=4, label="validation")
        for n, step in enumerate(history.skipped):
            upper.axvline(step, color=_BAD, linewidth=1, label="" if n else "step left out")
        for n, step in enumerate(history.resumed):
            upper.axvline(step, color=_SOFT, linewidth=1, linestyle=":", label="" if n else "went on here")
        _dress(upper, "loss")
        upper.legend(frameon=False, labelcolor=_INK, loc="upper right", ncols=2)
        _line(lower, history.column("lr"), _FIRST, "")
        _dress(lower, "learning rate", "step")
        lower.set_ylim(bottom=0.0)

    return _svg((9.2, 5.2), draw)


def speed(history: History) -> str:
    """Draw the images a second, and below the share of time that was spent waiting for data.

    Returns:
        An SVG document.
    """

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        _line(upper, history.column("images_s"), _FIRST, "")
        _dress(upper, "images/s")
        upper.set_ylim(bottom=0.0)
        waits = {name: points for name in SHARES if (points := history.column(name))}
        for (name, points), colour in zip(waits.items(), (_SECOND, _FIRST), strict=False):
            _line(lower, [(step, 100 * share) for step, share in points], colour, SHARES[name])
        _dress(lower, "% of the time", "step")
        lower.set_ylim(0.0, max(10.0, 1.3 * lower.get_ylim()[1]))  # room for the legend
        if waits:
            lower.legend(frameon=False, labelcolor=_INK, loc="upper right", ncols=2)

    return _svg((9.2, 3.8), draw)


def _line(axes: Any, points: Sequence[tuple[float, float]], colour: str, label: str) -> None:
    if not points:
        return
    steps, values = np.array(points, np.float64).T
    if len(steps) > _MOST_POINTS:
        parts = np.array_split(np.arange(len(steps)), _MOST_POINTS)
        low, high = (np.array([reduce(values[part]) for part in parts]) for reduce in (np.min, np.max))
        steps, values = (np.array([column[part].mean() for part in parts]) for column in (steps, values))
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    marker = "." if len(steps) < 40 else ""
    axes.plot(steps, values, color=colour, linewidth=1.4, marker=marker, label=label or "_")


def _dress(axes: Any, name: str, below: str = "") -> None:
    axes.set_ylabel(name, color=_INK)
    axes.set_xlabel(below, color=_INK)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_SOFT, labelcolor=_SOFT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_SOFT)


def _svg(size: tuple[float, float], draw: Any) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    style: Any = {"svg.fonttype": "path", "svg.hashsalt": "medclip", "font.family": "DejaVu Sans", "font.size": 9.5}
    with rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0.0)
        FigureCanvasSVG(figure)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.get_offset_text().set_color(_SOFT)
        figure.align_ylabels()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "medclip"})
    return _coloured(buffer.getvalue().decode())


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
