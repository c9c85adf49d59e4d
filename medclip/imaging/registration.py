"""Copies that were cropped or rotated: small images are registered on each other and compared where they overlap.

A perceptual hash loses its bits where a copy is cropped by more than 3 % or turned by a degree or two. So candidates
are searched for with descriptors of windows of both images, every pair by one matrix product; the most alike are
registered (an affine transform, Lucas and Kanade's gradient descent, coarse to fine: Baker and Matthews, "Lucas-Kanade
20 years on", 2004), and what counts is the correlation of their details there. Of 300 images each of nih_cxr, covid_cxr
and brain_mri, searched for among these 300, lowest and highest of the three:

==================================  ============
copy                                share found
==================================  ============
8 % cropped, anywhere               0.94 to 1.00
3 degrees rotated                   0.97 to 0.99
both, brighter, as JPEG 0.6 times   0.85 to 1.00
12 % cropped                        0.90 to 1.00
5 degrees rotated                   0.89 to 0.97
==================================  ============

Of 300 dermoscopy images 0.98 of the crops are found, and 0.53 of those rotated by 3 degrees: fine texture is lost.

At 0.9, the least that counts, no pair of different patients of nih_cxr is taken for one image (highest 0.84), and of
covid_cxr only pairs that are one image under two names (all others 0.83 or less). Of brain_mri five are, and these are
one image, too (all others 0.85). Where the audit set's own pairs of different patients are very alike, as of fundus
photographs, the limit rises (`limit`).

Cost: 0.1 µs a pair of images for the search, 2 ms for each of the pairs that are registered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.perceptual_hash import SMALL_PX
from medclip.progress import Progress, Silent

LEAST_CORRELATION = 0.9
MOST_BY_CHANCE = 0.05
"""Pairs of different images that may be expected among what is found."""
MOST_IMAGES = 50_000
"""Small images that are kept of one set: 115 MB."""
MOST_PAIRS = 10**9
"""Pairs that are searched; more would take longer than 100 s of two cores."""
_CANDIDATES, _MOST_CANDIDATES = 6, 60_000
"""Pairs that are registered: of each image, and in all."""
_LEAST_ALIKE = 0.55
"""Of the descriptors: 99 of 100 copies have 0.7 or more."""
_WINDOW = 0.92
_SHIFTS = (0.0, 0.04, 0.08)
_DESCRIBED = 16
"""Side of a descriptor."""
_FINE, _COARSE = 1.5, 5.0
"""What a descriptor keeps: details between these widths (px of a small image, standard deviation of a Gaussian)."""
_DETAIL_PX = 3.0
"""Width of the details that are compared after registration."""
_DARK, _LEAST_SHOWN = 12, 0.15
"""Grey values below which nothing is shown (black surroundings), and share of the image that shows something."""
_MOST_TURNED, _LEAST_OVERLAP = 0.2, 0.6
"""Entries of the affine matrix that are believed (8 % cropped and 3 degrees have 0.14), and share of the image."""
_LEAST_COARSE = 0.8
"""Correlation after the coarse stage below which a pair is given up: copies have more."""
_ROWS_AT_ONCE, _COLUMNS_AT_ONCE, _PAIRS_AT_ONCE = 512, 8192, 128
_LEAST_PAIRS = 30
_PAIR = np.dtype([("one", np.intp), ("other", np.intp), ("alike", np.float32)])


@dataclass(frozen=True, eq=False)
class Registered:
    """K pairs of images that could be registered."""

    one_K: NDArray[np.intp]
    other_K: NDArray[np.intp]
    correlation_K: NDArray[np.float32]
    """Of their details where they overlap; -1 where no believable transform was found."""

    def at_least(self, limit: float) -> Registered:
        """Return the pairs that are one image."""
        return self.keep(self.correlation_K >= limit)

    def keep(self, chosen_K: NDArray[np.bool_]) -> Registered:
        """Return some of the pairs."""
        return Registered(self.one_K[chosen_K], self.other_K[chosen_K], self.correlation_K[chosen_K])


def candidates(
    one_NHW: NDArray[np.uint8], other_MHW: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the pairs that are most alike, whichever of the two was cropped.

    Args:
        one_NHW: A set of small images.
        other_MHW: Another set of small images; None for pairs inside the first, each once.

    Returns:
        Index in either set of each pair, at most `_CANDIDATES` for each of the first, the most alike first where there
        are more than `_MOST_CANDIDATES` in all.
    """
    inside = other_MHW is None
    other_MHW = one_NHW if other_MHW is None else other_MHW
    nearest: dict[int, list[NDArray[Any]]] = {}
    for begin in range(0, len(other_MHW), _COLUMNS_AT_ONCE):
        against = _descriptors(other_MHW[begin : begin + _COLUMNS_AT_ONCE])
        for start in range(0, len(one_NHW), _ROWS_AT_ONCE):
            alike_RM = _alike(_descriptors(one_NHW[start : start + _ROWS_AT_ONCE]), against)
            if inside:
                later = np.arange(alike_RM.shape[1])[None] + begin > np.arange(len(alike_RM))[:, None] + start
                alike_RM = np.where(later, alike_RM, -1)
            nearest.setdefault(start, []).append(_nearest(alike_RM, start, begin))
    best = [_best_of_each(np.concatenate(parts)) for parts in nearest.values()]
    pairs = np.concatenate([np.zeros(0, _PAIR), *best])
    pairs = pairs[np.lexsort((pairs["other"], pairs["one"], -pairs["alike"]))][:_MOST_CANDIDATES]
    return pairs["one"], pairs["other"]


