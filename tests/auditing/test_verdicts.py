"""Requirements held against intervals: met, not met, undecided, and never met where nothing was seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import medclip
from medclip.auditing.declared import declared
from medclip.auditing.groups.differences import against
from medclip.auditing.groups.measure import measure
from medclip.auditing.options import MeasureOptions
from medclip.auditing.thresholds.choose import Policy, choose_all
from medclip.auditing.verdicts import MET, NOT_MET, UNDECIDED, requirement_rows
from medclip.errors import MedclipError
from medclip.reports.audit.report import render
from medclip.reports.audit.sections.requirements import answers, findings
from medclip.reports.audit.summary import error_rate, lead, summary
from medclip.statistics.cohort import Attribute, Cohort, Label
from medclip.statistics.resampling.intervals import of
from medclip.statistics.resampling.standard_errors import clusters_of
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.audit_tables import audit_table
from tests.kits.size import sized

QUICK: dict[str, Any] = {"num_resamples": 200, "num_permutations": 200, "threshold": 0.5}


def audited(*require: str):
    return medclip.audit(audit_table(300, gap=0.6), by=["sex"], require=list(require), **QUICK)


def verdict(result, requirement: str) -> str:
    (row,) = [r for r in result.requirements if r["requirement"] == requirement and r["part"] == "requirement"]
    return row["verdict"]


def groups(result, requirement: str) -> dict[str, dict]:
    return {r["group"]: r for r in result.requirements if r["requirement"] == requirement and r["part"] == "group"}


def test_each_group_is_held_against_the_one_sided_bounds_of_the_intervals_that_resample_patients():
    cohort, measured = _measured()
    rows = requirement_rows(measured, declared(["tpr>=0.5 in each g", "auroc>=0.9"]))
    replicates, clusters = measured.replicates["flu"], clusters_of(cohort, cohort.labels[0])
    low, high, _ = of(replicates, "tpr", clusters, level=0.9)
    _, wide, _ = of(replicates, "tpr", clusters, level=0.95)  # 1 − 2 · 0.05/2: two groups
    own = [r for r in rows if r["metric"] == "tpr" and r["part"] == "group"]
    assert [r["low"] for r in own] == pytest.approx(low[1:])
    assert [r["high"] for r in own] == pytest.approx(wide[1:])
    assert (wide[1:] > high[1:]).all()


def test_two_groups_are_equivalent_where_the_90_percent_interval_of_their_difference_lies_within_the_margin():
    cohort, measured = _measured()
    (d,) = against(measured.replicates["flu"], "tpr", [1], 2, clusters_of(cohort, cohort.labels[0]))
    from scipy.stats import t

    half = t.ppf(0.95, d.degrees_of_freedom) * d.standard_error
    widest = max(abs(d.value - half), abs(d.value + half))
    for margin, expected in ((widest + 0.001, MET), (widest - 0.001, UNDECIDED)):
        head, pair = requirement_rows(measured, declared([f"tpr gap<={margin:.6f} in g"]))
        assert (pair["low"], pair["high"]) == pytest.approx((d.value - half, d.value + half))
        assert pair["verdict"] == head["verdict"] == expected
        assert (pair["group"], pair["reference"]) == ("a", "b")


def test_a_requirement_is_met_by_all_groups_and_failed_by_one():
    result = audited("tpr>=0.6 in each sex", "tpr>=0.9 in each sex", "auroc>=0.7 for flu", "fpr gap<=0.5 in sex")
    assert verdict(result, "auroc>=0.7 for flu") == MET
    assert verdict(result, "fpr gap<=0.5 in sex") == MET
    failed = groups(result, "tpr>=0.9 in each sex")
    assert failed["F"]["verdict"] == NOT_MET
    assert failed["F"]["high"] < 0.9
    assert verdict(result, "tpr>=0.9 in each sex") == NOT_MET
    assert result.red_box
    assert not result.leaks
    assert "requirements: 2 met, 1 not met and 1 undecided" in repr(result)
    assert "1 requirement not met" in render(result)
    assert [one.sentence for one in findings(result)] == [summary(result)[0].sentences[0]]


def test_what_is_between_the_bounds_is_undecided_and_raises_no_red_box():
    value = groups(audited("tpr>=0.6 in each sex"), "tpr>=0.6 in each sex")["F"]["value"]
    text = f"tpr>={value:.3f} in each sex"
    result = audited(text)
    assert verdict(result, text) == UNDECIDED
    assert not result.red_box
    assert any("undecided" in sentence and "F" in sentence for sentence in answers(result))


def test_a_group_that_is_not_shown_is_never_met():
    table = audit_table(300)
    table.loc[table.patient.isin(["P0", "P1", "P2"]), "sex"] = "O"
    result = medclip.audit(table, by=["sex"], require=["tpr>=0.1 in each sex", "tpr gap<=0.9 in sex"], **QUICK)
    row = groups(result, "tpr>=0.1 in each sex")["O"]
    assert row["verdict"] == UNDECIDED
    assert "fewer than 10" in row["reason"]
    assert row.get("value") is None
    assert row.get("n") is None
    assert verdict(result, "tpr>=0.1 in each sex") == UNDECIDED
    assert verdict(result, "tpr gap<=0.9 in sex") == UNDECIDED


def test_a_handful_of_blanks_does_not_leave_every_requirement_undecided_but_is_listed():
    table = audit_table(300)
    table.loc[table.patient.isin(["P0", "P1"]), "sex"] = None
    result = medclip.audit(table, by=["sex"], require=["tpr>=0.1 in each sex"], **QUICK)
    assert groups(result, "tpr>=0.1 in each sex")["not stated"]["verdict"] == UNDECIDED
    assert verdict(result, "tpr>=0.1 in each sex") == MET


def test_a_rate_without_a_threshold_is_undecided():
    table = audit_table(300)
    table["flu_score"] = 5 * table["flu_score"]
    result = medclip.audit(table, num_resamples=200, num_permutations=200, scores_are="any", require=["tpr>=0.1"])
    assert verdict(result, "tpr>=0.1") == UNDECIDED
    assert "was not measured" in groups(result, "tpr>=0.1")["all"]["reason"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"require": ["tpr>=0.8 in each sxe"]}, "Did you mean 'sex'?"),
        ({"require": ["tpr>=0.8 for flue"]}, "Did you mean 'flu'?"),
        ({"primary": ["ppv in sex"]}, "is not tested"),
        ({"primary": ["tpr in age"]}, "names no audited attribute"),
    ],
)
def test_what_names_nothing_that_is_audited_is_refused(options: dict, words: str):
    with pytest.raises(MedclipError) as caught:
        medclip.audit(audit_table(60), by=["sex"], **options)
    assert words in str(caught.value)


def test_primary_hypotheses_are_a_family_of_their_own_and_the_rest_says_that_it_is_exploratory():
    result = medclip.audit(audit_table(200), by=["sex", "age"], **QUICK, primary=["tpr for flu in sex", "auroc in sex"])
    tested = {(r["attribute"], r["gap"]): r for r in result.gaps if r.get("p") is not None}
    own = [tested["sex", "tpr_max_min"], tested["sex", "auroc_max_min"]]
    assert {r["family"] for r in own} == {"primary gaps, model"}
    first, second = sorted(own, key=lambda r: r["p"])
    assert first["p_holm"] == pytest.approx(min(1, 2 * first["p"]))
    assert second["p_holm"] == pytest.approx(min(1, max(second["p"], 2 * first["p"])))
    assert tested["age", "tpr_max_min"]["family"] == "exploratory groups, model"
    families = {r["family"] for r in result.differences if r.get("p") is not None}
    assert families == {"exploratory groups, model"}
    assert any("all other tests of groups are exploratory" in sentence for sentence in answers(result))


def test_each_primary_hypothesis_stands_first_with_verdict_gap_p_and_the_value_of_each_group():
    primary = ["tpr for flu in sex", "auroc in sex"]
    result = medclip.audit(audit_table(400, gap=0.9), by=["sex", "age"], **QUICK, primary=primary).tidied()
    first = summary(result)[0]
    assert first.head == "Primary hypotheses"
    assert len(first.sentences) == 2
    (ranking,) = (sentence for sentence in first.sentences if "AUROC for flu by sex" in sentence)
    assert "AUROC for flu by sex: groups differ beyond chance. F 0." in ranking
    assert ", M 0." in ranking or " and M 0." in ranking
    assert "by itself" in ranking
    assert "adjusted" in ranking
    assert lead(result) == first.sentences[0]
    assert "Primary hypotheses have 5 % of their own." in error_rate(result)
    page = render(result)
    assert all(page.index(sentence) < page.index('id="found"') for sentence in first.sentences)
    assert "barely" not in ranking
    next(row for row in result.gaps if row["gap"] == "auroc_max_min" and row["attribute"] == "sex")["low"] = 0.0
    (ranking,) = (sentence for sentence in summary(result)[0].sentences if "AUROC for flu by sex" in sentence)
    assert ranking.endswith(" adjusted; barely, for the interval still holds 0.")
    level = medclip.audit(audit_table(200), by=["sex"], **QUICK, primary=primary).tidied()
    assert "groups were not shown to differ" in summary(level)[0].sentences[0]


def test_models_over_everybody_are_one_family_and_their_groups_another():
    table = audit_table(120)
    other = table.assign(flu_score=table.flu_score * 0.9)
    result = medclip.audit(table, by=["sex"], name="a", compare={"b": other}, **QUICK)
    families = {(r["attribute"] == "all", r["family"]) for r in result.models}
    assert families == {(True, "models overall, a and b"), (False, "models by group (exploratory), a and b")}
    p = sorted(r["p"] for r in result.models if r["attribute"] == "all" and r["p"] is not None)
    smallest = min(r["p_holm"] for r in result.models if r["attribute"] == "all" and r["p_holm"] is not None)
    assert smallest == pytest.approx(min(1, len(p) * p[0]))


@pytest.mark.slow
def test_a_model_on_the_border_of_a_requirement_is_called_met_or_not_met_no_oftener_than_declared():
    verdicts = []
    for seed in range(number := sized(300, least=60)):
        _, measured = _measured(patients=60, seed=seed, resamples=300)
        verdicts.append(requirement_rows(measured, declared(["tpr>=0.8 in each g"]))[0]["verdict"])
    for wrong in (MET, NOT_MET):
        assert verdicts.count(wrong) / number <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / number)


def _measured(patients: int = 80, seed: int = 0, resamples: int = 200):
    """Make a cohort of two groups with 1 to 4 images a patient, whose true sensitivity is 0.80 in both."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(2 * patients), rng.integers(1, 5, 2 * patients))
    truth_N = (rng.normal(size=2 * patients)[who] + rng.normal(size=len(who)) > 0.3).astype(float)
    noise_N = (rng.normal(size=2 * patients)[who] + rng.normal(size=len(who))) / np.sqrt(2)
    label = Label("flu", noise_N + 1.8416 * truth_N, truth_N, probability=False)
    halves = Attribute("g", ("a", "b"), (who % 2).astype(np.int16), True)
    cohort = Cohort(who.astype(np.int32), (label,), (halves,))
    thresholds, _ = choose_all(cohort, Policy("fixed", 1.0), "")
    weights_PB = draw_weights(cohort.num_patients, resamples, seed=seed)
    options = replace(MeasureOptions(), num_resamples=resamples)
    return cohort, measure("model", cohort, thresholds, weights_PB, options)
