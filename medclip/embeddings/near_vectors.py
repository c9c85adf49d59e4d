"""Pairs of vectors that are nearly one: of a few by every product, of many in the leaves of random trees.

A million vectors of 512 dimensions have 5e11 pairs, 5e14 products: hours of two cores. So more than `MOST_PRODUCTS`
are searched by a forest (random projection trees, Dasgupta and Freund, STOC 2008): each tree halves the vectors at the
median along the line through two of them, in 64 random dimensions, down to leaves of at most `_LEAF`. Halves are of
equal size however alike vectors are; hyperplanes through the origin, as in LSH for cosines, have nearly all vectors of
medical images on one side (medclip-mini, two chest films: cosine 0.79). Pairs of a leaf are compared in full where
their squared distance in the 64 dimensions is at most `_STRETCH` times that of the limit: projecting stretches it by
chi-square over its 64 degrees of freedom, of which one in 280,000 is above 2.

How many pairs are missed is measured and not promised: `_PROBES` vectors are moved towards others until their cosine
with themselves is the limit, go down the trees like all others, and trees are grown until 99 of 100 of them have met
the vector that they came from. Copies are nearer than the limit, so more of them are found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.progress import Progress, Silent

MEMORY_BYTES = 256 << 20
"""Of blocks of vectors and of their products; vectors, 256 bytes a vector of a forest, and pairs come on top."""
MOST_PRODUCTS = 10**12
"""Of two numbers, for every pair of vectors: more are searched by a forest. 10 to 20 s of two cores."""
_PROJECTED = 64
_LEAF = 512
_STRETCH = 2.0
_ROUNDING = 1e-4
"""Of squared distances: norms of float16 vectors, and sums of squares in float32."""
_PAIRS_OF_VECTOR = 4
"""Close pairs for each vector of a leaf from which on one product of all is faster."""
_PROBES = 512
_LEAST_MET = 0.99
_MOST_TREES = 96
_ROWS_AT_ONCE = 16_384
_CHANCE_PAIRS = 200_000
_LEAST_CHANCE_PAIRS = 100
_TAIL_FROM = 99
MOST_BY_CHANCE = 0.05
"""Pairs of different images that may be expected among what is found."""


@dataclass(frozen=True, eq=False)
class NearVectors:
    """K pairs of vectors; inside one set the first is the earlier one."""

    one_K: NDArray[np.int64]
    other_K: NDArray[np.int64]
    cosine_K: NDArray[np.float32]
    met_share: float = 1.0
    """Share of pairs at the limit that are among them, as probes say."""

    def __len__(self) -> int:
        """Return K."""
        return len(self.one_K)


def near_vectors(
    vectors_ND: NDArray[np.floating],
    others_MD: NDArray[np.floating] | None = None,
    *,
    cosine: float,
    memory_bytes: int = MEMORY_BYTES,
    most_products: int = MOST_PRODUCTS,
    seed: int = 0,
    progress: Progress | None = None,
) -> NearVectors:
    """Find the pairs of unit vectors whose cosine is at least a limit, in the order of the rows.

    Args:
        vectors_ND: float16 or float32 [N, D], unit vectors; may be mapped from a file. Rows with NaN meet nothing.
        others_MD: Another set; None for the pairs inside the first, each once.
        cosine: The limit.
        memory_bytes: Ceiling of what blocks take.
        most_products: Products up to which every pair is compared.
        seed: Seed of the trees.
        progress: Progress bar of blocks or trees.

    Example:
        >>> near_vectors(np.float32([[1, 0], [0, 1], [1, 0]]), cosine=0.97).other_K.tolist()
        [2]
    """
    inside = others_MD is None
    others = vectors_ND if others_MD is None else others_MD
    progress = progress or Silent()
    num_products = len(vectors_ND) * len(others) * vectors_ND.shape[1] // (2 if inside else 1)
    if num_products <= most_products:
        return _of_all(vectors_ND, others, inside, cosine, memory_bytes, progress)
    return _of_forest(vectors_ND, others, inside, cosine, np.random.default_rng(seed), progress)


def cosine_limit(
    vectors_ND: NDArray[np.floating],
    patients_N: NDArray[np.int32],
    num_pairs: int,
    *,
    others_MD: NDArray[np.floating] | None = None,
    least: float,
    seed: int = 0,
) -> float:
    """Return the cosine from which on two images are one: higher where those of different patients are very alike.

    A cosine alone tells little: with medclip-mini two films of different patients of nih_cxr have a median of 0.95, and
    every hundredth pair 0.998. So cosines of different patients are drawn and put on Fisher's scale; what lies above
    their 99th percentile is taken for an exponential tail (peaks over a threshold, Pickands 1975), whose scale the
    median says, so that copies under several patients do not move it, and extended to as many pairs as are compared,
    until chance gives `MOST_BY_CHANCE` of them: 0.99992 for the 263,901 pairs of nih_cxr, where the highest is 0.9995.
    Limits from a normal curve were taken by pairs of different patients where vectors lie in a cone.

    Args:
        vectors_ND: Unit vectors, of images of one modality.
        patients_N: Patient of each, as a number.
        num_pairs: Number of pairs that are compared.
        others_MD: Vectors of another set, all of other patients, whose pairs with the first are drawn; None for the
            pairs inside the first.
        least: Limit that is never gone below.
        seed: Seed of the pairs that are drawn.

    Returns:
        `least` where fewer than 100 pairs of different patients can be drawn.
    """
    others = vectors_ND if others_MD is None else others_MD
    n, m = len(vectors_ND), len(others)
    if n < 1 + (others_MD is None) or not m:
        return least
    rng, drawn = np.random.default_rng(seed), min(_CHANCE_PAIRS, 4 * n * m)
    first, second = rng.integers(n, size=drawn), rng.integers(m, size=drawn)
    if others_MD is None:
        apart = patients_N[first] != patients_N[second]
        first, second = first[apart], second[apart]
    parts = [
        np.einsum("kd,kd->k", _real(vectors_ND, first[k]), _real(others, second[k]))
        for k in (slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(first), _ROWS_AT_ONCE))
    ]
    cosines = np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float64)
    cosines = cosines[np.isfinite(cosines)]
    if len(cosines) < _LEAST_CHANCE_PAIRS:
        return least
    scale = np.arctanh(np.clip(cosines, -0.999999, 0.999999))
    start = np.percentile(scale, _TAIL_FROM)
    above = scale[scale > start] - start
    if not len(above):
        return least
    expected = num_pairs * len(above) / len(scale)
    return max(least, float(np.tanh(start + np.median(above) / np.log(2) * np.log(max(expected / MOST_BY_CHANCE, 1)))))


def _real(vectors_ND: NDArray[np.floating], rows: NDArray[np.integer] | slice) -> NDArray[np.float32]:
    return np.asarray(vectors_ND[rows], np.float32)


def _of_all(
    one: NDArray[np.floating],
    other: NDArray[np.floating],
    inside: bool,
    cosine: float,
    memory_bytes: int,
    progress: Progress,
) -> NearVectors:
    """Compare every pair, block by block."""
    dim = one.shape[1]
    # two blocks of R vectors, their R x R products and the mask of these
    side = max(1, min(4096, int((-8 * dim + (64 * dim * dim + 20 * memory_bytes) ** 0.5) / 10)))
    progress.stage("Comparing vectors", len(one))
    pairs = []
    for start in range(0, len(one), side):
        rows = _real(one, slice(start, start + side))
        for begin in range(start if inside else 0, len(other), side):
            pairs.append(_of_block(rows, _real(other, slice(begin, begin + side)), start, begin, inside, cosine))
        progress.step(len(rows))
    return _joined(pairs)


def _of_block(
    rows: NDArray[np.float32], columns: NDArray[np.float32], start: int, begin: int, inside: bool, cosine: float
) -> NearVectors:
    products = rows @ columns.T
    i, j = np.nonzero(products >= cosine)
    if inside:
        later = j + begin > i + start
        i, j = i[later], j[later]
    return NearVectors(i + start, j + begin, products[i, j])


def _joined(parts: list[NearVectors], met_share: float = 1.0) -> NearVectors:
    """Join pairs; one that stands in several parts stands once."""
    empty = NearVectors(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    one, other, cosine = (
        np.concatenate([getattr(p, name) for p in (empty, *parts)]) for name in ("one_K", "other_K", "cosine_K")
    )
    order = np.lexsort((other, one))
    one, other, cosine = one[order], other[order], cosine[order]
    new = np.ones(len(one), bool)
    new[1:] = (np.diff(one) != 0) | (np.diff(other) != 0)
    return NearVectors(one[new], other[new], cosine[new], met_share)


def _of_forest(
    one: NDArray[np.floating],
    other: NDArray[np.floating],
    inside: bool,
    cosine: float,
    rng: np.random.Generator,
    progress: Progress,
) -> NearVectors:
    sides = (one,) if inside else (one, other)
    num = sum(map(len, sides))
    from threadpoolctl import threadpool_limits

    axes_DP = rng.standard_normal((one.shape[1], _PROJECTED), np.float32) / np.float32(_PROJECTED**0.5)
    origins, moved = _probes(one, cosine, rng)
    points = np.empty((num + len(moved), _PROJECTED), np.float32)
    first = 0
    for vectors in (*sides, moved):
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            part = _real(vectors, slice(start, start + _ROWS_AT_ONCE)) @ axes_DP
            points[first : first + len(part)] = part
            first += len(part)
    rows = np.flatnonzero(np.isfinite(points[:, 0]))
    met = np.zeros(max(len(moved), 1), bool)  # no probe: all vectors are one
    are_close = np.square(points[origins] - points[num:]).sum(axis=1) <= _farthest(cosine)
    pairs = NearVectors(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

    def of_leaf(leaf: NDArray[np.int64]) -> NearVectors:
        leaf = np.sort(leaf[leaf < num])
        split = len(leaf) if inside else int(np.searchsorted(leaf, len(one)))
        second = leaf if inside else leaf[split:]
        ones, others = leaf[:split], second if inside else second - len(one)
        i, j = _close(points[ones], points[second], inside, cosine)
        if len(i) <= _PAIRS_OF_VECTOR * len(leaf):
            cosines = np.einsum("kd,kd->k", _real(one, ones[i]), _real(other, others[j]))
            kept = cosines >= cosine
            return NearVectors(ones[i[kept]], others[j[kept]], cosines[kept])
        first_part = _real(one, ones)
        second_part = first_part if inside else _real(other, others)
        near = _of_block(first_part, second_part, 0, 0, inside, cosine)
        return NearVectors(ones[near.one_K], others[near.other_K], near.cosine_K)

    progress.stage("Comparing vectors in trees", _MOST_TREES)
    for _ in range(_MOST_TREES):
        leaf_of = np.full(len(points), -1, np.int64)
        leaves = list(_leaves(points, rows, rng))
        for number, leaf in enumerate(leaves):
            leaf_of[leaf] = number
        # A thread each of its own: products this small are slower by two than by one where others compute, too (8 x).
        with threadpool_limits(limits=1), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            pairs = _joined([pairs, *pool.map(of_leaf, leaves)])
        met[: len(moved)] |= (leaf_of[origins] == leaf_of[num:]) & are_close
        progress.step(text=f"{met.mean():.3f} of pairs at the limit met")
        if met.mean() >= _LEAST_MET:
            break
    return NearVectors(pairs.one_K, pairs.other_K, pairs.cosine_K, float(met.mean()))


def _farthest(cosine: float) -> float:
    """Return the squared distance of projected vectors up to which they may have a cosine."""
    return _STRETCH * 2 * (1 - cosine) + _ROUNDING


def _close(
    one: NDArray[np.float32], other: NDArray[np.float32], inside: bool, cosine: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs of projected vectors that may have a cosine; inside one set each once."""
    # |a|² + |b|² - 2ab as one product of longer vectors: sums over all pairs would take as long as the product.
    norms, other_norms = (np.einsum("nd,nd->n", side, side)[:, None] for side in (one, other))
    longer = np.hstack([one * np.float32(-2), norms, np.ones_like(norms)])
    distances = longer @ np.hstack([other, np.ones_like(other_norms), other_norms]).T
    i, j = np.divmod(np.flatnonzero(distances <= _farthest(cosine)), max(len(other), 1))
    return (i[j > i], j[j > i]) if inside else (i, j)


