"""Move a trace to the middle of its ink: the line whose pen would leave the ink that is there.

Where a line is steep, a pen of two columns' width inks each of its columns twice as high as the line rises there: read
column by column, every QRS complex is too wide and has a blunt tip. So the line is drawn with a round pen, and moved
until ink and drawing agree (Gauss-Newton; each pixel depends on two neighbouring points, so the system has few bands).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_STEEP_PX = 1.0
"""Of a column's ink beyond the pen's width, to be worth it: on flat stretches its middle is the line."""
_MARGIN = 4
"""Columns on either side of a steep one that are moved with it."""
_SOFT_PX = (3.0, 2.0, 1.5, 1.2, 1.2, 1.2)
"""Width of the pen's edge, round by round: a soft edge is seen from afar, a sharp one is exact."""
_STIFF, _DAMP = 2e-4, 1e-3
"""Weights against bends and against large moves, in pixels of ink."""
_LONGEST_STEP_PX = 6.0
_MOST_PX = 400_000


def centre_line(
    ink: NDArray[np.float32],
    y_px: NDArray[np.float64],
    upper: NDArray[np.float64],
    lower: NDArray[np.float64],
    line_px: float,
) -> NDArray[np.float64]:
    """Refine a trace.

    Args:
        ink: float32 [H, W]: share of a pixel that ink covers.
        y_px: float64 [2 W]: height of the line at 0.5, 1.0, 1.5, ... columns; NaN where none was seen.
        upper: float64 [W]: upper end of the ink that belongs to the trace in each column; NaN where none does, and
            where the trace shall stay.
        lower: float64 [W]: lower end.
        line_px: Thickness of the pen.

    Returns:
        The heights, float64 [2 W].
    """
    tall = np.isfinite(upper) & (lower - upper > line_px + _STEEP_PX)
    near = np.convolve(tall, np.ones(2 * _MARGIN + 1), "same") > 0.5
    columns = np.flatnonzero(near & np.isfinite(y_px[0::2]) & np.isfinite(upper))
    if not len(columns):
        return y_px
    y = y_px.copy()
    # Points between two columns without a height of their own lie on the line of their neighbours.
    gaps = np.flatnonzero(~np.isfinite(y[1:-1:2])) * 2 + 1
    bridged = gaps[np.isfinite(y[gaps - 1]) & np.isfinite(y[gaps + 1])]
    y[bridged] = (y[bridged - 1] + y[bridged + 1]) / 2
    pixels = _pixels(ink, y, upper, lower, columns, line_px)
    if len(pixels[0]) > _MOST_PX:
        return y_px
    free = np.zeros(len(y), np.bool_)
    free[2 * columns] = True
    free[np.minimum(2 * columns + 1, len(y) - 1)] = True
    free &= np.isfinite(y)
    before = y
    for soft in _SOFT_PX:
        y = _moved(y, free, _compare(y, pixels, line_px / 2, soft))
    # Where a wave is so steep that its strokes merge the rounds may end anywhere: it stays as it was, then.
    at = pixels[0].astype(int)
    gain = np.zeros(len(upper))
    for line, sign in ((before, 1.0), (y, -1.0)):
        gain += sign * np.bincount(at, _compare(line, pixels, line_px / 2, _SOFT_PX[-1])[0] ** 2, len(upper))
    starts = np.flatnonzero(np.diff(columns, prepend=-9) > 1)
    for group in np.split(columns, starts[1:]):
        if gain[group].sum() <= 0:
            points = slice(2 * group[0], 2 * group[-1] + 2)
            y[points] = before[points]
    return y


_Pixels = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _pixels(
    ink: NDArray[np.float32],
    y: NDArray[np.float64],
    upper: NDArray[np.float64],
    lower: NDArray[np.float64],
    columns: NDArray[np.int_],
    line_px: float,
) -> _Pixels:
    """Return column, row (of their middles) and ink of the pixels that the trace may cover."""
    at_x, at_y, values = [], [], []
    reach = line_px / 2 + 2.0
    for x in columns.tolist():
        around = y[max(0, 2 * x - 2) : 2 * x + 3]
        around = around[np.isfinite(around)]
        top = int(max(0, np.floor(min(around.min(), upper[x]) - reach)))
        bottom = int(min(len(ink), np.ceil(max(around.max(), lower[x]) + reach)))
        # Ink beyond the trace's own run is another's.
        rows = np.arange(top, bottom)
        column = ink[top:bottom, x].astype(np.float64)
        column[(rows + 1 < upper[x] - 0.5) | (rows > lower[x] + 0.5)] = 0
        at_x.append(np.full(len(rows), x + 0.5))
        at_y.append(rows + 0.5)
        values.append(column)
    return np.concatenate(at_x), np.concatenate(at_y), np.concatenate(values)


