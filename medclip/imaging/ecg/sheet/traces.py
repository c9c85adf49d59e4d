"""Find the rows of a flat sheet by their calibration pulses, and follow the trace of each from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.sheet.centre_line import centre_line, part_shared

# Part a sheet into paper, grid and ink, whatever the colours and the light.

_BLOCK_PX = 16
_LEAST_CONTRAST = 0.15


def part(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Part a sheet.

    A line of the grid is dark in the colours that it lacks; ink is dark in all of them. The level of the paper is taken
    block by block, so that shadows and yellow light are none of either.

    Args:
        pixels: uint8 [H, W, 1 or 3].

    Returns:
        What is printed, float32 [H, W]: how much darker than paper, in its palest colour, with ink taken out. And what
        is written upon it, float32 [H, W], 0 to 1: share of a pixel that ink covers.

    Raises:
        MedclipError: NOT_AN_IMAGE where nothing darker than the paper is found.
    """
    light = pixels.max(2).astype(np.float32)
    pale = pixels.min(2).astype(np.float32)
    dark = 1 - light / _paper(light)
    np.clip(dark, 0, 1, out=dark)
    level = _ink_level(dark)
    if level < _LEAST_CONTRAST:
        raise MedclipError(Reason.NOT_AN_IMAGE, "nothing on the sheet is darker than its grid: no ECG is drawn there.")
    ink = np.clip((dark - 0.4 * level) / (0.5 * level), 0, 1).astype(np.float32)
    lines = 1 - pale / _paper(pale)
    blocked = _dilated(ink > 0)
    lines = np.clip(lines, 0, 0.6).astype(np.float32)
    lines[blocked] = float(lines[~blocked].mean()) if not blocked.all() else 0.0
    return lines, ink


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    return np.asarray(ndimage.binary_dilation(mask, iterations=1), np.bool_)


