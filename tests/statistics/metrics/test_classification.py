"""Figures of answers: values of scikit-learn, in the sample and in resamples; one interval for each."""

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

from medclip.evaluation.zero_shot.figures import metric_names
from medclip.statistics.metrics.classification import HeldOut, figures, measured, ranked_scores, shares_of
from medclip.statistics.metrics.ranks import auroc
from medclip.statistics.resampling.resampled import interval_of
from medclip.statistics.resampling.weights import draw_weights


def macro_auroc(labels: np.ndarray, scores_NC: np.ndarray) -> float:
    return float(np.mean([roc_auc_score(labels == c, scores_NC[:, c]) for c in sorted(set(labels.tolist()))]))


@given(st.integers(2, 5), st.integers(2, 40), st.integers(0, 10**6))
def test_the_metrics_equal_those_of_scikit_learn(num_classes: int, num_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, num_classes, num_rows), rng.integers(0, 4, (num_rows, num_classes)) / 4
    predicted, present = scores.argmax(axis=1), sorted(set(labels.tolist()))
    found = measured(labels, scores, range(num_rows), metric_names(num_classes), num_resamples=2)
    values = {name: figure.value for name, figure in found.items()}
    macro = {"labels": present, "average": "macro", "zero_division": 0}
    assert values["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is predicted and has no image
        assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert values["macro_f1"] == pytest.approx(f1_score(labels, predicted, **macro))
    assert values["macro_precision"] == pytest.approx(precision_score(labels, predicted, **macro))
    if num_classes == 2 and len(present) == 2:
        p, r, f, _ = precision_recall_fscore_support(labels, predicted, pos_label=1, average="binary", zero_division=0)
        assert (values["precision"], values["recall"], values["f1"]) == pytest.approx((p, r, f))
        assert values["auroc"] == pytest.approx(roc_auc_score(labels, scores[:, 1] - scores[:, 0]))
    elif num_classes == 2:
        assert "auroc" not in values


@pytest.mark.slow
@given(seed=st.integers(0, 200))
def test_resamples_are_those_of_repeated_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(3), rng.integers(0, 3, 37)])
    patients = np.unique(rng.integers(0, 20, 40), return_inverse=True)[1].astype(np.int64)
    logits = np.round(rng.normal(size=(2, 40, 3)), 1).astype(np.float32)  # rounded: ties
    test = HeldOut(targets, patients, 3)
    weights_PB = draw_weights(test.num_patients, 3, seed=seed)
    found = shares_of(logits, test, weights_PB)
    for b in range(3):
        rows = np.repeat(np.arange(40), weights_PB[patients, b])
        if set(targets[rows].tolist()) != {0, 1, 2}:
            continue
        for run in range(2):
            drawn = {name: np.mean([p.drawn_RB[run, b] for p in parts]) for name, parts in found.items()}
            y, z = targets[rows], logits[run][rows].astype(np.float64)
            assert drawn["accuracy"] == pytest.approx((z.argmax(axis=1) == y).mean())
            assert drawn["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, z.argmax(axis=1)))
            areas = ranked_scores(logits[run], False)[rows]
            assert drawn["macro_auroc"] == pytest.approx(macro_auroc(y, areas), abs=1e-9)


@given(seed=st.integers(0, 200))
def test_unknown_labels_of_multilabel_tasks_count_nowhere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, (60, 3)).astype(np.float32)
    targets[rng.random((60, 3)) < 0.2] = np.nan
    targets[:, 2] = np.nan  # nobody knows: left out
    logits = rng.normal(size=(1, 60, 3)).astype(np.float32)
    test = HeldOut(targets, np.arange(60), 3)
    assert test.measured() == (0, 1)
    found = {name: f.value for name, f in figures(logits, test, draw_weights(60, 2, seed=0)).items()}
    areas, right, balanced = [], [], []
    for c in (0, 1):
        known = ~np.isnan(targets[:, c])
        y, s = targets[known, c] == 1, logits[0, known, c]
        areas.append(roc_auc_score(y, s))
        right.append(((s > 0) == y).mean())
        balanced.append((((s > 0) & y).sum() / y.sum() + ((s <= 0) & ~y).sum() / (~y).sum()) / 2)
    assert found["macro_auroc"] == pytest.approx(np.mean(areas))
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert found["balanced_accuracy"] == pytest.approx(np.mean(balanced))


def test_a_class_without_enough_patients_on_a_side_is_left_out_of_multilabel_means() -> None:
    targets = np.zeros((20, 2), np.float32)
    targets[:10, 0] = 1
    targets[:2, 1] = 1
    assert HeldOut(targets, np.arange(20), 2).measured() == (0,)


def test_with_two_classes_the_macro_area_and_its_interval_are_those_of_the_one_area() -> None:
    rng = np.random.default_rng(0)
    labels, patients = np.arange(60) % 2, np.repeat(np.arange(20), 3).tolist()
    found = measured(labels, rng.normal(size=(60, 2)) + np.eye(2)[labels], patients, ["auroc", "macro_auroc"])
    assert interval_of(found["auroc"]) == interval_of(found["macro_auroc"])


@pytest.mark.parametrize("num_classes", [2, 3])
def test_nothing_is_certain_where_every_answer_is_right(num_classes: int) -> None:
    labels = np.arange(24) % num_classes
    names = ("macro_auroc", *metric_names(num_classes))
    found = measured(labels, np.eye(num_classes)[labels], range(24), names, num_resamples=100)
    assert set(found) == set(names)
    for name, figure in found.items():
        interval = interval_of(figure)
        assert (interval.value, interval.high) == (1, 1), name
        assert 0.6 < interval.low < 0.99, name


def test_runs_of_one_method_are_averaged_and_kept_apart() -> None:
    rng = np.random.default_rng(0)
    targets = np.arange(40) % 2
    logits = rng.normal(size=(6, 40, 2)) + np.eye(2)[targets]
    test = HeldOut(targets, np.arange(40), 2)
    whole = figures(logits, test, draw_weights(40, 50, seed=0), runs=(3, 2))["accuracy"]
    each = [(run.argmax(axis=1) == targets).mean() for run in logits]
    np.testing.assert_allclose(whole.runs_SI, np.reshape(each, (3, 2)))
    assert whole.value == pytest.approx(np.mean(each))


def test_no_image_has_no_figure() -> None:
    nobody = HeldOut(np.zeros(0, np.int64), np.zeros(0, np.int64), 2)
    assert figures(np.zeros((1, 0, 2)), nobody, np.ones((1, 2), np.uint8)) == {}


def test_the_area_of_many_sets_of_scores_is_that_of_each() -> None:
    rng = np.random.default_rng(0)
    scores, positive = np.round(rng.normal(size=(4, 50)), 1), rng.random((4, 50)) < 0.4
    expected = [roc_auc_score(y, s) for y, s in zip(positive, scores, strict=True)]
    np.testing.assert_allclose(auroc(scores, positive), expected, atol=1e-12)
    assert np.isnan(auroc([0.1, 0.2], [1, 1]))
