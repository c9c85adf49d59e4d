"""Which images are stressed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medclip.auditing.checks.stress.run import choose
from medclip.statistics.cohort import ALL, Cohort
from tests.kits.audit_inference import cohort_of

SEX = ["F"] * 60 + ["M"] * 20


def _cohort() -> Cohort:
    cohort = cohort_of([0, 1] * 40, np.zeros(80), sex=SEX)
    return replace(cohort, files=tuple(f"image {i}.png" for i in range(80)))


def test_all_are_taken_where_they_fit():
    chosen = choose(_cohort(), 60)
    assert chosen.rows.tolist() == list(range(80))
    assert len(chosen.of[ALL]) == chosen.num_eligible == 80


def test_of_each_group_so_many_are_taken_and_no_more():
    cohort = _cohort()
    chosen = choose(cohort, 10)
    codes = cohort.attributes[0].codes_N[chosen.rows]
    of_sex = np.bincount(codes[chosen.of["sex"]])
    assert of_sex.tolist() == [10, 10]
    assert len(chosen.of[ALL]) >= 10
    assert len(chosen.rows) < 30


def test_everybody_is_a_fair_sample_although_small_groups_are_taken_whole():
    cohort = _cohort()
    chosen = choose(cohort, 15)
    codes = cohort.attributes[0].codes_N[chosen.rows]
    everybody = np.bincount(codes[chosen.of[ALL]])
    assert everybody[0] > everybody[1]  # three in four are F
    assert np.bincount(codes).tolist()[0] < 3 * np.bincount(codes).tolist()[1]


def test_the_choice_does_not_depend_on_the_order_of_the_table():
    cohort = _cohort()
    turned = replace(
        cohort,
        files=cohort.files[::-1],
        attributes=(replace(cohort.attributes[0], codes_N=cohort.attributes[0].codes_N[::-1]),),
    )
    names, others = ({c.files[i] for i in choose(c, 10).rows} for c in (cohort, turned))
    assert names == others


def test_rows_without_file_or_truth_are_left_out():
    cohort = _cohort()
    truth = cohort.labels[0].truth_N.copy()
    truth[0] = np.nan
    cohort = replace(cohort, files=("", *cohort.files[1:]), labels=(replace(cohort.labels[0], truth_N=truth),))
    unknown = replace(cohort, files=(cohort.files[1], "", *cohort.files[2:]))
    assert 0 not in choose(cohort, 60).rows
    assert choose(unknown, 60).num_eligible == 78