def _probes(
    vectors_ND: NDArray[np.floating], cosine: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Turn some vectors towards others, until the cosine with where they were is the limit."""
    origins, towards = rng.integers(len(vectors_ND), size=(2, _PROBES))
    here, aim = _real(vectors_ND, origins), _real(vectors_ND, towards)
    across = aim - np.einsum("kd,kd->k", here, aim)[:, None] * here
    length = np.linalg.norm(across, axis=1)
    usable = np.isfinite(length) & (length > 1e-6)
    here, across = here[usable], across[usable] / length[usable, None]
    return origins[usable], np.float32(cosine) * here + np.float32((1 - cosine**2) ** 0.5) * across


def _leaves(
    points: NDArray[np.float32], rows: NDArray[np.int64], rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Halve rows along lines through two of them, until no part has more than `_LEAF`."""
    waiting = [rows]
    while waiting:
        part = waiting.pop()
        if len(part) <= _LEAF:
            yield part
            continue
        a, b = part[rng.integers(len(part), size=2)]
        line = points[a] - points[b]
        if not line.any():  # one point, many times
            line = rng.standard_normal(_PROJECTED).astype(np.float32)
        along = np.concatenate(
            [points[part[start : start + _ROWS_AT_ONCE]] @ line for start in range(0, len(part), _ROWS_AT_ONCE)]
        )
        order = np.argpartition(along, len(part) // 2)
        waiting += [part[order[: len(part) // 2]], part[order[len(part) // 2 :]]]
