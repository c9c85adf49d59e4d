"""Step `deduplicate`: one of several pairs with one image stays, and none that evaluation must not have seen.

Images are linked by their decoded pixels, by perceptual hashes, by registering small images where there are no more
than `MOST_IMAGES` (copies that were cropped or turned), and by the cosine of a pack's vectors where one is named.
DataComp's own pool was filtered against its evaluation sets, and its code has no such step (Gadre et al., "DataComp",
NeurIPS 2023); the medical one of the specification has a difference hash (dHash) of 64 bits within 4, which is not
followed: 748 of 263,000 pairs of different patients of nih_cxr are within that, and none within the limits of the
hashes here (`medclip.imaging.perceptual_hash`). Nor is a cosine of 0.97 enough for medical images: it is the least,
and raised until chance links no two patients of a modality (`medclip.embeddings.near_vectors.cosine_limit`).

Links are joined to sets of images (connected components), of which the pair with the longest caption stays. Frames of
a loop and slices of a volume make chains, each alike to the next and the last one nothing like the first: so a pair
goes with the one that stays only where no more than one other lies between them, and the search begins again among the
rest. Two exposures of one patient are alike beyond chance between patients (three of 420 films of nih_cxr would go as
their neighbours of the same week): within a patient only equal pixels and hashes within 16 bits link. Where neither
patient is known, two slices of one CT may be the pair, and only these and registered copies of 0.97 and more link.

A pair goes, too, where its image or a copy of it is an evaluation set's, mirrored or inverted as well, or where its
patient, by identifier or keyed hash, is one of those or has an image there.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from medclip.embeddings.near_vectors import cosine_limit, near_vectors
from medclip.errors import MedclipError
from medclip.files.pseudonyms import load_key, match_patients
from medclip.imaging.near_duplicates import Chance, Limits, measure_chance, near_duplicates
from medclip.imaging.perceptual_hash import FINE_WORDS, VARIANTS, ImageHashes, look_of
from medclip.imaging.registration import MOST_PAIRS, Registered, candidates, limit, register
from medclip.pairs.pile import Pile, read_pile
from medclip.pairs.selection.pack_vectors import encode_pile, load_pack, pack_facts, unread_notes
from medclip.pairs.selection.steps import FilterSettings, Verdict
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medclip.models.model import Model
    from medclip.pairs.selection.steps import Context

MOST_IMAGES = int(MOST_PAIRS**0.5)
"""Images up to which copies that were cropped or turned are looked for."""
WAYS = ("pixels", "hash", "registered", "embedding")
"""How two images are linked, the surest first."""
_MANY_PATIENTS = 10
"""Patients that one set of linked images may have before a caution is due."""
_BITS_WITHIN_PATIENT = 16
"""Bits up to which two images of one patient are one: of brain_mri's pairs those are, and beyond are next slices."""
_CORRELATION_OF_UNKNOWN = 0.97
"""Least correlation of registered images of which no patient is known: next slices of covid_ct have up to 0.96."""
_READ_AT_ONCE = 64


class DeduplicateSettings(FilterSettings):
    """What `deduplicate` is asked."""

    model: str | None = None
    """Pack whose vectors link images, too; a folder or a built-in pack."""
    cosine: float = Field(default=0.97, gt=0, le=1)
    """Least cosine that links two images; raised where images of different patients are very alike."""
    evaluation: tuple[str, ...] = ()
    """Shard folders or tables that models are measured on."""
    evaluation_split: str | None = None
    """Split of these; all of them where None."""
    cropped: bool = True
    """Whether copies that were cropped by more than 3 % or turned are looked for, among up to 31,622 images."""


@dataclass(frozen=True, eq=False)
class _Images:
    """What is known of the images of M rows; those that could not be read have no digest and are in no other array."""

    digests: list[bytes]
    rows_R: NDArray[np.int64]
    """Readable ones that can be hashed, numbers among the M."""
    variants: tuple[ImageHashes, ...]
    """Of the R."""
    small_RHW: NDArray[np.uint8] | None
    unread: Counter[str]


