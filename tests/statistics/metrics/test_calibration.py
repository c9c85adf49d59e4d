from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from medclip.errors import MedclipError
from medclip.statistics.metrics.calibration import (
    bins_of,
    chosen_class,
    cooled,
    edges,
    logits,
    platt,
    temperature,
)


def drawn(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, n)
    return 1 / (1 + np.exp(-2.5 * z)), (rng.random(n) < 1 / (1 + np.exp(1 - z))).astype(float)


def calibration_error(probability: Any, outcome: Any, num_bins: int = 15) -> float:
    """Compute the expected calibration error over the bins that reliability curves have."""
    p, y = np.asarray(probability, np.float64), np.asarray(outcome, np.float64)
    return float(np.abs(np.bincount(bins_of(p, edges(num_bins)), p - y)).sum() / len(p))


@pytest.fixture(scope="module")
def held(golden: Path) -> dict[str, Any]:
    with np.load(golden / "calibration.npz", allow_pickle=False) as file:
        return {name: value if value.ndim else value.item() for name, value in file.items()}


@pytest.mark.golden
@pytest.mark.parametrize("name", ["platt", "platt_smoothed", "temp"])
def test_fitted_probabilities_equal_the_golden_ones(held: dict[str, Any], name: str) -> None:
    n, p, y = held["n_val"], held["bin_prob"], held["bin_y"]
    fit = {
        "platt": lambda: platt(p[:n], y[:n])(p[n:]),
        "platt_smoothed": lambda: platt(p[:n], y[:n], smoothed=True)(p[n:]),
        "temp": lambda: cooled(p[n:], temperature(logits(p[:n]), y[:n])),
    }[name]()
    np.testing.assert_allclose(fit, held[f"{name}_test"], atol=1e-5)
    assert calibration_error(held[f"{name}_test"], y[n:]) == pytest.approx(held[f"bin_{name}_ece15"], abs=1e-9)
    assert calibration_error(fit, y[n:]) == pytest.approx(held[f"bin_{name}_ece15"], abs=1e-5)
    assert brier_score_loss(y[n:], fit) == pytest.approx(held[f"bin_{name}_brier"], abs=1e-5)


@pytest.mark.golden
def test_slopes_intercepts_and_temperatures_equal_the_golden_ones(held: dict[str, Any]) -> None:
    n, p, y = held["n_val"], held["bin_prob"], held["bin_y"]
    fit, smooth, cox = platt(p[:n], y[:n]), platt(p[:n], y[:n], smoothed=True), platt(p[n:], y[n:])
    assert (fit.slope, fit.intercept) == pytest.approx((held["platt_slope"], held["platt_intercept"]), abs=1e-5)
    # scikit-learn writes 1 / (1 + exp(A·f + B)).
    assert (-smooth.slope, -smooth.intercept) == pytest.approx((held["platt_sk_A"], held["platt_sk_B"]), abs=1e-5)
    assert (cox.slope, cox.intercept) == pytest.approx((held["cox_slope_test"], held["cox_intercept_test"]), abs=1e-5)
    assert temperature(logits(p[:n]), y[:n]) == pytest.approx(held["T_binary"], abs=1e-5)
    assert calibration_error(p[n:], y[n:]) == pytest.approx(held["bin_raw_ece15"], abs=1e-9)
    assert calibration_error(p[n:], y[n:]) == pytest.approx(held["bin_raw_ece15_torchmetrics"], abs=1e-6)
    assert brier_score_loss(y[n:], p[n:]) == pytest.approx(held["bin_raw_brier"], abs=1e-9)


