"""Forest plots as inline SVG: classes instead of colours, for dark mode and print, and a shape for each series.

Small multiples of them have one panel for each measure beside the names of the groups, drawn to be printed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from medclip.errors import printable
from medclip.wording import count

NUM_SERIES = 4
"""Models that one forest plot can hold: each has a colour and a shape."""
SHAPES = ("circle", "square", "triangle", "diamond", "plus", "wedge")
_WIDTH, _EDGE = 850, 12
LARGE = 690
"""Width of a drawing whose type can be read in print."""
_ROW, _MORE, _HEAD, _FOOT, _BELOW = 22, 15, 27, 44, 17
_LETTERS = (24, 48)
"""Least and most letters of the column of names: it is as wide as the longest name needs."""
_LETTERS_BELOW = 104
_INDENT, _LETTER, _VALUES = 12, 7.4, 202
"""Units of the drawing: before a name, of a letter, and of the column of values behind the names."""
_PANEL_GAP, _PANEL_LETTER, _PANEL_INDENT = 16, 6.4, 10
_PANEL_ROW, _PANEL_MORE, _PANEL_HEAD, _PANEL_TOP, _PANEL_FOOT = 15, 8, 20, 20, 22
_PANEL_LETTERS = (14, 30)


@dataclass(frozen=True)
class Mark:
    """One value with its interval."""

    value: float
    low: float | None
    high: float | None
    text: str
    """What is written beside the name: 0.83 (0.79 to 0.87)."""
    series: int = 0
    hollow: bool = False
    """Few cases: the mark is drawn hollow."""


@dataclass(frozen=True)
class Line:
    """One group of a forest plot, the name of an attribute (`head`), or a group that is not shown (`note`)."""

    name: str
    marks: tuple[Mark, ...] = ()
    note: str = ""
    head: bool = False
    below: str = ""
    """A second line in small type."""

    @property
    def height(self) -> int:
        """In units of the drawing."""
        if self.head:
            return _HEAD
        return _ROW + _MORE * max(0, len(self.marks) - 1) + (_BELOW if self.below else 0)


@dataclass(frozen=True)
class Scale:
    """From values to places."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the place of a value, kept within the plot."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))

    def ticks(self) -> tuple[float, ...]:
        """Return between three and seven round values."""
        step = round_step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        return tuple(step * n for n in range(first, math.floor(self.high / step + 1e-9) + 1))


def forest(
    lines: Sequence[Line],
    *,
    identity: str,
    title: str,
    axis: str,
    reference: float | None = None,
    series: Sequence[str] = (),
    width: int = _WIDTH,
) -> Markup:
    """Draw values with intervals, one group a row; groups that are not shown keep their place.

    `identity` is unique on the page; a dashed line stands at `reference`: everybody, or zero. A drawing that is less
    wide has larger type: `LARGE` of 9 pt and more where it fills the width of an A4 page.
    """
    marks = [mark for line in lines for mark in line.marks]
    letters = _letters(lines)
    scale = Scale(*scale_of(marks, reference), _value_at(letters) + _VALUES, width - _EDGE)
    top = 30 if len(series) > 1 else 8
    height = top + sum(line.height for line in lines) + _FOOT
    body = [*legend(series, scale.start), *_frame(scale, top, height - _FOOT, axis, reference, width)]
    place = float(top)
    for line in lines:
        body += _drawn(line, place, scale, letters)
        place += line.height
    drawn = sum(bool(line.marks) for line in lines)
    hidden = sum(bool(line.note) for line in lines)
    without = f", {hidden} without" if hidden else ""
    description = f"{count(drawn, 'row')} with values and intervals{without}. The table that follows has the numbers."
    return drawing(identity, title, description, width, height, body, "forest" if width == _WIDTH else "forest large")


def drawing(
    identity: str, title: str, description: str, width: int, height: int, body: Sequence[str], css: str
) -> Markup:
    """Wrap shapes as an image that has a title and a description for those who do not see it."""
    return Markup(  # noqa: S704 - every text in `body` was escaped where it was written
        f'<svg class="{css}" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{identity}-t {identity}-d">'
        f'<title id="{identity}-t">{escape(title)}</title><desc id="{identity}-d">{escape(description)}</desc>'
        f"{''.join(body)}</svg>"
    )


