"""Differences of groups and of models: interval and test say the same, small cells find nothing that is not there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medclip.auditing.groups.differences import REST, against, paired, rest_cells, with_rest
from medclip.errors import MedclipError
from medclip.statistics.cohort import Cohort, Label
from medclip.statistics.estimate import Difference
from medclip.statistics.resampling.bootstrap import Replicates, evaluate
from medclip.statistics.resampling.standard_errors import clusters_of
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.audit_inference import cohort_of


def clinic(seed: int, patients: int = 200, shift: float = 0.0, groups: str = "abc") -> Cohort:
    """Patients of three groups with 1 to 4 images; `shift` lowers the positives' scores in the first group."""
    rng = np.random.default_rng(seed)
    keys = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    group = rng.choice(list(groups), patients)[keys]
    truth = rng.random(len(keys)) < 0.4
    logit = (
        rng.normal(size=patients)[keys]
        + rng.normal(size=len(keys))
        + 2.5 * truth
        - shift * truth * (group == groups[0])
    )
    return cohort_of(truth, 1 / (1 + np.exp(1 - logit)), patients=keys, group=group)


def evaluated(cohort: Cohort, label: Label | None = None, num: int = 300, seed: int = 0) -> Replicates:
    weights = draw_weights(cohort.num_patients, num, seed=seed)
    return evaluate(cohort, label or cohort.labels[0], weights, threshold=0.5)


def compared(cohort: Cohort, metric: str, cells: list[int], reference: int) -> list[Difference]:
    return against(evaluated(cohort), metric, cells, reference, clusters_of(cohort, cohort.labels[0]))


def test_a_planted_shift_is_found_and_its_size_is_within_the_interval():
    cohort = with_rest(clinic(0, 400, shift=1.5), "group")
    cell, rest = rest_cells(0)
    for metric in ("auroc", "tpr"):
        (found,) = compared(cohort, metric, [cell], rest)
        assert found.value < -0.1
        assert found.p < 0.01
        assert found.high < 0
    (fpr,) = compared(cohort, "fpr", [cell], rest)
    assert fpr.low < 0 < fpr.high


@pytest.mark.parametrize("metric", ["auroc", "tpr", "fpr", "ppv", "npv", "selection_rate", "brier", "ece", "auprc"])
def test_interval_and_p_agree(metric: str):
    cohort = clinic(1)
    for found in compared(cohort, metric, [1, 2, 3], 3):
        assert found.low > 0 or found.high < 0 or found.p >= 0.05
        assert found.low < found.value < found.high
    assert len(compared(cohort, metric, [1, 2, 3], 3)) == 2


def test_swapping_the_two_groups_turns_the_sign_only():
    cohort = clinic(2)
    (one,), (other,) = compared(cohort, "auroc", [1], 2), compared(cohort, "auroc", [2], 1)
    assert (one.value, one.low, one.p) == pytest.approx((-other.value, -other.high, other.p))


def test_a_small_group_that_is_perfect_by_chance_is_not_found_to_differ():
    """12 of 12 found, where all others have 90 %: chance 28 %."""
    truth = np.r_[np.ones(12), np.zeros(12), np.ones(1000), np.zeros(1000)]
    called = np.r_[np.ones(12), np.zeros(12), np.ones(900), np.zeros(100), np.zeros(1000)]
    cohort = cohort_of(truth, called, group=np.r_[["small"] * 24, ["rest"] * 2000])
    for metric in ("tpr", "auroc"):
        (found,) = compared(cohort, metric, [2], 1)
        assert found.value > 0.04
        assert found.p > 0.05
        assert found.low < 0


def test_one_patient_in_both_groups_is_drawn_for_both():
    """Every patient has the same two images in both groups: the difference cannot vary with patients."""
    rng = np.random.default_rng(3)
    truth = np.tile(rng.integers(0, 2, 100), 2)
    score = np.tile(rng.random(100), 2) * 0.5 + 0.2 * truth[:200]
    twice = cohort_of(truth, score, patients=np.tile(np.arange(100), 2), age=np.repeat(["40", "50"], 100))
    apart = replace(twice, patients_N=np.arange(200, dtype=np.int32))
    (shared,), (separate,) = compared(twice, "brier", [1], 2), compared(apart, "brier", [1], 2)
    assert (shared.value, shared.p) == (0, 1)
    assert np.isnan(shared.low)
    assert separate.high > 0.01


def test_the_rest_of_a_group_is_everybody_else():
    cohort = clinic(4)
    halves = with_rest(cohort, "group")
    assert [a.groups for a in halves.attributes] == [("a", REST), ("b", REST), ("c", REST)]
    found = evaluated(halves)
    for g in range(3):
        own, rest = rest_cells(g)
        assert found.n_G[own] + found.n_G[rest] == found.n_G[0]
        others = cohort.attributes[0].codes_N != g
        assert found.point["brier"][rest] == pytest.approx(
            np.mean((cohort.labels[0].score_N - cohort.labels[0].truth_N)[others] ** 2)
        )
    with pytest.raises(MedclipError, match="no attribute"):
        with_rest(cohort, "race")


def test_a_metric_that_is_not_defined_in_a_group_is_not_compared():
    cohort = cohort_of([1, 0, 1, 0, 0, 0, 0, 0], np.linspace(0, 1, 8), sex=list("FFFFMMMM"))
    (found,) = compared(cohort, "tpr", [2], 1)
    assert np.isnan([found.value, found.low, found.p]).all()


def test_a_model_against_itself_and_against_a_better_one():
    cohort = clinic(5)
    label = cohort.labels[0]
    rng = np.random.default_rng(0)
    noisy = replace(label, score_N=np.clip(label.score_N + rng.normal(0, 0.25, len(label.score_N)), 0, 1))
    clusters = clusters_of(cohort, label)
    one, other = evaluated(cohort), evaluated(cohort, noisy)
    (same,) = paired(one, one, "auroc", [0], clusters)
    assert (same.value, same.p) == (0, 1)
    (worse,) = paired(one, other, "auroc", [0], clusters)
    assert worse.value < 0
    assert worse.high < 0
    assert worse.p < 0.01
    unpaired = np.hypot(one.drawn["auroc"][0].std(), other.drawn["auroc"][0].std())
    assert worse.standard_error < unpaired
    with pytest.raises(MedclipError, match="same rows and resamples"):
        paired(one, evaluated(cohort, num=200), "auroc", [0], clusters)


def test_all_right_against_all_wrong_has_an_interval_all_the_same():
    cohort = cohort_of(np.tile([0, 1], 50), np.tile([0.0, 1.0], 50))
    flipped = replace(cohort.labels[0], score_N=1 - cohort.labels[0].score_N)
    clusters = clusters_of(cohort, cohort.labels[0])
    (found,) = paired(evaluated(cohort), evaluated(cohort, flipped), "auroc", [0], clusters)
    assert found.value == -1
    assert found.p < 0.001
    assert found.low < -1 < found.high < -0.8
