"""Shares, means of shares and differences: intervals hold their figure, cover, and are never of no width."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.statistics.estimate import Difference, Estimate
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import (
    Resampled,
    change,
    combination,
    difference,
    interval_of,
    mean,
    share,
)


def resampled(value: float = 0.8, spread: float = 0.05, *, seed: int = 0, runs=None) -> Resampled:
    drawn_B = value + np.random.default_rng(seed).normal(0, spread, 400)
    return mean([share(value, drawn_B, cases=60, patients=30)], runs)


def test_a_rate_without_an_error_has_the_lower_end_of_as_many_patients() -> None:
    """Each of 20 patients with 4 rows: as 20 independent cases, not as 80; Clopper and Pearson's end is .832."""
    alone = share(1.0, np.ones(100), cases=20, patients=20)
    alike = share(1.0, np.ones(100), cases=80, patients=20)
    assert interval_of(alone) == interval_of(alike)
    assert interval_of(alone).low == pytest.approx(0.832, abs=0.03)
    assert interval_of(alone).high == 1


def test_one_patient_tells_nothing_of_others() -> None:
    assert not interval_of(share(0.8, np.full(100, 0.8), cases=50, patients=1)).has_interval
    assert not interval_of(share(0.8, np.full(100, np.nan), cases=50, patients=20)).has_interval


def test_a_mean_of_equal_shares_of_other_patients_varies_less_than_one_of_them() -> None:
    parts = [resampled(seed=n) for n in range(4)]
    whole = mean(parts)
    assert whole.variance < 0.4 * parts[0].variance
    assert whole.df > parts[0].df
    assert mean(parts[:1]).variance == parts[0].variance


def test_a_mean_over_the_same_patients_knows_no_more_of_its_variance() -> None:
    parts = [resampled(seed=n) for n in range(4)]
    assert mean(parts, same_patients=True).df == parts[0].df


def test_where_resamples_are_undefined_the_others_stand_for_them() -> None:
    drawn_B = np.random.default_rng(0).normal(0.8, 0.05, 1000)
    with_gaps = np.where(np.arange(1000) % 20 == 0, np.nan, drawn_B)
    figure = share(0.8, with_gaps, cases=60, patients=30)
    assert not np.isnan(figure.drawn_B).any()
    assert figure.drawn_B.var(ddof=1) == pytest.approx(np.nanvar(with_gaps, ddof=1), rel=2e-3)


def test_more_spread_over_draws_of_shots_gives_a_wider_interval() -> None:
    steps = np.array([-0.2, -0.1, 0, 0.1, 0.2])[:, None]
    alike, apart = (interval_of(resampled(runs=0.8 + scale * steps)) for scale in (0.0, 1.0))
    assert apart.high - apart.low > 1.3 * (alike.high - alike.low)
    assert interval_of(resampled()) == alike


def test_initialisations_count_beside_draws_of_shots() -> None:
    grid = 0.8 + np.array([[-0.1, 0.1], [-0.1, 0.1], [-0.1, 0.1]])
    only_shots = interval_of(resampled(runs=np.repeat(grid.mean(axis=1, keepdims=True), 2, axis=1)))
    both = interval_of(resampled(runs=grid))
    assert both.low < only_shots.low


def test_two_perfect_models_are_not_known_to_be_equal() -> None:
    perfect = share(1.0, np.ones(200), cases=20, patients=20)
    apart = difference(perfect, perfect)
    assert (apart.value, apart.p) == (0, 1)
    assert apart.low < 0 < apart.high


def test_a_difference_is_paired_and_stays_between_minus_one_and_one() -> None:
    one = resampled()
    other = combination(0.9, one.drawn_B + 0.1, [one], [1.0])
    apart = difference(one, other)
    assert apart.value == pytest.approx(0.1)
    assert apart.standard_error < 0.02
    assert apart.p < 0.001
    bad, good = (share(v, np.full(200, v), cases=6, patients=3) for v in (0.0, 1.0))
    assert difference(bad, good).high == 1


@pytest.mark.parametrize(("seed_sd", "num_seeds"), [(0.0, 5), (0.3, 5), (0.8, 5), (0.8, 3)])
def test_the_interval_of_a_difference_over_draws_of_shots_covers(seed_sd: float, num_seeds: int) -> None:
    """Two methods with a known true difference: whatever varies more, shots or patients, about 95 in 100 cover it."""
    rng = np.random.default_rng(7)
    num_patients, trials, true = 60, 400, 0.1
    covered = refused = 0
    for _ in range(trials):
        weights_BP = rng.multinomial(num_patients, np.full(num_patients, 1 / num_patients), size=300)
        shots = rng.normal(0, seed_sd / 4, num_seeds)
        hits = true + shots[:, None] + rng.normal(0, 0.4, num_patients) + rng.normal(0, 0.3, (num_seeds, num_patients))
        drawn_B = weights_BP @ hits.mean(axis=0) / num_patients
        variance = float(drawn_B.var(ddof=1)) * num_patients / (num_patients - 1)
        nothing = Resampled(0.0, np.zeros(300), 0.0, 0.0, num_patients - 1, np.zeros((num_seeds, 1)))
        runs_SI = hits.mean(axis=1)[:, None]
        figure = Resampled(float(hits.mean()), drawn_B, variance, 0.0, num_patients - 1, runs_SI)
        covered += difference(nothing, figure).low <= true <= difference(nothing, figure).high
        null = Resampled(figure.value - true, drawn_B - true, variance, 0.0, num_patients - 1, runs_SI - true)
        refused += difference(nothing, null).p <= 0.05
    assert 0.92 <= covered / trials <= 0.99
    assert refused / trials <= 0.07


