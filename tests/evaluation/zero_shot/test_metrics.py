from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    precision_score,
    roc_auc_score,
)

from medclip.evaluation.zero_shot.metrics import metric_names, set_figures, set_metrics


@given(st.integers(2, 5), st.integers(2, 40), st.integers(0, 10**6))
def test_the_metrics_equal_those_of_scikit_learn(num_classes: int, num_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, num_classes, num_rows), rng.integers(0, 4, (num_rows, num_classes)) / 4
    predicted, present = scores.argmax(axis=1), sorted(set(labels.tolist()))
    found = set_metrics(labels, scores, present)
    macro = {"labels": present, "average": "macro", "zero_division": 0}
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is predicted and has no image
        assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, **macro))
    assert found["macro_precision"] == pytest.approx(precision_score(labels, predicted, **macro))
    assert tuple(found) == metric_names(num_classes)
    if num_classes == 2:
        p, r, f, _ = precision_recall_fscore_support(labels, predicted, pos_label=1, average="binary", zero_division=0)
        assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((p, r, f))
        if len(present) == 2:
            assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores[:, 1] - scores[:, 0]))
        else:
            assert np.isnan(found["auroc"])


def test_the_area_is_that_of_the_second_score_minus_the_first() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0])
    second = np.array([0.9, 0.7, 0.4, 0.6, 0.4, 0.1])
    shift = np.array([5, -3, 0.5, 2, 0.1, -1])  # the same for both classes: it changes nothing
    scores = np.stack([shift, shift + second], axis=1)
    assert set_metrics(labels, scores, [0, 1])["auroc"] == pytest.approx(0.833333, abs=1e-6)


def test_images_of_few_patients_give_a_wider_interval_than_as_many_patients() -> None:
    rng = np.random.default_rng(0)
    of_patient = rng.random(20) < 0.7
    right = np.repeat(of_patient, 10)
    labels = np.tile([0, 1], 100)
    scores = np.eye(2)[np.where(right, labels, 1 - labels)]
    few = set_figures(labels, scores, np.repeat(np.arange(20), 10).astype(str), num_replicates=200)["accuracy"]
    many = set_figures(labels, scores, np.arange(200).astype(str), num_replicates=200)["accuracy"]
    assert few.value == many.value
    assert few.high - few.low > 1.5 * (many.high - many.low)


def test_no_error_on_few_patients_is_not_certainty() -> None:
    labels = np.array([0, 1] * 8)
    figure = set_figures(labels, np.eye(2)[labels], np.arange(16).astype(str), num_replicates=50)["accuracy"]
    assert figure.exact
    assert (figure.value, figure.high) == (1.0, 1.0)
    assert figure.low == pytest.approx(0.025 ** (1 / 16), abs=1e-4)


def test_a_set_with_one_class_has_no_area_and_no_error() -> None:
    scores = np.array([[0.1, 0.2], [0.3, 0.2], [0.0, 0.1]])
    figures = set_figures(np.ones(3, int), scores, list("abc"), num_replicates=20)
    assert "auroc" not in figures
    assert figures["accuracy"].value == pytest.approx(2 / 3, abs=1e-4)


def test_a_class_of_one_patient_leaves_the_values_without_intervals() -> None:
    figures = set_figures(np.array([0, 1, 1]), np.eye(2)[[0, 1, 0]], ["a", "b", "c"], num_replicates=20)
    assert figures["accuracy"].value == pytest.approx(2 / 3, abs=1e-4)
    assert all(figure.low is None and figure.high is None for figure in figures.values())


def test_an_interval_without_width_is_no_interval() -> None:
    labels = np.array([0, 1] * 8)
    figures = set_figures(labels, np.eye(2)[labels], np.arange(16).astype(str), num_replicates=50)
    assert (figures["auroc"].value, figures["auroc"].low) == (1.0, None)


def test_many_classes_of_two_patients_each_are_more_than_a_bootstrap_can_draw() -> None:
    labels = np.repeat(np.arange(30), 2)
    figures = set_figures(labels, np.eye(30)[labels[::-1]], np.arange(60).astype(str), num_replicates=20)
    assert figures["accuracy"].low is None  # nearly every replicate misses one of the classes
