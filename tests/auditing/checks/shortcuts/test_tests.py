from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medclip.auditing.checks.shortcuts.device import (
    GAP,
    NEGATIVES,
    POSITIVES,
    SAME_PATIENTS,
    SAME_PREVALENCE,
    WITH,
    WITHOUT,
    device_test,
    negatives_with_device,
)
from medclip.statistics.cohort import Cohort
from tests.kits.shortcuts import bootstrap, chests, plain


def all_tests(cohort: Cohort, **more: Any) -> dict[tuple[str, str, str], dict[str, Any]]:
    made, device = cohort.labels[0], cohort.columns["device"]
    draws = bootstrap(cohort, 200)
    rows = device_test(cohort, made, device, draws, **more)
    rows += negatives_with_device(cohort, made, device, draws, threshold=0.4, **more)
    return {(r["test"], r["stratum"], r["metric"]): r for r in rows}


FOUND_BY = [
    (POSITIVES, "auroc"),
    (SAME_PATIENTS, "auroc"),
    (SAME_PREVALENCE, "auprc"),
    (SAME_PREVALENCE, "auprc_adjusted"),
    (NEGATIVES, "fpr"),
    (NEGATIVES, "mean score"),
]


def test_a_model_that_looks_at_the_device_is_found_by_every_test() -> None:
    rows = all_tests(chests(0, num_patients=800, shortcut=1.5))
    for test, metric in FOUND_BY:
        gap = rows[test, GAP, metric]
        assert gap["low"] > 0, (test, metric)
        assert gap["p"] < 0.01
        assert rows[test, WITH, metric]["value"] > rows[test, WITHOUT, metric]["value"]
    assert rows[NEGATIVES, GAP, "AUROC of the device"]["low"] > 0.6
    by_prevalence = rows[POSITIVES, GAP, "auprc_adjusted"]
    assert by_prevalence["low"] > 0
    assert np.isnan(by_prevalence["p"])
    assert "differ in prevalence" in by_prevalence["note"]
    assert "lean on the device" in rows[POSITIVES, GAP, "auroc"]["note"]
    assert "The device, or what comes with it, raises the score" in rows[NEGATIVES, GAP, "fpr"]["note"]


def test_a_model_that_looks_at_the_disease_is_found_by_none_more_often_than_chance_allows() -> None:
    found = dict.fromkeys(FOUND_BY, 0)
    runs = 25
    for seed in range(runs):
        rows = all_tests(chests(100 + seed, num_patients=400))
        for test, metric in FOUND_BY:
            found[test, metric] += rows[test, GAP, metric]["p"] < 0.05
            assert abs(rows[test, GAP, metric]["value"]) < 0.2
    # 5 % of 25 is 1.25; more than 5 happens by chance once in 800 times.
    assert max(found.values()) <= 5, found
    assert sum(found.values()) <= 0.1 * runs * len(FOUND_BY)


def test_a_rate_near_zero_is_not_found_to_differ_because_its_bootstrap_sees_no_events() -> None:
    # Without the floor under the variance 22 % of such differences had a p below 5 %.
    found = 0
    for seed in range(60):
        cohort = chests(300 + seed, num_patients=150)
        made, device = cohort.labels[0], cohort.columns["device"]
        rows = negatives_with_device(cohort, made, device, bootstrap(cohort, 100, seed), threshold=0.6)
        found += next(r for r in rows if (r["stratum"], r["metric"]) == (GAP, "fpr"))["p"] < 0.05
    assert found <= 6


