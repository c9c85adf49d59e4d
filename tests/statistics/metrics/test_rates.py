from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.statistics.metrics.rates import mass_bins, ratio, width_bins
from medclip.statistics.resampling.bootstrap import evaluate
from tests.kits.bootstrap import cohort_of


def test_a_probability_on_an_edge_belongs_to_the_lower_bin() -> None:
    edges = [k / 15 for k in range(16)]
    assert width_bins(np.array(edges)).tolist() == [0, *range(15)]
    assert width_bins(np.array([0.2, 0.2000001, 0.6, 0.6000001])).tolist() == [2, 3, 8, 9]


@given(st.lists(st.floats(0, 1), max_size=80))
def test_bins_of_equal_mass_keep_equal_scores_together_and_in_order(scores: list[float]) -> None:
    values = np.array(scores)
    bins = mass_bins(values)
    assert len(bins) == len(values)
    order = np.argsort(values)
    assert (np.diff(bins[order]) >= 0).all()
    for score in set(scores):
        assert len(set(bins[values == score])) == 1


def test_bins_of_equal_mass_hold_a_fifteenth_each_without_ties() -> None:
    assert np.bincount(mass_bins(np.random.default_rng(0).random(150))).tolist() == [10] * 15


def test_the_edges_of_equal_mass_are_the_same_for_each_group() -> None:
    # one group has all low scores: its rows fill the lower bins of the whole sample, not bins of its own
    score = np.r_[np.linspace(0.01, 0.15, 15), np.linspace(0.5, 0.64, 15)]
    truth = np.zeros(30)
    cohort, label = cohort_of(score, truth, groups={"g": ["a"] * 15 + ["b"] * 15})
    point = evaluate(cohort, label, np.ones((30, 1), np.uint8), metrics=["ece_mass"]).point
    assert point["ece_mass"][1:].tolist() == pytest.approx([score[:15].mean(), score[15:].mean()])


def test_an_empty_denominator_gives_no_number() -> None:
    found = ratio(np.array([0.0, 1.0]), np.array([0.0, 4.0]))
    assert np.isnan(found[0])
    assert found[1] == 0.25


def test_net_benefit_of_the_specification() -> None:
    truth, called = [1] * 3 + [0] * 7, [1] * 3 + [1] * 2 + [0] * 5
    cohort, label = cohort_of(called, truth)
    once = np.ones((10, 1), np.uint8)
    assert evaluate(cohort, label, once, threshold=0.2).point["net_benefit"][0] == pytest.approx(0.25)
    everybody, same = cohort_of(np.ones(10), truth)
    assert evaluate(everybody, same, once, threshold=0.3).point["net_benefit"][0] == pytest.approx(0, abs=1e-15)
    assert np.isnan(evaluate(cohort, label, once, threshold=1.0).point["net_benefit"][0])


def test_what_is_measured_together_and_of_crossed_attributes_is_what_each_gives_alone() -> None:
    rng = np.random.default_rng(4)
    score, truth = rng.random(300), rng.integers(0, 2, 300)
    groups = {
        "view": rng.choice(["a", "b", "c"], 300),
        "sex": rng.choice(["F", "M"], 300),
        "site": rng.choice([*"xyz"], 300),
    }
    names = ["ece", "ece_mass", "brier", "tpr"]
    once = np.ones((300, 1), np.uint8)
    together = evaluate(*cohort_of(score, truth, groups=groups), once, threshold=0.4, metrics=names).point
    cells = [np.ones(300, bool), *(groups[g] == v for g in groups for v in np.unique(groups[g]))]
    for name in names:
        alone = evaluate(*cohort_of(score, truth, groups=groups), once, threshold=0.4, metrics=[name]).point[name]
        np.testing.assert_allclose(together[name], alone, atol=1e-12)
    for cell, rows in enumerate(cells):
        assert together["brier"][cell] == pytest.approx(((score - truth)[rows] ** 2).mean())
        assert together["tpr"][cell] == pytest.approx((score >= 0.4)[rows & (truth == 1)].mean())
