"""Whose images are held out, and which of the others are learned from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError
from medclip.evaluation.dense.masked_set import drawn_share, held_out


@given(st.lists(st.integers(0, 12), min_size=30, max_size=60))
def test_no_patient_is_on_both_sides(patients: list[int]) -> None:
    numbers = np.unique(patients, return_inverse=True)[1]
    if numbers.max() < 7:
        return
    is_test = held_out(numbers.tolist())
    assert not set(numbers[is_test]) & set(numbers[~is_test])
    assert len(numbers) / 3 <= is_test.sum() or len(set(numbers[is_test])) == 2


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(MedclipError, match="images of 3 patients"):
        held_out([0, 0, 1, 1, 2])


@given(st.integers(2, 80), st.integers(0, 5))
def test_smaller_shares_lie_in_larger_ones_and_hold_something_marked(number: int, seed: int) -> None:
    marked = np.zeros(number, np.bool_)
    marked[number // 2] = True
    draws = [set(drawn_share(marked, share, seed=seed).tolist()) for share in (0.02, 0.1, 1.0)]
    assert draws[0] <= draws[1] <= draws[2] == set(range(number))
    assert number // 2 in draws[0]
    assert len(draws[1]) == -(-number // 10)
