"""Shrunk rates: towards the mean, by how little a group knows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError
from medclip.statistics.metrics.shrinkage import beta_binomial


def test_small_groups_move_more_than_large_ones():
    found = beta_binomial([4, 400, 40], [5, 500, 100])
    assert 0.4 < found.rate_G[0] < 0.8
    assert found.rate_G[1] == pytest.approx(0.8, abs=0.02)
    assert found.low_G[0] < 0.55 < found.high_G[0]
    assert (found.high_G - found.low_G)[0] > (found.high_G - found.low_G)[1]


def test_groups_that_do_not_differ_beyond_chance_are_drawn_together():
    rng = np.random.default_rng(0)
    totals = np.full(40, 30)
    successes = rng.binomial(totals, 0.7)
    found = beta_binomial(successes, totals)
    assert np.ptp(successes / totals) > 0.3
    assert np.ptp(found.rate_G) < 0.13
    assert found.prior_mean == pytest.approx(0.7, abs=0.04)


def test_the_prior_is_recovered_and_intervals_hold_the_true_rates():
    rng = np.random.default_rng(1)
    true, totals = rng.beta(16, 4, 400), rng.integers(5, 60, 400)
    found = beta_binomial(rng.binomial(totals, true), totals)
    assert found.prior_mean == pytest.approx(0.8, abs=0.02)
    assert 12 < found.prior_cases < 32
    held = ((found.low_G <= true) & (true <= found.high_G)).mean()
    assert held == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 400))
    raw = rng.binomial(totals, true) / totals
    assert np.mean((found.rate_G - true) ** 2) < np.mean((raw - true) ** 2)


def test_a_group_without_cases_has_no_rate_and_a_single_group_keeps_a_flat_prior():
    found = beta_binomial([0, 3, 8], [0, 6, 10])
    assert np.isnan(found.rate_G[0])
    assert not np.isnan(found.rate_G[1:]).any()
    assert beta_binomial([3], [6]).rate_G[0] == pytest.approx(0.5)
    assert beta_binomial([9], [10]).rate_G[0] == pytest.approx(10 / 12)


def test_all_found_everywhere_is_not_certainty():
    found = beta_binomial([5, 8, 12], [5, 8, 12])
    assert (found.rate_G < 1).all()
    assert (found.low_G < 0.97).all()


def test_a_design_effect_widens_the_intervals():
    counts = [40, 60, 20], [50, 100, 60]
    plain, clustered = beta_binomial(*counts), beta_binomial(*counts, design_effect=4)
    assert (clustered.high_G - clustered.low_G > plain.high_G - plain.low_G).all()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12))
def test_rates_and_intervals_are_ordered_and_within_bounds(pairs: list[tuple[int, int]]):
    successes, totals = np.array([(min(p), max(p)) for p in pairs]).T
    found = beta_binomial(successes, totals)
    some = totals > 0
    assert (found.low_G[some] <= found.rate_G[some]).all()
    assert (found.rate_G[some] <= found.high_G[some]).all()
    assert (found.low_G[some] >= 0).all()
    assert (found.high_G[some] <= 1).all()


@pytest.mark.parametrize(("s", "n"), [([3], [2]), ([-1], [2]), ([1, 2], [3])])
def test_impossible_counts_are_refused(s: list[int], n: list[int]):
    with pytest.raises(MedclipError, match="between 0 and its cases"):
        beta_binomial(s, n)
    with pytest.raises(MedclipError, match="design effect"):
        beta_binomial([1], [2], design_effect=0.5)
