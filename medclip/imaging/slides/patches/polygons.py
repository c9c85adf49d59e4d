"""From a mask to polygons along its pixels' edges and back, without loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = list[tuple[int, int]]
"""Corners (x, y) in mask pixels, not repeated at the end; consecutive sides are at right angles."""
_RIGHT = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}


def outlines(mask: NDArray[np.bool_]) -> list[list[Ring]]:
    """Trace the pieces of a mask.

    Pieces are connected by sides, not by corners. No ring touches itself: where two corners of a piece meet, it is cut
    in two rings, as the standard for polygons wants.

    Args:
        mask: bool [H, W].

    Returns:
        One polygon for each piece: its outer ring, then its holes; pieces in order of their first pixel.
    """
    from scipy import ndimage

    labelled: Any = ndimage.label(mask)
    labels, count = labelled
    polygons: list[tuple[list[Ring], list[Ring]]] = [([], []) for _ in range(count)]
    for ring, label in _rings(np.asarray(labels)):
        outer, holes = polygons[label - 1]
        (outer if _area(ring) > 0 else holes).append(ring)
    return [[*outer, *holes] for outer, holes in polygons]


def fill(rings: Iterable[Sequence[tuple[float, float]]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw rings: a pixel belongs to them if its centre is inside an odd number of rings.

    Args:
        rings: Corners (x, y) in mask pixels, closed or not; parts outside the mask are cut off.
        shape: Height and width of the mask.

    Returns:
        bool [H, W].
    """
    height, width = shape
    crossings = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        points = np.asarray(ring, np.float64).reshape(-1, 2)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            low, high = (y0, y1) if y0 < y1 else (y1, y0)
            # Rows whose centre lies in [low, high).
            first, last = max(0, int(np.ceil(low - 0.5))), min(height, int(np.ceil(high - 0.5)))
            rows = np.arange(first, last)
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            columns = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
            np.add.at(crossings, (rows, columns), 1)
    return np.cumsum(crossings, axis=1)[:, :width] % 2 == 1


def _rings(labels: NDArray[np.int32]) -> Iterable[tuple[Ring, int]]:
    """Follow the sides of pixels that border on another label, the piece on the right hand."""
    ways = _sides(labels)
    while ways:
        start = next(iter(ways))
        path: Ring = []
        seen: dict[tuple[int, int], int] = {}
        point, heading, label = start, None, 0
        while True:
            if point in seen:  # a corner is met again: what lies between is a ring of its own
                at = seen[point]
                loop = path[at:]
                for corner in loop:
                    del seen[corner]
                del path[at:]
                yield _straight(loop), label
                if not path:
                    break
            seen[point] = len(path)
            path.append(point)
            choices = ways[point]
            turn = (
                choices.index(next(c for c in choices if c[0] == _RIGHT[heading]))
                if len(choices) > 1 and heading
                else 0
            )
            heading, label = choices.pop(turn)
            if not choices:
                del ways[point]
            point = (point[0] + heading[0], point[1] + heading[1])


def _sides(labels: NDArray[np.int32]) -> dict[tuple[int, int], list[tuple[tuple[int, int], int]]]:
    """List for each corner the directions in which a side starts there, with the piece's label."""
    padded = np.pad(labels, 1)
    inner = padded[1:-1, 1:-1]
    ways: dict[tuple[int, int], list[tuple[tuple[int, int], int]]] = {}
    # (neighbour, corner of the pixel where the side starts, direction): clockwise around the pixel as it is shown.
    for neighbour, (dx, dy), heading in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    ):
        ys, xs = np.nonzero((inner != neighbour) & (inner > 0))
        inside = inner[ys, xs]
        for x, y, label in zip(xs.tolist(), ys.tolist(), inside.tolist(), strict=True):
            ways.setdefault((x + dx, y + dy), []).append((heading, label))
    return ways


def _straight(loop: Ring) -> Ring:
    """Leave out corners that lie on a straight line."""
    kept = []
    for i, (x, y) in enumerate(loop):
        (px, py), (nx, ny) = loop[i - 1], loop[(i + 1) % len(loop)]
        if (x - px, y - py) != (nx - x, ny - y):
            kept.append((x, y))
    return kept


def _area(ring: Ring) -> float:
    """Twice the signed area: positive for rings that run clockwise as shown (outer ones)."""
    points = np.asarray(ring, np.int64)
    x, y = points[:, 0], points[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
