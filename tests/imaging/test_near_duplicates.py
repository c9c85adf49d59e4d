"""Pairs of images that are one image."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medclip.imaging.near_duplicates import (
    FINE_BITS,
    Chance,
    Limits,
    measure_chance,
    near_duplicates,
    pairs_within,
)
from medclip.imaging.perceptual_hash import ImageHashes, coarse_distance, fine_distance, hash_images
from tests.kits.leakage import brighter, cropped, film, resized_jpeg


def some_hashes(rng: np.random.Generator, n: int, near: int = 4) -> ImageHashes:
    """Draw hashes around a few centres, so that some pairs are near."""
    centres = rng.integers(0, 2**63, (near, 5)).astype(np.uint64)
    flips = np.packbits(rng.random((n, 320)) < 0.04, axis=1, bitorder="little").view(np.uint64)
    words = centres[rng.integers(near, size=n)] ^ flips
    return ImageHashes(words[:, 0], words[:, 1:])


@given(st.integers(0, 10**6), st.integers(0, 70), st.integers(0, 70), st.integers(0, 8), st.integers(5, 25))
def test_all_pairs_within_the_limits_are_found_and_no_other(seed: int, n: int, m: int, coarse: int, fine: int):
    rng = np.random.default_rng(seed)
    one, other = some_hashes(rng, n), some_hashes(rng, m)
    other = ImageHashes(np.concatenate([other.coarse_N, one.coarse_N]), np.concatenate([other.fine_NW, one.fine_NW]))
    near = coarse_distance(one.coarse_N[:, None], other.coarse_N[None]) <= coarse
    near &= fine_distance(one.fine_NW[:, None], other.fine_NW[None]) <= fine
    for threads in (1, 3):
        found = pairs_within(one, other, coarse_bits=coarse, fine_bits=fine, threads=threads)
        assert list(zip(found.one_K.tolist(), found.other_K.tolist(), strict=True)) == list(
            map(tuple, np.argwhere(near))
        )
    inside = pairs_within(one, coarse_bits=coarse, fine_bits=fine)
    expected = np.argwhere(np.triu(near[:, m:], 1))
    assert list(zip(inside.one_K.tolist(), inside.other_K.tolist(), strict=True)) == list(map(tuple, expected))


def test_copies_are_found_and_other_patients_are_not():
    films = [film(s) for s in range(60)]
    copies = [resized_jpeg(films[3]), brighter(films[7]), cropped(films[11]), resized_jpeg(cropped(films[20]))]
    found = near_duplicates(hash_images(copies), hash_images(films))
    assert found.other_K.tolist() == [3, 7, 11, 20]
    assert len(near_duplicates(hash_images(films))) == 0


def test_between_the_two_limits_embeddings_decide():
    images = ImageHashes(np.zeros(3, np.uint64), np.zeros((3, 4), np.uint64))
    images.fine_NW[2, 0] = 2**50 - 1  # the first two are equal
    alike, apart = np.eye(2, dtype=np.float32)[[0, 0, 0]], np.eye(2, dtype=np.float32)[[0, 0, 1]]
    unknown = np.where(np.arange(3)[:, None] == 2, np.float32(np.nan), alike)

    def pairs(vectors: np.ndarray | None) -> list[tuple[int, int]]:
        found = near_duplicates(images, vectors_ND=vectors)
        return list(zip(found.one_K.tolist(), found.other_K.tolist(), strict=True))

    assert pairs(alike) == [(0, 1), (0, 2), (1, 2)]
    assert pairs(None) == pairs(apart) == pairs(unknown) == [(0, 1)]


def test_the_more_pairs_are_compared_the_nearer_they_must_be():
    chance = Chance(near_share=2.4e-3, middle=96, width=11.9, confirmed_share=0.4)
    limits = [chance.limits(n) for n in (10, 10**6, 10**8, 10**11)]
    assert limits[0] == Limits(44, 56)
    assert [x.fine for x in limits] == sorted((x.fine for x in limits), reverse=True)
    assert 15 < limits[-1].fine < 30
    assert all(x.confirmed >= x.fine for x in limits)


def test_chance_is_measured_on_different_patients_only_and_copies_do_not_hide_themselves():
    films = [film(s) for s in range(60)]
    hashes = hash_images([*films, *(resized_jpeg(f) for f in films)])
    of_one = measure_chance(hashes, np.tile(np.arange(60, dtype=np.int32), 2))
    of_two = measure_chance(hashes, np.arange(120, dtype=np.int32))
    assert of_one is not None
    assert of_two is not None
    assert of_two.limits(1).fine == FINE_BITS
    assert abs(of_one.middle - of_two.middle) < 5
    assert of_two.limits(120 * 119 // 2).fine > 20


def test_chance_between_two_sets_is_that_of_the_pairs_that_cross():
    hashes = hash_images([film(s) for s in range(40)])
    alike = hash_images([(0.8 * film(0) + 0.2 * film(s)).astype(np.uint8) for s in range(100, 120)])
    inside = measure_chance(alike, np.arange(20, dtype=np.int32))
    across = measure_chance(alike, np.zeros(20, np.int32), others=hashes)
    assert inside is not None
    assert across is not None
    assert (inside.num_pairs, across.num_pairs) == (190, 800)
    assert across.middle > inside.middle + 20


def test_there_is_no_measure_of_chance_without_different_patients():
    hashes = hash_images([film(s) for s in range(20)])
    assert measure_chance(hashes, np.zeros(20, np.int32)) is None
    assert measure_chance(hashes.take(np.arange(3)), np.arange(3, dtype=np.int32)) is None


def test_embeddings_of_different_patients_say_how_much_a_cosine_confirms():
    hashes = hash_images([film(s) for s in range(30)])
    patients = np.arange(30, dtype=np.int32)
    alike, apart = np.tile(np.float32([1, 0]), (30, 1)), np.eye(30, dtype=np.float32)
    shares = [measure_chance(hashes, patients, vectors_ND=v).confirmed_share for v in (None, alike, apart)]  # type: ignore[union-attr]
    assert shares[0] == shares[1] == 1
    assert shares[2] < 0.02
