"""Drawings by matplotlib that follow dark mode and print, though they are images: their colours have names."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

INK, SOFT, LINE, FIRST, SECOND, BAD = "#18202a", "#525d6a", "#d5dae0", "#0b5fa5", "#b24a00", "#a3302a"
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
    """Return what is drawn on a figure as an SVG document.

    Args:
        size: Width and height in inches.
        draw: Function called with the empty figure, which draws on it.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "path", "svg.hashsalt": "medclip", "font.family": "DejaVu Sans", "font.size": 9.5}
    with rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0.0)
        FigureCanvasSVG(figure)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
            axes.yaxis.get_offset_text().set_color(SOFT)
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
