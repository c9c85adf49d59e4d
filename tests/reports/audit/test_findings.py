"""Findings about groups: all that survives is told, the worst harm first."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.auditing.result import AuditResult
from medclip.reports.audit.findings import Finding, Harm, findings
from medclip.reports.audit.report import render
from medclip.reports.audit.summary import collect_findings, lead, summary
from tests.kits.audit_tables import harmed_tables


def difference(**more: Any) -> dict[str, Any]:
    row = {"model": "net", "label": "flu", "attribute": "race", "group": "C", "metric": "tpr", "reference": "rest"}
    numbers = {"value": -0.4, "low": -0.55, "high": -0.25, "p": 0.00001, "p_holm": 0.002, "family": "groups, net"}
    return {**row, **numbers, **more}


def measure(**more: Any) -> dict[str, Any]:
    row = {"model": "net", "label": "flu", "attribute": "race", "group": "C", "metric": "tpr", "value": 0.35}
    return {**row, "low": 0.2, "high": 0.5, "n": 400, "n_pos": 70, "n_neg": 330, "n_patients": 260, **more}


def audit(*differences: dict[str, Any], **tables: Any) -> AuditResult:
    return AuditResult(differences=differences, model_names=("net",), labels=("flu",), **tables)


def of(*differences: dict[str, Any], **tables: Any) -> list[Finding]:
    return list(collect_findings(audit(*differences, **tables)))


@pytest.mark.slow
def test_a_harmed_group_among_two_models_five_labels_and_six_attributes_is_the_first_sentence(tmp_path: Path):
    labels, scores = harmed_tables()
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    scores["first"].to_csv(first, index=False)
    scores["second"].to_csv(second, index=False)
    result = medclip.audit(
        first,
        labels,
        by=["sex", "age", "race", "site", "view", "insurance"],
        compare={"second": second},
        out=tmp_path / "out",
        where={"split": "test"},
        choose_where={"split": "val"},
        num_resamples=100,
        num_permutations=100,
    )
    (row,) = (
        r
        for r in result.differences
        if (r["model"], r["label"], r["attribute"], r["group"], r["metric"])
        == ("first", "Pneumonia", "race", "C", "tpr")
    )
    assert row["value"] < -0.3
    assert row["p_holm"] < 0.05
    page = (tmp_path / "out" / "report.html").read_text()
    paragraph = page[page.index("<p") : page.index("</p>")]
    assert "Pneumonia is missed more often in C (race), model first: sensitivity (TPR) 0." in paragraph
    assert "after adjusting for " in paragraph
    assert "positives of" in paragraph
    with open(tmp_path / "out" / "differences.csv", newline="") as f:
        sure = [r for r in csv.DictReader(f) if r["p_holm"] and float(r["p_holm"]) <= 0.05]
    assert {r["group"] for r in sure if r["model"] == "first" and r["attribute"] == "race"} == {"C"}


def test_a_finding_has_its_counts_its_interval_and_both_p_values():
    (finding,) = of(difference(), difference(group="A", p_holm=0.9), metrics=(measure(),))
    assert finding.harm is Harm.MISSED
    assert finding.sentence == (
        "Flu is missed more often in C (race): sensitivity (TPR) 0.35 against 0.75 in all others, a difference of "
        "−0.40 (−0.55 to −0.25); 70 positives of 400 rows, 260 patients; "
        "p\u00a0<0.001, after adjusting for 2 tests 0.002."
    )


def test_harm_decides_the_order_and_size_within_one_harm():
    rows = [
        difference(metric="auroc", value=-0.3, group="D"),
        difference(metric="fpr", value=0.5, group="E"),
        difference(metric="tpr", value=-0.1),
        difference(metric="tpr", value=-0.2, group="B"),
        difference(metric="tpr", value=0.3, group="A"),
    ]
    kinds = [(f.harm, round(f.size, 2)) for f in of(*rows)]
    assert kinds == [
        (Harm.MISSED, 0.2),
        (Harm.MISSED, 0.1),
        (Harm.FALSE_ALARM, 0.5),
        (Harm.RANKING, 0.3),
    ]  # A fares better than the others: it takes no harm's place
    counted = next(s for s in summary(audit(*rows))[0].sentences if "in all:" in s)
    assert "missed disease 2, false alarms 1 and ranking (AUROC) 1." in counted


@pytest.mark.parametrize(
    ("metric", "value", "harm", "words"),
    [
        ("fpr", 0.2, Harm.MISSED, "Disease is missed more often in C (race) (called flu)"),
        ("tpr", -0.2, Harm.FALSE_ALARM, "False alarms about flu are more frequent in C (race)"),
    ],
)
def test_of_a_label_that_means_healthy_the_rates_change_their_places(metric: str, value: float, harm: Harm, words: str):
    (finding,) = of(difference(metric=metric, value=value), settings={"no_finding": ["flu"]})
    assert finding.harm is harm
    assert words in finding.sentence


def test_of_two_groups_the_one_that_fares_worse_is_told_once():
    women, men = difference(group="F", value=-0.2), difference(group="M", value=0.2)
    assert [f.what for f in of(women, men)] == ["Flu, F (race): TPR"]
    alarms = [difference(group="F", metric="fpr", value=-0.2), difference(group="M", metric="fpr", value=0.2)]
    (finding,) = of(women, men, *alarms)  # one shift: women are missed, men get the false alarms
    assert finding.what == "Flu, F (race): TPR"
    assert "with it FPR −0.20" in finding.sentence


def replace_value(row: dict[str, Any], value: float) -> dict[str, Any]:
    return {**row, "value": value}


def test_a_gap_is_told_where_no_group_of_it_was_found():
    gap = {"model": "net", "label": "flu", "attribute": "race", "gap": "tpr_max_min", "value": 0.3, "p": 0.001}
    gap |= {"p_holm": 0.02, "worst_group": "C", "best_group": "A", "num_groups": 3, "family": "gaps, net"}
    (finding,) = of(gaps=(gap,))
    assert finding.harm is Harm.MISSED
    assert "worst for C, best for A" in finding.sentence
    assert [f.what for f in of(difference(), gaps=(gap,))] == ["Flu, C (race): TPR"]
    assert len(of(difference(attribute="sex"), gaps=(gap,))) == 2


def test_a_reversed_score_is_called_so_and_its_groups_are_not_told_again():
    everybody = measure(attribute="all", group="all", metric="auroc", value=0.085, low=0.06, high=0.11)
    group = measure(metric="auroc", value=0.1, low=0.05, high=0.2)
    (finding,) = of(metrics=(group, everybody))
    assert finding.harm is Harm.REVERSED
    assert finding.sentence.startswith("The score for flu is reversed: AUROC 0.09 (0.06 to 0.11)")
    assert "The score for flu is reversed in C (race)" in of(metrics=(group,))[0].sentence
    assert of(metrics=(replace_value(group, 0.45) | {"high": 0.52},)) == []


def test_nothing_tested_is_no_finding_and_no_comfort():
    assert "cannot say whether groups differ" in lead(AuditResult())
    assert findings(AuditResult()) == []


def test_the_lead_is_the_first_sentence_of_the_page():
    page = render(audit(difference(), metrics=(measure(),)))
    assert page.index("Flu is missed more often") == page.index("<p") + len('<p class="lead">')
