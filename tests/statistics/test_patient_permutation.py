"""Labels dealt anew among patients."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medclip.statistics.significance import p_value, shuffled
from tests.kits.audit_embeddings import people


@given(st.lists(st.integers(0, 12), min_size=2, max_size=40), st.integers(0, 5))
def test_a_patient_with_one_label_keeps_one_and_labels_are_those_there_were(owners: list[int], seed: int) -> None:
    _, patients = np.unique(owners, return_inverse=True)
    codes = (patients * 7 + 3) % 4
    dealt = shuffled(codes, patients, 5, seed=seed)
    assert dealt.shape == (5, len(codes))
    assert np.isin(dealt, codes).all()
    for labels in dealt:
        assert all(len(set(labels[patients == p])) == 1 for p in np.unique(patients))


def test_with_one_row_each_it_is_a_permutation() -> None:
    codes = np.arange(30) % 3
    dealt = shuffled(codes, np.random.default_rng(0).permutation(30), 20, seed=1)
    assert (np.sort(dealt, axis=1) == np.sort(codes)).all()
    assert len({tuple(d) for d in dealt}) == 20
    np.testing.assert_array_equal(dealt, shuffled(codes, np.random.default_rng(0).permutation(30), 20, seed=1))


def test_groups_keep_their_size_nearly() -> None:
    patients = people(300, most=9)
    codes = (np.random.default_rng(1).random(300) < 0.3).astype(int)[patients]
    dealt = shuffled(codes, patients, 100, seed=0)
    assert abs(dealt.mean() - codes.mean()) < 0.03


def test_labels_that_change_within_a_patient_travel_together() -> None:
    patients = np.repeat(np.arange(40), 2)
    codes = np.tile([0, 1], 40)
    dealt = shuffled(codes, patients, 10, seed=0).reshape(10, 40, 2)
    assert (dealt.sum(axis=2) == 1).all()


def test_p_counts_the_sample_itself() -> None:
    assert p_value(1.0, np.zeros(99)) == 0.01
    assert p_value(0.0, np.zeros(99)) == 1.0
    assert np.isnan(p_value(np.nan, np.zeros(9)))
