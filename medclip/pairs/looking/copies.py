"""Images that stand in a pile several times, and those that are an evaluation set's or of one of its patients.

Links are those of the step `deduplicate`, and so is the number of pairs that it would drop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.files.pseudonyms import load_key, match_patients
from medclip.imaging.perceptual_hash import VARIANTS
from medclip.pairs.pile import Pile
from medclip.pairs.selection.deduplicate import DeduplicateSettings, copies_of, crowds, ranks_of
from medclip.pairs.selection.image_links import (
    MOST_IMAGES,
    SURE_BITS,
    WAYS,
    Links,
    Pool,
    hash_images,
    link_inside,
    link_with,
    spread,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medclip.models.model import Model
    from medclip.pairs.looking.texts import TextFacts
    from medclip.progress import Progress
    from medclip.settings import Settings


@dataclass(frozen=True, eq=False)
class Against:
    """What a pile shares with one evaluation set."""

    name: str
    """Last part of where it lies."""
    num_theirs: int
    """Pairs of the evaluation set."""
    has_image_N: NDArray[np.bool_]
    """Pairs whose image is one of its images: copied, cropped, mirrored or inverted."""
    has_patient_N: NDArray[np.bool_]
    """Pairs of one of its patients: by identifier or keyed hash, or because the patient has an image there."""
    num_patients: int
    """Patients of these pairs."""
    to_drop_N: NDArray[np.bool_]
    """Pairs that `deduplicate` drops for the set: these, and copies of them."""
    by_way: Mapping[str, int]
    """Pairs by the surest way in which their image is linked."""
    links: Links
    """From rows of the pile to those of the set."""
    keys: tuple[str, ...]
    """Keys of the set's pairs that are linked, a link each."""


@dataclass(frozen=True, eq=False)
class Copies:
    """What N pairs share with each other and with evaluation sets."""

    links: Links
    """Between rows of the pile."""
    num_copies: int
    """Pairs that `deduplicate` would drop for another one that shows their image."""
    by_way: Mapping[str, int]
    """These, by the way of the link."""
    is_linked_N: NDArray[np.bool_]
    """Pairs whose image another pair shows."""
    across_patients_N: NDArray[np.bool_]
    """Those of them that another known patient's pair shows: equal pixels, or nearly equal hashes."""
    alike_patients_N: NDArray[np.bool_]
    """Those that are linked to another patient's less surely: two patients may look so."""
    across_splits_N: NDArray[np.bool_]
    """Those that a pair of another split shows."""
    other_text_N: NDArray[np.bool_]
    """Those that a pair with another text shows."""
    against: tuple[Against, ...]
    unread: Mapping[str, int]
    cautions: tuple[str, ...]


