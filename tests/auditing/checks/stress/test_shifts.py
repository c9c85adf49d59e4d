"""Changes from clean, by group, with planted harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medclip.auditing.checks.stress.shifts import Condition, num_steps, shift_rows
from medclip.auditing.groups.measure import measure
from medclip.auditing.options import MeasureOptions
from medclip.auditing.thresholds.choose import Policy, choose_all
from medclip.statistics.cohort import ALL
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.audit_inference import cohort_of

OPTIONS = MeasureOptions(num_resamples=300, permutations=100)
CONDITIONS = [Condition("corruption", "shot_noise", grade) for grade in (1, 3, 5)]
NUM = 400


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """Of women, and of nobody else, noise takes the score of the ill away."""
    rng = np.random.default_rng(0)
    truth, women = np.arange(NUM) % 2, np.arange(NUM) // 2 % 2 == 0
    clean = np.clip(0.35 + 0.3 * truth + rng.normal(0, 0.1, NUM), 0, 1)
    forms = [clean] + [np.where(women & (truth == 1), clean - 0.1 * g, clean) for g in (1, 2, 3)]
    cohort = replace(cohort_of(truth, clean, sex=np.where(women, "F", "M").tolist()), files=tuple(map(str, range(NUM))))
    thresholds, _ = choose_all(cohort, Policy("fixed", 0.5), "")
    one = measure("m", cohort, thresholds, draw_weights(NUM, 300, seed=0), OPTIONS)
    places = np.arange(NUM)
    steps: list[int] = []
    made = shift_rows(
        one,
        cohort,
        {"finding": np.stack(forms)},
        CONDITIONS,
        {ALL: places, "sex": places},
        one.values,
        OPTIONS,
        lambda: steps.append(1),
    )
    assert len(steps) == num_steps(cohort, CONDITIONS)
    return made


def named(rows: list[dict], group: str, kind: str, metric: str, grade: int | None = None) -> dict:
    (row,) = [r for r in rows if (r["group"], r["kind"], r["metric"], r["grade"]) == (group, kind, metric, grade)]
    return row


def test_the_group_that_is_harmed_is_seen_and_tested(rows):
    severe = named(rows, "F", "corruption", "tpr", 5)
    assert severe["change"] < -0.5
    assert severe["change_high"] < -0.3
    assert severe["more"] < -0.5
    over_all = named(rows, "F", "mean", "tpr")
    assert over_all["p_holm"] < 0.001
    assert over_all["more_high"] < 0


def test_errors_are_divided_by_those_of_clean_images_and_of_a_group_by_those_of_everybody(rows):
    clean = {group: named(rows, group, "clean", "auroc") for group in ("all", "F", "M")}
    severe = named(rows, "F", "corruption", "auroc", 5)
    expected = (1 - severe["value"]) / (1 - clean["F"]["value"])
    assert severe["error_ratio"] == pytest.approx(expected, rel=0.1)  # values are rounded
    assert severe["error_ratio_low"] > 1
    assert named(rows, "M", "corruption", "auroc", 5)["error_ratio"] == 1
    of_group = (1 - clean["F"]["value"]) / (1 - clean["all"]["value"])
    assert clean["F"]["error_ratio"] == pytest.approx(of_group, rel=0.1)
    assert clean["F"]["error_ratio_low"] < clean["F"]["error_ratio"] < clean["F"]["error_ratio_high"]
    assert clean["all"].get("error_ratio") is None


def test_who_is_not_touched_does_not_change(rows):
    other = named(rows, "M", "corruption", "tpr", 5)
    assert other["change"] == 0
    assert named(rows, "M", "corruption", "fpr", 5)["change"] == 0


def test_a_change_is_the_difference_of_two_values_and_the_mean_that_of_all(rows):
    for group in ("all", "F", "M"):
        clean = named(rows, group, "clean", "auroc")["value"]
        changes = []
        for grade in (1, 3, 5):
            row = named(rows, group, "corruption", "auroc", grade)
            assert row["change"] == pytest.approx(row["value"] - clean, abs=1e-9)
            if row["change"]:  # where nothing moved there is no interval
                assert row["change_low"] <= row["change"] <= row["change_high"]
            changes.append(row["change"])
        assert named(rows, group, "mean", "auroc")["change"] == pytest.approx(np.mean(changes), abs=1e-9)


def test_only_the_mean_is_tested(rows):
    tested = {(r["kind"], r["metric"]) for r in rows if r.get("p") is not None}
    assert tested == {("mean", "auroc"), ("mean", "tpr")}


def test_a_group_that_is_too_small_is_not_shown_and_its_count_cannot_be_worked_out():
    rng = np.random.default_rng(1)
    num, truth = 90, np.arange(90) % 2
    scores = np.clip(0.35 + 0.3 * truth + rng.normal(0, 0.1, num), 0, 1)
    age = ["young"] * 43 + ["middle"] * 41 + ["old"] * 6
    cohort = cohort_of(truth, scores, age=age)
    thresholds, _ = choose_all(cohort, Policy("fixed", 0.5), "")
    one = measure("m", cohort, thresholds, draw_weights(num, 100, seed=0), OPTIONS)
    places = np.arange(num)
    made = shift_rows(
        one,
        cohort,
        {"finding": np.stack([scores, scores - 0.1])},
        CONDITIONS[:1],
        {ALL: places, "age": places},
        one.values,
        OPTIONS,
        lambda: None,
    )
    assert {r["group"] for r in made} == {"all", "young", "middle"}
    assert {r["n"] for r in made if r["group"] != "all"} <= {40, 45}
