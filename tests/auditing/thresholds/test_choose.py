from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from medclip.auditing.thresholds.choose import Policy, choose, choose_all
from medclip.errors import MedclipError
from medclip.statistics.cohort import Cohort, Label
from tests.kits.shortcuts import chests, label

RULES = ["youden", "f1", "sensitivity=0.8", "specificity=0.9"]


def rates(made: Label, threshold: float) -> tuple[float, float]:
    called = made.score_N >= threshold
    return float(called[made.truth_N == 1].mean()), float((~called)[made.truth_N == 0].mean())


@pytest.mark.golden
def test_thresholds_equal_the_golden_ones(golden: Path) -> None:
    held = np.load(golden / "zero_shot_retrieval.npz", allow_pickle=False)
    chosen_on = len(held["y"]) // 2  # The first half is the validation part, as in calibration.npz.
    for c in range(held["y"].shape[1]):
        made = label(held["prob_chexzero"][:chosen_on, c], held["y"][:chosen_on, c])
        assert choose(made, Policy("youden")) == pytest.approx(float(held["thr_youden"][c]), abs=1e-12)
        assert choose(made, Policy("f1")) == pytest.approx(float(held["thr_f1max"][c]), abs=1e-12)


@pytest.mark.golden
def test_the_threshold_at_a_sensitivity_and_the_rates_at_it_equal_the_golden_ones(golden: Path) -> None:
    import pandas as pd

    rows, expected = pd.read_csv(golden / "fairness_input.csv"), pd.read_csv(golden / "fairness_expected.csv")
    made = label(rows.score, rows.y)
    asked = expected[expected.metric.str.startswith("thr_at_tpr")]
    assert len(asked)
    for _, row in asked.iterrows():
        percent = row.metric.removeprefix("thr_at_tpr")
        value = choose(made, Policy("sensitivity", int(percent) / 100))
        assert value == pytest.approx(row["value"], abs=1e-12)
        for group in rows.sex.unique():
            here = expected[(expected.attribute == row.attribute) & (expected.group == group)].set_index("metric")
            of_group = label(rows.score[rows.sex == group], rows.y[rows.sex == group])
            tpr, tnr = rates(of_group, value)
            assert tpr == pytest.approx(here["value"][f"tpr@overall_tpr{percent}"], abs=1e-9)
            assert 1 - tnr == pytest.approx(here["value"][f"fpr@overall_tpr{percent}"], abs=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=40), st.sampled_from(RULES))
def test_each_rule_gives_the_best_of_all_thresholds(rows: list[tuple[bool, int]], rule: str) -> None:
    made = label([s / 12 for _, s in rows], [float(t) for t, _ in rows])
    every = np.unique(made.score_N)
    policy = Policy.parse(rule)
    try:
        value = choose(made, policy)
    except MedclipError:
        if len(set(made.truth_N)) == 2 and policy.name == "youden":
            assert all(sum(rates(made, t)) <= 1 + 1e-9 for t in every)
        elif len(set(made.truth_N)) == 2:
            assert policy.name == "specificity"
            assert all(rates(made, t)[1] < 0.9 for t in every)
        return
    assert value in every
    if policy.name == "youden":
        assert sum(rates(made, value)) == pytest.approx(max(sum(rates(made, t)) for t in every))
    elif policy.name == "f1":
        best = max(f1_score(made.truth_N, made.score_N >= t) for t in every)
        assert f1_score(made.truth_N, made.score_N >= value) == pytest.approx(best)
    elif policy.name == "sensitivity":
        assert value == max(t for t in every if rates(made, t)[0] >= 0.8 - 1e-9)
    else:
        assert value == min(t for t in every if rates(made, t)[1] >= 0.9 - 1e-9)


def test_a_target_that_is_met_exactly_is_met() -> None:
    # 1 − 0.9 is a little less than 0.1 in floating point; one of ten negatives may still be called.
    made = label([*np.arange(10) / 20, 0.9, 0.95], [0] * 10 + [1, 1])
    assert choose(made, Policy.parse("specificity=0.9")) == 0.45
    made = label([*np.arange(10) / 10, 0.0], [1] * 10 + [0])
    assert choose(made, Policy.parse("sensitivity=0.9")) == pytest.approx(0.1)


def test_weights_count_as_repeated_rows_and_rows_without_weight_do_not_count() -> None:
    cohort = chests(3, num_patients=80)
    made = cohort.labels[0]
    w = np.random.default_rng(0).integers(0, 3, len(made.score_N))
    many = label(np.repeat(made.score_N, w), np.repeat(made.truth_N, w))
    for rule in RULES:
        policy = Policy.parse(rule)
        assert choose(dataclasses.replace(made, weight_N=w.astype(float)), policy) == choose(many, policy)


@pytest.mark.parametrize("text", ["", "best", "youden=1", "f1=0.5", "sensitivity", "sensitivity=0", "specificity=1.2"])
def test_what_is_no_rule_is_refused_with_the_list_of_rules(text: str) -> None:
    with pytest.raises(MedclipError, match=r"youden, f1, sensitivity=0\.9"):
        Policy.parse(text)
    with pytest.raises(MedclipError, match="no rule"):
        Policy.parse("fixed=nan")
    assert [str(Policy.parse(t)) for t in ["Youden ", "sensitivity=.9"]] == ["youden", "sensitivity=0.9"]


def test_unknown_truths_and_missing_scores_do_not_count() -> None:
    made = label([0.1, 0.9, np.nan, 0.5], [0, 1, 1, np.nan])
    assert choose(made, Policy("youden")) == 0.9
    chosen, _ = choose_all(Cohort(np.arange(4, dtype=np.int32), (made,), ()), Policy("youden"), "val")
    assert (chosen["Pneumothorax"].n, chosen["Pneumothorax"].n_pos, chosen["Pneumothorax"].n_patients) == (2, 1, 2)


def test_what_cannot_be_chosen_is_left_out_with_a_sentence() -> None:
    good = label([0.1, 0.9, 0.4, 0.6], [0, 1, 0, 1])
    labels = (
        good,
        dataclasses.replace(good, name="one class", truth_N=np.ones(4)),
        dataclasses.replace(good, name="backwards", truth_N=1 - good.truth_N),
        dataclasses.replace(good, name="survival", time_N=np.ones(4)),
    )
    chosen, notes = choose_all(Cohort(np.arange(4, dtype=np.int32), labels, ()), Policy("youden"), "val")
    assert list(chosen) == ["Pneumothorax"]
    assert ["one class" in notes[0], "better than chance" in notes[1], "time to an event" in notes[2]] == [True] * 3


def test_a_score_that_is_the_same_for_everybody_has_no_threshold_better_than_chance() -> None:
    made = label(np.full(1000, 0.3), np.arange(1000) % 4 == 0)
    with pytest.raises(MedclipError, match="better than chance"):
        choose(made, Policy("youden"))
    with pytest.raises(MedclipError, match=r"reaches specificity=0\.9"):
        choose(made, Policy("specificity", 0.9))
    assert choose(made, Policy("sensitivity", 0.9)) == choose(made, Policy("f1")) == 0.3


def test_a_fixed_threshold_says_that_nobody_chose_it() -> None:
    chosen, notes = choose_all(chests(0), Policy.parse("fixed=0.5"), "val")
    found = chosen["Pneumothorax"]
    assert (found.value, found.chosen_on, found.n, found.data_hash, notes) == (0.5, "given", 0, "", ())
    assert found.row("ours")["model"] == "ours"