def register(
    one_NHW: NDArray[np.uint8],
    other_MHW: NDArray[np.uint8],
    pairs: tuple[NDArray[np.intp], NDArray[np.intp]],
    *,
    progress: Progress | None = None,
) -> Registered:
    """Move the second image of each pair onto the first, and measure how alike details are: 60,000 take two minutes."""
    one_K, other_K = pairs
    progress = progress or Silent()
    progress.stage("Registering images that look alike", len(one_K))
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(one_K), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        parts.append(_correlations(_real(one_NHW[one_K[part]]), _real(other_MHW[other_K[part]])))
        progress.step(len(parts[-1]))
    return Registered(one_K, other_K, np.concatenate(parts))


def limit(
    registered: Registered,
    patients_N: NDArray[np.int32],
    num_images: int,
    num_pairs: int,
    num_others: int | None = None,
) -> float:
    """Return the correlation from which on a pair is one image: higher where different patients are very alike.

    The correlations of different patients, on Fisher's scale, follow a normal curve whose middle and width are the
    median and the interquartile range; pairs above `LEAST_CORRELATION` may be copies and do not count. It is extended
    to as many pairs as are compared. Where there are images of another set, these are all of other patients.
    """
    from scipy.stats import norm

    inside = num_others is None
    apart = patients_N[registered.one_K] != patients_N[registered.other_K] if inside else True
    believed = registered.correlation_K > -1
    of_two = registered.correlation_K[apart & believed & (registered.correlation_K < LEAST_CORRELATION)]
    if len(of_two) < _LEAST_PAIRS:
        return LEAST_CORRELATION
    low, middle, high = np.percentile(np.arctanh(of_two), (25, 50, 75))
    width = (high - low) / (norm.ppf(0.75) - norm.ppf(0.25))
    num_asked = num_images * (num_images - 1) / 2 if num_others is None else num_images * num_others
    share = len(of_two) / max(num_asked, 1)  # of all pairs that were registered
    allowed = min(MOST_BY_CHANCE / max(num_pairs * share, MOST_BY_CHANCE), 0.5)
    return max(LEAST_CORRELATION, float(np.tanh(middle - width * norm.ppf(allowed))))


def _windows() -> Iterator[tuple[float, float, float]]:
    """Yield top, left and side of the windows: all of it, and each crop of 8 %."""
    yield 0.0, 0.0, 1.0
    for top in _SHIFTS:
        for left in _SHIFTS:
            yield top, left, _WINDOW


