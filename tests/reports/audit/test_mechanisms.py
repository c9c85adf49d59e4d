"""One finding for each mechanism: planted harms come back as many as were planted."""

from __future__ import annotations

from typing import Any

import pytest

import medclip
from medclip.reports.audit.mechanisms import Mechanism, join_coinciding, mechanisms
from medclip.reports.audit.summary import collect_findings
from tests.kits.audit_tables import planted_tables

WORSE = {"tpr": -1, "fpr": 1, "auroc": -1}
HARM = {"tpr": 2, "fpr": 4, "auroc": 5}


def row(group: str, metric: str, value: float, half: float = 0.05, **more: Any) -> dict[str, Any]:
    place = {"model": "net", "label": "flu", "attribute": "race", "group": group, "metric": metric}
    return {**place, "value": value, "low": value - half, "high": value + half, "reference": "rest", **more}


def told(*differences: dict[str, Any], values: tuple[dict[str, Any], ...] = ()) -> list[Mechanism]:
    def harm_of(one: dict[str, Any]) -> int | None:
        return HARM[one["metric"]] if one["value"] * WORSE[one["metric"]] > 0 else None

    return mechanisms(differences, values, lambda one: abs(one["value"]) > 0.05, harm_of)


def names(every: list[Mechanism]) -> list[tuple[str, list[str]]]:
    return [(one.lead["group"], [r["metric"] for r in one.rows]) for one in every]


def test_a_shift_is_one_mechanism_and_worse_ranking_beside_it_another():
    (shift,) = told(row("C", "tpr", -0.2), row("C", "fpr", -0.1), row("B", "tpr", 0.0), row("A", "tpr", 0.0))
    assert [r["metric"] for r in shift.beside] == ["fpr"]
    both = told(row("C", "tpr", -0.2), row("C", "fpr", -0.1), row("C", "auroc", -0.1), row("A", "tpr", 0.0))
    assert names(both) == [("C", ["tpr"]), ("C", ["auroc"])]


def test_noise_lowers_ranking_and_sensitivity_and_is_one():
    every = told(row("C", "tpr", -0.2), row("C", "fpr", 0.1), row("C", "auroc", -0.1), row("A", "tpr", 0.01))
    assert names(every) == [("C", ["tpr", "fpr", "auroc"])]


def test_who_differs_from_all_others_only_because_another_group_does_is_not_told():
    values = tuple(row(g, "fpr", v, n=100, n_neg=90) for g, v in (("A", 0.2), ("B", 0.21), ("C", 0.05), ("D", 0.4)))
    shifted = (row("C", "tpr", -0.3, 0.02), row("C", "fpr", -0.2, 0.02))
    others = (row("A", "fpr", 0.08, 0.06), row("B", "fpr", 0.09, 0.06), row("D", "fpr", 0.2, 0.06))
    assert names(told(*shifted, *others, values=values)) == [("C", ["tpr"]), ("D", ["fpr"])]


def test_a_second_group_that_is_harmed_is_told_and_not_the_other_side_of_both():
    rates = {"A": 0.3, "B": 0.28, "C": 0.05, "D": 0.08}
    values = tuple(
        row(g, metric, share + more, n=100, n_neg=90, n_pos=90)
        for metric, more in (("fpr", 0), ("tpr", 0.5))
        for g, share in rates.items()
    )
    found = (row("C", "tpr", -0.17, 0.04), row("C", "fpr", -0.17, 0.04), row("D", "tpr", -0.13, 0.06))
    mirrored = (row("D", "fpr", -0.13, 0.06), row("A", "fpr", 0.16, 0.04), row("B", "fpr", 0.13, 0.04))
    assert names(told(*found, *mirrored, values=values)) == [("C", ["tpr"]), ("D", ["tpr"])]


def test_of_two_groups_the_worse_harm_is_told_and_the_other_side_is_not():
    every = told(row("F", "tpr", -0.2), row("M", "tpr", 0.2), row("M", "fpr", 0.3), row("F", "fpr", -0.3))
    assert names(every) == [("F", ["tpr"])]


@pytest.mark.parametrize(("view", "scanner", "leads"), [(0.01, 0.2, ["B"]), (0.2, 0.2, ["B", "AP"]), (0.0, 0.0, ["B"])])
def test_of_attributes_that_coincide_the_one_whose_difference_stays_is_told(
    view: float, scanner: float, leads: list[str]
):
    films = row("AP", "fpr", 0.2, attribute="view")
    machines = row("B", "fpr", 0.25, attribute="scanner")
    given = [
        {**films, "given": "scanner", "value": view, "low": view - 0.05, "high": view + 0.05},
        {**machines, "given": "view", "value": scanner, "low": scanner - 0.05, "high": scanner + 0.05},
    ]
    every = join_coinciding([Mechanism((films,)), Mechanism((machines,))], given)
    assert [one.lead["group"] for one in every] == leads
    assert [len(one.merged) for one in every] == ([1] if len(leads) == 1 else [0, 0])


@pytest.mark.slow
def test_three_planted_harms_are_three_findings_about_groups():
    labels, scores = planted_tables()
    result = medclip.audit(
        scores,
        labels,
        by=["race", "site", "sex", "view", "scanner"],
        name="net",
        where={"split": "test"},
        choose_where={"split": "val"},
        num_resamples=300,
        num_permutations=100,
    ).tidied()
    findings = [finding for finding in collect_findings(result) if "calibration" not in finding.what]
    assert [finding.what for finding in findings[:2]] == ["Flu, West (site): TPR", "Flu, C (race): TPR"]
    assert len(findings) == 3
    assert findings[2].what.startswith("Flu, Fixed (scanner), or ")
    assert "AUROC 0.66 against 0.91" in findings[0].sentence
    assert "are PA (view): given the view, the difference is −0.1" in findings[2].sentence
    assert "given the scanner, the " in findings[2].sentence
