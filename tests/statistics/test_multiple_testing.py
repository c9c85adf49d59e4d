"""Adjusted p-values against statsmodels, the golden file and their own laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from medclip.errors import MedclipError
from medclip.statistics.significance import benjamini_hochberg, holm, step_down

METHODS = {"holm": holm, "fdr_bh": benjamini_hochberg}


@pytest.mark.parametrize(
    ("p", "by_holm", "by_bh"),
    [
        ((0.01, 0.04, 0.03), (0.03, 0.06, 0.06), (0.03, 0.04, 0.04)),
        ((0.01, 0.04, 0.03, 0.005), (0.03, 0.06, 0.06, 0.02), (0.02, 0.04, 0.04, 0.02)),
    ],
)
def test_the_examples_of_the_specs(p: tuple[float, ...], by_holm: tuple[float, ...], by_bh: tuple[float, ...]):
    np.testing.assert_allclose(holm(p), by_holm, atol=1e-12)
    np.testing.assert_allclose(benjamini_hochberg(p), by_bh, atol=1e-12)


@pytest.mark.golden
@pytest.mark.parametrize("name", METHODS)
def test_golden_adjusted_p_values(golden: Path, name: str):
    data = np.load(golden / "multitest_bootstrap.npz", allow_pickle=False)
    adjusted = METHODS[name](data["p_values"])
    np.testing.assert_allclose(adjusted, data[f"{name}_adjusted"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(adjusted <= 0.05, data[f"{name}_reject"])


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)  # of holm statsmodels collects garbage: half a second among all other tests
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_each_method_agrees_with_statsmodels(name: str, p: list[float]):
    np.testing.assert_allclose(METHODS[name](p), multipletests(p, method=name)[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS.values())
@given(p=st.lists(st.floats(0, 1), min_size=2, max_size=20), seed=st.integers(0, 99))
def test_order_does_not_matter_and_nothing_gets_smaller(method, p: list[float], seed: int):
    order = np.random.default_rng(seed).permutation(len(p))
    adjusted = method(p)
    np.testing.assert_allclose(method(np.array(p)[order]), adjusted[order], atol=1e-15)
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= 1).all()


@pytest.mark.parametrize("method", METHODS.values())
def test_what_was_not_computed_stays_nan_and_does_not_count(method):
    with_gaps = method([np.nan, 0.01, 0.04, np.nan, 0.03])
    assert np.isnan(with_gaps[[0, 3]]).all()
    np.testing.assert_allclose(with_gaps[[1, 2, 4]], method([0.01, 0.04, 0.03]))
    assert np.isnan(method([np.nan])).all()
    assert len(method([])) == 0


@pytest.mark.parametrize("p", [[-0.1], [0.2, 1.1]])
def test_an_impossible_p_value_is_refused(p: list[float]):
    with pytest.raises(MedclipError, match="outside 0 to 1"):
        holm(p)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_step_down_adjusts_by_at_least_p_and_never_by_more_than_holm(p: list[float], seed: int):
    drawn = np.random.default_rng(seed).normal(size=(len(p), 60))
    family = step_down(p, drawn, np.ones(len(p), bool))
    assert (family.adjusted_K >= np.asarray(p) - 1e-12).all()
    assert (family.adjusted_K <= holm(p) + 1e-12).all()
    assert (np.diff(family.adjusted_K[np.argsort(p, kind="stable")]) >= -1e-12).all()


def test_step_down_takes_tests_that_say_the_same_for_one_and_independent_ones_for_many():
    rng = np.random.default_rng(0)
    one, many = rng.normal(size=300), rng.normal(size=(20, 300))
    same = step_down([0.01] * 20, np.tile(one, (20, 1)), np.ones(20, bool))
    assert same.adjusted_K[0] == pytest.approx(0.01, abs=0.005)
    assert same.num_effective == pytest.approx(1, abs=0.15)
    apart = step_down([0.01] + [0.5] * 19, many, np.ones(20, bool))
    assert apart.adjusted_K[0] == pytest.approx(1 - 0.99**20, abs=0.03)
    assert 15 < apart.num_effective < 22


def test_a_test_that_was_not_done_stays_undone_and_a_resample_that_is_not_defined_does_no_harm():
    drawn = np.random.default_rng(0).normal(size=(3, 100))
    drawn[1, :5] = np.nan
    drawn[2] = 0.0
    family = step_down([float("nan"), 0.01, 0.9], drawn, np.zeros(3, bool))
    assert np.isnan(family.adjusted_K[0])
    assert 0.01 <= family.adjusted_K[1] <= 0.02
    assert np.isnan(step_down([float("nan")], drawn[:1], [True]).adjusted_K).all()