def _descriptors(small_NHW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Describe each window of each image by its details: unit vectors [windows, N, 256]."""
    centres = (np.arange(_DESCRIBED) + 0.5) / _DESCRIBED
    windows = list(_windows())
    values = np.empty((len(windows), len(small_NHW), _DESCRIBED * _DESCRIBED), np.float32)
    for start in range(0, len(small_NHW), _ROWS_AT_ONCE):
        images = _real(small_NHW[start : start + _ROWS_AT_ONCE])
        details = _blurred(images, _FINE) - _blurred(images, _COARSE)
        for n, (top, left, side) in enumerate(windows):
            rows, columns = ((begin + side * centres) * SMALL_PX - 0.5 for begin in (top, left))
            values[n, start : start + len(images)] = _sampled(details, rows, columns).reshape(len(images), -1)
    values -= values.mean(axis=2, keepdims=True)
    values /= np.maximum(np.linalg.norm(values, axis=2, keepdims=True), 1e-6)
    return values


def _alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compare the whole of each image with every window of each other one, both ways; the largest cosine, [N, M]."""
    alike_NM = one[0] @ other[0].T
    for window in range(1, len(one)):
        np.maximum(alike_NM, one[0] @ other[window].T, out=alike_NM)
        np.maximum(alike_NM, one[window] @ other[0].T, out=alike_NM)
    return alike_NM


def _nearest(alike_NM: NDArray[np.float32], start: int, begin: int) -> NDArray[Any]:
    """List the pairs of each row's most alike columns; rows and columns count from where they begin."""
    most = min(_CANDIDATES, alike_NM.shape[1])
    columns = np.argpartition(-alike_NM, most - 1, axis=1)[:, :most].ravel()
    rows = np.repeat(np.arange(len(alike_NM)), most)
    pairs = np.empty(len(rows), _PAIR)
    pairs["one"], pairs["other"], pairs["alike"] = rows + start, columns + begin, alike_NM[rows, columns]
    return pairs[pairs["alike"] >= _LEAST_ALIKE]


def _best_of_each(pairs: NDArray[Any]) -> NDArray[Any]:
    """Keep the most alike pairs of each first image."""
    pairs = pairs[np.lexsort((pairs["other"], -pairs["alike"], pairs["one"]))]
    first = np.flatnonzero(np.diff(pairs["one"], prepend=-1))
    place = np.arange(len(pairs)) - np.repeat(first, np.diff(np.append(first, len(pairs))))
    return pairs[place < _CANDIDATES]


def _sampled(
    images: NDArray[np.float32], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Interpolate images on a grid of rows and columns."""
    rows, columns = (np.clip(x, 0, SMALL_PX - 1.001) for x in (rows, columns))
    i, j = rows.astype(np.intp), columns.astype(np.intp)
    a, b = (rows - i).astype(np.float32)[:, None], (columns - j).astype(np.float32)

    def at(down: int, right: int) -> NDArray[np.float32]:
        return images[:, (i + down)[:, None], j + right]

    top, bottom = ((1 - b) * at(down, 0) + b * at(down, 1) for down in (0, 1))
    return np.asarray((1 - a) * top + a * bottom, np.float32)


def _real(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images.astype(np.float32)


def _blurred(images: NDArray[np.float32], width_px: float) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(images, (0, width_px, width_px)), np.float32)


def _correlations(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Register K pairs, coarse to fine, and correlate their details; -1 where that leads nowhere."""
    correlation_K = np.full(len(one), -1, np.float32)
    half, other_half = (x.reshape(len(x), SMALL_PX // 2, 2, SMALL_PX // 2, 2).mean((2, 4)) for x in (one, other))
    affine_K6 = _descend(half, other_half, np.zeros((len(one), 6), np.float32), ((1.5, 7), (0.75, 7)))
    moved, inside = _moved(other_half, affine_K6)
    going_on = np.flatnonzero(_correlated(half, moved, inside) >= _LEAST_COARSE)
    if not len(going_on):
        return correlation_K
    one, other = one[going_on], other[going_on]
    affine_K6 = _descend(one, other, affine_K6[going_on], ((0.7, 5),))
    moved, inside = _moved(other, affine_K6)
    still, details = (x - _blurred(x, _DETAIL_PX) for x in (one, moved))
    visible = _inner(inside & (one > _DARK) & (moved > _DARK))
    believed = np.abs(affine_K6).max(axis=1) <= _MOST_TURNED
    believed &= (inside.mean((1, 2)) >= _LEAST_OVERLAP) & (visible.mean((1, 2)) >= _LEAST_SHOWN)
    correlation_K[going_on] = np.where(believed, _correlated(still, details, visible), -1)
    return correlation_K


def _inner(visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Leave out edges: the round edge of every fundus photograph is alike."""
    from scipy.ndimage import binary_erosion

    return np.asarray(binary_erosion(visible, np.ones((1, 5, 5))), bool)


def _grid(side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the rows and columns of an image's pixels, -1 to 1."""
    line = np.linspace(-1, 1, side, dtype=np.float32)
    rows, columns = np.meshgrid(line, line, indexing="ij")
    return rows, columns


def _moved(
    images: NDArray[np.float32], affine_K6: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Look at images through affine transforms; also where the transformed place lies inside the image."""
    num, side = len(images), images.shape[1]
    y, x = _grid(side)
    a, b, c, d, e, f = (affine_K6[:, n, None, None] for n in range(6))
    column = ((1 + a) * x + b * y + c + 1) * (side - 1) / 2
    row = (d * x + (1 + e) * y + f + 1) * (side - 1) / 2
    inside = (column >= 0) & (column <= side - 1) & (row >= 0) & (row <= side - 1)
    column, row = (np.clip(v, 0, side - 1.001) for v in (column, row))
    i, j = row.astype(np.intp), column.astype(np.intp)
    down, right = row - i, column - j
    flat, place = images.reshape(num, -1), (i * side + j).reshape(num, -1)

    def at(offset: int) -> NDArray[np.float32]:
        return np.take_along_axis(flat, place + offset, 1).reshape(row.shape)

    top = (1 - right) * at(0) + right * at(1)
    return (1 - down) * top + down * ((1 - right) * at(side) + right * at(side + 1)), inside


def _descend(
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    affine_K6: NDArray[np.float32],
    stages: Sequence[tuple[float, int]],
) -> NDArray[np.float32]:
    """Improve transforms by Gauss-Newton steps, blurred by each width for so many steps; contrast is free."""
    side = one.shape[1]
    y, x = _grid(side)
    per_unit = np.float32((side - 1) / 2)
    for width_px, num_steps in stages:
        still, moving = _blurred(one, width_px), _blurred(other, width_px)
        for _ in range(num_steps):
            moved, inside = _moved(moving, affine_K6)
            centred, target = (_centred(v, inside) for v in (moved, still))
            gain = _sum(centred * target) / np.maximum(_sum(centred * centred), 1e-6)
            down, right = np.gradient(moved, axis=(1, 2))
            scale = gain * per_unit * inside
            down, right = down * scale, right * scale
            slopes = np.stack([right * x, right * y, right, down * x, down * y, down], -1).reshape(len(one), -1, 6)
            normal = slopes.transpose(0, 2, 1) @ slopes
            damping = 1e-3 * np.trace(normal, axis1=1, axis2=2) / 6 + 1e-6
            normal += np.eye(6, dtype=np.float32) * damping[:, None, None]
            residual = (target - gain * centred).reshape(len(one), -1, 1)
            step = np.linalg.solve(normal, slopes.transpose(0, 2, 1) @ residual)[..., 0]
            affine_K6 = np.clip(affine_K6 + np.clip(step, -0.1, 0.1), -0.25, 0.25).astype(np.float32)
    return affine_K6


def _sum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.sum((1, 2), keepdims=True)


def _centred(images: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Subtract the mean of what lies inside; 0 outside."""
    mean = _sum(images * inside) / np.maximum(inside.sum((1, 2), keepdims=True), 1)
    return ((images - mean) * inside).astype(np.float32)


def _correlated(one: NDArray[np.float32], other: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Correlate pairs over what lies inside, [K]; 0 where one of them is flat."""
    a, b = _centred(one, inside), _centred(other, inside)
    norm = np.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)))
    return ((a * b).sum((1, 2)) / np.maximum(norm, 1e-3)).astype(np.float32)