def marker(x: float, y: float, series: int, *, size: float = 4.5, hollow: bool = False) -> str:
    """Draw the mark of a series: shape and colour say the same."""
    shape = SHAPES[series % len(SHAPES)]
    css = f"c{series % len(SHAPES)} {'hollow' if hollow else 'solid'}"
    if shape == "circle":
        return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{size:g}"/>'
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "wedge": ((0, 1.15), (1.1, -0.85), (-1.1, -0.85)),
        "plus": (
            *((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)),
            *((0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)),
        ),
    }[shape]
    points = " ".join(f"{x + size * a:.1f},{y + size * b:.1f}" for a, b in corners)
    return f'<polygon class="{css}" points="{points}"/>'


def words(x: float, y: float, text: str, css: str = "t", *, anchor: str = "start", longest: int = 0) -> str:
    """Write text into a drawing, cut to the letters that fit."""
    plain = printable(text)
    if longest and len(plain) > longest:
        plain = plain[: longest - 1] + "…"
    at = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}"{at}>{escape(plain)}</text>'


def stroke(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Draw a straight line."""
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def round_step(width: float) -> float:
    """Choose a round distance of ticks."""
    power = 10.0 ** math.floor(math.log10(width / 10))
    return next(m * power for m in (20, 10, 5, 2) if width / (m * power) >= 3.5)


def tick_text(value: float, step: float) -> str:
    """Write the value of a tick with as many decimals as the step needs."""
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")


def _letters(lines: Sequence[Line]) -> int:
    least, most = _LETTERS
    return min(most, max([least, *(len(line.name) for line in lines if not line.head)]))


def _value_at(letters: int) -> float:
    return _INDENT + _LETTER * letters


def scale_of(marks: Sequence[Mark], reference: float | None) -> tuple[float, float]:
    """Return the ends of an axis that holds every mark with its interval, and the reference."""
    ends = [end for m in marks for end in (m.value, m.low, m.high) if end is not None]
    ends += [] if reference is None else [reference]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = max(0.05 * (high - low), 0.02)
    return low - room, high + room


def _frame(scale: Scale, top: float, bottom: float, axis: str, reference: float | None, width: int) -> Iterator[str]:
    step = round_step(scale.high - scale.low)
    for tick in scale.ticks():
        x = scale.at(tick)
        yield stroke(x, top, x, bottom, "grid-line")
        yield words(x, bottom + 16, tick_text(tick, step), "t soft-t", anchor="middle")
    yield stroke(scale.start, bottom, scale.end, bottom, "axis")
    middle = min((scale.start + scale.end) / 2, width - _LETTER * len(axis) / 2)  # long names of an axis stay inside
    yield words(middle, bottom + 35, axis, "t soft-t", anchor="middle")
    if reference is not None:
        yield stroke(scale.at(reference), top, scale.at(reference), bottom, "reference")


def legend(series: Sequence[str], start: float) -> Iterator[str]:
    """Draw the mark of each of several models with its name."""
    if len(series) < 2:
        return
    x = start
    for n, name in enumerate(series[:NUM_SERIES]):
        yield marker(x, 12, n)
        yield words(x + 10, 16.5, name, longest=22)
        x += 30 + 7.2 * min(22, len(name))


def _drawn(line: Line, top: float, scale: Scale, letters: int) -> Iterator[str]:
    middle = top + (line.height - (_BELOW if line.below else 0)) / 2
    if line.head:
        yield words(0, top + _HEAD - 7, line.name, "t head-t", longest=60)
        return
    yield words(_INDENT, middle + 4.5, line.name, longest=letters)
    if line.below:
        yield words(_INDENT, top + line.height - 6, line.below, "t soft-t below", longest=_LETTERS_BELOW)
    if line.note:
        yield words(_value_at(letters), middle + 4.5, line.note, "t soft-t it", longest=60)
    for n, mark in enumerate(line.marks):
        y = top + _ROW / 2 + _MORE * n
        if mark.low is not None and mark.high is not None:
            css = f"whisker w{mark.series}"
            left, right = scale.at(mark.low), scale.at(mark.high)
            yield stroke(left, y, right, y, css)
            yield stroke(left, y - 3.5, left, y + 3.5, css)
            yield stroke(right, y - 3.5, right, y + 3.5, css)
        yield marker(scale.at(mark.value), y, mark.series, hollow=mark.hollow)
        yield words(_value_at(letters), y + 4.5, mark.text + (" †" if mark.hollow else ""))


@dataclass(frozen=True)
class Panel:
    """One measure."""

    head: str
    lines: tuple[Line, ...]
    """The same rows in each panel."""
    reference: float | None = None
    """Where the dashed line stands."""


def panels(columns: Sequence[Panel], *, identity: str, title: str, series: Sequence[str] = ()) -> Markup:
    """Draw the values of several measures with intervals, one group a row, the same in all, and one measure a panel."""
    rows = columns[0].lines
    most = max((len(c.lines[n].marks) for c in columns for n in range(len(rows))), default=1)
    step = _PANEL_ROW + _PANEL_MORE * max(0, min(most, NUM_SERIES) - 1)
    letters = min(_PANEL_LETTERS[1], max([_PANEL_LETTERS[0], *(len(line.name) for line in rows if not line.head)]))
    start = _PANEL_INDENT + _PANEL_LETTER * letters
    legend_height = 20 if len(series) > 1 else 0
    tops, place = [], float(legend_height + _PANEL_TOP)
    for line in rows:
        tops.append(place)
        place += _PANEL_HEAD if line.head else step
    body = [*legend(series, start)]
    for line, top in zip(rows, tops, strict=True):
        at, css = (0.0, "t head-t") if line.head else (_PANEL_INDENT, "t")
        height = _PANEL_HEAD if line.head else step
        body.append(words(at, top + height / 2 + 4.5, line.name, css, longest=60 if line.head else letters))
    wide = (_WIDTH - _PANEL_GAP - start) / len(columns)
    for n, column in enumerate(columns):
        scale = scale_of([m for line in column.lines for m in line.marks], column.reference)
        drawn = Scale(scale[0], scale[1], start + n * wide + _PANEL_GAP / 2, start + (n + 1) * wide - _PANEL_GAP / 2)
        body += _panel(column, drawn, tops, step, legend_height, place)
    groups = sum(any(c.lines[n].marks for c in columns) for n in range(len(rows)))
    heads = ", ".join(column.head for column in columns)
    description = f"{heads}: {count(groups, 'group')} with values and intervals. The tables have the numbers."
    return drawing(identity, title, description, _WIDTH, int(place + _PANEL_FOOT), body, "forest panels")


def _panel(column: Panel, scale: Scale, tops: Sequence[float], step: int, top: float, bottom: float) -> Iterator[str]:
    middle = (scale.start + scale.end) / 2
    yield words(middle, top + 13, column.head, "t head-t", anchor="middle", longest=34)
    width = round_step(scale.high - scale.low)
    ticks = scale.ticks()
    for tick in ticks[:: 1 + len(ticks) // 6]:
        x = scale.at(tick)
        yield stroke(x, top + _PANEL_TOP, x, bottom, "grid-line")
        yield words(x, bottom + 14, tick_text(tick, width), "t soft-t", anchor="middle")
    yield stroke(scale.start, bottom, scale.end, bottom, "axis")
    if column.reference is not None:
        yield stroke(scale.at(column.reference), top + _PANEL_TOP, scale.at(column.reference), bottom, "reference")
    for line, place in zip(column.lines, tops, strict=True):
        if not line.head and not line.marks:
            yield words(middle, place + step / 2 + 4.5, line.note or "–", "t soft-t it", anchor="middle", longest=34)
        for mark in line.marks:
            y = place + _PANEL_ROW / 2 + _PANEL_MORE * mark.series
            if mark.low is not None and mark.high is not None:
                yield stroke(scale.at(mark.low), y, scale.at(mark.high), y, f"whisker w{mark.series}")
            yield marker(scale.at(mark.value), y, mark.series, size=3.6, hollow=mark.hollow)
