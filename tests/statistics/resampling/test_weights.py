from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError
from medclip.statistics.resampling.weights import draw_weights


@given(st.integers(1, 40), st.integers(1, 70), st.integers(0, 5))
def test_every_resample_has_as_many_draws_as_patients(num_patients: int, num_replicates: int, seed: int) -> None:
    weights_PB = draw_weights(num_patients, num_replicates, seed=seed)
    assert weights_PB.shape == (num_patients, num_replicates)
    assert (weights_PB.sum(axis=0) == num_patients).all()


def test_the_first_resamples_do_not_depend_on_how_many_are_asked_for() -> None:
    assert (draw_weights(50, 200, seed=3)[:, :70] == draw_weights(50, 70, seed=3)).all()
    assert (draw_weights(50, 70, seed=4) != draw_weights(50, 70, seed=3)).any()


def test_draws_are_those_of_sampling_with_replacement() -> None:
    # the count of one patient is binomial (P, 1/P): mean 1, variance 1 − 1/P
    drawn = draw_weights(100, 4000, seed=0).astype(float)
    assert drawn.mean() == 1
    assert drawn.var() == pytest.approx(0.99, rel=0.02)
    assert np.corrcoef(drawn[0], drawn[1])[0, 1] == pytest.approx(-1 / 99, abs=0.05)


def test_weights_take_one_byte_unless_one_unit_is_drawn_very_often() -> None:
    assert draw_weights(1000, 3, seed=0).dtype == np.uint8
    assert draw_weights(1, 5, seed=0).tolist() == [[1] * 5]


@pytest.mark.parametrize(
    "call",
    [
        lambda: draw_weights(0, 5, seed=0),
        lambda: draw_weights(5, 0, seed=0),
    ],
)
def test_empty_draws_are_refused(call) -> None:
    with pytest.raises(MedclipError):
        call()