_Comparison = tuple[NDArray[np.float64], NDArray[np.int_], NDArray[np.float64], NDArray[np.float64]]
"""For each pixel: ink that is not drawn, the first of the two points of the stroke next to it, and how much more would
be drawn if either point moved down by a pixel."""


def _compare(y: NDArray[np.float64], pixels: _Pixels, radius: float, soft: float) -> _Comparison:
    """Draw the line with a pen whose edge is so soft, and compare it with the ink."""
    at_x, at_y, ink = pixels
    middle = np.round(2 * at_x - 1).astype(int)
    reach = int(np.ceil(2 * (radius + soft)))
    nearest = np.full(len(at_x), np.inf)
    number, share, height = np.zeros(len(at_x), int), np.zeros(len(at_x)), np.zeros(len(at_x))
    for by in range(-reach - 1, reach + 1):
        k = np.clip(middle + by, 0, len(y) - 2)
        start, rise = y[k], y[k + 1] - y[k]
        dx, dy = at_x - (k + 1) / 2, at_y - start
        t = np.clip((0.5 * dx + rise * dy) / (0.25 + rise**2), 0, 1)
        away = (dx - 0.5 * t) ** 2 + (dy - rise * t) ** 2
        closer = away < nearest  # never where a point has no height
        nearest = np.where(closer, away, nearest)
        number, share = np.where(closer, k, number), np.where(closer, t, share)
        height = np.where(closer, start + rise * t, height)
    distance = np.sqrt(nearest)
    drawn = np.clip((radius - distance) / soft + 0.5, 0, 1)
    slope = np.where((drawn > 0) & (drawn < 1), (at_y - height) / np.maximum(distance, 0.05) / soft, 0.0)
    return ink - drawn, number, slope * (1 - share), slope * share


def _moved(y: NDArray[np.float64], free: NDArray[np.bool_], comparison: _Comparison) -> NDArray[np.float64]:
    """Move the free points once, to where the ink that is not drawn pulls them."""
    from scipy.linalg import solveh_banded

    residual, number, first, second = comparison
    size = len(y)
    push = np.bincount(number, first * residual, size) + np.bincount(number + 1, second * residual, size)
    bands = np.zeros((3, size))
    bands[2] = np.bincount(number, first**2, size) + np.bincount(number + 1, second**2, size) + _DAMP
    bands[1, 1:] = np.bincount(number, first * second, size)[:-1]
    bend = np.zeros(size)
    inner = np.isfinite(y[:-2]) & np.isfinite(y[1:-1]) & np.isfinite(y[2:])
    bend[1:-1] = np.where(inner, y[:-2] - 2 * y[1:-1] + y[2:], 0)
    stiff = np.zeros(size)
    stiff[1:-1] = np.where(inner, _STIFF, 0)
    push -= stiff * bend * -2
    push[:-1] -= (stiff * bend)[1:]
    push[1:] -= (stiff * bend)[:-1]
    bands[2] += 4 * stiff
    bands[2, :-1] += stiff[1:]
    bands[2, 1:] += stiff[:-1]
    bands[1, 1:] -= 2 * (stiff[1:] + stiff[:-1])
    bands[0, 2:] += stiff[1:-1]
    # A fixed point has a row of its own: it stays, and its neighbours do not see it move.
    fixed = ~free
    push[fixed], bands[2, fixed] = 0.0, 1.0
    bands[1, 1:][fixed[1:] | fixed[:-1]] = 0.0
    bands[0, 2:][fixed[2:] | fixed[:-2]] = 0.0
    move = solveh_banded(bands, push)
    return y + np.clip(move, -_LONGEST_STEP_PX, _LONGEST_STEP_PX)


# Part the ink of rows that cross: which of it is whose, judged by where each row comes from and where it goes.

Run = tuple[float, float, float]
"""Upper and lower end of a column's ink, and how dark it is."""
_SLOPE_OVER = 3
"""Columns before and behind a crossing that tell how steeply a row runs into it."""