@pytest.mark.parametrize("init_sd", [0.1, 0.3])
def test_the_interval_covers_where_initialisations_vary(init_sd: float) -> None:
    rng = np.random.default_rng(11)
    trials, true, covered = 300, 0.5, 0
    for _ in range(trials):
        shots, inits = rng.normal(0, 0.05, (3, 1)), rng.normal(0, init_sd, (1, 4))
        hits = (true + shots + inits)[:, :, None] + rng.normal(0, 0.4, 60) + rng.normal(0, 0.3, (3, 4, 60))
        drawn_B = rng.multinomial(60, np.full(60, 1 / 60), size=200) @ hits.mean(axis=(0, 1)) / 60
        variance = float(drawn_B.var(ddof=1)) * 60 / 59
        found = interval_of(Resampled(float(hits.mean()), drawn_B, variance, 0.0, 59.0, hits.mean(axis=2)))
        covered += found.low <= true <= found.high
    assert 0.91 <= covered / trials <= 0.995


def test_a_figure_of_no_resample_has_no_interval() -> None:
    assert not interval_of(Resampled(0.5, np.full(10, 0.5), 0.0, 0.0, 9.0)).has_interval


def test_the_interval_of_a_change_leaves_out_zero_just_when_p_is_below_5_percent() -> None:
    rng = np.random.default_rng(1)
    for value in np.linspace(-3, 3, 25):
        found = change(float(value), value + rng.normal(0, 1, 400), 20)
        assert (found.p < 0.05) == (found.above_zero or found.below_zero)
        assert found.low < value < found.high


def test_the_mean_of_normal_values_is_covered_as_often_as_promised() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        value = rng.normal(size=12)
        draws = rng.multinomial(12, np.full(12, 1 / 12), 200)
        found = change(float(value.mean()), draws @ value / 12, 12)
        hits += found.low <= 0 <= found.high
    assert 0.92 <= hits / 300 <= 0.98


def test_where_nothing_is_known_there_is_no_interval_and_no_p() -> None:
    for drawn in (np.full(10, np.nan), np.array([1.0] * 8 + [np.nan] * 2), np.zeros(0)):
        found = change(0.1, drawn, 10)
        assert np.isnan([found.low, found.high, found.p]).all()
    assert str(change(0.1, np.full(5, np.nan), 10)) == "0.10 (no interval)"
    assert change(0.1, np.full(20, 0.1), 10, least=0.01).high == pytest.approx(0.1 + 2.262 * 0.1, abs=1e-3)


def test_a_change_without_any_spread_has_no_interval_and_the_least_p_of_counting() -> None:
    assert change(0.0, np.zeros(20), 10).p == 1
    found = change(0.5, np.full(39, 0.5), 10)
    assert found.p == pytest.approx(0.05)
    assert not found.has_interval


def test_estimates_say_themselves_in_words() -> None:
    assert str(Estimate(0.141, 0.1, 0.18)) == "0.14 (95 % interval 0.10 to 0.18)"
    assert str(Difference(-0.2, -0.3, -0.001)) == "−0.20 (95 % interval −0.30 to 0.00)"
    assert Estimate(0.5).has_interval is False


def test_the_row_order_within_patients_and_their_names_change_nothing() -> None:
    rng = np.random.default_rng(3)
    labels, patients = rng.integers(0, 2, 60), np.repeat(np.arange(20), 3)
    scores = rng.normal(size=60) + labels
    one, other = (
        interval_of(measured(labels, scores, names, ["auroc"])["auroc"])
        for names in (patients.tolist(), [f"patient {99 - p}" for p in patients])
    )
    assert one == other


def test_the_mean_of_one_figure_over_the_same_patients_keeps_its_interval() -> None:
    """Zero-shot is the same at every K: its mean over K is no surer than it."""
    alone = share(1.0, np.ones(100), cases=20, patients=20)
    spread = resampled(0.6)
    for figure in (alone, spread):
        both = interval_of(mean([figure, figure], same_patients=True))
        assert (both.low, both.high) == pytest.approx((interval_of(figure).low, interval_of(figure).high), abs=1e-12)
