"""Which images of a pile are one image, and which are those of another pile: by pixels, hashes, registration, vectors.

What is done with a link is the business of whoever asks: `deduplicate` drops pairs, `medclip pairs look` counts them.
Why these ways and limits are taken stands at the head of `deduplicate`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.embeddings.near_vectors import cosine_limit, near_vectors
from medclip.errors import MedclipError
from medclip.imaging.near_duplicates import Chance, Limits, measure_chance, near_duplicates
from medclip.imaging.perceptual_hash import FINE_WORDS, ImageHashes, look_of
from medclip.imaging.registration import MOST_PAIRS, Registered, candidates, limit, register
from medclip.pairs.pile import Pile
from medclip.pairs.selection.pack_vectors import encode_pile, takes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medclip.models.model import Model
    from medclip.progress import Progress

MOST_IMAGES = int(MOST_PAIRS**0.5)
"""Images up to which copies that were cropped or turned are looked for."""
WAYS = ("pixels", "hash", "registered", "embedding")
"""How two images are linked, the surest first."""
SURE_BITS = 16
"""Bits up to which two images of one patient are one: of brain_mri's pairs those are, and beyond are next slices."""
_CORRELATION_OF_UNKNOWN = 0.97
"""Least correlation of registered images of which no patient is known: next slices of covid_ct have up to 0.96."""
CROSS_PAIRS = 10_000
"""Pairs of images of the pile and of an evaluation set from which on these say what chance does."""
_READ_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Images:
    """What is known of the images of M rows; those that could not be read have no digest and are in no other array."""

    digests: list[bytes]
    rows_R: NDArray[np.int64]
    """Readable ones that can be hashed, numbers among the M."""
    variants: tuple[ImageHashes, ...]
    """Of the R."""
    small_RHW: NDArray[np.uint8] | None
    unread: Counter[str]


@dataclass(frozen=True, eq=False)
class Links:
    """K links between rows, or of rows with images of evaluation."""

    one_K: NDArray[np.int64]
    other_K: NDArray[np.int64]
    way_K: NDArray[np.int64]
    """Index into `WAYS`."""
    value_K: NDArray[np.float64]
    """Bits that differ (0 for equal pixels), correlation, or cosine."""


@dataclass(frozen=True, eq=False)
class Pool:
    """What is known of the M rows that are asked."""

    images: Images
    patients: list[str]
    modalities_M: NDArray[np.object_]
    model: Model | None
    vectors_MD: NDArray[np.float32] | None


@dataclass(frozen=True)
class Alike:
    """From when on two images are one, as pairs of different patients of the pile say."""

    chance: Chance | None
    correlation: float
    cosines: dict[str, float]
    """By modality."""

    def limits(self, num_pairs: int) -> Limits:
        """Return the limits of hashes for so many pairs."""
        return Limits() if self.chance is None else self.chance.limits(num_pairs)


@dataclass(frozen=True)
class AlikeAcross:
    """From when on an image is one of an evaluation set, and pairs of other patients that say so (0: the pile's do)."""

    hash_bits: int
    hash_pairs: int
    correlation: float
    correlation_pairs: int
    cosines: dict[str, float]
    """By modality."""


def hash_images(pile: Pile, rows: NDArray[np.int64], progress: Progress, num_variants: int, small: bool) -> Images:
    """Read and hash the images of rows; of ECG records the bytes alone, which have no look to compare."""
    small = small and len(rows) <= MOST_IMAGES
    digests, hashed, words, smalls = [], [], [], []
    unread: Counter[str] = Counter()
    progress.stage("Hashing images", len(rows))
    for start in range(0, len(rows), _READ_AT_ONCE):
        part = rows[start : start + _READ_AT_ONCE].tolist()
        for row, image in enumerate(pile.looks(part), start):
            if isinstance(image, MedclipError):
                unread[str(image.reason)] += 1
                digests.append(b"")
                continue
            if not isinstance(image, np.ndarray):
                digest = hashlib.sha256(repr((image.values_mv.shape, image.leads, image.sampling_hz)).encode())
                digest.update(image.values_mv.tobytes())
                digests.append(digest.digest())
                continue
            digest = hashlib.sha256(repr(image.shape).encode())
            digest.update(image.tobytes())
            digests.append(digest.digest())
            if min(image.shape[:2]) >= 8:  # smaller ones have no hash
                look = look_of(image, num_variants, small=small)
                hashed.append(row)
                words.append(look.words_VW)
                smalls.append(look.small_HW)
        progress.step(min(_READ_AT_ONCE, len(rows) - start))
    words_RVW = np.array(words, np.uint64).reshape(len(hashed), num_variants, 1 + FINE_WORDS)
    variants = tuple(ImageHashes(words_RVW[:, v, 0].copy(), words_RVW[:, v, 1:].copy()) for v in range(num_variants))
    stacked = np.stack(smalls) if small and smalls else None
    return Images(digests, np.array(hashed, np.int64), variants, stacked, unread)


