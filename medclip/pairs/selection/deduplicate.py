"""Step `deduplicate`: one of several pairs with one image stays, and none that evaluation must not have seen.

Images are linked by their decoded pixels, by perceptual hashes, by registering small images where there are no more
than `MOST_IMAGES` (copies that were cropped or turned), and by the cosine of a pack's vectors where one is named.
DataComp's own pool was filtered against its evaluation sets, and its code has no such step (Gadre et al., "DataComp",
NeurIPS 2023); the medical one of the specification has a difference hash (dHash) of 64 bits within 4, which is not
followed: 748 of 263,000 pairs of different patients of nih_cxr are within that, and none within the limits of the
hashes here (`medclip.imaging.perceptual_hash`). Nor is a cosine of 0.97 enough for medical images: it is the least,
and raised until chance links no two patients of a modality (`medclip.embeddings.near_vectors.cosine_limit`).

Pairs are asked in one order, the longest caption first: the first one stays, what it links to goes, and the search
begins again among the rest. So no two that stay are linked, and which they are does not depend on the order of the
pile. Frames of a loop and slices of a volume make chains, each alike to the next and the last one nothing like the
first: a pair that goes is linked to the one that stays, or one other lies between them (a crop of a copy), never more.
Two exposures of one patient are alike beyond chance between patients (three of 420 films of nih_cxr would go as their
neighbours of the same week): within a patient only equal pixels and hashes within 16 bits link. Where neither patient
is known, two slices of one CT may be the pair, and only these and registered copies of 0.97 and more link.

A pair goes, too, where its image or a copy of it is an evaluation set's, mirrored or inverted as well, or where its
patient, by identifier or keyed hash, is one of those or has an image there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from medclip.files.pseudonyms import load_key, match_patients
from medclip.imaging.perceptual_hash import VARIANTS
from medclip.pairs.pile import Pile, read_pile
from medclip.pairs.selection.image_links import (
    MOST_IMAGES,
    WAYS,
    Alike,
    AlikeAcross,
    Links,
    Pool,
    hash_images,
    link_inside,
    link_with,
    spread,
)
from medclip.pairs.selection.pack_vectors import encode_pile, load_pack, pack_facts, unread_notes
from medclip.pairs.selection.steps import FilterSettings, Verdict
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medclip.pairs.selection.steps import Context
    from medclip.progress import Progress

_MANY_PATIENTS = 10
"""Patients that one set of linked images may have before a caution is due."""


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

    def places(self) -> tuple[str, ...]:
        """Return the sets of evaluation."""
        return self.evaluation

    def packs(self) -> tuple[str, ...]:
        """Return the pack, where one is named."""
        return () if self.model is None else (self.model,)


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
        `evaluation_image` and by `evaluation_patient`, and state the limits of each evaluation set with the number of
        pairs of different patients that they were measured on (0 where the pile's own limit holds).

    Raises:
        MedclipError: What reading evaluation sets and packs raises; an image that cannot be read drops its pair.
    """
    images = hash_images(pile, rows_M, context.progress, len(VARIANTS) if settings.evaluation else 1, settings.cropped)
    model = None if settings.model is None else load_pack(settings.model, context)
    vectors_MD = None if model is None else encode_pile(model, pile, rows_M, context.progress).vectors_MD
    modalities_M = np.array(pile.cells("modality", rows_M), object)
    pool = Pool(images, pile.cells("patient", rows_M), modalities_M, model, vectors_MD)
    seed = int(context.rng("deduplicate", number).integers(2**31))
    links, alike, met_share = link_inside(pool, settings.cosine, context.progress, seed)
    dropped, across = _evaluation(pool, alike, links, settings, context) if settings.evaluation else ({}, {})
    dropped |= copies_of(links, ranks_of(pile, rows_M), pool.patients, frozenset(dropped), context.progress)
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
    if across:
        facts["evaluation_limits"] = {
            place: {
                "hash_bits": one.hash_bits,
                "hash_pairs": one.hash_pairs,
                "correlation": one.correlation,
                "correlation_pairs": one.correlation_pairs,
            }
            for place, one in across.items()
        }
    if model is not None:
        facts |= {
            "pack": pack_facts(model),
            "cosines": alike.cosines,
            "evaluation_cosines": {place: one.cosines for place, one in across.items()},
            "share_met_at_cosine": met_share,
        }
    notes = [*unread_notes(images.unread), limits.caution, crowds(links, pool.patients)]
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
    images = hash_images(pile, rows_M, context.progress, len(VARIANTS), True)
    modalities_M = np.array(pile.cells("modality", rows_M), object)
    pool = Pool(images, pile.cells("patient", rows_M), modalities_M, None, None)
    links, alike, _ = link_inside(pool, 1.0, context.progress, context.seed)
    dropped: dict[int, tuple[str, float]] = {}
    for place, split in held_out:
        settings = DeduplicateSettings(evaluation=(place,), evaluation_split=split)
        dropped |= _evaluation(pool, alike, links, settings, context)[0]
    return {row: why for row, (why, _) in sorted(dropped.items())}


