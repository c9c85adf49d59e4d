"""Curves over the steps of a run, drawn with matplotlib: they follow dark mode and print, though they are images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medclip.reports.pretrain.history import History
from medclip.reports.themed_drawing import BAD, FIRST, INK, SECOND, SOFT, dress, themed_svg
from medclip.training.log import SHARES

_MOST_POINTS = 600
"""Points of a line; of a longer run each is the mean of some, with a band from the least to the largest."""


def learning(history: History) -> str:
    """Draw the loss of training and validation, the steps that were left out, and the learning rate below.

    Returns:
        An SVG document; the same log gives the same bytes.
    """

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
        _line(upper, history.column("loss"), FIRST, "training")
        validation = history.validation("val_loss")
        if validation:
            upper.plot(*zip(*validation, strict=True), color=SECOND, marker="o", markersize=4, label="validation")
        for n, step in enumerate(history.skipped):
            upper.axvline(step, color=BAD, linewidth=1, label="" if n else "step left out")
        for n, step in enumerate(history.resumed):
            upper.axvline(step, color=SOFT, linewidth=1, linestyle=":", label="" if n else "went on here")
        dress(upper, "loss")
        upper.legend(frameon=False, labelcolor=INK, loc="upper right", ncols=2)
        _line(lower, history.column("lr"), FIRST, "")
        dress(lower, "learning rate", "step")
        lower.set_ylim(bottom=0.0)

    return _stepped_svg((9.2, 5.2), draw)


def speed(history: History) -> str:
    """Draw the images a second, and below the share of time that was spent waiting for data.

    Returns:
        An SVG document.
    """

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        _line(upper, history.column("images_s"), FIRST, "")
        dress(upper, "images/s")
        upper.set_ylim(bottom=0.0)
        waits = {name: points for name in SHARES if (points := history.column(name))}
        for (name, points), colour in zip(waits.items(), (SECOND, FIRST), strict=False):
            _line(lower, [(step, 100 * share) for step, share in points], colour, SHARES[name])
        dress(lower, "% of the time", "step")
        lower.set_ylim(0.0, max(10.0, 1.3 * lower.get_ylim()[1]))  # room for the legend
        if waits:
            lower.legend(frameon=False, labelcolor=INK, loc="upper right", ncols=2)

    return _stepped_svg((9.2, 3.8), draw)


def _stepped_svg(size: tuple[float, float], draw: Any) -> str:
    from matplotlib.ticker import MaxNLocator

    def stepped(figure: Any) -> None:
        draw(figure)
        for axes in figure.axes:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return themed_svg(size, stepped)


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
