"""Gaps against fairlearn, the golden table and the hand examples of the specs."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from pathlib import Path

import fairlearn.metrics as fm
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.auditing.groups.gaps import Gap, gap_info, gap_names, gaps
from medclip.statistics.cohort import Cohort
from medclip.statistics.resampling.bootstrap import Replicates, evaluate
from medclip.statistics.resampling.standard_errors import clusters_of
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.audit_inference import cohort_of

FAIRLEARN = {
    "eod|between_groups|worst_case": "equalised_odds",
    "eod|between_groups|mean": "equalised_odds_mean",
    "eod|to_overall|worst_case": "equalised_odds_overall",
    "eod|to_overall|mean": "equalised_odds_overall_mean",
    "eor|between_groups|worst_case": "equalised_odds_ratio",
    "eor|between_groups|mean": "equalised_odds_ratio_mean",
    "eor|to_overall|worst_case": "equalised_odds_ratio_overall",
    "eor|to_overall|mean": "equalised_odds_ratio_overall_mean",
    "eopd|between_groups|worst_case": "equal_opportunity",
    "eopd|to_overall|worst_case": "equal_opportunity_overall",
    "eopr|between_groups|worst_case": "equal_opportunity_ratio",
    "eopr|to_overall|worst_case": "equal_opportunity_ratio_overall",
    "dpd|between_groups|worst_case": "demographic_parity",
    "dpd|to_overall|worst_case": "demographic_parity_overall",
    "dpr|between_groups|worst_case": "demographic_parity_ratio",
    "dpr|to_overall|worst_case": "demographic_parity_ratio_overall",
}
"""Names of the golden table to ours."""
ORACLES: dict[str, Callable[..., float]] = {
    "eod": fm.equalized_odds_difference,
    "eor": fm.equalized_odds_ratio,
    "eopd": fm.equal_opportunity_difference,
    "eopr": fm.equal_opportunity_ratio,
    "dpd": fm.demographic_parity_difference,
    "dpr": fm.demographic_parity_ratio,
}


def measured(cohort: Cohort, threshold: float = 0.5, num_replicates: int = 20) -> Replicates:
    weights = draw_weights(cohort.num_patients, num_replicates, seed=0)
    return evaluate(cohort, cohort.labels[0], weights, threshold=threshold)


def all_gaps(cohort: Cohort, threshold: float = 0.5) -> dict[str, Gap]:
    cells = range(1, 1 + len(cohort.attributes[0].groups))
    return gaps(measured(cohort, threshold), cells, clusters_of(cohort, cohort.labels[0]))


@pytest.mark.golden
@pytest.mark.parametrize("attribute", ["sex", "age"])
def test_golden_gaps_in_every_variant(golden: Path, attribute: str):
    with (golden / "fairness_input.csv").open() as file:
        given_ = list(csv.DictReader(file))
    with (golden / "fairness_expected.csv").open() as file:
        expected = [r for r in csv.DictReader(file) if r["attribute"] == attribute and r["group"] == "GAP"]
    cohort = cohort_of(
        [float(r["y"]) for r in given_],
        [float(r["score"]) for r in given_],
        **{attribute: [r[attribute] for r in given_]},
    )
    names = {"auroc_max_minus_min": "auroc_max_min", **FAIRLEARN}
    by_threshold = {t: all_gaps(cohort, float(t or 0.5)) for t in {row["threshold"] for row in expected}}
    seen = 0
    for row in expected:
        found = by_threshold[row["threshold"]]
        if row["metric"] == "auroc_worst":
            value = measured(cohort).point["auroc"][found["auroc_max_min"].worst_group]
        else:
            value = found[names[row["metric"]]].value
        assert value == pytest.approx(float(row["value"]), abs=1e-9), row["metric"]
        seen += 1
    assert seen >= len(names)


@settings(max_examples=4)
@given(seed=st.integers(0, 400))
def test_gaps_agree_with_fairlearn(seed: int):
    rng = np.random.default_rng(seed)
    groups = rng.choice(list("abcd"), 120)
    truth, called = rng.integers(0, 2, 120), rng.integers(0, 2, 120)
    found = all_gaps(cohort_of(truth, called, group=groups))
    for name, ours in FAIRLEARN.items():
        measure, method, agg = name.split("|")
        more = {"agg": agg} if measure in ("eod", "eor") else {}
        theirs = ORACLES[measure](truth, called, sensitive_features=groups, method=method, **more)
        np.testing.assert_allclose(found[ours].value, theirs, rtol=0, atol=1e-12, err_msg=name)


def test_largest_minus_smallest_agrees_with_metric_frame():
    rng = np.random.default_rng(5)
    groups, truth, score = rng.choice(list("abc"), 300), rng.integers(0, 2, 300), rng.random(300)
    from sklearn.metrics import brier_score_loss, precision_score, roc_auc_score

    found = all_gaps(cohort_of(truth, score, group=groups))
    for name, oracle in (("auroc", roc_auc_score), ("brier", brier_score_loss)):
        frame = fm.MetricFrame(metrics=oracle, y_true=truth, y_pred=score, sensitive_features=groups)
        assert found[f"{name}_max_min"].value == pytest.approx(frame.difference(), abs=1e-12)
        by_group = pd.Series(frame.by_group).sort_values(ascending=name == "brier")
        assert found[f"{name}_max_min"].worst_group == 1 + "abc".index(str(by_group.index[-1]))
    frame = fm.MetricFrame(metrics=precision_score, y_true=truth, y_pred=score >= 0.5, sensitive_features=groups)
    assert found["predictive_parity"].value == pytest.approx(frame.difference(), abs=1e-12)
    assert found["predictive_parity_ratio"].value == pytest.approx(frame.ratio(), abs=1e-12)


def test_the_hand_example_of_counts():
    cells = {"g1": (8, 2, 1, 9), "g2": (5, 5, 3, 7)}  # TP, FN, FP, TN
    truth, called, groups = [], [], []
    for group, counts in cells.items():
        for count, t, c in zip(counts, (1, 1, 0, 0), (1, 0, 1, 0), strict=True):
            truth += [t] * count
            called += [c] * count
            groups += [group] * count
    found = all_gaps(cohort_of(truth, called, group=groups))
    assert found["tpr_max_min"].value == pytest.approx(0.3)
    assert found["fpr_max_min"].value == pytest.approx(0.2)
    assert found["equalised_odds"].value == pytest.approx(0.3)
    assert (found["equalised_odds"].worst_group, found["equalised_odds"].best_group) == (2, 1)
    assert found["fpr_worst_overall"].value == pytest.approx(0.3 - 4 / 20)
    assert found["tpr_worst_overall"].value == pytest.approx(13 / 20 - 0.5)


def test_the_hand_example_of_eight_rows():
    found = all_gaps(cohort_of([1, 1, 0, 0] * 2, [1, 0, 1, 0, 1, 1, 0, 0], group=list("aaaabbbb")))
    assert [found[n].value for n in ("equalised_odds", "equalised_odds_mean", "equalised_odds_overall")] == [
        0.5,
        0.5,
        0.25,
    ]
    assert (found["demographic_parity"].value, found["demographic_parity_ratio"].value) == (0, 1)


def test_identical_groups_have_no_gaps_and_ratios_of_one():
    rng = np.random.default_rng(0)
    truth, score = rng.integers(0, 2, 40), rng.random(40)
    found = all_gaps(cohort_of(np.tile(truth, 2), np.tile(score, 2), group=np.repeat(["a", "b"], 40)))
    for name, gap in found.items():
        if name == "cross_group_auroc":
            assert gap.value == pytest.approx(0, abs=1e-12)
        elif not np.isnan(gap.value):
            assert gap.value == pytest.approx(1.0 if gap_info(name).ratio else 0.0, abs=1e-12), name


def test_a_group_without_positives_is_left_out_where_fairlearn_sees_a_gap_of_one():
    truth, called = [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1]
    groups = list("aaaabbbbccc")
    found = all_gaps(cohort_of(truth, called, group=groups))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert fm.equal_opportunity_difference(truth, called, sensitive_features=groups) == 1
    assert (found["equal_opportunity"].value, found["equal_opportunity"].num_groups) == (0, 2)
    assert found["equalised_odds"].value == 0  # the group has an FPR, but no TPR
    assert found["fpr_max_min"].value == pytest.approx(1 / 3)
    cohort = cohort_of(truth, called, group=groups)
    alone = gaps(measured(cohort), [1, 3], clusters_of(cohort, cohort.labels[0]))["equal_opportunity"]
    assert np.isnan([alone.value, alone.low, alone.high]).all()
    assert (alone.worst_group, alone.num_groups) == (None, 1)


@settings(max_examples=12)
@given(seed=st.integers(0, 100))
def test_renaming_groups_moves_columns_only(seed: int):
    rng = np.random.default_rng(seed)
    truth, score, codes = rng.integers(0, 2, 80), rng.random(80), rng.integers(0, 3, 80)
    new_place = rng.permutation(3)
    cohorts = [cohort_of(truth, score, group=np.array(list("abc"))[c]) for c in (codes, new_place[codes])]
    before, after = (measured(cohort) for cohort in cohorts)
    old, new = (clusters_of(cohort, cohort.labels[0]) for cohort in cohorts)
    order = np.r_[0, 1 + new_place]
    for metric in before.point:
        np.testing.assert_allclose(after.point[metric][order], before.point[metric], atol=1e-12)
        np.testing.assert_allclose(after.drawn[metric][order], before.drawn[metric], atol=1e-12)
    for name, gap in gaps(before, [1, 2, 3], old).items():
        moved = gaps(after, [1, 2, 3], new, [name])[name]
        np.testing.assert_allclose([moved.value, moved.low, moved.high], [gap.value, gap.low, gap.high], atol=1e-12)


def test_auroc_gaps_do_not_change_under_monotone_transforms():
    rng = np.random.default_rng(1)
    truth, score, groups = rng.integers(0, 2, 200), rng.random(200), rng.choice(list("ab"), 200)
    plain = all_gaps(cohort_of(truth, score, group=groups))
    bent = all_gaps(cohort_of(truth, score**3, group=groups))
    for name in ("auroc_max_min", "auroc_worst_overall", "cross_group_auroc"):
        assert plain[name].value == bent[name].value
        assert (plain[name].low, plain[name].high) == (bent[name].low, bent[name].high)


def test_underdiagnosis_partitions_and_follows_the_label():
    truth, groups = np.tile([1, 1, 0, 0], 2), np.repeat(["a", "b"], 4)
    for called, under, over in ((truth, 0, 0), (np.zeros(8), 1, 0)):
        found = measured(cohort_of(truth, called, group=groups))
        assert (found.point["underdiagnosis"] == under).all()
        assert (found.point["overdiagnosis"] == over).all()


def test_the_worst_group_of_a_ratio_and_of_a_distance():
    truth = np.tile(np.repeat([1, 0], 10), 3)
    called = np.concatenate([np.r_[np.ones(k), np.zeros(10 - k), np.zeros(10)] for k in (9, 5, 8)])
    found = all_gaps(cohort_of(truth, called, group=np.repeat(list("abc"), 20)))
    assert (found["equal_opportunity_ratio"].worst_group, found["equal_opportunity_ratio"].best_group) == (2, 1)
    assert found["equal_opportunity_ratio"].value == pytest.approx(5 / 9)
    overall = found["equal_opportunity_ratio_overall"]
    assert (overall.worst_group, overall.best_group) == (2, None)
    assert overall.value == pytest.approx(5 / (22 / 3))
    assert found["selection_rate_worst_overall"].worst_group == 2
    assert np.isnan(found["equalised_odds_ratio"].value)  # no false positive anywhere: 0/0


def test_every_gap_says_what_it_is():
    for name in gap_names():
        info = gap_info(name)
        assert info.title, name
        assert info.formula, name
        assert info.reference, name


def test_groups_without_an_error_in_the_sample_may_still_differ():
    truth = np.tile([1, 1, 0, 0], 20)
    found = all_gaps(cohort_of(truth, 0.2 + 0.6 * truth, group=np.repeat(["a", "b"], 40)))
    for name in ("tpr_max_min", "equalised_odds", "equalised_odds_mean", "auroc_max_min"):
        assert (found[name].value, found[name].low) == (0, 0)
        assert found[name].high > 0.05, name
    ratio = found["equal_opportunity_ratio"]
    assert (ratio.value, ratio.high) == (1, 1)
    assert ratio.low < 0.95
    assert found["equal_opportunity_ratio_overall"].low < 0.95


def test_a_mean_gap_and_a_ratio_of_groups_that_are_alike_may_be_none():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 600)
    called = np.where(rng.random(600) < 0.8, truth, 1 - truth)
    found = all_gaps(cohort_of(truth, called, group=rng.choice(list("abc"), 600)))
    mean, ratio = found["equalised_odds_mean"], found["equalised_odds_ratio"]
    assert mean.low == 0 < mean.value < mean.high
    assert ratio.low < ratio.value < ratio.high == 1
    assert (found["equalised_odds_ratio_mean"].low, found["equalised_odds_ratio_mean"].high) > (ratio.low, 0.99)


@pytest.mark.parametrize("metric", ["tpr", "fpr"])
def test_the_interval_of_the_worst_group_lies_on_the_side_of_harm(metric: str):
    rng = np.random.default_rng(0)
    truth, group = rng.integers(0, 2, 600), np.where(rng.random(600) < 0.2, "M", "F")
    right = rng.random(600) < np.where(group == "F", 0.95, 0.55)  # men fare worse by either rate
    cohort = cohort_of(truth, np.where(right, truth, 1 - truth).astype(float), sex=group)
    worst = all_gaps(cohort, threshold=0.5)[f"{metric}_worst_overall"]
    assert cohort.attributes[0].groups[worst.worst_group - 1] == "M"
    assert 0 < worst.low < worst.value < worst.high
    assert 0.2 < worst.value < 0.4  # women, who are many, are far less above everybody than men are below