def _links(*parts: tuple[Any, Any, int, Any]) -> Links:
    """Join links: of each way its rows and values."""
    columns = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    columns += [(np.asarray(i), np.asarray(j), np.full(len(i), way), np.asarray(v)) for i, j, way, v in parts]
    one, other, way, value = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Links(one.astype(np.int64), other.astype(np.int64), way, value.astype(np.float64))


def link_inside(pool: Pool, least_cosine: float, progress: Progress, seed: int) -> tuple[Links, Alike, float]:
    """Link rows with each other. One of equal pixels is compared in other ways, and its links are those of all of them.

    Images are compared in the order of their digests: searches that look at a part, and limits that are measured on
    draws, must not depend on the order of the pile.
    """
    images, vectors_MD = pool.images, pool.vectors_MD
    first_M = _first_of_equal(pool)
    again = np.flatnonzero(first_M != np.arange(len(first_M)))
    parts: list[tuple[Any, Any, int, Any]] = [(first_M[again], again, 0, np.zeros(len(again)))]
    names = {name: code for code, name in enumerate(dict.fromkeys(pool.patients))}
    codes_M = np.array([names[name] if name else len(names) + row for row, name in enumerate(pool.patients)], np.int32)

    distinct = np.flatnonzero(first_M[images.rows_R] == images.rows_R)
    distinct = distinct[np.argsort(np.array(images.digests, "S32")[images.rows_R[distinct]], kind="stable")]
    rows, hashes = images.rows_R[distinct], images.variants[0].take(distinct)
    if vectors_MD is not None and not np.isfinite(vectors_MD[rows, 0]).all():
        vectors_MD = None  # a pack of signals says nothing of images
    unit = None if vectors_MD is None else vectors_MD[rows]
    chance = measure_chance(hashes, codes_M[rows], vectors_ND=unit)
    limits = Limits() if chance is None else chance.limits(len(rows) * (len(rows) - 1) // 2)
    near = near_duplicates(hashes, limits=limits, vectors_ND=unit)
    parts.append((rows[near.one_K], rows[near.other_K], 1, near.fine_K))

    correlation = 1.0
    if images.small_RHW is not None:
        small = images.small_RHW[distinct]
        registered = register(small, small, candidates(small), progress=progress)
        correlation = limit(registered, codes_M[rows], len(rows), len(rows) * (len(rows) - 1) // 2)
        same = _both_ways(registered, small, small, correlation)
        parts.append((rows[same.one_K], rows[same.other_K], 2, same.correlation_K))

    cosines, met = {}, 1.0
    if vectors_MD is not None:
        for modality in sorted(set(pool.modalities_M[rows])):
            of = rows[pool.modalities_M[rows] == modality]
            vectors = vectors_MD[of]
            cosines[modality] = cosine_limit(vectors, codes_M[of], len(of) ** 2 // 2, least=least_cosine)
            pairs = near_vectors(vectors, cosine=cosines[modality], seed=seed, progress=progress)
            parts.append((of[pairs.one_K], of[pairs.other_K], 3, pairs.cosine_K))
            met = min(met, pairs.met_share)
    links = _of_all_equal(_links(*parts), first_M)
    return _of_two_exposures(links, pool.patients), Alike(chance, correlation, cosines), met


_MOST_PAIRS = 10_000
"""Pairs of two groups of equal images that are linked one by one."""


def _first_of_equal(pool: Pool) -> NDArray[np.int64]:
    """Return for each row the one of equal pixels that stands for them, whatever the order: the first by patient."""
    digests = pool.images.digests
    order = sorted(range(len(digests)), key=lambda row: (pool.patients[row] == "", pool.patients[row]))
    first_of: dict[bytes, int] = {}
    for row in order:
        first_of.setdefault(digests[row], row)
    return np.array([first_of[d] if d else row for row, d in enumerate(digests)], np.int64)


def _of_all_equal(links: Links, first_M: NDArray[np.int64]) -> Links:
    """Extend the links of the one that stands for equal pixels to all of them; those between equal pixels stay.

    Where thousands of equal images link to thousands, each links to the one that stands for the others, which is two
    links away from them: their pairs would not fit in memory.
    """
    sizes_M = np.bincount(first_M, minlength=len(first_M))
    members, starts_M = np.argsort(first_M, kind="stable"), np.cumsum(sizes_M) - sizes_M
    is_many_K = (links.way_K > 0) & (sizes_M[links.one_K] * sizes_M[links.other_K] > _MOST_PAIRS)
    is_near_K = (links.way_K > 0) & ~is_many_K
    num_K = np.where(is_near_K, sizes_M[links.one_K] * sizes_M[links.other_K], ~is_many_K)
    of_L = np.repeat(np.arange(len(num_K)), num_K)
    number_L = np.arange(len(of_L)) - np.repeat(np.cumsum(num_K) - num_K, num_K)
    one_L, other_L, near_L = links.one_K[of_L], links.other_K[of_L], is_near_K[of_L]
    of_one, of_other = np.divmod(number_L[near_L], sizes_M[other_L[near_L]])
    one_L[near_L] = members[starts_M[one_L[near_L]] + of_one]
    other_L[near_L] = members[starts_M[other_L[near_L]] + of_other]
    parts = [(one_L, other_L, of_L)]
    for k in np.flatnonzero(is_many_K).tolist():
        ends = links.one_K[k], links.other_K[k]
        of_one, of_other = (members[starts_M[end] : starts_M[end] + sizes_M[end]] for end in ends)
        of_other = of_other[of_other != ends[1]]  # that one is linked already
        parts.append((of_one, np.full(len(of_one), ends[1]), np.full(len(of_one), k)))
        parts.append((np.full(len(of_other), ends[0]), of_other, np.full(len(of_other), k)))
    one_L, other_L, of_L = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Links(one_L, other_L, links.way_K[of_L], links.value_K[of_L])


def _both_ways(
    registered: Registered, one_NHW: NDArray[np.uint8], other_MHW: NDArray[np.uint8], least: float
) -> Registered:
    """Keep pairs that are alike whichever image is moved onto the other: two films of two patients were only one way.

    One pair of 420 films of nih_cxr correlates at 0.91 with the second moved, and is no pair with the first moved.
    """
    pairs = registered.at_least(least)
    back_K = register(other_MHW, one_NHW, (pairs.other_K, pairs.one_K)).correlation_K
    kept_K = back_K >= least
    correlation_K = np.maximum(pairs.correlation_K, back_K)
    return Registered(pairs.one_K[kept_K], pairs.other_K[kept_K], correlation_K[kept_K])


def spread(goes_M: NDArray[np.bool_], links: Links) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows that are copies of rows which go, and the value of a link that says so.

    Copies are the rows of equal pixels, and those that link to these or to the rows themselves.
    """
    rows, values = [np.zeros(0, np.int64)], [np.zeros(0)]
    goes_M = goes_M.copy()
    equal_K = links.way_K == 0
    equal = Links(links.one_K[equal_K], links.other_K[equal_K], links.way_K[equal_K], links.value_K[equal_K])
    for among in (equal, equal, links):  # equal pixels are a star: what lies behind its middle is two links away
        k = np.flatnonzero(goes_M[among.one_K] != goes_M[among.other_K])
        new, first = np.unique(np.where(goes_M[among.one_K[k]], among.other_K[k], among.one_K[k]), return_index=True)
        goes_M[new] = True
        rows.append(new)
        values.append(among.value_K[k[first]])
    return np.concatenate(rows), np.concatenate(values)


def _of_two_exposures(links: Links, patients: Sequence[str]) -> Links:
    """Leave out links that two exposures, frames or slices of one patient have just as well."""
    names = np.array(patients, object)
    one_K, other_K = names[links.one_K], names[links.other_K]
    same_K, unknown_K = (one_K == other_K) & (one_K != ""), (one_K == "") & (other_K == "")
    near_K = (links.way_K <= 1) & (links.value_K <= SURE_BITS)
    turned_K = (links.way_K == 2) & (links.value_K >= _CORRELATION_OF_UNKNOWN)
    kept_K = near_K | ~(same_K | unknown_K) | (unknown_K & turned_K)
    return Links(links.one_K[kept_K], links.other_K[kept_K], links.way_K[kept_K], links.value_K[kept_K])


def link_with(
    pool: Pool,
    alike: Alike,
    held_out: Pile,
    is_apart_M: NDArray[np.bool_],
    least_cosine: float,
    progress: Progress,
) -> tuple[Links, AlikeAcross]:
    """Link rows with the images of an evaluation set; with the limits from which on.

    Rows of other patients than those of the set say how alike images of different patients are here. Of fewer than
    `CROSS_PAIRS` pairs that is not told, and a limit is the pile's own.

    Args:
        pool: Rows that are asked.
        alike: Limits of the pile.
        held_out: Evaluation set.
        is_apart_M: Rows that are of no patient of the set.
        least_cosine: Least cosine that links two images.
        progress: Progress bar of the images.
    """
    images, vectors_MD = pool.images, pool.vectors_MD
    others = np.arange(len(held_out))
    theirs = hash_images(held_out, others, progress, 1, images.small_RHW is not None)
    at = {digest: row for row, digest in enumerate(theirs.digests) if digest}
    same = [row for row, digest in enumerate(images.digests) if digest in at]
    parts: list[tuple[Any, Any, int, Any]] = [(same, [at[images.digests[r]] for r in same], 0, np.zeros(len(same)))]
    apart_R, num_theirs = np.flatnonzero(is_apart_M[images.rows_R]), len(theirs.rows_R)
    num_apart = len(apart_R) * num_theirs
    says = num_apart >= CROSS_PAIRS
    chance = alike.chance
    if says:
        codes = np.zeros(len(apart_R), np.int32)
        chance = measure_chance(images.variants[0].take(apart_R), codes, others=theirs.variants[0])
    num_pairs = len(images.variants) * len(images.rows_R) * num_theirs
    limits = Limits() if chance is None else chance.limits(num_pairs)
    for variant in images.variants:
        near = near_duplicates(variant, theirs.variants[0], limits=limits)
        parts.append((images.rows_R[near.one_K], theirs.rows_R[near.other_K], 1, near.fine_K))
    correlation, correlation_pairs = alike.correlation, 0
    if images.small_RHW is not None and theirs.small_RHW is not None:
        pairs = candidates(images.small_RHW, theirs.small_RHW)
        turned = register(images.small_RHW, theirs.small_RHW, pairs, progress=progress)
        if says:
            of_two = turned.keep(np.isin(turned.one_K, apart_R))
            codes = np.zeros(len(images.rows_R), np.int32)
            num_all = len(images.rows_R) * num_theirs
            correlation = limit(of_two, codes, len(apart_R), num_all, num_theirs)
            correlation_pairs = num_apart
        shared = _both_ways(turned, images.small_RHW, theirs.small_RHW, correlation)
        parts.append((images.rows_R[shared.one_K], theirs.rows_R[shared.other_K], 2, shared.correlation_K))
    cosines: dict[str, float] = {}
    if pool.model is not None and vectors_MD is not None and alike.cosines and takes(pool.model, held_out).any():
        their_vectors = encode_pile(pool.model, held_out, others, progress).vectors_MD
        for modality, cosine in alike.cosines.items():
            of = np.flatnonzero(pool.modalities_M == modality)
            apart, num = of[is_apart_M[of]], len(of) * len(their_vectors)
            cosines[modality] = cosine
            if len(apart) * len(their_vectors) >= CROSS_PAIRS:
                codes = np.zeros(len(apart), np.int32)
                cosines[modality] = cosine_limit(
                    vectors_MD[apart], codes, num, others_MD=their_vectors, least=least_cosine
                )
            pairs = near_vectors(vectors_MD[of], their_vectors, cosine=cosines[modality], progress=progress)
            parts.append((of[pairs.one_K], pairs.other_K, 3, pairs.cosine_K))
    hash_pairs = chance.num_pairs if says and chance is not None else 0
    return _links(*parts), AlikeAcross(limits.fine, hash_pairs, correlation, correlation_pairs, cosines)