def part_shared(paths: Sequence[list[Run | None]], line_px: float, longest_px: float) -> None:
    """Replace runs that several rows took by each row's own part of them, in place.

    Each row goes straight from where it enters a crossing to where it leaves it. What no row explains then belongs to
    the row whose ink beside the crossing reaches as far; where none does, it is the tip of a wave, and belongs to the
    row that runs towards it most steeply.

    Args:
        paths: Path of every row: the run of each column; None where it has no ink.
        line_px: Thickness of the pen.
        longest_px: Largest width of a crossing; wider ones stay as they are.
    """
    for first, last, rows in list(_crossings(paths)):
        if last - first + 1 > longest_px:
            continue
        merged = [paths[rows[0]][x] for x in range(first, last + 1)]
        lines = {row: _straight(paths[row], first, last) for row in rows}
        parts = {row: [_part(line, x, line_px) for x in range(len(merged))] for row, line in lines.items()}
        for side in (0, 1):
            excess = []
            for x, run in enumerate(merged):
                assert run is not None
                ends = [parts[row][x][side] for row in rows]
                excess.append(min(ends) - run[0] if side == 0 else run[1] - max(ends))
            if max(excess) <= 0.75 * line_px + 1:
                continue
            at = max(range(len(merged)), key=excess.__getitem__)
            end = merged[at]
            assert end is not None
            span = (end[0], end[0] + excess[at]) if side == 0 else (end[1] - excess[at], end[1])
            reached = {row: _beside(paths[row], first, last, span) for row in rows}
            if max(reached.values()) > 0.3 * excess[at]:
                owner = max(rows, key=reached.__getitem__)
            else:
                owner = max(rows, key=lambda row: _towards(paths[row], first, last, upwards=side == 0))
            for x, run in enumerate(merged):
                assert run is not None
                if excess[x] > 0:
                    upper, lower = parts[owner][x]
                    parts[owner][x] = (run[0], lower) if side == 0 else (upper, run[1])
        for row in rows:
            for x, run in enumerate(merged):
                assert run is not None
                upper, lower = parts[row][x]
                upper, lower = max(upper, run[0]), min(lower, run[1])
                if lower - upper < 0.5:  # a straight way that leaves the ink
                    upper, lower = run[0], run[1]
                paths[row][first + x] = (upper, lower, run[2])


def _crossings(paths: Sequence[list[Run | None]]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Yield first and last column of every crossing, and the rows that meet there."""
    open_since: dict[tuple[int, ...], int] = {}
    for x in range(len(paths[0]) + 1):
        owners: dict[Run, list[int]] = {}
        if x < len(paths[0]):
            for n, path in enumerate(paths):
                run = path[x]
                if run is not None:
                    owners.setdefault(run, []).append(n)
        now = {tuple(rows) for rows in owners.values() if len(rows) > 1}
        for rows in [rows for rows in open_since if rows not in now]:
            yield open_since.pop(rows), x - 1, rows
        for rows in now:
            open_since.setdefault(rows, x)


def _middle(path: list[Run | None], x: int) -> float | None:
    run = path[x] if 0 <= x < len(path) else None
    return None if run is None else (run[0] + run[1]) / 2


def _straight(path: list[Run | None], first: int, last: int) -> tuple[float, float]:
    """Return a row's height in front of a crossing, and its rise for each column through it."""
    before, after = _middle(path, first - 1), _middle(path, last + 1)
    if before is None and after is None:
        inside = [middle for x in range(first, last + 1) if (middle := _middle(path, x)) is not None]
        before = sum(inside) / len(inside)
    start = before if before is not None else after
    end = after if after is not None else before
    assert start is not None
    assert end is not None
    left, right = path[first - 1] if first else None, path[last + 1] if last + 1 < len(path) else None
    if left is not None and right is not None:  # from the end of its ink that it goes on from
        if left[1] < right[0]:
            start, end = left[1], right[0]
        elif right[1] < left[0]:
            start, end = left[0], right[1]
    return start, (end - start) / (last - first + 2)


def _beside(path: list[Run | None], first: int, last: int, span: tuple[float, float]) -> float:
    """Return over how many pixels of a span the row has ink in the columns beside a crossing."""
    most = 0.0
    for x in (first - 1, last + 1):
        run = path[x] if 0 <= x < len(path) else None
        if run is not None:
            most = max(most, min(run[1], span[1]) - max(run[0], span[0]))
    return most


def _part(line: tuple[float, float], x: int, line_px: float) -> tuple[float, float]:
    start, rise = line
    height = start + rise * (x + 1)
    half = line_px / 2 + abs(rise) / 2
    return height - half, height + half


def _towards(path: list[Run | None], first: int, last: int, *, upwards: bool) -> float:
    """Return how far a row comes from below into a crossing and leaves it downwards, or the other way round."""
    total = 0.0
    for near, far in ((first - 1, first - 1 - _SLOPE_OVER), (last + 1, last + 1 + _SLOPE_OVER)):
        a, b = _middle(path, near), _middle(path, far)
        if a is not None and b is not None:
            total += b - a
    return total if upwards else -total
