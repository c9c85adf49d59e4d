"""Figures over the periods, drawn: counts as bars, and each figure with its interval beside the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from medclip.auditing.monitoring.result import PeriodRow
from medclip.reports.monitor.findings import Series
from medclip.reports.themed_drawing import BAD, FIRST, LINE, SECOND, SOFT, dress, themed_svg

_MOST_TICKS = 9


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
