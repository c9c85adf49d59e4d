"""Pairs of images that are one image: stored again, resized, brightened, cropped by a few per cent.

A pair counts where the coarse hashes differ in at most `COARSE_BITS` of 63 bits and the fine ones in at most
`FINE_BITS` of 255; or in at most `FINE_BITS_CONFIRMED`, where embeddings are at hand and their cosine is at least
`COSINE`. A cosine alone finds nothing: with medclip-mini 1.2 two different patients of nih_cxr have a median cosine
of 0.79, and every hundredth pair 0.98. Shares found of 300 images each of nih_cxr, covid_cxr and brain_mri, lowest and
highest of the three:

===================================  ===================  =============
copy                                 by hashes            with cosines
===================================  ===================  =============
JPEG of quality 50, 0.6 times large  1.00                 1.00
contrast + 15 %, 12 grey values up   0.997 to 1.00        0.997 to 1.00
1.5 % cropped from every side        0.92 to 1.00         0.99 to 1.00
all three                            0.93 to 0.99         0.99 to 1.00
3 % cropped from two sides only      0.17 to 0.53         0.52 to 0.86
===================================  ===================  =============

Copies that were cropped more or rotated are found by registering small images (`registration`), where there are any.

None of 263,437 pairs of different patients of nih_cxr is taken for one image, and none of 123,778 of covid_cxr by
hashes (with cosines one is, and it is one image that stands under two groups there). brain_mri shows what hashes
cannot tell: of 204,480 pairs of slices 53 are taken, those within 16 bits one image, the rest neighbouring slices or
the same patient later. Limits are therefore lowered until chance gives `MOST_BY_CHANCE` pairs, as pairs of different
patients inside the audit set say (`Chance`): to 17 bits there, to about 21 bits for 200,000 x 200,000 chest films, at
which stored again and brightened copies are still found, and cropped ones are not.

Every pair is compared, in 1.0 to 1.5 ns of one core's time: 200,000 x 200,000 images take 60 s of it. An index by
bands of bits (multi-index hashing, Norouzi et al., 2012) was tried and left out: chest films are so alike that within
these radii 16 to 34 % of all pairs share a band, and looking those up one by one takes longer than counting the bits of
all.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.perceptual_hash import ImageHashes, coarse_distance, fine_distance

COARSE_BITS, FINE_BITS, FINE_BITS_CONFIRMED = 10, 44, 56
COSINE = 0.9
MOST_BY_CHANCE = 0.05
"""Pairs of different images that may be expected among what is found."""
_BLOCK_ROWS, _BLOCK_COLUMNS = 32, 8192
"""2 MB of differences: they stay in a core's cache."""
_PAIRS_FOR_CHANCE = 2_000_000
_LEAST_NEAR = 100
"""Pairs that the tail of the fine distances is measured on, at least."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """K pairs of images; inside one set the first is the earlier one."""

    one_K: NDArray[np.intp]
    other_K: NDArray[np.intp]
    fine_K: NDArray[np.uint16]
    """Bits in which the fine hashes differ."""

    def __len__(self) -> int:
        """Return K."""
        return len(self.one_K)

    def keep(self, chosen_K: NDArray[np.bool_]) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.one_K[chosen_K], self.other_K[chosen_K], self.fine_K[chosen_K])


@dataclass(frozen=True)
class Limits:
    """Most bits in which the fine hashes of one image differ."""

    fine: int = FINE_BITS
    confirmed: int = FINE_BITS_CONFIRMED
    """Where embeddings agree, too."""

    @property
    def caution(self) -> str:
        """Sentence on limits that were lowered; blank where they were not."""
        if self.fine >= FINE_BITS:
            return ""
        return (
            f"Images of different patients are so alike here that only hashes of at most {self.fine} different bits of "
            "255 can be told from chance."
        )


@dataclass(frozen=True)
class Chance:
    """How alike images of different patients are in one set of images."""

    near_share: float
    """Share of pairs within `COARSE_BITS`."""
    middle: float
    """Bits in which the fine hashes of such pairs differ: the middle of a normal curve, and its width."""
    width: float
    confirmed_share: float
    """Share of such pairs with a cosine of `COSINE` or more; 1 without embeddings."""
    num_pairs: int = 0
    """Pairs of different patients that this was measured on."""

    def limits(self, num_pairs: int) -> Limits:
        """Return the limits, lowered until chance gives at most `MOST_BY_CHANCE` pairs among so many."""
        from scipy.stats import norm

        def lowered(most: int, share: float) -> int:
            allowed = MOST_BY_CHANCE / max(num_pairs * self.near_share * share, MOST_BY_CHANCE)
            return max(0, min(most, int(self.middle + self.width * float(norm.ppf(min(allowed, 0.5))))))

        return Limits(lowered(FINE_BITS, 1.0), lowered(FINE_BITS_CONFIRMED, self.confirmed_share))


def near_duplicates(
    one: ImageHashes,
    other: ImageHashes | None = None,
    *,
    limits: Limits | None = None,
    vectors_ND: NDArray[np.float32] | None = None,
) -> Pairs:
    """Find the pairs of images that are one image: of two sets, or inside the first where there is no other.

    Vectors of the first set confirm pairs inside it; rows of NaN confirm nothing.
    """
    limits = limits or Limits()
    if vectors_ND is None or other is not None:
        return pairs_within(one, other, coarse_bits=COARSE_BITS, fine_bits=limits.fine)
    pairs = pairs_within(one, coarse_bits=COARSE_BITS, fine_bits=max(limits.fine, limits.confirmed))
    cosine_K = np.einsum("kd,kd->k", vectors_ND[pairs.one_K], vectors_ND[pairs.other_K])
    return pairs.keep((pairs.fine_K <= limits.fine) | ((pairs.fine_K <= limits.confirmed) & (cosine_K >= COSINE)))


def pairs_within(
    one: ImageHashes,
    other: ImageHashes | None = None,
    *,
    coarse_bits: int,
    fine_bits: int,
    threads: int | None = None,
) -> Pairs:
    """Find all pairs whose hashes differ in no more than some bits; exact, in the order of the rows.

    Args:
        one: Hashes of a set of images.
        other: Hashes of another set; None for the pairs inside `one`, each once.
        coarse_bits: Most bits of the coarse hashes.
        fine_bits: Most bits of the fine hashes.
        threads: Number of threads, as many as there are cores where None; the result does not depend on it.
    """
    against = one if other is None else other
    starts = range(0, len(one), _BLOCK_ROWS)

    def of(start: int) -> Pairs:
        rows = one.take(np.arange(start, min(start + _BLOCK_ROWS, len(one))))
        return _of_block(rows, start, against, other is None, coarse_bits, fine_bits)

    with ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="medclip-pairs") as pool:
        return _joined(list(pool.map(of, starts)))


def measure_chance(
    hashes: ImageHashes,
    patients_N: NDArray[np.int32],
    *,
    vectors_ND: NDArray[np.float32] | None = None,
    others: ImageHashes | None = None,
) -> Chance | None:
    """Measure how alike images of different patients are.

    Pairs of different patients are drawn. Those near in the coarse hash are counted; the bits in which their fine
    hashes differ follow a normal curve closely, whose tail says what is too rare to be counted. Its middle and width
    are the median and the interquartile range without the pairs that are copies by the fixed limits, so that one
    image under two patients does not hide itself.

    Args:
        hashes: Hashes of N images.
        patients_N: Patient of each, as a number.
        vectors_ND: Unit vectors of pairs inside the set.
        others: Hashes of another set, all of other patients, whose pairs with the first are drawn; None for the pairs
            inside the first.

    Returns:
        None for fewer than 100 pairs of different patients.
    """
    from scipy.stats import norm

    rng, n = np.random.default_rng(0), len(hashes)
    against = hashes if others is None else others
    if others is not None:
        num = n * len(others)
        pairs = np.arange(num) if num <= _PAIRS_FOR_CHANCE else rng.integers(num, size=_PAIRS_FOR_CHANCE)
        first, second = np.divmod(pairs, max(len(others), 1))
    elif n * (n - 1) // 2 <= _PAIRS_FOR_CHANCE:
        first, second = np.triu_indices(n, 1)
    else:
        first, second = rng.integers(n, size=(2, _PAIRS_FOR_CHANCE))
    if others is None:
        differ = patients_N[first] != patients_N[second]
        first, second = first[differ], second[differ]
    if len(first) < _LEAST_NEAR:
        return None
    coarse = coarse_distance(hashes.coarse_N[first], against.coarse_N[second])
    num_near = int((coarse <= COARSE_BITS).sum())
    nearest = np.argsort(coarse, kind="stable")[: max(_LEAST_NEAR, num_near)]
    first, second = first[nearest], second[nearest]
    fine = fine_distance(hashes.fine_NW[first], against.fine_NW[second])
    chance = fine > FINE_BITS_CONFIRMED
    low, middle, high = np.percentile(fine[chance] if chance.any() else fine, (25, 50, 75))
    cosines = None if vectors_ND is None else np.einsum("kd,kd->k", vectors_ND[first], vectors_ND[second])
    return Chance(
        (num_near + 1) / (len(coarse) + 1),
        float(middle),
        max(float((high - low) / (norm.ppf(0.75) - norm.ppf(0.25))), 1.0),
        1.0 if cosines is None else (int((cosines >= COSINE).sum()) + 1) / (len(cosines) + 1),
        len(coarse),
    )


def _of_block(
    rows: ImageHashes, start: int, against: ImageHashes, inside: bool, coarse_bits: int, fine_bits: int
) -> Pairs:
    """Compare a few rows with a whole set, block by block."""
    pairs = []
    for begin in range(start if inside else 0, len(against), _BLOCK_COLUMNS):
        columns = against.coarse_N[begin : begin + _BLOCK_COLUMNS]
        bits = coarse_distance(rows.coarse_N[:, None], columns[None])
        i, j = np.divmod(np.flatnonzero(bits <= coarse_bits), len(columns))
        if inside:
            later = j + begin > i + start
            i, j = i[later], j[later]
        fine = fine_distance(rows.fine_NW[i], against.fine_NW[j + begin])
        close = fine <= fine_bits
        pairs.append(Pairs(i[close] + start, j[close] + begin, fine[close]))
    return _joined(pairs)


def _joined(parts: list[Pairs]) -> Pairs:
    empty = Pairs(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.uint16))
    all_parts = [empty, *parts]
    pairs = Pairs(*(np.concatenate([getattr(p, name) for p in all_parts]) for name in ("one_K", "other_K", "fine_K")))
    order = np.lexsort((pairs.other_K, pairs.one_K))
    return Pairs(pairs.one_K[order], pairs.other_K[order], pairs.fine_K[order])
