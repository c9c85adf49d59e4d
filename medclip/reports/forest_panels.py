"""Small multiples of forest plots: one panel for each measure beside the names of the groups, drawn to be printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from medclip.reports.forest_plot import (
    NUM_SERIES,
    Line,
    Scale,
    drawing,
    legend,
    marker,
    round_step,
    scale_of,
    stroke,
    tick_text,
    words,
)
from medclip.wording import count

_WIDTH, _GAP, _LETTER, _INDENT = 850, 16, 6.4, 10
_ROW, _MORE, _HEAD, _TOP, _FOOT = 15, 8, 20, 20, 22
_LETTERS = (14, 30)


@dataclass(frozen=True)
class Panel:
    """One measure."""

    head: str
    lines: tuple[Line, ...]
    """The same rows in each panel."""
    reference: float | None = None
    """Where the dashed line stands."""


def panels(columns: Sequence[Panel], *, identity: str, title: str, series: Sequence[str] = ()) -> Markup:
    """Draw the values of several measures with intervals, one group a row and one measure a panel.

    Args:
        columns: The measures; each has the same rows.
        identity: Identity of the drawing, unique on the page.
        title: Title of the drawing.
        series: Names of the models, where there are several.
    """
    rows = columns[0].lines
    most = max((len(c.lines[n].marks) for c in columns for n in range(len(rows))), default=1)
    step = _ROW + _MORE * max(0, min(most, NUM_SERIES) - 1)
    letters = min(_LETTERS[1], max([_LETTERS[0], *(len(line.name) for line in rows if not line.head)]))
    start = _INDENT + _LETTER * letters
    legend_height = 20 if len(series) > 1 else 0
    tops, place = [], float(legend_height + _TOP)
    for line in rows:
        tops.append(place)
        place += _HEAD if line.head else step
    body = [*legend(series, start)]
    for line, top in zip(rows, tops, strict=True):
        at, css = (0.0, "t head-t") if line.head else (_INDENT, "t")
        height = _HEAD if line.head else step
        body.append(words(at, top + height / 2 + 4.5, line.name, css, longest=60 if line.head else letters))
    wide = (_WIDTH - _GAP - start) / len(columns)
    for n, column in enumerate(columns):
        scale = scale_of([m for line in column.lines for m in line.marks], column.reference)
        drawn = Scale(scale[0], scale[1], start + n * wide + _GAP / 2, start + (n + 1) * wide - _GAP / 2)
        body += _panel(column, drawn, tops, step, legend_height, place)
    shown = sum(any(c.lines[n].marks for c in columns) for n in range(len(rows)))
    heads = ", ".join(column.head for column in columns)
    description = f"{heads}: {count(shown, 'group')} with values and intervals. The tables have the numbers."
    return drawing(identity, title, description, _WIDTH, int(place + _FOOT), body, "forest panels")


def _panel(column: Panel, scale: Scale, tops: Sequence[float], step: int, top: float, bottom: float) -> Iterator[str]:
    middle = (scale.start + scale.end) / 2
    yield words(middle, top + 13, column.head, "t head-t", anchor="middle", longest=34)
    width = round_step(scale.high - scale.low)
    ticks = scale.ticks()
    for tick in ticks[:: 1 + len(ticks) // 6]:
        x = scale.at(tick)
        yield stroke(x, top + _TOP, x, bottom, "grid-line")
        yield words(x, bottom + 14, tick_text(tick, width), "t soft-t", anchor="middle")
    yield stroke(scale.start, bottom, scale.end, bottom, "axis")
    if column.reference is not None:
        yield stroke(scale.at(column.reference), top + _TOP, scale.at(column.reference), bottom, "reference")
    for line, place in zip(column.lines, tops, strict=True):
        if not line.head and not line.marks:
            yield words(middle, place + step / 2 + 4.5, line.note or "–", "t soft-t it", anchor="middle", longest=34)
        for mark in line.marks:
            y = place + _ROW / 2 + _MORE * mark.series
            if mark.low is not None and mark.high is not None:
                yield stroke(scale.at(mark.low), y, scale.at(mark.high), y, f"whisker w{mark.series}")
            yield marker(scale.at(mark.value), y, mark.series, size=3.6, hollow=mark.hollow)