def _paper(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the level of the paper around each pixel: the bright side of each block, smoothed."""
    from scipy import ndimage

    height, width = values.shape
    rows, columns = -(-height // _BLOCK_PX), -(-width // _BLOCK_PX)
    padded = np.pad(values, ((0, rows * _BLOCK_PX - height), (0, columns * _BLOCK_PX - width)), mode="edge")
    blocks = padded.reshape(rows, _BLOCK_PX, columns, _BLOCK_PX).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    level = np.percentile(blocks, 90, axis=2)
    level = ndimage.gaussian_filter(ndimage.maximum_filter(level, 5), 2)
    zoomed = np.asarray(
        ndimage.zoom(level, (height / rows, width / columns), order=1, grid_mode=True, mode="nearest"), np.float32
    )
    return np.maximum(zoomed[:height, :width], 1.0).astype(np.float32)


def _ink_level(dark: NDArray[np.float32]) -> float:
    """Return how dark ink is: the level that the darkest hundredth of the pixels has in its middle."""
    counts, edges = np.histogram(dark, 256, (0, 1))
    above = np.cumsum(counts[::-1])[::-1]
    top = edges[np.flatnonzero(above > 0.005 * dark.size)[-1]]
    return float(top)


GAINS = (10.0, 5.0, 20.0)
"""Millimetres of a millivolt that a pulse may show."""
_INK = 0.25
"""Share of a pixel that ink covers: a steep line of a thin pen covers half of each of two columns."""
_TRACE_MM = 12.0
"""Ink that hangs together over this width is a trace; names and numbers are narrower."""
_LETTER_MM = (4.5, 5.5)
"""Width and height of what is taken for a letter or a speck."""
_TICK_MM = 4.0
"""Above and below zero, of the tick between two leads."""
_SEPARATOR_MM, _TALLEST_MM = 40.0, 80.0
"""Ink that is higher is a line between leads, at their borders and elsewhere."""
_MERGED_MM = 4.0
"""Width over which ink of two rows is parted where they cross; lines that lie on each other for longer are not."""
_TOUCH_PX = 3.0
_PALE = 0.45
"""Share of ink, near the border of two leads, of what is a tick between them."""
_BEAM = 8
_AWAY, _BLANK, _FAINT, _LEAVE = 0.016, 0.25, 0.5, 1.0
"""What a path costs: each millimetre of paper at each millimetre beyond a third of the way to the next row, without ink
and in ink that is hardly there, and leaving the ink; a jump costs one for each millimetre."""


@dataclass(frozen=True)
class Row:
    """One row of leads, in pixels of the flat sheet."""

    zero_px: float
    mm_per_mv: float | None
    """Gain of its pulse; None where no pulse was found."""
    pulse_end_px: float
    """Where the pulse ends; 0 where there is none."""


@dataclass(frozen=True, eq=False)
class Trace:
    """A row's line at the middle of every column of the flat sheet, and between each and the next."""

    y_px: NDArray[np.float64]
    """float64 [2 W]: height of the line at 0.5, 1.0, 1.5, ... columns; NaN where none was seen."""
    sure: NDArray[np.float32]
    """float32 [2 W], 0 to 1."""
    doubt_px: NDArray[np.float32]
    """float32 [2 W]: height of the ink of which it is not clear whose it is; 0 where the line has none beside it."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """What hangs together, and what it may be."""

    labels: NDArray[np.int32]
    boxes: tuple[tuple[slice, slice], ...]
    px_per_mm: float
    line_px: float
    """Thickness of the traces."""

    def size_mm(self, number: int) -> tuple[float, float]:
        """Width and height of a piece, counted from 0."""
        rows, columns = self.boxes[number]
        return (columns.stop - columns.start) / self.px_per_mm, (rows.stop - rows.start) / self.px_per_mm

    @property
    def traces(self) -> list[int]:
        """Numbers of the pieces that are wide enough to be a trace, and no rule that is as straight as it is long."""
        wide = [n for n in range(len(self.boxes)) if self.size_mm(n)[0] >= _TRACE_MM]
        return [n for n in wide if self.size_mm(n)[0] < 280 or self.size_mm(n)[1] > 1.0]


def pieces_of(ink: NDArray[np.float32], px_per_mm: float) -> Pieces:
    """Label what hangs together."""
    from scipy import ndimage

    mask = ink > _INK
    # A pixel between two pieces does not part them: thin steep lines are broken that often.
    labels = np.zeros(ink.shape, np.int32)
    ndimage.label(ndimage.binary_dilation(mask, np.ones((3, 3))), np.ones((3, 3)), output=labels)
    labels[~mask] = 0
    boxes = tuple(ndimage.find_objects(labels))
    pieces = Pieces(labels, boxes, px_per_mm, 1.0)
    # On flat stretches a column's ink is as high as the line is thick.
    heights = []
    for number in sorted(pieces.traces, key=lambda n: -pieces.size_mm(n)[0])[:6]:
        rows, columns = boxes[number]
        is_piece = labels[rows, columns] == number + 1
        # Rows that cross are one piece: its columns have a line of each.
        lines = np.diff(is_piece.astype(np.int8), axis=0, prepend=0).clip(0).sum(0)
        covered = np.where(is_piece, ink[rows, columns], 0).sum(0) / np.maximum(lines, 1)
        heights.append(np.percentile(covered[covered > 0], 20))
    return Pieces(labels, boxes, px_per_mm, float(max(np.median(heights), 0.8)) if heights else 1.0)


def find_rows(ink: NDArray[np.float32], pieces: Pieces) -> list[Row]:
    """Find the rows from top to bottom: by their pulses, else by where traces spend most of their time."""
    pulses = [row for number in range(len(pieces.boxes)) if (row := _pulse(pieces, number)) is not None]
    if pulses:
        first = np.median([row.pulse_end_px for row in pulses])
        pulses = [row for row in pulses if abs(row.pulse_end_px - first) < 3 * pieces.px_per_mm]
    by_time = _rows_by_time(ink, pieces)
    if len(pulses) >= max(2, len(by_time) - 1):
        return sorted(pulses, key=lambda row: row.zero_px)
    return by_time


def _pulse(pieces: Pieces, number: int) -> Row | None:
    """Return the row that a piece begins, if it is a pulse: a box of 5 mm, as high as a millivolt, with feet."""
    mm, line = pieces.px_per_mm, pieces.line_px
    width, height = pieces.size_mm(number)
    gain = next((g for g in GAINS if abs(height - line / mm - g) < max(0.06 * g, 1.2 / mm)), None)
    if gain is None or not 4.2 < width < 14.0:
        return None
    rows, columns = pieces.boxes[number]
    mask = pieces.labels[rows, columns] == number + 1
    edge = max(1, round(line))
    top, foot = mask[: edge + 1].any(0), mask[-edge - 1 :].any(0)
    middle = mask[len(mask) // 3 : 2 * len(mask) // 3]
    box_px = float(np.ptp(np.flatnonzero(top))) + 1 - line
    if abs(box_px / mm - 5.0) > max(0.8, 2.0 / mm) or middle.sum(1).max() > 2 * (line + 2) or not middle.any(1).all():
        return None
    if not foot.any():
        return None
    return Row(rows.stop - line / 2, gain, float(columns.stop))


def _rows_by_time(ink: NDArray[np.float32], pieces: Pieces) -> list[Row]:
    from scipy import ndimage, signal

    profile = np.zeros(len(ink))
    for number in pieces.traces:
        rows, columns = pieces.boxes[number]
        profile[rows] += (pieces.labels[rows, columns] == number + 1).sum(1)
    if not profile.any():
        return []
    smooth = ndimage.gaussian_filter1d(profile, 1.0 * pieces.px_per_mm)
    peaks, _ = signal.find_peaks(smooth, distance=11 * pieces.px_per_mm, prominence=0.25 * smooth.max())
    return [Row(float(peak) + 0.5, None, 0.0) for peak in peaks]


def left_edge(pieces: Pieces, rows: Sequence[Row]) -> float:
    """Return the column where the leads begin: the leftmost of the traces that lie right of the pulses."""
    begin = max(row.pulse_end_px for row in rows) - pieces.px_per_mm
    lefts = []
    for number in pieces.traces:
        left = pieces.boxes[number][1].start
        if left >= begin:
            lefts.append(left)
    return float(min(lefts)) + pieces.line_px / 2 if lefts else begin


def follow(
    ink: NDArray[np.float32],
    pieces: Pieces,
    rows: Sequence[Row],
    borders_px: Sequence[float],
    span_px: tuple[float, float],
) -> list[Trace]:
    """Follow the trace of every row.

    Args:
        ink: float32 [H, W]: share of a pixel that ink covers.
        pieces: Pieces of ink on the same sheet.
        rows: Rows as found on the sheet.
        borders_px: Columns at which one lead ends and the next begins.
        span_px: Columns between which leads are drawn.
    """
    mm = pieces.px_per_mm
    cleaned = ink.copy()
    for number in range(len(pieces.boxes)):
        width, height = pieces.size_mm(number)
        letter = width < _LETTER_MM[0] and height < _LETTER_MM[1]
        if letter or _pulse(pieces, number) is not None:
            where = pieces.boxes[number]
            cleaned[where][pieces.labels[where] == number + 1] = 0
    width = ink.shape[1]
    first, last = max(0, int(np.floor(span_px[0]))), min(width, int(np.ceil(span_px[1])))
    near_border = np.zeros(width, np.bool_)
    starts = frozenset(int(border) for border in borders_px)
    for border in borders_px:
        near_border[max(0, int(border - 0.6 * mm)) : int(border + 0.6 * mm) + 1] = True
    # The ticks between leads are paler than the leads themselves.
    cleaned[:, near_border] = np.clip((cleaned[:, near_border] - _PALE) / (1 - _PALE), 0, 1)
    columns = _runs(cleaned)
    spacing = np.diff([row.zero_px for row in rows]).min() if len(rows) > 1 else 40 * mm
    reach = max(1.3 * spacing, 25 * mm)
    chosen = []
    for row in rows:
        runs = [
            []
            if not first <= x < last
            else _candidates(columns[x], row.zero_px, reach, mm, border=bool(near_border[x]))
            for x in range(width)
        ]
        chosen.append(_best_path(runs, row.zero_px, 0.35 * spacing, first, last, mm, starts))
    doubts = _doubts(chosen, columns, near_border, pieces.line_px, (first, last))
    part_shared(chosen, pieces.line_px, _MERGED_MM * mm)
    return [_line(cleaned, path, doubts[n], near_border, pieces.line_px) for n, path in enumerate(chosen)]


def _runs(ink: NDArray[np.float32]) -> list[list[tuple[float, float, float]]]:
    """Return of each column its runs of ink: upper and lower edge to a part of a pixel, and how dark they are."""
    padded = np.pad(ink, ((1, 1), (0, 0)))
    mask = (padded > _INK).T
    change = np.diff(mask.astype(np.int8), axis=1)
    columns, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]  # row-major on both: the n-th end belongs to the n-th start
    # In rows of the padded image a run covers starts + 1 ... ends; that is starts ... ends - 1 of the image.
    upper = starts + 1 - padded[starts + 1, columns] - np.minimum(padded[starts, columns], _INK)
    lower = ends - 1 + padded[ends, columns] + np.minimum(padded[np.minimum(ends + 1, len(padded) - 1), columns], _INK)
    dark = np.maximum(padded[starts + 1, columns], padded[(starts + 1 + ends) // 2, columns])
    runs: list[list[tuple[float, float, float]]] = [[] for _ in range(ink.shape[1])]
    for column, a, b, c in zip(columns.tolist(), upper.tolist(), lower.tolist(), dark.tolist(), strict=True):
        runs[column].append((a, b, c))
    return runs


def _candidates(
    runs: list[tuple[float, float, float]], zero: float, reach: float, mm: float, *, border: bool
) -> list[tuple[float, float, float]]:
    def separates(run: tuple[float, float, float]) -> bool:
        tick = border and max(abs(zero - run[0] - _TICK_MM * mm), abs(run[1] - zero - _TICK_MM * mm)) < 0.8 * mm
        return tick or run[1] - run[0] > (_SEPARATOR_MM if border else _TALLEST_MM) * mm

    return [run for run in runs if run[0] < zero + reach and run[1] > zero - reach and not separates(run)]


_Run = tuple[float, float, float]


def _best_path(
    runs: list[list[_Run]], zero: float, free: float, first: int, last: int, mm: float, starts: frozenset[int]
) -> list[_Run | None]:
    """Return the run of each column that belongs to a row: the path of the smallest jumps that stays near its zero."""
    away, blank, faint = _AWAY / mm**2, _BLANK / mm, _FAINT / mm
    # A state: cost, the run that was seen last, and the way back; columns without ink carry it on. What a column takes
    # from a path that leaves the ink is more than a peak costs, and less than following another row's trace.
    states: list[tuple[float, float, float, int]] = [(0.0, zero - free, zero + free, -1)]
    history: list[tuple[int, int, _Run | None]] = []
    for x in range(first, last):
        if x in starts:  # another lead begins here, wherever the one before it ended
            states = [(cost, zero - free, zero + free, at) for cost, _, _, at in states]
        fresh: list[tuple[float, float, float, int]] = []
        for run in runs[x]:
            upper, lower, dark = run
            best, back = np.inf, -1
            for cost, above, below, at in states:
                gap = max(0.0, upper - below, above - lower)
                total = cost + min(gap / mm, 12.0)
                if total < best:
                    best, back = total, at
            centre = (upper + lower) / 2
            history.append((x, back, run))
            cost = best + away * max(0.0, abs(centre - zero) - free) + faint * (1 - dark)
            fresh.append((cost, upper, lower, len(history) - 1))
        for cost, above, below, at in states:
            left_ink = _LEAVE if at < 0 or history[at][2] is not None else 0.0
            history.append((x, at, None))
            fresh.append((cost + blank + left_ink, above, below, len(history) - 1))
        fresh.sort()
        states = fresh[:_BEAM]
    path: list[_Run | None] = [None] * len(runs)
    at = states[0][3]
    while at >= 0:
        x, at_before, run = history[at]
        path[x] = run
        at = at_before
    return path


def _doubts(
    paths: list[list[_Run | None]],
    columns: list[list[_Run]],
    near_border: NDArray[np.bool_],
    line_px: float,
    span: tuple[int, int],
) -> list[NDArray[np.float32]]:
    """Return of each row and column how high the ink is that may be another's: float32 [W] for each.

    That is ink that several rows took, the steep part of a wave at the seam of two leads, and ink that none took though
    it touches the row's own: the tip of a wave, from which the row's path went over to a letter or to another row.
    """
    first, last = span
    doubts = [np.zeros(len(paths[0]), np.float32) for _ in paths]
    for x in range(first, last):
        owners: dict[_Run, list[int]] = {}
        for n, path in enumerate(paths):
            run = path[x]
            if run is not None:
                owners.setdefault(run, []).append(n)
        for run in columns[x]:
            height = run[1] - run[0] - line_px
            rows = owners.get(run, [])
            if len(rows) > 1:
                for n in rows:
                    doubts[n][x] = max(doubts[n][x], height, line_px)
            elif rows and near_border[x] and height > line_px:  # a wave that the seam cuts
                doubts[rows[0]][x] = height
            elif not rows and height > line_px and not near_border[x]:  # a tick
                for n, path in enumerate(paths):
                    beside = [path[at] for at in (x - 1, x, x + 1) if first <= at < last]
                    if any(at and at[0] < run[1] + _TOUCH_PX and at[1] > run[0] - _TOUCH_PX for at in beside):
                        doubts[n][x] = max(doubts[n][x], height)
    return [_widened(doubt) for doubt in doubts]


def _widened(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest of each column and two on either side."""
    from scipy import ndimage

    return np.asarray(ndimage.maximum_filter1d(values, 5), np.float32)


def _line(
    ink: NDArray[np.float32],
    path: list[_Run | None],
    doubt: NDArray[np.float32],
    near_border: NDArray[np.bool_],
    line_px: float,
) -> Trace:
    """Return the line inside the ink of a path.

    A column's ink reaches from the highest to the lowest point that the pen has there. Between two columns the line
    lies in what both have, so in its middle; inside a column that has a peak or a valley of its own, at the ink's end
    less half the pen.
    """
    seen = np.array([run is not None for run in path])
    sure = np.zeros(2 * len(path), np.float32)
    y = np.full(2 * len(path), np.nan)
    if not seen.any():
        return Trace(y, sure, np.zeros(2 * len(path), np.float32))
    upper = np.array([run[0] if run else np.nan for run in path])
    lower = np.array([run[1] if run else np.nan for run in path])
    dark = np.array([run[2] if run else 0.0 for run in path])
    middle = (upper + lower) / 2
    # Between column x and the next; where only one of them has ink, or they do not touch, there is nothing to say.
    above, below = np.maximum(upper[:-1], upper[1:]), np.minimum(lower[:-1], lower[1:])
    between = np.where(below - above > -line_px, (above + below) / 2, np.nan)
    before, after = np.append(np.nan, between), np.append(between, np.nan)
    mean = (before + after) / 2
    centre = np.where(np.isfinite(mean), mean, np.where(np.isfinite(before), before, after))
    centre = np.where(np.isfinite(centre), centre, middle)
    tall = lower - upper > line_px + 1.5
    peak = tall & (upper <= _shifted(upper, -1)) & (upper <= _shifted(upper, 1))
    valley = tall & (lower >= _shifted(lower, -1)) & (lower >= _shifted(lower, 1))
    centre = np.where(peak & ~valley, upper + line_px / 2, centre)
    centre = np.where(valley & ~peak, lower - line_px / 2, centre)
    y[0::2] = np.where(seen, centre, np.nan)
    y[1::2] = np.append(between, np.nan)
    y = centre_line(ink, y, np.where(near_border, np.nan, upper), lower, line_px)
    certain = np.clip(dark / 0.6, 0, 1).astype(np.float32)
    certain[near_border] *= 0.5
    certain[doubt > 0] *= 0.2
    certain[peak & valley] *= 0.5
    sure[0::2] = np.where(seen, certain, 0)
    sure[1::2] = np.where(np.isfinite(y[1::2]), np.minimum(certain, _shifted(certain, 1)), 0)
    return Trace(y, sure, np.where(np.isfinite(y), np.repeat(doubt, 2), 0).astype(np.float32))


def _shifted(values: NDArray[Any], by: int) -> NDArray[Any]:
    """Return the values `by` columns further on; the edge repeats."""
    return values[np.clip(np.arange(len(values)) + by, 0, len(values) - 1)]
