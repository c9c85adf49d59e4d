from __future__ import annotations

import numpy as np
import pytest

from medclip.statistics.resampling.clustered_mean import estimate, means
from tests.kits.shortcuts import bootstrap, chests


def test_means_in_every_resample_are_those_of_the_repeated_rows() -> None:
    cohort = chests(0, num_patients=30)
    draws = bootstrap(cohort, 10)
    rng = np.random.default_rng(0)
    value, weight = rng.normal(size=len(cohort.patients_N)), rng.random(len(cohort.patients_N))
    some, none = rng.random(len(value)) < 0.5, np.zeros(len(value), bool)
    point, drawn = means(cohort.patients_N, draws, [(some, value), (~some, value**2), (none, value)], weight)
    assert point[0] == pytest.approx(np.average(value[some], weights=weight[some]))
    for b in range(10):
        times = weight * draws[cohort.patients_N, b]
        assert drawn[0, b] == pytest.approx(np.average(value[some], weights=times[some]))
        assert drawn[1, b] == pytest.approx(np.average(value[~some] ** 2, weights=times[~some]))
    assert np.isnan(point[2])
    assert np.isnan(drawn[2]).all()


def test_an_interval_leaves_out_zero_just_when_p_is_below_5_percent() -> None:
    rng = np.random.default_rng(1)
    for value in np.linspace(-3, 3, 25):
        found = estimate(float(value), value + rng.normal(0, 1, 400), 20)
        assert (found.p < 0.05) == (found.above_zero or found.below_zero)
        assert found.low < value < found.high


def test_the_mean_of_normal_values_is_covered_as_often_as_promised() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        value = rng.normal(size=12)
        draws = rng.multinomial(12, np.full(12, 1 / 12), 200)
        found = estimate(float(value.mean()), draws @ value / 12, 12)
        hits += found.low <= 0 <= found.high
    assert 0.92 <= hits / 300 <= 0.98


def test_where_nothing_is_known_there_is_no_interval_and_no_p() -> None:
    for drawn in (np.full(10, np.nan), np.array([1.0] * 8 + [np.nan] * 2), np.zeros(0)):
        found = estimate(0.1, drawn, 10)
        assert np.isnan([found.low, found.high, found.p]).all()
    assert str(estimate(0.1, np.full(5, np.nan), 10)) == "0.10 (no interval)"
    assert estimate(0.0, np.zeros(20), 10).p == 1
    assert estimate(0.1, np.full(20, 0.1), 10, least_variance=0.01).high == pytest.approx(0.1 + 2.262 * 0.1, abs=1e-3)
    assert estimate(0.5, np.full(39, 0.5), 10).p == pytest.approx(0.05)
