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


def _dealt_to(sizes: list[int], num: int = 60) -> np.ndarray:
    """Whose label each patient was dealt, [draws, patients]; each patient's rows have the patient's number."""
    patients = np.repeat(np.arange(len(sizes)), sizes)
    first = np.cumsum([0, *sizes[:-1]])
    return shuffled(patients, patients, num, seed=0)[:, first]


def test_patients_with_about_as_many_rows_change_places_and_others_do_not() -> None:
    dealt = _dealt_to([2] * 20 + [1] * 20)
    for draw in dealt:
        assert sorted(draw[:20]) == list(range(20))
        assert sorted(draw[20:]) == list(range(20, 40))


def test_a_few_patients_with_more_or_with_fewer_rows_join_the_next() -> None:
    more, fewer, between = (
        _dealt_to([8] * 3 + [1] * 20),
        _dealt_to([2] * 20 + [1] * 3),
        _dealt_to([4] * 20 + [2] * 3 + [1] * 20),
    )
    assert (more[:, :3] >= 3).any()
    assert (fewer[:, 20:] < 20).any()
    assert (between[:, 20:23] >= 23).any()
    assert (between[:, 20:23] >= 20).all()


def test_labels_within_a_patient_keep_their_order_round_in_a_circle() -> None:
    patients = np.repeat(np.arange(15), 3)
    for draw in shuffled(np.arange(45), patients, 20, seed=2).reshape(20, 15, 3):
        source = draw // 3
        assert (source == source[:, :1]).all()
        assert ((np.diff(draw % 3, axis=1) % 3) == 1).all()