def test_the_areas_are_those_of_scikit_learn_on_the_rows_in_question() -> None:
    cohort = chests(3, num_patients=300, shortcut=1.0)
    made, device = cohort.labels[0], cohort.columns["device"]
    rows = all_tests(cohort)
    pos, neg = made.truth_N == 1, made.truth_N == 0
    count = {s: int((pos & (device == d)).sum()) for s, d in ((WITH, 1), (WITHOUT, 0))}
    for stratum, d in ((WITH, 1), (WITHOUT, 0)):
        part = neg | (pos & (device == d))
        y, s = made.truth_N[part], made.score_N[part]
        assert rows[POSITIVES, stratum, "auroc"]["value"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        adjusted = 1 - np.log(average_precision_score(y, s)) / np.log(y.mean())
        assert rows[POSITIVES, stratum, "auprc_adjusted"]["value"] == pytest.approx(adjusted, abs=1e-12)
        weight = np.where(y == 1, min(count.values()) / count[stratum], 1)
        matched = average_precision_score(y, s, sample_weight=weight)
        assert rows[SAME_PREVALENCE, stratum, "auprc"]["value"] == pytest.approx(matched, abs=1e-12)
        assert rows[POSITIVES, stratum, "auroc"]["n_pos"] == count[stratum]
        assert rows[POSITIVES, stratum, "auroc"]["n"] == count[stratum] + neg.sum()
        at = neg & (device == d)
        assert rows[NEGATIVES, stratum, "fpr"]["value"] == pytest.approx((made.score_N[at] >= 0.4).mean())
        assert rows[NEGATIVES, stratum, "mean score"]["value"] == pytest.approx(made.score_N[at].mean())
    of_device = roc_auc_score(device[neg], made.score_N[neg])
    assert rows[NEGATIVES, GAP, "AUROC of the device"]["value"] == pytest.approx(of_device, abs=1e-12)


def test_sicker_patients_with_the_device_look_like_a_shortcut_until_patients_are_matched() -> None:
    rng = np.random.default_rng(0)
    num = 1500
    patients = np.repeat(np.arange(num), 3)
    ill = (rng.random(num) < 0.4)[patients]
    severe = rng.random(num)[patients]
    device = (rng.random(len(patients)) < np.where(ill, severe, 0.15)).astype(float)
    z = -1.5 + 3 * severe * ill + rng.normal(0, 1, len(patients))
    cohort = plain(1 / (1 + np.exp(-z)), ill, patients, columns={"device": device})
    rows = all_tests(cohort)
    assert rows[POSITIVES, GAP, "auroc"]["low"] > 0.03
    assert rows[SAME_PATIENTS, GAP, "auroc"]["low"] < 0 < rows[SAME_PATIENTS, GAP, "auroc"]["high"]


def test_calling_the_device_its_absence_turns_every_difference_around() -> None:
    cohort = chests(7, num_patients=200, shortcut=0.7)
    turned = dataclasses.replace(cohort, columns={"device": 1 - cohort.columns["device"]})
    one, other = all_tests(cohort), all_tests(turned)
    for test, metric in FOUND_BY:
        a, b = one[test, GAP, metric], other[test, GAP, metric]
        assert (a["value"], a["low"], a["high"], a["p"]) == pytest.approx(
            (-b["value"], -b["high"], -b["low"], b["p"]), abs=1e-9
        )
        assert one[test, WITH, metric]["value"] == pytest.approx(other[test, WITHOUT, metric]["value"])


def test_a_time_to_an_event_is_not_tested_without_a_horizon() -> None:
    cohort = chests(8, num_patients=30)
    made = dataclasses.replace(cohort.labels[0], time_N=np.ones(len(cohort.patients_N)))
    draws = bootstrap(cohort, 5)
    rows = device_test(cohort, made, cohort.columns["device"], draws)
    rows += negatives_with_device(cohort, made, cohort.columns["device"], draws)
    assert all("name a horizon" in r["note"] for r in rows)
    assert len(rows) == 2


def test_unknown_devices_are_left_out_and_their_negatives_stay() -> None:
    cohort = chests(4, num_patients=300)
    device = cohort.columns["device"].copy()
    device[::5] = np.nan
    rows = device_test(cohort, cohort.labels[0], device, bootstrap(cohort, 20))
    truth = cohort.labels[0].truth_N
    assert rows[0]["n_pos"] == ((truth == 1) & (device == 1)).sum()
    assert rows[0]["n"] - rows[0]["n_pos"] == (truth == 0).sum()


def test_a_test_with_too_few_patients_is_not_done_and_says_so_without_numbers_of_them() -> None:
    cohort = chests(5, num_patients=60, device_if_ill=0.05)
    rows = device_test(cohort, cohort.labels[0], cohort.columns["device"], bootstrap(cohort, 20))
    assert [r["test"] for r in rows] == [POSITIVES, SAME_PATIENTS, SAME_PREVALENCE]
    assert all("fewer than 10 patients" in r["note"] and np.isnan(r["value"]) and r["n"] is None for r in rows)
    none = np.zeros(len(cohort.patients_N))
    (row,) = negatives_with_device(cohort, cohort.labels[0], none, bootstrap(cohort, 20))
    assert "negatives with the device" in row["note"]


def test_without_a_threshold_there_is_no_false_positive_rate_and_scores_need_not_be_probabilities() -> None:
    cohort = chests(6, num_patients=200, shortcut=2)
    made = dataclasses.replace(cohort.labels[0], score_N=100 * cohort.labels[0].score_N, probability=False)
    rows = negatives_with_device(cohort, made, cohort.columns["device"], bootstrap(cohort, 50))
    assert {r["metric"] for r in rows} == {"mean score", "AUROC of the device"}
    assert rows[-1]["low"] > 0.6