def _evaluation(
    pool: Pool, alike: Alike, links: Links, settings: DeduplicateSettings, context: Context
) -> tuple[dict[int, tuple[str, float]], dict[str, AlikeAcross]]:
    """Return the rows with an image or a patient of evaluation, with what says so and its value; and the limits from
    which on images are those of each set.
    """
    dropped: dict[int, tuple[str, float]] = {}
    across: dict[str, AlikeAcross] = {}
    theirs: set[str] = set()
    for place in settings.evaluation:
        held_out = read_pile(
            place if "://" in place else context.folder / place,
            split=settings.evaluation_split,
            form=context.form,
            settings=context.settings,
            progress=context.progress,
        )
        patients = set(held_out.cells("patient"))
        matched = match_patients(set(pool.patients), patients - {""}, load_key(context.settings))
        is_apart_M = np.array([patient not in matched for patient in pool.patients], bool)
        shared, across[place] = link_with(pool, alike, held_out, is_apart_M, settings.cosine, context.progress)
        for row, value in zip(shared.one_K.tolist(), shared.value_K.tolist(), strict=True):
            dropped.setdefault(row, ("evaluation_image", value))
        theirs |= patients
    _spread(dropped, links, len(pool.patients), "evaluation_image")
    theirs.update(pool.patients[row] for row in dropped)
    matched = match_patients(set(pool.patients), theirs - {""}, load_key(context.settings))
    for row, patient in enumerate(pool.patients):
        if patient in matched:
            dropped.setdefault(row, ("evaluation_patient", np.nan))
    _spread(dropped, links, len(pool.patients), "evaluation_patient")
    return dropped, across


def _spread(dropped: dict[int, tuple[str, float]], links: Links, num: int, reason: str) -> None:
    """Add the copies of rows which are dropped."""
    goes_M = np.zeros(num, bool)
    goes_M[list(dropped)] = True
    rows, values = spread(goes_M, links)
    dropped |= {row: (reason, value) for row, value in zip(rows.tolist(), values.tolist(), strict=True)}


def ranks_of(pile: Pile, rows_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each row in the order in which they stay: the longest caption first, ties by key."""
    lengths = [max(map(len, text.split("\n"))) for text in pile.words(rows_M)]
    keys = pile.cells("key", rows_M)
    ranks = np.empty(len(rows_M), np.int64)
    ranks[sorted(range(len(rows_M)), key=lambda row: (-lengths[row], keys[row]))] = np.arange(len(rows_M))
    return ranks


def copies_of(
    links: Links, rank_M: NDArray[np.int64], patients: list[str], gone: frozenset[int], progress: Progress
) -> dict[int, tuple[str, float]]:
    """Return the rows that another one stands for, with the way of the link and its value.

    Links are arrays, sorted by row: of 2,000 images that are all alike they take 140 MB here, and 600 as dictionaries;
    of 5,000 they take 700 MB.
    """
    num = len(rank_M)
    is_gone_M = np.zeros(num, bool)
    is_gone_M[list(gone)] = True
    of = np.flatnonzero(~is_gone_M[links.one_K] & ~is_gone_M[links.other_K] & (links.one_K != links.other_K))
    of = of[np.argsort(links.way_K[of], kind="stable")]
    row_L = np.concatenate([links.one_K[of], links.other_K[of]]).astype(np.int32)
    neighbour_L = np.concatenate([links.other_K[of], links.one_K[of]]).astype(np.int32)
    order_L = np.lexsort((neighbour_L, row_L))
    row_L, neighbour_L = row_L[order_L], neighbour_L[order_L]
    link_L = of[order_L % max(len(of), 1)]
    is_first_L = np.ones(len(row_L), bool)  # the surest link of two rows
    is_first_L[1:] = (row_L[1:] != row_L[:-1]) | (neighbour_L[1:] != neighbour_L[:-1])
    if not is_first_L.all():
        row_L, neighbour_L, link_L = row_L[is_first_L], neighbour_L[is_first_L], link_L[is_first_L]
    bounds = np.searchsorted(row_L, np.arange(num + 1))
    numbers = {name: code for code, name in enumerate(dict.fromkeys(patients))}
    patient_M = np.array([numbers[name] if name else -1 - row for row, name in enumerate(patients)], np.int64)

    stays_M, goes_M = np.zeros(num, bool), np.zeros(num, bool)
    way_M, value_M = np.zeros(num, np.int64), np.full(num, np.nan)

    def drop(through: int, patient: int | None) -> None:
        rows, of_rows = (column[bounds[through] : bounds[through + 1]] for column in (neighbour_L, link_L))
        is_free = ~(stays_M[rows] | goes_M[rows])
        if patient is not None:
            # Equal pixels are a star: what lies through one is a copy of it, of the same patient, too.
            is_free &= (patient_M[rows] != patient) | (links.way_K[of_rows] == 0)
        rows, of_rows = rows[is_free], of_rows[is_free]
        goes_M[rows], way_M[rows], value_M[rows] = True, links.way_K[of_rows], links.value_K[of_rows]

    linked = np.flatnonzero(np.diff(bounds))
    progress.stage("Choosing one of each image", len(linked))
    for row in linked[np.argsort(rank_M[linked])].tolist():
        progress.step()
        if goes_M[row]:
            continue
        stays_M[row] = True
        near = neighbour_L[bounds[row] : bounds[row + 1]]
        near = near[~stays_M[near]]
        near = near[np.argsort(rank_M[near])]
        drop(row, None)
        for through in near.tolist():
            drop(through, int(patient_M[row]))
    return {row: (WAYS[way_M[row]], float(value_M[row])) for row in np.flatnonzero(goes_M).tolist()}


def crowds(links: Links, patients: list[str]) -> str:
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
