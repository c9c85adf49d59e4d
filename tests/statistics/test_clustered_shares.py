"""Shares of rows of patients, and the test of their difference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medclip.statistics.significance import share_difference


def test_without_clusters_it_is_the_score_test_of_two_proportions():
    case = np.r_[np.ones(30, bool), np.zeros(70, bool), np.ones(10, bool), np.zeros(90, bool)]
    inside = np.arange(200) < 100
    found = share_difference(case, inside, np.arange(200))
    assert (found.share, found.difference) == (0.3, pytest.approx(0.2))
    t = 0.2 / np.sqrt(0.2 * 0.8 * (1 / 100 + 1 / 100) * 200 / 199)
    assert found.p == pytest.approx(2 * stats.t.sf(t, 199))
    # Newcombe, Statistics in Medicine 17 (1998) 873-890, method 10, for 30/100 and 10/100
    assert (found.difference_low, found.difference_high) == pytest.approx((0.0900, 0.3058), abs=5e-5)


def test_rows_of_one_patient_count_once():
    case, inside = np.arange(40) % 4 == 0, np.arange(40) < 20
    case[:10] = True
    one = share_difference(case, inside, np.arange(40))
    five = share_difference(np.repeat(case, 5), np.repeat(inside, 5), np.repeat(np.arange(40), 5))
    assert five.p == pytest.approx(one.p)
    assert (five.low, five.high) == pytest.approx((one.low, one.high))


def test_a_group_without_a_case_has_a_p_value_and_nothing_to_compare_has_none():
    case = np.arange(300) >= 270
    assert share_difference(case, np.arange(300) < 150, np.arange(300)).p < 0.001
    assert share_difference(np.zeros(50, bool), np.arange(50) < 20, np.arange(50)).p == 1.0
    assert np.isnan(share_difference(case, np.ones(300, bool), np.arange(300)).p)


def test_where_shares_are_equal_p_is_below_five_per_cent_in_about_five_per_cent():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(200), 3)
    small = []
    for _ in range(400):
        risk = rng.beta(1, 9, 200)[who]  # rows of one patient go together
        inside = (rng.random(200) < 0.2)[who]
        small.append(share_difference(rng.random(600) < risk, inside, who).p < 0.05)
    assert 0.02 < np.mean(small) < 0.09


def test_a_small_group_without_a_case_is_no_finding_where_cases_are_rare():
    case, inside = np.arange(2217) >= 2157, np.arange(2217) < 100
    # Fisher's exact test has 0.12 of 0 in 100 rows against 60 in 2,117
    assert stats.fisher_exact([[0, 100], [60, 2057]])[1] == pytest.approx(0.12, abs=0.01)
    assert 0.05 < share_difference(case, inside, np.arange(2217)).p < 0.2


def test_equal_shares_of_a_small_group_and_rare_cases_keep_the_level_too():
    rng = np.random.default_rng(1)
    who = np.repeat(np.arange(900), 3)
    inside = who < 40
    small = []
    for _ in range(400):
        risk = rng.beta(0.2, 9.8, 900)[who]
        small.append(share_difference(rng.random(2700) < risk, inside, who).p < 0.05)
    assert np.mean(small) < 0.07


def test_rows_of_one_patient_count_once_in_a_group_without_a_case_too():
    case, inside = np.arange(300) >= 280, np.arange(300) < 60
    one = share_difference(case, inside, np.arange(300))
    five = share_difference(np.repeat(case, 5), np.repeat(inside, 5), np.repeat(np.arange(300), 5))
    assert one.p > 0.01
    assert five.p == pytest.approx(one.p)