@pytest.mark.golden
def test_errors_of_several_classes_equal_the_golden_ones(held: dict[str, Any]) -> None:
    n, z, y = held["n_val"], held["logits"], held["y"]
    said, right = chosen_class(softmax(z, axis=1), y)
    for bins in (10, 15):
        error = calibration_error(said, right, num_bins=bins)
        assert error == pytest.approx(held[f"mc_ece{bins}_l1"], abs=1e-9)
        assert error == pytest.approx(held[f"mc_ece{bins}_l1_torchmetrics"], abs=1e-6)
    t = temperature(z[:n], y[:n])
    assert t == pytest.approx(held["T"], abs=1e-5)
    for part, rows in (("val", slice(n)), ("test", slice(n, None))):
        for name, by in (("T1", 1.0), ("T", t)):
            loss = log_loss(y[rows], softmax(z[rows] / by, axis=1), labels=np.arange(z.shape[1]))
            assert loss == pytest.approx(held[f"nll_{part}_{name}"], abs=1e-5)
    for name, by in (("T1", 1.0), ("T", t)):
        error = calibration_error(*chosen_class(softmax(z[n:] / by, axis=1), y[n:]))
        assert error == pytest.approx(held[f"ece15_test_{name}"], abs=1e-5)


@pytest.mark.golden
def test_the_error_of_everybody_in_the_fairness_table_is_ours(golden: Path) -> None:
    import pandas as pd

    rows, expected = pd.read_csv(golden / "fairness_input.csv"), pd.read_csv(golden / "fairness_expected.csv")
    value = expected[(expected.group == "ALL") & (expected.metric == "ece15_l1")]["value"].iloc[0]
    assert calibration_error(rows.score, rows.y) == pytest.approx(value, abs=1e-9)


@given(st.integers(0, 1000))
def test_platt_and_temperature_keep_the_order(seed: int) -> None:
    p, y = drawn(seed, 120)
    before = pytest.approx(roc_auc_score(y, p), abs=1e-12)  # the sum of its trapezoids may round another way
    assert roc_auc_score(y, cooled(p, temperature(logits(p), y))) == before
    if (fit := platt(p, y)).slope > 0:
        assert roc_auc_score(y, fit(p)) == before


def test_an_overconfident_score_is_toned_down_and_comes_out_right() -> None:
    p, y = drawn(0, 20_000)
    assert temperature(logits(p), y) > 1.5
    fit = platt(p, y)
    assert fit.slope == pytest.approx(1 / 2.5, abs=0.03)
    assert fit.intercept == pytest.approx(-1, abs=0.06)
    assert calibration_error(fit(p), y) < 0.015 < calibration_error(p, y)


def test_a_weight_of_two_is_the_row_twice() -> None:
    p, y = drawn(1, 200)
    w = np.random.default_rng(2).integers(1, 4, 200)
    many = np.repeat(p, w), np.repeat(y, w)
    for smoothed in (False, True):
        a, b = platt(p, y, smoothed=smoothed, weight=w.astype(float)), platt(*many, smoothed=smoothed)
        assert (a.slope, a.intercept) == pytest.approx((b.slope, b.intercept), abs=1e-6)
    assert temperature(logits(p), y, weight=w) == pytest.approx(temperature(logits(many[0]), many[1]), rel=1e-6)


def test_a_probability_on_an_edge_belongs_to_the_lower_bin() -> None:
    # In one bin with .15 the two cancel out; apart they would not.
    assert calibration_error([0.2, 0.0], [0, 1], num_bins=5) == pytest.approx(0.4)
    for bins in (5, 10, 15, 20):
        for k in range(1, bins):
            below = calibration_error([k / bins, k / bins - 1e-4], [1, 0], num_bins=bins)
            assert below == pytest.approx(abs((2 * k / bins - 1e-4) / 2 - 0.5))


def test_one_class_or_a_score_without_a_mistake_is_refused_in_a_sentence() -> None:
    for fit in (platt, lambda p, y: temperature(logits(p), y)):
        with pytest.raises(MedclipError, match="one class only"):
            fit([0.1, 0.2], [1, 1])
    with pytest.raises(MedclipError, match="without a mistake"):
        platt([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
    assert 0 < platt([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], smoothed=True).slope < 3
    assert np.isfinite(platt([0.0, 1.0, 0.0, 1.0], [0, 1, 1, 0], smoothed=True)([0.0, 1.0])).all()


def test_scores_that_are_all_the_same_give_the_prevalence() -> None:
    y = np.repeat([0, 1], [30, 10])
    np.testing.assert_allclose(platt(np.full(40, 0.9), y)([0.9]), 0.25, atol=1e-6)
