from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.auditing.checks.shortcuts.reweighting import has_truth, listed, propensity, standardise
from medclip.errors import MedclipError
from medclip.statistics.cohort import Attribute
from tests.kits.shortcuts import label


def attribute(name: str, codes: np.ndarray, num: int) -> Attribute:
    return Attribute(name, tuple(f"{name}{i}" for i in range(num)), np.asarray(codes, np.int16))


def mixed(seed: int, n: int = 400) -> tuple[Attribute, Attribute, np.ndarray]:
    """Give groups, a mix that differs between them, and the age that makes the mix."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, n)
    age = np.clip(rng.normal(50 + 10 * group, 12), 20, 90)
    return attribute("sex", group, 2), attribute("age", np.digitize(age, [45, 60]), 3), age


@given(st.integers(0, 200), st.booleans())
def test_after_it_every_group_has_the_mix_of_all(seed: int, weighted: bool) -> None:
    sex, age, _ = mixed(seed)
    own = np.random.default_rng(seed).random(400) + 0.1 if weighted else np.ones(400)
    rows = np.random.default_rng(seed + 1).random(400) < 0.9
    made = standardise(sex, [age], rows, own_N=own, limit=np.inf)
    total = made.weight_N * own
    pooled = np.bincount(age.codes_N[rows], own[rows], 3) / own[rows].sum()
    for g in range(2):
        inside = sex.codes_N == g
        np.testing.assert_allclose(np.bincount(age.codes_N[inside], total[inside], 3) / total[inside].sum(), pooled)
        assert np.average(made.weight_N[inside & rows], weights=own[inside & rows]) == pytest.approx(1)
        assert made.effective[f"sex{g}"] <= (inside & rows).sum() + 1e-9
    assert (made.weight_N[~rows] == 0).all()


def test_rows_whose_like_is_not_in_every_group_are_left_out_and_counted() -> None:
    sex = attribute("sex", np.array([0, 0, 0, 1, 1, 1]), 2)
    view = attribute("view", np.array([0, 0, 1, 0, 1, 2]), 3)
    made = standardise(sex, [view], np.ones(6, bool))
    assert made.num_left_out == 1
    assert made.weight_N[5] == 0
    assert "17 % of the rows were left out" in str(made)
    apart = attribute("view", np.array([0, 0, 0, 1, 1, 1]), 2)
    with pytest.raises(MedclipError, match="no combination of view occurs in every group of sex"):
        standardise(sex, [apart], np.ones(6, bool))


def test_large_weights_are_cut_at_the_limit_and_the_sentence_says_so() -> None:
    sex = attribute("sex", np.repeat([0, 1], 100), 2)
    view = attribute("view", np.concatenate([np.r_[0, np.ones(99)], np.r_[np.zeros(99), 1]]), 2)
    free, cut = (standardise(sex, [view], np.ones(200, bool), limit=limit) for limit in (np.inf, 10))
    assert free.weight_N.max() == pytest.approx(50)
    assert (cut.weight_N.max(), cut.num_cut) == (10, 2)
    assert free.effective["sex0"] == pytest.approx(100**2 / (50**2 + 99 * (50 / 99) ** 2))
    assert free.effective["sex0"] < cut.effective["sex0"] < 100
    assert "1 % of the weights were cut at 10" in str(cut)


def test_propensity_brings_the_mean_age_of_the_groups_together() -> None:
    sex, age, years = mixed(0, 4000)
    years = years.copy()
    years[::50] = np.nan
    made = propensity(sex, [], np.ones(4000, bool), numbers={"age": years})
    for weight, most in ((np.ones(4000), np.inf), (made.weight_N, 0.7)):
        known = ~np.isnan(years)
        groups = [known & (sex.codes_N == g) for g in (0, 1)]
        mean = [np.average(years[g], weights=weight[g]) for g in groups]
        assert abs(mean[1] - mean[0]) < most
    by_class = propensity(sex, [age], np.ones(4000, bool))
    same = standardise(sex, [age], np.ones(4000, bool))
    np.testing.assert_allclose(by_class.weight_N, same.weight_N, rtol=0.05)


def test_propensity_without_two_groups_or_anything_to_weigh_for_is_refused() -> None:
    sex, age, _ = mixed(0)
    with pytest.raises(MedclipError, match="two groups"):
        propensity(sex, [age], sex.codes_N == 0)
    with pytest.raises(MedclipError, match="something to weigh for"):
        propensity(sex, [], np.ones(400, bool))


def test_prevalence_can_be_weighed_for() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 1000)
    truth = (rng.random(1000) < np.where(group, 0.4, 0.1)).astype(float)
    made = standardise(attribute("sex", group, 2), [has_truth(label(truth, truth))], np.ones(1000, bool))
    prevalence = [np.average(truth[group == g], weights=made.weight_N[group == g]) for g in (0, 1)]
    assert prevalence == pytest.approx([truth.mean()] * 2)
    assert listed([has_truth(label(truth, truth))], {"age": truth}) == "prevalence and age"
