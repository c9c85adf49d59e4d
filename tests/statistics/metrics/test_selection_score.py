"""Figures that settings are chosen by agree with scikit-learn, and temperatures make probabilities honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from medclip.models.prototypes.class_vectors import probabilities
from medclip.statistics.metrics.selection_score import accuracy, log_loss, mean_auroc, quality, temperature


def _logits(seed: int, n: int = 20, c: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, c)) * 3


@given(st.integers(0, 100))
def test_log_loss_and_auroc_agree_with_scikit_learn(seed: int) -> None:
    logits = _logits(seed)
    classes = np.arange(20) % 3
    assert log_loss(logits, classes) == pytest.approx(sklearn_log_loss(classes, softmax(logits, axis=1)), abs=1e-9)
    targets = (_logits(seed + 1) > 0).astype(np.float32)
    targets[:4] = [[0, 0, 0], [1, 1, 1], [np.nan, 1, 0], [1, np.nan, np.nan]]
    rounded = np.round(logits)  # ties
    known = ~np.isnan(targets)
    expected = [roc_auc_score(targets[known[:, c], c], rounded[known[:, c], c]) for c in range(3)]
    assert mean_auroc(np.stack([rounded, -rounded]), targets) == pytest.approx(
        [np.mean(expected), 1 - np.mean(expected)], abs=1e-9
    )
    expected = sklearn_log_loss(targets[known], expit(logits[known]))
    assert log_loss(logits, targets) == pytest.approx(expected, abs=1e-9)


def test_what_nobody_knows_counts_for_nothing() -> None:
    nothing = np.full((4, 2), np.nan, np.float32)
    assert quality(np.ones((4, 2)), nothing) == (0.5, 0.0)
    one_sided = np.array([[1, np.nan], [1, np.nan]], np.float32)
    assert quality(np.zeros((2, 2)), one_sided) == pytest.approx((0.5, -np.log(2)))


@given(st.integers(0, 100), st.floats(0.1, 10))
def test_the_temperature_undoes_a_factor(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    logits = _logits(seed, n=60)
    drawn = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert temperature(factor * logits, drawn) * factor == pytest.approx(temperature(logits, drawn), rel=1e-2)
    assert accuracy(factor * logits, drawn) == accuracy(logits, drawn)


def test_a_few_right_answers_do_not_make_an_endless_temperature() -> None:
    logits = np.eye(3)[[0, 1, 2]]
    few, many = temperature(logits, np.arange(3)), temperature(np.tile(logits, (50, 1)), np.tile(np.arange(3), 50))
    assert 1 < few < many < 20


def test_the_temperature_of_drawn_answers_is_about_one() -> None:
    logits = _logits(0, n=4000)
    drawn = (logits + np.random.default_rng(1).gumbel(size=logits.shape)).argmax(axis=1)
    assert temperature(logits, drawn) == pytest.approx(1, abs=0.1)
    yes = (np.random.default_rng(2).random(logits.shape) < probabilities(logits, "multilabel")).astype(np.float32)
    assert temperature(logits, yes) == pytest.approx(1, abs=0.1)
