"""Intervals from replicates against the golden file, and of proportions against statsmodels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student
from statsmodels.stats.proportion import proportion_confint

from medclip.statistics.resampling.bootstrap import Replicates, evaluate
from medclip.statistics.resampling.intervals import (
    distance_interval,
    least_ratio,
    of,
    percentile,
    share_interval,
    symmetric_interval,
    value_of,
    wilson,
)
from medclip.statistics.resampling.standard_errors import Clusters, StandardErrors, clusters_of
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.audit_inference import cohort_of, index_weights


@pytest.mark.golden
def test_golden_bootstrap_intervals_of_an_auroc(golden: Path):
    d = np.load(golden / "multitest_bootstrap.npz", allow_pickle=False)
    cohort = cohort_of(d["y"], d["score"], probability=False)
    label, num = cohort.labels[0], cohort.num_patients
    found = evaluate(cohort, label, index_weights(d["boot_idx"], num), metrics=["auroc"])
    drawn_B = found.drawn["auroc"][0]
    np.testing.assert_allclose(drawn_B, d["boot_auroc"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(percentile(drawn_B), d["percentile95"], rtol=0, atol=1e-10)


@pytest.mark.golden
def test_golden_interval_of_a_gap(golden: Path):
    d = np.load(golden / "multitest_bootstrap.npz", allow_pickle=False)
    cohort = cohort_of(d["y"], d["score"], probability=False, sex=d["group"])
    weights = index_weights(d["boot_idx_MF"], cohort.num_patients)
    drawn_GB = evaluate(cohort, cohort.labels[0], weights, metrics=["auroc"]).drawn["auroc"]
    groups = cohort.attributes[0].groups
    gap_B = drawn_GB[1 + groups.index("M")] - drawn_GB[1 + groups.index("F")]
    np.testing.assert_allclose(gap_B, d["boot_gap_M_minus_F"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(percentile(gap_B), d["gap_percentile95"], rtol=0, atol=1e-10)


@settings(max_examples=50)
@given(n=st.integers(1, 300), data=st.data(), level=st.sampled_from([0.9, 0.95, 0.99]))
def test_proportions_agree_with_statsmodels(n: int, data: st.DataObject, level: float):
    s = data.draw(st.integers(0, n))
    ours = tuple(map(float, wilson(s / n, n, norm.isf((1 - level) / 2))))
    np.testing.assert_allclose(ours, proportion_confint(s, n, alpha=1 - level, method="wilson"), rtol=0, atol=1e-12)


def test_undefined_replicates_are_left_out_up_to_a_tenth():
    drawn = np.r_[np.linspace(0, 1, 90), np.full(10, np.nan)]
    assert percentile(drawn) == pytest.approx((0.025, 0.975))
    assert np.isnan(percentile(np.r_[drawn, np.nan])).all()
    assert np.isnan(percentile([])).all()


def drawn_cohort(seed: int = 0, patients: int = 60, flip: float = 0.2):
    rng = np.random.default_rng(seed)
    keys = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    truth = rng.random(len(keys)) < 0.4
    score = np.clip(0.3 + 0.4 * (truth ^ (rng.random(len(keys)) < flip)) + rng.normal(0, 0.08, len(keys)), 0, 1)
    cohort = cohort_of(truth, score, patients=keys, sex=np.where(keys % 3, "F", "M"))
    weights = draw_weights(patients, 400, seed=seed)
    return evaluate(cohort, cohort.labels[0], weights, threshold=0.5), clusters_of(cohort, cohort.labels[0])


def test_every_metric_has_an_interval_that_holds_its_point():
    replicates, clusters = drawn_cohort()
    for metric in replicates.point:
        low_G, high_G, undefined_G = of(replicates, metric, clusters)
        known = ~np.isnan(low_G)
        assert (low_G[known] <= high_G[known]).all()
        assert (undefined_G[known] <= 0.1).all()
        assert known[1:].all(), metric  # cell 0 has no background
        value_G = value_of(replicates, metric)[known]
        assert (low_G[known] < value_G + (metric in ("ece", "ece_mass"))).all(), metric
        assert (value_G <= high_G[known]).all(), metric


def test_what_is_perfect_in_the_sample_still_has_a_lower_end():
    replicates, clusters = drawn_cohort(flip=0.0)
    for metric in ("auroc", "auprc", "auprc_adjusted", "tpr", "ppv", "accuracy"):
        assert (replicates.point[metric] == 1).all()
        assert np.ptp(replicates.drawn[metric]) == 0
        low_G, high_G, _ = of(replicates, metric, clusters)
        assert (low_G < 0.99).all()
        assert (low_G > 0.5).all()
        assert (high_G == 1).all()
        assert low_G[0] > low_G[2]  # more patients, surer
    low_G, high_G, _ = of(replicates, "fpr", clusters)
    assert (low_G == 0).all()
    assert (high_G > 0.01).all()


def test_the_default_is_wilsons_interval_with_independent_rows_and_many_patients():
    rng = np.random.default_rng(3)
    truth = np.repeat([0, 1], 2000)
    cohort = cohort_of(truth, (rng.random(4000) < 0.2 + 0.5 * truth).astype(float))
    replicates = evaluate(cohort, cohort.labels[0], draw_weights(4000, 2000, seed=0), threshold=0.5)
    low_G, high_G, _ = of(replicates, "tpr", clusters_of(cohort, cohort.labels[0]))
    rate = float(replicates.point["tpr"][0])
    np.testing.assert_allclose([low_G[0], high_G[0]], wilson(rate, 2000, 1.96), atol=0.0015)


def test_a_metric_that_is_undefined_has_no_interval():
    cohort = cohort_of([1, 0, 1, 0, 0, 0], [0.8, 0.2, 0.7, 0.4, 0.1, 0.2], sex=list("FFFFMM"))
    replicates = evaluate(cohort, cohort.labels[0], draw_weights(6, 200, seed=0), threshold=0.5)
    low_G, high_G, undefined_G = of(replicates, "tpr", clusters_of(cohort, cohort.labels[0]))
    assert np.isnan(low_G[2])
    assert np.isnan(high_G[2])
    assert undefined_G[2] == 1


def _korn_and_graubard(rate: float, variance: float, df: float) -> tuple[float, float]:
    """Wilson's interval at n = rate (1 - rate) / variance cases, with Student's t for z; solved as its quadratic."""
    n, t = rate * (1 - rate) / variance, student.ppf(0.975, df)
    low, high = np.sort(np.roots([1 + t * t / n, -(2 * rate + t * t / n), rate * rate]).real)
    return float(low), float(high)


@pytest.mark.parametrize(("rate", "variance", "df"), [(0.8, 0.004, 19), (0.95, 0.0009, 39), (0.3, 0.02, 7.5)])
def test_the_rule_of_shares_is_wilsons_at_the_effective_size_with_students_t(rate: float, variance: float, df: float):
    one = np.ones(1)
    low, high = share_interval(rate * one, variance * one, variance * one, df * one)
    assert (low[0], high[0]) == pytest.approx(_korn_and_graubard(rate, variance, df), abs=1e-12)


def test_what_chance_adds_to_a_calibration_error_is_taken_off():
    """A calibrated model: the plain error is 0.06 on average with 100 patients, and 0.12 with 20."""
    plain, corrected = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        score = rng.beta(1, 3, 150)
        cohort = cohort_of(rng.random(150) < score, score)
        replicates = evaluate(cohort, cohort.labels[0], draw_weights(150, 100, seed=seed), metrics=["ece"])
        plain.append(replicates.point["ece"][0])
        corrected.append(value_of(replicates, "ece")[0])
        low_G, high_G, _ = of(replicates, "ece", clusters_of(cohort, cohort.labels[0]))
        assert low_G[0] <= corrected[-1] <= high_G[0]
    assert np.mean(plain) > 0.07
    assert np.mean(corrected) < 0.45 * np.mean(plain)


def test_a_calibration_error_that_is_large_keeps_its_value_and_one_without_resamples_has_none():
    rng = np.random.default_rng(0)
    cohort = cohort_of(rng.random(3000) < 0.2, np.full(3000, 0.6))
    replicates = evaluate(cohort, cohort.labels[0], draw_weights(3000, 100, seed=0), metrics=["ece", "auroc"])
    assert value_of(replicates, "ece")[0] == pytest.approx(replicates.point["ece"][0], abs=0.001)
    assert value_of(replicates, "auroc") is replicates.point["auroc"]
    alone = evaluate(cohort, cohort.labels[0], np.ones((3000, 0), np.uint8), metrics=["ece"])
    assert np.isnan(value_of(alone, "ece")).all()


def test_the_interval_of_observed_over_expected_is_that_of_its_logarithm():
    rng = np.random.default_rng(1)
    score = rng.beta(2, 8, 4000)
    cohort = cohort_of(rng.random(4000) < 0.7 * score, score)
    replicates = evaluate(cohort, cohort.labels[0], draw_weights(4000, 400, seed=0), metrics=["observed_expected"])
    low_G, high_G, _ = of(replicates, "observed_expected", clusters_of(cohort, cohort.labels[0]))
    value = replicates.point["observed_expected"][0]
    assert value == pytest.approx(0.7, abs=0.06)
    assert np.sqrt(low_G[0] * high_G[0]) == pytest.approx(value)
    truth_N = cohort.labels[0].truth_N
    error = (truth_N - value * score).std() / np.sqrt(4000) / truth_N.mean()  # of a ratio of means, delta method
    assert np.log(high_G[0] / value) == pytest.approx(1.96 * error, rel=0.1)


def test_a_calibration_error_that_chance_explains_has_an_interval_from_0_on():
    spread_B = np.linspace(-0.05, 0.05, 401)
    drawn_GB = np.stack([0.2 + spread_B, 0.31 + spread_B])  # with 0.1 in the sample, and with 0.3
    many_G = np.full(2, 10**6)
    replicates = Replicates({"ece": np.array([0.1, 0.3])}, {"ece": drawn_GB}, many_G, many_G, many_G, many_G)
    low_G, high_G, _ = distance_interval(replicates, "ece", Clusters(many_G, many_G, many_G, False))
    assert (low_G[0], high_G[0]) == (0, 0.1)  # resamples are twice as far off as the sample, in squares
    squares_B = drawn_GB[1] ** 2
    ends = 0.18 - squares_B.mean() + 1.959964 * squares_B.std(ddof=1) * np.array([-1, 1])
    assert (low_G[1], high_G[1]) == pytest.approx(tuple(np.sqrt(ends)), abs=1e-5)


def test_a_ratio_of_rates_has_the_ends_of_donner_and_zou_and_its_inverse_the_inverse_ones():
    one, low, high = 0.3, 0.2, 0.42
    other, other_low, other_high = 0.5, 0.4, 0.6
    product = one * other
    lower = product - np.sqrt(product**2 - low * other_high * (2 * one - low) * (2 * other - other_high))
    upper = product + np.sqrt(product**2 - high * other_low * (2 * one - high) * (2 * other - other_low))
    least = float(least_ratio(*np.array([[one], [low], [other], [other_high]]))[0])
    most = 1 / float(least_ratio(*np.array([[other], [other_low], [one], [high]]))[0])
    assert least == pytest.approx(lower / (other_high * (2 * other - other_high)))
    assert most == pytest.approx(upper / (other_low * (2 * other - other_low)))
    assert least_ratio(*np.array([[0.0], [0.0], [0.5], [0.6]])) == 0
    assert np.isnan(least_ratio(*np.array([[0.3], [np.nan], [0.5], [0.6]])))


def test_a_symmetric_interval_has_students_quantile_of_the_patients_and_no_ends_without_a_variance() -> None:
    three = np.array([1.2, 0.4, 0.4])
    errors = StandardErrors(np.array([0.04, 0.0, np.nan]), three, np.array([4.0, 9.0, 9.0]), three, three, None)
    low, high = symmetric_interval(three, errors)
    assert [low[0], high[0]] == pytest.approx([1.2 - student.ppf(0.975, 4) * 0.2, 1.2 + student.ppf(0.975, 4) * 0.2])
    assert np.isnan([low[1:], high[1:]]).all()


def test_the_ends_of_the_adjusted_area_are_those_of_the_area_at_the_samples_prevalence():
    replicates, clusters = drawn_cohort(flip=0.2)
    base_G = replicates.n_pos_G / replicates.n_G
    adjusted = {"auprc_adjusted": 1 - np.log(replicates.point["auprc"]) / np.log(base_G)}
    drawn = {"auprc_adjusted": 1 - np.log(replicates.drawn["auprc"]) / np.log(base_G)[:, None]}
    ends = of(replace(replicates, point=adjusted, drawn=drawn), "auprc_adjusted", clusters)[:2]
    for end_G, area_G in zip(ends, of(replicates, "auprc", clusters)[:2], strict=True):
        np.testing.assert_allclose(end_G, 1 - np.log(area_G) / np.log(base_G), atol=1e-9)
