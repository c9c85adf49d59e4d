"""The family of tests that findings come from: who is in it, and that it errs no more often than it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medclip.auditing.declared import declared
from medclip.auditing.groups.coinciding import coinciding_rows
from medclip.auditing.groups.family import IDEAL, sign_of_worse
from medclip.auditing.groups.measure import Measured, difference_rows, gap_rows, measure
from medclip.auditing.options import MeasureOptions
from medclip.auditing.thresholds.choose import Policy, choose_all
from medclip.statistics.cohort import Attribute, Cohort, Label
from medclip.statistics.resampling.weights import draw_weights

OPTIONS = MeasureOptions(num_resamples=100, permutations=40)
NUM = 600


def made(shift: float = 0.0, factor: float = 1.0, seed: int = 0) -> Measured:
    """Measure 600 patients with calibrated probabilities: odds of women times e^shift, then probabilities times factor.

    Nine in ten women were seen at North, one in ten men.
    """
    rng = np.random.default_rng(seed)
    sex, logit = rng.integers(0, 2, NUM), rng.normal(-1.5, 1.2, NUM)
    truth = (rng.random(NUM) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    score = np.clip(factor / (1 + np.exp(-logit - shift * (sex == 0))), 0, 1)
    site = (sex == 1) ^ (rng.random(NUM) < 0.1)
    attributes = (
        Attribute("sex", ("F", "M"), sex.astype(np.int16)),
        Attribute("site", ("North", "South"), site.astype(np.int16)),
    )
    cohort = Cohort(np.arange(NUM, dtype=np.int32), (Label("flu", score, truth),), attributes)
    thresholds, _ = choose_all(cohort, Policy("fixed", 0.3), "")
    return measure("net", cohort, thresholds, draw_weights(NUM, 100, seed=0), OPTIONS)


def test_predictive_values_and_selection_rates_are_shown_and_not_tested():
    rows = difference_rows(made(), OPTIONS)
    described = [row for row in rows if row["metric"] in ("ppv", "selection_rate")]
    assert described
    assert all("p" not in row and "family" not in row and np.isfinite(row["low"]) for row in described)
    assert {row["metric"] for row in rows if "p" in row} == {
        *("auroc", "tpr", "fpr"),
        *("calibration_slope", "observed_expected"),
    }


def test_only_the_worse_side_is_found_and_a_gap_with_it():
    one = made(shift=-1.5)
    rows = difference_rows(one, OPTIONS)
    by_cell = {(row["attribute"], row["group"], row["metric"]): row for row in rows}
    women, men = by_cell["sex", "F", "tpr"], by_cell["sex", "M", "tpr"]
    assert women["value"] == pytest.approx(-men["value"])
    assert women["p"] == pytest.approx(men["p"])
    assert women["p_holm"] < 0.01 < men["p_holm"]
    (gap,) = (r for r in gap_rows(one, OPTIONS, rows) if (r["attribute"], r["gap"]) == ("sex", "tpr_max_min"))
    assert gap["p_holm"] == women["p_holm"]
    assert gap["family"] == women["family"] == "groups, net"


def test_a_primary_hypothesis_is_a_family_of_its_own():
    options = replace(OPTIONS, declared=declared(primary=["tpr in sex"]))
    rows = difference_rows(made(), options)
    gaps = gap_rows(made(), options, rows)
    (primary,) = (row for row in gaps if row.get("family") == "primary gaps, net" and not row.get("same_as"))
    assert primary["p_holm"] == primary["p"]
    assert {row["family"] for row in rows if "family" in row} == {"exploratory groups, net"}


def test_doubled_probabilities_are_found_and_calibrated_ones_are_not():
    def ideal(measured: Measured) -> dict[str, dict[str, float]]:
        return {r["metric"]: r for r in difference_rows(measured, OPTIONS) if r["reference"] == IDEAL}

    calibrated, doubled = ideal(made())["observed_expected"], ideal(made(factor=2.0))["observed_expected"]
    assert calibrated["p_holm"] > 0.05
    assert doubled["p_holm"] < 0.001
    assert doubled["low"] < doubled["value"] < doubled["high"] < -0.3


def test_a_difference_is_measured_once_more_within_the_groups_of_what_it_goes_with():
    one = made(shift=-1.5)
    rows = coinciding_rows(one, difference_rows(one, OPTIONS), OPTIONS)
    by_place = {(r["attribute"], r["group"], r["metric"], r["given"]): r for r in rows}
    sex, site = by_place["sex", "F", "tpr", "site"], by_place["site", "North", "tpr", "sex"]
    assert (sex["other_group"], sex["share"]) == ("North", pytest.approx(0.9, abs=0.05))
    assert sex["high"] < 0
    assert site["low"] < 0 < site["high"]
    assert min(sex["num_strata"], site["num_strata"]) >= 1


@pytest.mark.parametrize(("metric", "sign"), [("tpr", -1), ("fpr", 1), ("auroc", -1), ("calibration_slope", 0)])
def test_the_worse_side_of_each_measure(metric: str, sign: int):
    assert sign_of_worse(metric) == sign
