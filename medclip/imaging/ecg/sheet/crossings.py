"""Part the ink of rows that cross: which of it is whose, judged by where each row comes from and where it goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
