from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medclip.errors import MedclipError
from medclip.statistics.resampling.simple_bootstrap import auroc, balanced_accuracy, macro_auroc, patient_bootstrap


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=60))
def test_auroc_equals_scikit_learn_with_ties_and_is_nan_without_both_classes(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([r[0] for r in rows])
    scores = np.array([r[1] for r in rows])
    if labels.all() or not labels.any():
        assert np.isnan(auroc(labels, scores))
    else:
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_the_area_is_the_share_of_pairs_in_the_right_order_with_ties_as_halves() -> None:
    # Hanley and McNeil, Radiology 143:29 (1982): 7.5 of the 9 pairs, then 7 of 9.
    labels = [1, 1, 1, 0, 0, 0]
    assert auroc(labels, [0.9, 0.7, 0.4, 0.6, 0.4, 0.1]) == pytest.approx(0.833333, abs=1e-6)
    assert auroc(labels, [0.8, 0.5, 0.6, 0.7, 0.2, 0.3]) == pytest.approx(0.777778, abs=1e-6)


def test_macro_figures_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 3, 200), rng.random((200, 3))
    probability = scores / scores.sum(axis=1, keepdims=True)
    assert macro_auroc(labels, probability) == pytest.approx(roc_auc_score(labels, probability, multi_class="ovr"))
    assert balanced_accuracy(labels, scores) == pytest.approx(balanced_accuracy_score(labels, scores.argmax(axis=1)))


def test_a_class_that_is_missing_makes_the_macro_figures_undefined() -> None:
    scores = np.eye(3)[[0, 1, 1]]
    assert np.isnan(balanced_accuracy([0, 1, 1], scores))
    assert np.isnan(macro_auroc([0, 1, 1], scores))


def test_repeating_each_image_of_a_patient_does_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 120)
    scores = labels + rng.normal(0, 1.5, 120)
    once = patient_bootstrap(auroc, labels, scores, range(120), num_replicates=300)
    ten = patient_bootstrap(
        auroc, labels.repeat(10), scores.repeat(10), np.arange(120).repeat(10).tolist(), num_replicates=300
    )
    rows = patient_bootstrap(auroc, labels.repeat(10), scores.repeat(10), range(1200), num_replicates=300)
    assert (ten.low, ten.high) == pytest.approx((once.low, once.high))
    assert rows.high - rows.low < 0.5 * (ten.high - ten.low)
    assert ten.num_patients == 120
    assert ten.num_rows == 1200


def test_the_interval_agrees_with_the_one_scipy_draws() -> None:
    from scipy.stats import bootstrap

    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 300)
    scores = labels + rng.normal(0, 1.5, 300)
    ours = patient_bootstrap(auroc, labels, scores, range(300), num_replicates=2000)
    theirs = bootstrap(
        (labels, scores), auroc, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=3
    )
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.01)


def test_replicates_without_one_class_are_redrawn_and_counted() -> None:
    labels = [1] + [0] * 9
    result = patient_bootstrap(auroc, labels, range(10), range(10), num_replicates=200)
    assert result.num_dropped > 0
    assert np.isfinite([result.low, result.high]).all()


def test_a_sample_with_one_class_only_is_refused() -> None:
    with pytest.raises(MedclipError, match="undefined"):
        patient_bootstrap(auroc, [0, 0, 0], [1, 2, 3], [1, 2, 3], num_replicates=20)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(MedclipError, match="2 labels, 3 scores"):
        patient_bootstrap(auroc, [0, 1], [1, 2, 3], [1, 2, 3])
