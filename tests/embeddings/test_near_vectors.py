"""Pairs of vectors that are nearly one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medclip.embeddings import near_vectors as near
from medclip.embeddings.near_vectors import cosine_limit, near_vectors


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def drawn(seed: int, num: int, dim: int = 16, spread: float = 1.0) -> NDArray[np.float32]:
    """Draw unit vectors in a cone, as those of medical images lie."""
    return unit(1 + spread * np.random.default_rng(seed).standard_normal((num, dim)))


@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 60), st.integers(2_000, 40_000))
def test_all_pairs_at_the_limit_are_found_and_no_other_whatever_the_ceiling(seed: int, n: int, m: int, memory: int):
    one, other = drawn(seed, n), drawn(seed + 1, m)
    for against in (None, other):
        products = one.astype(np.float64) @ (one if against is None else against).T.astype(np.float64)
        clear = np.abs(products - 0.7) > 1e-5
        expected = np.argwhere((np.triu(products, 1) if against is None else products) >= 0.7)
        near = near_vectors(one, against, cosine=0.7, memory_bytes=memory)
        pairs = zip(near.one_K.tolist(), near.other_K.tolist(), strict=True)
        assert {p for p in pairs if clear[p]} == {p for p in map(tuple, expected.tolist()) if clear[p]}
        assert near.met_share == 1


@pytest.mark.parametrize("inside", [True, False])
def test_trees_find_copies_among_many_and_say_how_many_at_the_limit_they_miss(inside: bool):
    vectors = drawn(0, 6_000, 32)
    copies = unit(vectors[:300] + 0.01 * np.random.default_rng(1).standard_normal((300, 32)))
    sides = (np.concatenate([vectors, copies]), None) if inside else (vectors, copies)
    exact = near_vectors(*sides, cosine=0.97)
    near = near_vectors(*sides, cosine=0.97, most_products=0)
    expected, pairs = (set(zip(p.one_K.tolist(), p.other_K.tolist(), strict=True)) for p in (exact, near))
    assert pairs <= expected
    assert len(expected) >= 300
    assert len(pairs) >= 0.98 * len(expected)
    assert 0.99 <= near.met_share <= 1


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_a_leaf_is_compared_in_few_dimensions_first_and_loses_no_pair_by_that(
    inside: bool, kind: type[np.floating], monkeypatch: pytest.MonkeyPatch
):
    vectors = drawn(0, 4_000, 128)
    near_ones = unit(vectors[:400] + 0.02 * np.random.default_rng(1).standard_normal((400, 128)))  # 0.97 to 0.98
    sides = (np.concatenate([vectors, near_ones]).astype(kind), None) if inside else (vectors, near_ones.astype(kind))
    few = near_vectors(*sides, cosine=0.97, most_products=0)
    monkeypatch.setattr(near, "_PAIRS_OF_VECTOR", -1)
    every = near_vectors(*sides, cosine=0.97, most_products=0)
    assert len(every) > 300
    np.testing.assert_array_equal(few.one_K, every.one_K)
    np.testing.assert_array_equal(few.other_K, every.other_K)
    np.testing.assert_allclose(few.cosine_K, every.cosine_K, atol=1e-5)


def test_trees_end_where_all_vectors_are_one_and_where_some_are_missing():
    vectors = np.tile(np.eye(8, dtype=np.float32)[:1], (600, 1))
    vectors[7] = np.nan
    near = near_vectors(vectors, cosine=0.97, most_products=0)
    assert len(near) > 10_000
    assert 7 not in {*near.one_K.tolist(), *near.other_K.tolist()}
    assert len(near_vectors(vectors[7:8], vectors, cosine=0.97)) == 0


def test_the_limit_rises_where_different_patients_are_alike_and_copies_do_not_move_it():
    alike = drawn(3, 800, 64, spread=0.3)
    copies = np.concatenate([alike, alike[:40]])
    patients = np.arange(len(copies), dtype=np.int32)
    limits = [cosine_limit(copies, patients, n, least=0.9) for n in (10, 10**6, 10**12)]
    assert limits == sorted(limits)
    assert limits[1] > 0.9
    products = np.triu(alike @ alike.T, 1)
    assert not (products >= limits[1]).any()
    assert limits[1] < 0.999
    assert abs(limits[1] - cosine_limit(alike, patients[:800], 10**6, least=0.9)) < 0.01


def test_the_limit_stays_where_nothing_is_known_of_different_patients():
    vectors = drawn(0, 50)
    assert cosine_limit(vectors, np.zeros(50, np.int32), 10**6, least=0.97) == 0.97
    assert cosine_limit(vectors[:1], np.zeros(1, np.int32), 10**6, least=0.97) == 0.97
    assert cosine_limit(drawn(0, 500, 512, 20.0), np.arange(500, dtype=np.int32), 10**6, least=0.97) == 0.97


def test_the_limit_of_two_sets_is_that_of_their_pairs_and_not_of_the_first_alone():
    alike, others = drawn(3, 200, 64, spread=0.3), drawn(4, 100, 64, spread=20.0)
    patients = np.arange(200, dtype=np.int32)
    inside = cosine_limit(alike, patients, 10**6, least=0.6)
    across = cosine_limit(alike, patients, 10**6, others_MD=others, least=0.6)
    assert across < 0.92 < 0.96 < inside
