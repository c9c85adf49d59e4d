from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from medclip.auditing.checks.shortcuts.reweighting import AFTER, BEFORE, CHANGE, compare, has_truth
from medclip.errors import MedclipError
from medclip.statistics.cohort import Attribute, Cohort
from tests.kits.shortcuts import bootstrap, label

BOTH = np.array([True, True])


def hospital(seed: int, *, by_age: float, by_sex: float, num: int = 4000) -> Cohort:
    """Women are older here; the score is noisier in the old (`by_age`) or in women (`by_sex`)."""
    rng = np.random.default_rng(seed)
    sex = rng.integers(0, 2, num)
    old = (rng.random(num) < np.where(sex == 0, 0.8, 0.2)).astype(int)
    ill = rng.random(num) < 0.3
    z = -1 + 2.5 * ill * (1 - by_age * old) * (1 - by_sex * (sex == 0)) + rng.normal(0, 1, num)
    return Cohort(
        np.arange(num, dtype=np.int32),
        (label(1 / (1 + np.exp(-z)), ill),),
        (
            Attribute("sex", ("F", "M"), sex.astype(np.int16), constant=True),
            Attribute("age", ("young", "old"), old.astype(np.int16)),
        ),
    )


def measured(cohort: Cohort, **more: Any) -> dict[tuple[str, str], dict[str, Any]]:
    sex, age = cohort.attributes
    by = more.pop("by", [age])
    draws = bootstrap(cohort, 100)
    rows = compare(cohort, cohort.labels[0], sex, by, draws, BOTH, threshold=0.5, **more)
    return {(r["stratum"], r["metric"]): r for r in rows}


@pytest.mark.parametrize("method", ["standardise", "propensity"])
def test_a_gap_that_is_only_one_of_age_goes_away(method: str) -> None:
    rows = measured(hospital(0, by_age=0.7, by_sex=0), method=method)
    assert rows[BEFORE, "tpr_max_min"]["value"] > 0.2
    assert rows[AFTER, "tpr_max_min"]["value"] < 0.06
    assert rows[CHANGE, "tpr_max_min"]["high"] < 0
    assert "explains part of the gap" in rows[CHANGE, "tpr_max_min"]["note"]
    assert "of the rows of each group: F " in rows[CHANGE, "tpr_max_min"]["note"]
    assert rows[CHANGE, "tpr_max_min"]["test"] == "sex, reweighted for age"


@pytest.mark.parametrize("method", ["standardise", "propensity"])
def test_a_gap_that_is_one_of_sex_stays(method: str) -> None:
    rows = measured(hospital(1, by_age=0, by_sex=0.6), method=method)
    assert rows[BEFORE, "tpr_max_min"]["value"] > 0.2
    assert rows[AFTER, "tpr_max_min"]["low"] > 0.15
    assert "no change that could be told from chance" in rows[CHANGE, "tpr_max_min"]["note"]


def test_weighing_for_prevalence_brings_predictive_values_together() -> None:
    rng = np.random.default_rng(2)
    num = 6000
    sex = rng.integers(0, 2, num)
    ill = rng.random(num) < np.where(sex == 0, 0.5, 0.15)
    made = label(1 / (1 + np.exp(1 - 2.5 * ill - rng.normal(0, 1, num))), ill)
    attributes = hospital(0, by_age=0, by_sex=0, num=num).attributes
    cohort = Cohort(
        np.arange(num, dtype=np.int32),
        (made,),
        (dataclasses.replace(attributes[0], codes_N=sex.astype(np.int16)), attributes[1]),
    )
    rows = measured(cohort, by=[has_truth(made)])
    assert rows[BEFORE, "ppv_max_min"]["value"] > 0.15
    assert rows[AFTER, "ppv_max_min"]["value"] < 0.06
    assert rows[AFTER, "tpr_max_min"]["value"] == pytest.approx(rows[BEFORE, "tpr_max_min"]["value"])


def test_rates_of_the_groups_are_given_as_they_are_and_standardised() -> None:
    cohort = hospital(3, by_age=0.7, by_sex=0)
    rows = measured(cohort)
    made, (sex, age) = cohort.labels[0], cohort.attributes
    women = (sex.codes_N == 0) & (made.truth_N == 1)
    assert rows["F, as it is", "tpr"]["value"] == pytest.approx((made.score_N[women] >= 0.5).mean())
    assert rows["F, reweighted", "tpr"]["value"] > rows["F, as it is", "tpr"]["value"] + 0.1
    assert (
        rows["F, reweighted", "tpr"]["low"]
        < rows["F, reweighted", "tpr"]["value"]
        < rows["F, reweighted", "tpr"]["high"]
    )
    assert rows["F, as it is", "tpr"]["n"] == (sex.codes_N == 0).sum()
    assert age.name in rows[CHANGE, "auroc_max_min"]["note"]


def test_what_the_groups_are_made_of_is_not_weighed_for() -> None:
    cohort = hospital(4, by_age=0, by_sex=0, num=300)
    sex, age = cohort.attributes
    draws = bootstrap(cohort, 5)
    cross = dataclasses.replace(sex, name="sex × age")
    (row,) = compare(
        cohort, cohort.labels[0], cross, [age, sex], draws, BOTH, numbers={"age": age.codes_N.astype(float)}
    )
    assert "nothing to weigh for" in row["note"]
    (row,) = compare(cohort, cohort.labels[0], sex, [age], draws, np.array([True, False]))
    assert "not two groups" in row["note"]
    apart = dataclasses.replace(age, codes_N=sex.codes_N)
    (row,) = compare(cohort, cohort.labels[0], sex, [apart], draws, BOTH)
    assert "no combination" in row["note"]
    with pytest.raises(MedclipError, match="no way to reweight"):
        compare(cohort, cohort.labels[0], sex, [age], draws, BOTH, method="best")


def test_without_a_threshold_only_areas_are_compared() -> None:
    cohort = hospital(5, by_age=0, by_sex=0, num=300)
    rows = compare(cohort, cohort.labels[0], cohort.attributes[0], [cohort.attributes[1]], bootstrap(cohort, 5), BOTH)
    assert {r["metric"] for r in rows} == {"auroc", "auroc_max_min"}