def find_copies(
    pile: Pile,
    others: Sequence[Pile],
    facts: TextFacts,
    model: Model | None,
    vectors_ND: NDArray[np.float32] | None,
    settings: Settings,
    progress: Progress,
    seed: int,
) -> Copies:
    """Link images with each other and with those of evaluation sets.

    Args:
        pile: N pairs.
        others: Evaluation sets.
        facts: Facts of the N texts.
        model: Pack whose vectors link images, too.
        vectors_ND: Vectors of the N images.
        settings: Home of the identity key.
        progress: Progress bar of the images.
        seed: Seed of the trees.
    """
    rows_N, patients = np.arange(len(pile)), pile.cells("patient")
    images = hash_images(pile, rows_N, progress, len(VARIANTS) if others else 1, True)
    pool = Pool(images, patients, np.array(pile.cells("modality"), object), model, vectors_ND)
    links, alike, _ = link_inside(pool, DeduplicateSettings().cosine, progress, seed)
    spare = copies_of(links, ranks_of(pile, rows_N), patients, frozenset(), progress)
    ways = [way for way, _ in spare.values()]
    patient_N, split_N = np.array(patients, object), np.array(pile.cells("split"), object)
    one, other = links.one_K, links.other_K
    both_known_K = (patient_N[one] != "") & (patient_N[other] != "")
    patients_differ_K = both_known_K & (patient_N[one] != patient_N[other])
    # Of medpix2, two patients' slices through the orbits differ in 54 bits, and vectors confirm them.
    sure_K = (links.way_K <= 1) & (links.value_K <= SURE_BITS)
    differ = {
        "linked": np.ones(len(one), bool),
        "patients": patients_differ_K & sure_K,
        "alike": patients_differ_K & ~sure_K,
        "splits": split_N[one] != split_N[other],
        "texts": facts.hash_N[one] != facts.hash_N[other],
    }
    masks = {name: _rows_of(links, of_K, len(pile)) for name, of_K in differ.items()}
    key = load_key(settings) if others else None
    against = [_against(pool, alike, links, held_out, key, progress) for held_out in others]
    limits = alike.limits(len(rows_N) * (len(rows_N) - 1) // 2)
    cautions = [limits.caution, crowds(links, patients)]
    if images.small_RHW is None and len(pile) > MOST_IMAGES:
        cautions.append(f"Copies that were cropped or turned were not looked for: more than {MOST_IMAGES:,} images.")
    if pile.is_record().any():
        by_bytes = "ECG records are compared by the bytes of their signals alone: copies that were cut, filtered or "
        by_bytes += "resampled were not looked for."
        cautions = [by_bytes] if pile.is_record().all() else [*cautions, by_bytes]
    return Copies(
        links,
        len(spare),
        {way: ways.count(way) for way in WAYS if way in ways},
        masks["linked"],
        masks["patients"],
        masks["alike"],
        masks["splits"],
        masks["texts"],
        tuple(against),
        dict(images.unread),
        tuple(caution for caution in cautions if caution),
    )


def _rows_of(links: Links, of_K: NDArray[np.bool_], num: int) -> NDArray[np.bool_]:
    is_in_N = np.zeros(num, bool)
    is_in_N[links.one_K[of_K]] = True
    is_in_N[links.other_K[of_K]] = True
    return is_in_N


def _against(pool: Pool, alike: Any, inside: Links, held_out: Pile, key: bytes | None, progress: Progress) -> Against:
    """Hold a pile against one evaluation set; copies of a pair whose image is its, are its, too."""
    num = len(pool.patients)
    named = {patient for patient in held_out.cells("patient") if patient}
    of_theirs = match_patients(set(pool.patients), named, key)
    is_apart_M = np.array([patient not in of_theirs for patient in pool.patients], bool)
    links, _ = link_with(pool, alike, held_out, is_apart_M, DeduplicateSettings().cosine, progress)
    direct_N, way_N = np.zeros(num, bool), np.full(num, len(WAYS))
    direct_N[links.one_K] = True
    np.minimum.at(way_N, links.one_K, links.way_K)
    has_image_N = _with_copies(direct_N, inside)
    theirs = named | {pool.patients[row] for row in np.flatnonzero(has_image_N).tolist()} - {""}
    matched = match_patients(set(pool.patients), theirs, key)
    has_patient_N = np.array([patient in matched for patient in pool.patients], bool)
    by_way = {way: int((way_N == code).sum()) for code, way in enumerate(WAYS) if (way_N == code).any()}
    if num_through := int((has_image_N & ~direct_N).sum()):
        by_way["through a copy"] = num_through
    return Against(
        held_out.place.name,
        len(held_out),
        has_image_N,
        has_patient_N,
        len(matched),
        _with_copies(has_image_N | has_patient_N, inside),
        by_way,
        links,
        tuple(held_out.cells("key", links.other_K)),
    )


def _with_copies(is_in_N: NDArray[np.bool_], inside: Links) -> NDArray[np.bool_]:
    """Add the copies of rows which are in."""
    with_copies_N = is_in_N.copy()
    with_copies_N[spread(is_in_N, inside)[0]] = True
    return with_copies_N
