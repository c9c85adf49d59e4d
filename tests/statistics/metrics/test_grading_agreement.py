"""Agreement in ordered classes, against scikit-learn and by literally repeating rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from medclip.statistics.cohort import Attribute, Cohort, Ordinal
from medclip.statistics.metrics.grading_agreement import METRICS, agreement, ordinal_sums
from medclip.statistics.resampling.weights import draw_weights


def graded(seed: int = 0, patients: int = 40, classes: int = 5) -> tuple[Cohort, Ordinal]:
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), rng.integers(1, 4, patients)).astype(np.int32)
    truth_N = rng.integers(-1, classes, len(who)).astype(np.int16)
    predicted_N = np.clip(truth_N + rng.integers(-2, 3, len(who)), 0, classes - 1).astype(np.int16)
    sex = Attribute("sex", ("F", "M"), (who % 2).astype(np.int16), True)
    ordinal = Ordinal("grade", tuple("01234"[:classes]), truth_N, predicted_N)
    return Cohort(who, (), (sex,), ordinals=(ordinal,)), ordinal


def test_kappa_is_that_of_scikit_learn_in_every_cell_and_every_resample():
    cohort, ordinal = graded()
    weights_PB = draw_weights(cohort.num_patients, 20, seed=1)
    kappa_GB = agreement(ordinal_sums(cohort, ordinal, weights_PB))["kappa_quadratic"]
    for g, inside in enumerate(
        (np.ones(len(cohort.patients_N), bool), *(cohort.attributes[0].codes_N == c for c in (0, 1)))
    ):
        rows = np.flatnonzero(ordinal.valid_N & inside)
        for b, weights in enumerate([np.ones(cohort.num_patients, int), *weights_PB.T]):
            drawn = np.repeat(rows, weights[cohort.patients_N[rows]])
            reference = cohen_kappa_score(ordinal.truth_N[drawn], ordinal.predicted_N[drawn], weights="quadratic")
            assert kappa_GB[g, b] == pytest.approx(reference, abs=1e-12)


def test_shares_are_those_counted_by_hand_and_leave_nothing_out():
    cohort, ordinal = graded(3)
    values = {
        m: v[0, 0] for m, v in agreement(ordinal_sums(cohort, ordinal, np.ones((cohort.num_patients, 1)))).items()
    }
    off = (ordinal.predicted_N - ordinal.truth_N)[ordinal.valid_N]
    assert values["exact"] == pytest.approx((off == 0).mean())
    assert values["within_one"] == pytest.approx((np.abs(off) <= 1).mean())
    assert values["one_up"] == pytest.approx((off == 1).mean())
    assert values["far_down"] == pytest.approx((off <= -2).mean())
    parts = ("exact", "one_up", "one_down", "far_up", "far_down")
    assert sum(values[m] for m in parts) == pytest.approx(1)
    assert set(values) == set(METRICS)


def test_where_all_grades_are_one_there_is_no_kappa():
    ordinal = Ordinal("grade", ("a", "b", "c"), np.full(6, 1, np.int16), np.full(6, 1, np.int16))
    cohort = Cohort(np.arange(6, dtype=np.int32), (), (), ordinals=(ordinal,))
    values = agreement(ordinal_sums(cohort, ordinal, np.ones((6, 1))))
    assert np.isnan(values["kappa_quadratic"]).all()
    assert values["exact"][0, 0] == 1
