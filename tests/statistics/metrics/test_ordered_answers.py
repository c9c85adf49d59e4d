"""Figures of steps: values of scipy and scikit-learn in the sample, and those of repeated rows in every resample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from medclip.statistics.metrics.classification import OF_STEPS, HeldOut, figures, measured
from medclip.statistics.metrics.grading_agreement import KAPPA
from medclip.statistics.metrics.ordered_answers import (
    expected_step,
    resampled_concordance,
    resampled_kappa,
    resampled_spearman,
)
from medclip.statistics.resampling.resampled import difference, interval_of
from medclip.statistics.resampling.weights import draw_weights


def pairs_in_order(score_N: np.ndarray, step_N: np.ndarray) -> float:
    higher = step_N[:, None] > step_N[None]
    won = (score_N[:, None] > score_N[None]) + 0.5 * (score_N[:, None] == score_N[None])
    return float(won[higher].mean())


def oracle(name: str, score_N: np.ndarray, step_N: np.ndarray) -> float:
    if name == "spearman":
        return float(spearmanr(score_N, step_N).statistic)
    if name == KAPPA:
        return float(cohen_kappa_score(score_N, step_N, weights="quadratic", labels=np.arange(9)))
    return pairs_in_order(score_N, step_N)


OURS = {"spearman": resampled_spearman, KAPPA: resampled_kappa, "pairwise_accuracy": resampled_concordance}


@pytest.mark.parametrize("name", OURS)
@given(seed=st.integers(0, 10**6), num_steps=st.integers(2, 5))
def test_resamples_are_those_of_repeated_rows(name: str, seed: int, num_steps: int) -> None:
    rng = np.random.default_rng(seed)
    step_N = np.concatenate([np.arange(num_steps), rng.integers(0, num_steps, 20)])
    score_N = np.clip(step_N + rng.integers(-1, 2, len(step_N)), 0, num_steps - 1)
    score_N[:2] = 0, num_steps - 1  # so that not all are alike
    patients = np.unique(rng.integers(0, 9, len(step_N)), return_inverse=True)[1]
    weights_PB = draw_weights(int(patients.max()) + 1, 4, seed=seed)
    values = OURS[name](score_N.astype(np.float64 if name != KAPPA else np.int64), step_N, patients, weights_PB)
    for value, weight_P in zip(values, [np.ones(len(weights_PB), int), *weights_PB.T.astype(int)], strict=True):
        rows = np.repeat(np.arange(len(step_N)), weight_P[patients])
        if len({*step_N[rows].tolist()}) > 1 and len({*score_N[rows].tolist()}) > 1:
            assert value == pytest.approx(oracle(name, score_N[rows], step_N[rows]), abs=1e-9)


def test_pairs_of_two_steps_are_the_area_under_the_curve() -> None:
    rng = np.random.default_rng(0)
    step_N, score_N = rng.integers(0, 2, 50), rng.normal(size=50).round(1)
    value = resampled_concordance(score_N, step_N, np.arange(50), np.ones((50, 1), np.uint8))[0]
    assert value == pytest.approx(roc_auc_score(step_N, score_N))


def test_classes_outside_of_the_order_are_left_out_of_it() -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 4, 60)
    logits_NC = rng.normal(size=(60, 4)) + 2 * np.eye(4)[targets]
    test = HeldOut(targets, np.arange(60), 4, steps=(2, 0, 3))
    measured = figures(logits_NC[None], test, draw_weights(60, 50, seed=0), OF_STEPS)
    rows = targets != 1
    step_n, score_n = np.array([1, -1, 0, 2])[targets[rows]], expected_step(logits_NC[rows][:, [2, 0, 3]])
    assert measured["spearman"].value == pytest.approx(oracle("spearman", score_n, step_n))
    assert measured["pairwise_accuracy"].value == pytest.approx(pairs_in_order(score_n, step_n))


def test_without_steps_or_with_one_step_alone_nothing_is_measured() -> None:
    weights_PB = draw_weights(4, 5, seed=0)
    targets, logits_NC = np.array([0, 1, 2, 1]), np.eye(3)[[0, 1, 2, 1]]
    for test in (HeldOut(targets, np.arange(4), 3), HeldOut(np.full(4, 1), np.arange(4), 3, steps=(0, 1, 2))):
        assert figures(logits_NC[None], test, weights_PB, OF_STEPS) == {}


def test_a_coefficient_may_be_below_zero_with_its_whole_interval() -> None:
    rng = np.random.default_rng(2)
    targets = np.arange(200) % 4
    logits_NC = -((np.arange(4)[None] - (3 - targets + rng.normal(size=200))[:, None]) ** 2)
    test = HeldOut(targets, np.arange(200), 4, steps=(0, 1, 2, 3))
    weights_PB = draw_weights(200, 300, seed=0)
    against, along = (figures(z[None], test, weights_PB, OF_STEPS) for z in (logits_NC, logits_NC[:, ::-1]))
    for name in ("spearman", KAPPA):
        estimate = interval_of(against[name])
        assert -1 < estimate.low < estimate.value < estimate.high < 0
        apart = difference(against[name], along[name])
        assert 1 < apart.low < apart.value < apart.high < 2  # beyond what two shares can differ by


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spearman", KAPPA, "pairwise_accuracy"])
def test_intervals_cover_the_truth(name: str) -> None:
    rng = np.random.default_rng(3)

    def drawn(num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        patients = np.repeat(np.arange(num // 2), 2)
        step = rng.integers(0, 4, num // 2)[patients]
        place = step + 0.8 * rng.normal(size=num // 2)[patients] + 0.6 * rng.normal(size=num)
        return -((np.arange(4)[None] - place[:, None]) ** 2), step, patients

    logits_NC, step_N, patients = drawn(200_000)
    truth = figures(
        logits_NC[None], HeldOut(step_N, patients, 4, (0, 1, 2, 3)), np.ones((100_000, 1), np.uint8), [name]
    )[name].value
    inside = 0
    for _ in range(400):
        logits_NC, step_N, patients = drawn(80)
        test = HeldOut(step_N, patients, 4, steps=(0, 1, 2, 3))
        estimate = interval_of(figures(logits_NC[None], test, draw_weights(40, 300, seed=0), [name])[name])
        inside += estimate.low <= truth <= estimate.high
    assert 0.92 < inside / 400 < 0.985


def test_two_steps_have_no_figures_beside_their_areas() -> None:
    test = HeldOut(np.arange(20) % 2, np.arange(20), 2, steps=(0, 1))
    assert figures(np.eye(2)[np.arange(20) % 2][None], test, draw_weights(20, 10, seed=0), OF_STEPS) == {}


def test_whoever_measures_answers_in_one_call_may_name_their_steps() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 60)
    logits_NC = np.eye(3)[labels] + rng.normal(size=(60, 3))
    test = HeldOut(labels, np.arange(60), 3, steps=(2, 1, 0))
    expected = figures(logits_NC[None], test, draw_weights(60, 30, seed=0), OF_STEPS)
    found = measured(labels, logits_NC, range(60), OF_STEPS, steps=(2, 1, 0), num_resamples=30)
    assert {name: figure.value for name, figure in found.items()} == {n: f.value for n, f in expected.items()}
    assert measured(labels, logits_NC, range(60), OF_STEPS, num_resamples=30) == {}