@dataclass(frozen=True, eq=False)
class _Links:
    """K links between rows, or of rows with images of evaluation."""

    one_K: NDArray[np.int64]
    other_K: NDArray[np.int64]
    way_K: NDArray[np.int64]
    """Index into `WAYS`."""
    value_K: NDArray[np.float64]
    """Bits that differ (0 for equal pixels), correlation, or cosine."""

    def __iter__(self) -> Iterator[tuple[int, int, int, float]]:
        """Yield link by link."""
        columns = (self.one_K, self.other_K, self.way_K, self.value_K)
        return zip(*(column.tolist() for column in columns), strict=True)


@dataclass(frozen=True, eq=False)
class _Pool:
    """What is known of the M rows that are asked."""

    images: _Images
    patients: list[str]
    modalities_M: NDArray[np.object_]
    model: Model | None
    vectors_MD: NDArray[np.float32] | None


@dataclass(frozen=True)
class _Alike:
    """From when on two images are one, as pairs of different patients of the pile say."""

    chance: Chance | None
    correlation: float
    cosines: dict[str, float]
    """By modality."""

    def limits(self, num_pairs: int) -> Limits:
        """Return the limits of hashes for so many pairs."""
        return Limits() if self.chance is None else self.chance.limits(num_pairs)


def deduplicate(
    pile: Pile, rows_M: NDArray[np.int64], settings: DeduplicateSettings, context: Context, number: int
) -> Verdict:
    """Keep one of several pairs with one image, and none with an image or a patient of evaluation.

    Args:
        pile: Pairs.
        rows_M: Rows that earlier steps kept.
        settings: Pack and evaluation sets.
        context: Seed, progress and folder.
        number: Place of the step.

    Returns:
        Its values are the bits in which hashes differ (0: equal pixels), the correlation of registered images, or the
        cosine, of the link by which a pair is dropped; facts count pairs that are dropped by the way of that link, by
        `evaluation_image` and by `evaluation_patient`.

    Raises:
        MedclipError: What reading evaluation sets and packs raises; an image that cannot be read drops its pair.
    """
    images = _look(pile, rows_M, context, len(VARIANTS) if settings.evaluation else 1, settings.cropped)
    model = None if settings.model is None else load_pack(settings.model, context)
    vectors_MD = None if model is None else encode_pile(model, pile, rows_M, context.progress).vectors_MD
    modalities_M = np.array(pile.cells("modality", rows_M), object)
    pool = _Pool(images, pile.cells("patient", rows_M), modalities_M, model, vectors_MD)
    seed = int(context.rng("deduplicate", number).integers(2**31))
    links, alike, met_share = _links_inside(pool, settings.cosine, context, seed)
    dropped = _evaluation(pool, alike, links, settings, context) if settings.evaluation else {}
    dropped |= _copies(links, _ranks(pile, rows_M), pool.patients, frozenset(dropped), context)
    kept_M, value_M = np.ones(len(rows_M), bool), np.full(len(rows_M), np.nan)
    for row, (_, value) in dropped.items():
        kept_M[row], value_M[row] = False, value
    kept_M[[row for row, digest in enumerate(images.digests) if not digest]] = False
    by_way = Counter(way for way, _ in dropped.values())
    limits = alike.limits(len(rows_M) * (len(rows_M) - 1) // 2)
    facts: dict[str, Any] = {
        "dropped": {way: by_way[way] for way in (*WAYS, "evaluation_image", "evaluation_patient")},
        "unread": dict(images.unread),
        "hash_bits": limits.fine,
    }
    if model is not None:
        facts |= {"pack": pack_facts(model), "cosines": alike.cosines, "share_met_at_cosine": met_share}
    notes = [*unread_notes(images.unread), limits.caution, _crowds(links, pool.patients)]
    if settings.cropped and images.small_RHW is None:
        notes.append(f"Copies that were cropped or turned were not looked for: more than {MOST_IMAGES:,} images.")
    return Verdict(kept_M, value_M, facts=facts, notes=tuple(note for note in notes if note))


def evaluation_rows(
    pile: Pile, rows_M: NDArray[np.int64], held_out: Sequence[tuple[str, str | None]], context: Context
) -> dict[int, str]:
    """Return the numbers among M rows whose image or patient is of evaluation sets, and which of the two it is.

    Args:
        pile: Pairs.
        rows_M: Rows that are asked about.
        held_out: Shard folders or tables, each with the split that is evaluation; all of it where None.
        context: Seed, progress and folder.
    """
    images = _look(pile, rows_M, context, len(VARIANTS), True)
    modalities_M = np.array(pile.cells("modality", rows_M), object)
    pool = _Pool(images, pile.cells("patient", rows_M), modalities_M, None, None)
    links, alike, _ = _links_inside(pool, 1.0, context, context.seed)
    dropped: dict[int, tuple[str, float]] = {}
    for place, split in held_out:
        settings = DeduplicateSettings(evaluation=(place,), evaluation_split=split)
        dropped |= _evaluation(pool, alike, links, settings, context)
    return {row: why for row, (why, _) in sorted(dropped.items())}


def _look(pile: Pile, rows: NDArray[np.int64], context: Context, num_variants: int, small: bool) -> _Images:
    """Read and hash the images of rows."""
    small = small and len(rows) <= MOST_IMAGES
    digests, hashed, words, smalls = [], [], [], []
    unread: Counter[str] = Counter()
    context.progress.stage("Hashing images", len(rows))
    for start in range(0, len(rows), _READ_AT_ONCE):
        for row, image in enumerate(pile.images(rows[start : start + _READ_AT_ONCE].tolist()), start):
            if isinstance(image, MedclipError):
                unread[str(image.reason)] += 1
                digests.append(b"")
                continue
            digest = hashlib.sha256(repr(image.shape).encode())
            digest.update(image.tobytes())
            digests.append(digest.digest())
            if min(image.shape[:2]) >= 8:  # smaller ones have no hash
                look = look_of(image, num_variants, small=small)
                hashed.append(row)
                words.append(look.words_VW)
                smalls.append(look.small_HW)
        context.progress.step(min(_READ_AT_ONCE, len(rows) - start))
    words_RVW = np.array(words, np.uint64).reshape(len(hashed), num_variants, 1 + FINE_WORDS)
    variants = tuple(ImageHashes(words_RVW[:, v, 0].copy(), words_RVW[:, v, 1:].copy()) for v in range(num_variants))
    stacked = np.stack(smalls) if small and smalls else None
    return _Images(digests, np.array(hashed, np.int64), variants, stacked, unread)


def _links(*parts: tuple[Any, Any, int, Any]) -> _Links:
    """Join links: of each way its rows and values."""
    columns = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    columns += [(np.asarray(i), np.asarray(j), np.full(len(i), way), np.asarray(v)) for i, j, way, v in parts]
    one, other, way, value = (np.concatenate(column) for column in zip(*columns, strict=True))
    return _Links(one.astype(np.int64), other.astype(np.int64), way, value.astype(np.float64))


def _links_inside(pool: _Pool, least_cosine: float, context: Context, seed: int) -> tuple[_Links, _Alike, float]:
    """Link rows with each other; only the first of equal pixels is compared in other ways."""
    images, vectors_MD = pool.images, pool.vectors_MD
    first_of: dict[bytes, int] = {}
    first_M = np.array([first_of.setdefault(d, row) if d else row for row, d in enumerate(images.digests)], np.int64)
    again = np.flatnonzero(first_M != np.arange(len(first_M)))
    parts: list[tuple[Any, Any, int, Any]] = [(first_M[again], again, 0, np.zeros(len(again)))]
    names = {name: code for code, name in enumerate(dict.fromkeys(pool.patients))}
    codes_M = np.array([names[name] if name else len(names) + row for row, name in enumerate(pool.patients)], np.int32)

    distinct = np.flatnonzero(first_M[images.rows_R] == images.rows_R)
    rows, hashes = images.rows_R[distinct], images.variants[0].take(distinct)
    unit = None if vectors_MD is None else vectors_MD[rows]
    chance = measure_chance(hashes, codes_M[rows], vectors_ND=unit)
    limits = Limits() if chance is None else chance.limits(len(rows) * (len(rows) - 1) // 2)
    near = near_duplicates(hashes, limits=limits, vectors_ND=unit)
    parts.append((rows[near.one_K], rows[near.other_K], 1, near.fine_K))

    correlation = 1.0
    if images.small_RHW is not None:
        small = images.small_RHW[distinct]
        registered = register(small, small, candidates(small), progress=context.progress)
        correlation = limit(registered, codes_M[rows], len(rows), len(rows) * (len(rows) - 1) // 2)
        same = _both_ways(registered, small, small, correlation)
        parts.append((rows[same.one_K], rows[same.other_K], 2, same.correlation_K))

    cosines, met = {}, 1.0
    if vectors_MD is not None:
        for modality in sorted(set(pool.modalities_M[rows])):
            of = rows[pool.modalities_M[rows] == modality]
            vectors = vectors_MD[of]
            cosines[modality] = cosine_limit(vectors, codes_M[of], len(of) ** 2 // 2, least=least_cosine)
            pairs = near_vectors(vectors, cosine=cosines[modality], seed=seed, progress=context.progress)
            parts.append((of[pairs.one_K], of[pairs.other_K], 3, pairs.cosine_K))
            met = min(met, pairs.met_share)
    return _of_two_exposures(_links(*parts), pool.patients), _Alike(chance, correlation, cosines), met


def _both_ways(
    registered: Registered, one_NHW: NDArray[np.uint8], other_MHW: NDArray[np.uint8], least: float
) -> Registered:
    """Keep pairs that are alike whichever image is moved onto the other: two films of two patients were only one way.

    One pair of 420 films of nih_cxr correlates at 0.91 with the second moved, and is no pair with the first moved.
    """
    pairs = registered.at_least(least)
    back_K = register(other_MHW, one_NHW, (pairs.other_K, pairs.one_K)).correlation_K
    kept_K = back_K >= least
    return Registered(pairs.one_K[kept_K], pairs.other_K[kept_K], pairs.correlation_K[kept_K])


def _of_two_exposures(links: _Links, patients: Sequence[str]) -> _Links:
    """Leave out links that two exposures, frames or slices of one patient have just as well."""
    names = np.array(patients, object)
    one_K, other_K = names[links.one_K], names[links.other_K]
    same_K, unknown_K = (one_K == other_K) & (one_K != ""), (one_K == "") & (other_K == "")
    near_K = (links.way_K <= 1) & (links.value_K <= _BITS_WITHIN_PATIENT)
    turned_K = (links.way_K == 2) & (links.value_K >= _CORRELATION_OF_UNKNOWN)
    kept_K = near_K | ~(same_K | unknown_K) | (unknown_K & turned_K)
    return _Links(links.one_K[kept_K], links.other_K[kept_K], links.way_K[kept_K], links.value_K[kept_K])


def _evaluation(
    pool: _Pool, alike: _Alike, links: _Links, settings: DeduplicateSettings, context: Context
) -> dict[int, tuple[str, float]]:
    """Return the rows with an image or a patient of evaluation, with what says so and its value."""
    dropped: dict[int, tuple[str, float]] = {}
    theirs: set[str] = set()
    for place in settings.evaluation:
        held_out = read_pile(
            place if "://" in place else context.folder / place,
            split=settings.evaluation_split,
            settings=context.settings,
            progress=context.progress,
        )
        for row, _, _, value in _links_with(pool, alike, held_out, context):
            dropped.setdefault(row, ("evaluation_image", value))
        theirs.update(held_out.cells("patient"))
    _spread(dropped, links, "evaluation_image")
    theirs.update(pool.patients[row] for row in dropped)
    matched = match_patients(set(pool.patients), theirs - {""}, load_key(context.settings))
    for row, patient in enumerate(pool.patients):
        if patient in matched:
            dropped.setdefault(row, ("evaluation_patient", np.nan))
    _spread(dropped, links, "evaluation_patient")
    return dropped


def _links_with(pool: _Pool, alike: _Alike, held_out: Pile, context: Context) -> _Links:
    """Link rows with the images of an evaluation set."""
    images, vectors_MD = pool.images, pool.vectors_MD
    others = np.arange(len(held_out))
    theirs = _look(held_out, others, context, 1, images.small_RHW is not None)
    at = {digest: row for row, digest in enumerate(theirs.digests) if digest}
    same = [row for row, digest in enumerate(images.digests) if digest in at]
    parts: list[tuple[Any, Any, int, Any]] = [(same, [at[images.digests[r]] for r in same], 0, np.zeros(len(same)))]
    limits = alike.limits(len(images.variants) * len(images.rows_R) * len(theirs.rows_R))
    for variant in images.variants:
        near = near_duplicates(variant, theirs.variants[0], limits=limits)
        parts.append((images.rows_R[near.one_K], theirs.rows_R[near.other_K], 1, near.fine_K))
    if images.small_RHW is not None and theirs.small_RHW is not None:
        pairs = candidates(images.small_RHW, theirs.small_RHW)
        turned = register(images.small_RHW, theirs.small_RHW, pairs, progress=context.progress)
        shared = _both_ways(turned, images.small_RHW, theirs.small_RHW, alike.correlation)
        parts.append((images.rows_R[shared.one_K], theirs.rows_R[shared.other_K], 2, shared.correlation_K))
    if pool.model is not None and vectors_MD is not None:
        their_vectors = encode_pile(pool.model, held_out, others, context.progress).vectors_MD
        for modality, cosine in alike.cosines.items():
            of = np.flatnonzero(pool.modalities_M == modality)
            pairs = near_vectors(vectors_MD[of], their_vectors, cosine=cosine, progress=context.progress)
            parts.append((of[pairs.one_K], pairs.other_K, 3, pairs.cosine_K))
    return _links(*parts)


def _spread(dropped: dict[int, tuple[str, float]], links: _Links, reason: str) -> None:
    """Add the rows that link to rows which are dropped."""
    before = frozenset(dropped)
    for i, j, _, value in links:
        for row, through in ((i, j), (j, i)):
            if through in before and row not in before:
                dropped.setdefault(row, (reason, value))


def _ranks(pile: Pile, rows_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each row in the order in which they stay: the longest caption first, ties by key."""
    lengths = [max(map(len, text.split("\n"))) for text in pile.cells("text", rows_M)]
    keys = pile.cells("key", rows_M)
    ranks = np.empty(len(rows_M), np.int64)
    ranks[sorted(range(len(rows_M)), key=lambda row: (-lengths[row], keys[row]))] = np.arange(len(rows_M))
    return ranks


def _copies(
    links: _Links, rank_M: NDArray[np.int64], patients: list[str], gone: frozenset[int], context: Context
) -> dict[int, tuple[str, float]]:
    """Return the rows that another one stands for, with the way of the link and its value."""
    neighbours: dict[int, dict[int, tuple[int, float]]] = defaultdict(dict)
    for i, j, way, value in links:
        if i not in gone and j not in gone and i != j:
            for row, other in ((i, j), (j, i)):
                if other not in neighbours[row] or way < neighbours[row][other][0]:
                    neighbours[row][other] = (way, value)
    context.progress.stage("Choosing one of each image", len(neighbours))
    dropped: dict[int, tuple[str, float]] = {}
    stays: set[int] = set()
    for row in sorted(neighbours, key=lambda row: rank_M[row]):
        context.progress.step()
        if row in dropped:
            continue
        stays.add(row)
        near = [other for other in neighbours[row] if other not in stays]
        for through in (row, *near):
            for other, (way, value) in sorted(neighbours[through].items()):
                of_two = through != row and patients[other] and patients[other] == patients[row]
                if other not in stays and not of_two:
                    dropped.setdefault(other, (WAYS[way], value))
    return dropped


def _crowds(links: _Links, patients: list[str]) -> str:
    """Write a caution where images of many patients hang together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(links.one_K):
        return ""
    size = (len(patients), len(patients))
    graph = coo_array((np.ones(len(links.one_K)), (links.one_K, links.other_K)), shape=size)
    _, part_M = connected_components(graph, directed=False)
    together: defaultdict[int, set[str]] = defaultdict(set)
    for row in np.flatnonzero(np.bincount(part_M)[part_M] > _MANY_PATIENTS).tolist():
        together[int(part_M[row])].add(patients[row])
    most = max(map(len, together.values()), default=0)
    if most <= _MANY_PATIENTS:
        return ""
    return (
        f"Caution: linked images of {count(most, 'patient')} hang together. Either one image stands under all of them "
        "(a blank one, a logo), or images are more alike than these limits can tell: look at what was dropped."
    )
