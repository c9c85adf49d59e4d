from __future__ import annotations

import numpy as np
import pytest

from medclip.evaluation.zero_shot.figures import metric_names, set_figures


def test_the_area_is_that_of_the_second_score_minus_the_first() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0])
    second = np.array([0.9, 0.7, 0.4, 0.6, 0.4, 0.1])
    shift = np.array([5, -3, 0.5, 2, 0.1, -1])  # the same for both classes: it changes nothing
    scores = np.stack([shift, shift + second], axis=1)
    assert set_figures(labels, scores, range(6))["auroc"].value == pytest.approx(0.8333, abs=1e-6)


def test_images_of_few_patients_give_a_wider_interval_than_as_many_patients() -> None:
    rng = np.random.default_rng(0)
    of_patient = rng.random(20) < 0.7
    right = np.repeat(of_patient, 10)
    labels = np.tile([0, 1], 100)
    scores = np.eye(2)[np.where(right, labels, 1 - labels)]
    few = set_figures(labels, scores, np.repeat(np.arange(20), 10).astype(str), num_resamples=200)["accuracy"]
    many = set_figures(labels, scores, np.arange(200).astype(str), num_resamples=200)["accuracy"]
    assert few.value == many.value
    assert few.high - few.low > 1.5 * (many.high - many.low)


def test_no_error_on_few_patients_is_not_certainty() -> None:
    labels = np.array([0, 1] * 8)
    figures = set_figures(labels, np.eye(2)[labels], np.arange(16).astype(str), num_resamples=50)
    assert list(figures) == list(metric_names(2))
    for name, figure in figures.items():
        assert (figure.value, figure.high) == (1.0, 1.0), name
        assert 0.5 < figure.low < 0.95, name


def test_a_set_with_one_class_has_no_area_and_no_error() -> None:
    scores = np.array([[0.1, 0.2], [0.3, 0.2], [0.0, 0.1]])
    figures = set_figures(np.ones(3, int), scores, list("abc"), num_resamples=20)
    assert "auroc" not in figures
    assert figures["accuracy"].value == pytest.approx(2 / 3, abs=1e-4)


def test_a_class_of_one_patient_leaves_its_figures_without_intervals() -> None:
    figures = set_figures(np.array([0, 1, 1]), np.eye(2)[[0, 1, 0]], ["a", "b", "c"], num_resamples=200)
    assert figures["accuracy"].value == pytest.approx(2 / 3, abs=1e-4)
    assert all(figures[name].low is None and figures[name].high is None for name in ("auroc", "balanced_accuracy"))


def test_many_classes_of_two_patients_each_are_more_than_a_bootstrap_can_draw() -> None:
    labels = np.repeat(np.arange(30), 2)
    figures = set_figures(labels, np.eye(30)[labels[::-1]], np.arange(60).astype(str), num_resamples=200)
    assert figures["balanced_accuracy"].low is None  # most replicates miss one class or another
    assert figures["accuracy"].low is not None
