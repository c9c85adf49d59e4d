"""Weighted metrics against the plain ones, and intervals against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medclip.errors import MedclipError
from medclip.evaluation.few_shot.bootstrap import draw, estimate, spread
from medclip.statistics.metrics.weighted import HeldOut, ranked_scores, weighted_metrics
from medclip.statistics.resampling.simple_bootstrap import auroc, balanced_accuracy, macro_auroc


def made(seed: int, *, num_images: int = 40, num_classes: int = 3) -> tuple[HeldOut, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, num_images - num_classes)])
    patients = np.unique(rng.integers(0, num_images // 2, num_images), return_inverse=True)[1]
    logits = np.round(rng.normal(size=(2, num_images, num_classes)), 1).astype(np.float32)  # rounded: ties
    return HeldOut(targets.astype(np.int64), patients.astype(np.int64), num_classes), logits


@given(seed=st.integers(0, 200))
def test_weights_count_as_repeated_images_would(seed: int):
    test, logits = made(seed)
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 4, len(test.targets))
    rows = np.repeat(np.arange(len(test.targets)), weights)
    found = weighted_metrics(logits, test, np.stack([np.ones(len(weights)), weights], axis=1))
    for run in range(2):
        for column, chosen in ((0, np.arange(len(weights))), (1, rows)):
            y, s = test.targets[chosen], logits[run][chosen].astype(np.float64)
            p = ranked_scores(logits[run], False)[chosen]
            assert found["accuracy"][run, column] == pytest.approx((s.argmax(axis=1) == y).mean())
            assert found["balanced_accuracy"][run, column] == pytest.approx(balanced_accuracy(y, s))
            assert found["macro_auroc"][run, column] == pytest.approx(macro_auroc(y, p), abs=1e-9)


@given(seed=st.integers(0, 200))
def test_unknown_labels_of_multilabel_tasks_count_nowhere(seed: int):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, (60, 3)).astype(np.float32)
    targets[rng.random((60, 3)) < 0.2] = np.nan
    targets[:, 2] = np.nan  # nobody knows: left out
    logits = rng.normal(size=(1, 60, 3)).astype(np.float32)
    test = HeldOut(targets, np.arange(60), 3)
    assert test.measured() == (0, 1)
    found = weighted_metrics(logits, test, np.ones((60, 1)))
    areas, right, balanced = [], [], []
    for c in (0, 1):
        known = ~np.isnan(targets[:, c])
        y, s = targets[known, c] == 1, logits[0, known, c]
        areas.append(auroc(y, s))
        right.append(((s > 0) == y).mean())
        balanced.append((((s > 0) & y).sum() / y.sum() + ((s <= 0) & ~y).sum() / (~y).sum()) / 2)
    assert found["macro_auroc"][0, 0] == pytest.approx(np.mean(areas))
    assert found["accuracy"][0, 0] == pytest.approx(np.mean(right))
    assert found["balanced_accuracy"][0, 0] == pytest.approx(np.mean(balanced))


def test_a_class_without_enough_patients_on_a_side_is_left_out_of_multilabel_means():
    targets = np.zeros((20, 2), np.float32)
    targets[:10, 0] = 1
    targets[:2, 1] = 1
    assert HeldOut(targets, np.arange(20), 2).measured() == (0,)


def test_column_zero_is_the_sample_and_replicates_draw_whole_patients():
    test, _ = made(1)
    draws = draw(test, 5, 2, num_replicates=50)
    assert (draws.images_NB[:, 0] == 1).all()
    assert draws.images_NB.shape == (40, 51)
    for patient in range(test.num_patients):
        of_patient = draws.images_NB[test.patients == patient]
        assert (of_patient == of_patient[0]).all()
    np.testing.assert_allclose(draws.shots_SB.sum(axis=0), 1)
    np.testing.assert_allclose(draws.inits_IB.sum(axis=0), 1)


def test_the_same_seed_draws_the_same_replicates_and_every_replicate_has_every_class():
    test, _ = made(2, num_images=12, num_classes=4)
    one, two = (draw(test, 3, 1, num_replicates=300, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.images_NB, two.images_NB)
    assert one.num_redrawn > 0
    for c in range(4):
        assert (one.images_NB[test.targets == c].sum(axis=0) > 0).all()


def test_a_test_set_in_which_classes_are_hardly_ever_drawn_together_is_refused():
    test = HeldOut(np.arange(30), np.arange(30), 30)
    with pytest.raises(MedclipError, match="too few patients"):
        draw(test, 1, 1, num_replicates=100)


def test_one_seed_gives_an_interval_over_patients_and_equal_replicates_give_none():
    test, logits = made(3)
    draws = draw(test, 1, 1, num_replicates=200)
    values = weighted_metrics(logits[:1], test, draws.images_NB)["accuracy"][:, None, :]
    found = estimate(values, draws)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert estimate(np.ones_like(values), draws).low is None
    assert estimate(np.zeros_like(values), draws).p == 1.0


def test_more_spread_over_seeds_gives_a_wider_interval():
    test, _ = made(4)
    draws = draw(test, 5, 1, num_replicates=500)
    rng = np.random.default_rng(0)
    flat = 0.5 + 0.01 * rng.normal(size=501)
    steps = np.array([-0.1, -0.05, 0, 0.05, 0.1])[:, None, None]
    alike, apart = (estimate(scale * steps + flat, draws) for scale in (0.0, 1.0))
    assert apart.high is not None
    assert apart.low is not None
    assert alike.high is not None
    assert alike.low is not None
    assert apart.high - apart.low > 3 * (alike.high - alike.low)
    assert alike.value == apart.value


@pytest.mark.parametrize(("seed_sd", "num_seeds"), [(0.0, 5), (0.3, 5), (0.8, 5), (0.8, 3)])
def test_the_interval_of_a_paired_difference_covers(seed_sd: float, num_seeds: int):
    """Two methods with a known true difference: whatever varies more, shots or patients, about 95 in 100 cover it."""
    rng = np.random.default_rng(7)
    num_patients, trials, true = 60, 400, 0.1
    test = HeldOut(np.zeros(num_patients, np.int64), np.arange(num_patients), 1)
    covered = refused = 0
    for trial in range(trials):
        draws = draw(test, num_seeds, 1, num_replicates=300, seed=trial)
        shots = rng.normal(0, seed_sd / 4, num_seeds)
        hits = true + shots[:, None] + rng.normal(0, 0.4, num_patients) + rng.normal(0, 0.3, (num_seeds, num_patients))
        values = (hits @ draws.images_NB) / draws.images_NB.sum(axis=0)
        found = estimate(values[:, None, :], draws, bounds=(-1, 1))
        assert found.low is not None
        assert found.high is not None
        assert found.p is not None
        covered += found.low <= true <= found.high
        null = estimate(values[:, None, :] - true, draws, bounds=(-1, 1))
        assert null.p is not None
        refused += null.p <= 0.05
    assert 0.92 <= covered / trials <= 0.99
    assert refused / trials <= 0.07


def test_spread_keeps_shots_and_initialisations_apart():
    values = np.array([[0.1, 0.1], [0.3, 0.3]])
    assert spread(values) == (pytest.approx(0.1414, abs=1e-4), 0.0)
    assert spread(values.T) == (0.0, pytest.approx(0.1414, abs=1e-4))
    assert spread(values[:1, :1]) == (None, None)
