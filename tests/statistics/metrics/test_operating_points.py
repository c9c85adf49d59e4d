"""Points of the ROC curve: those of scikit-learn's curve, in the sample and in rows that are literally repeated."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from medclip.statistics.cohort import Attribute, Cohort, Label
from medclip.statistics.yearly_risk import FIXED, POINTS, operating_points


def cohort_of(num: int, patients: int) -> tuple[Cohort, Label]:
    rng = np.random.default_rng(5)
    truth = (rng.random(num) < 0.3).astype(float)
    score = np.round(rng.normal(size=num) + 1.2 * truth, 1)  # with ties
    who = np.r_[np.arange(patients), rng.integers(0, patients, num - patients)].astype(np.int32)
    groups = Attribute("site", ("a", "b"), (rng.random(num) < 0.5).astype(np.int16))
    return Cohort(who, (), (groups,)), Label("cancer", score, truth, probability=False)


def by_sklearn(score: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    return tpr[1 - fpr >= FIXED - 1e-12].max(), (1 - fpr)[tpr >= FIXED - 1e-12].max()


def test_they_are_those_of_the_curve_in_every_group_and_resample() -> None:
    cohort, label = cohort_of(300, 120)
    weights = np.random.default_rng(0).multinomial(120, np.full(120, 1 / 120), size=7).T.astype(np.uint8)
    measured = operating_points(cohort, label, weights)
    for g, cell in enumerate([np.ones(300, bool), *(cohort.attributes[0].codes_N == k for k in (0, 1))]):
        for b in range(-1, 7):
            times = np.ones(300, int) if b < 0 else weights[cohort.patients_N, b].astype(int)
            rows = np.repeat(np.flatnonzero(cell), times[cell])
            wanted = by_sklearn(label.score_N[rows], label.truth_N[rows])
            for name, value in zip(("tpr_at_tnr", "tnr_at_tpr"), wanted, strict=True):
                point, drawn = measured[name]
                assert (point[g] if b < 0 else drawn[g, b]) == pytest.approx(value, abs=1e-9), (name, g, b)


def test_the_top_tenth_takes_of_equal_scores_the_share_that_fits_in() -> None:
    score, truth = np.zeros(20), np.zeros(20)
    score[:1], truth[[0, 5, 6, 7]] = 1.0, 1.0  # one above; of the 19 others one fits in, and 3 of 19 are positive
    cohort = Cohort(np.arange(20, dtype=np.int32), (), ())
    point, _ = operating_points(cohort, Label("x", score, truth), np.zeros((20, 0), np.uint8))["tpr_of_top"]
    assert point[0] == pytest.approx((1 + 3 / 19) / 4)


def test_without_one_side_there_is_no_point() -> None:
    cohort = Cohort(np.arange(4, dtype=np.int32), (), ())
    measured = operating_points(cohort, Label("x", np.arange(4.0), np.ones(4)), np.ones((4, 2), np.uint8))
    assert set(measured) == set(POINTS)
    assert all(np.isnan(point).all() and np.isnan(drawn).all() for point, drawn in measured.values())
