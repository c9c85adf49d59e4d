"""Gradings in ordered classes as findings of the page."""

from __future__ import annotations

from dataclasses import replace

from medclip.reports.audit.findings import Harm
from medclip.reports.audit.sections import ordinal
from tests.kits.audit_report import full


def test_a_difference_of_grades_has_both_figures_and_the_counts_that_it_rests_on():
    made = full()
    own = [
        {**row, "value": -0.24, "low": -0.28, "high": -0.2, "p": 1e-9, "p_holm": 1e-6}
        for row in made.ordinal
        if row.get("reference") and row["group"] == "female"
    ]
    values = [row for row in made.ordinal if not row.get("reference")]
    (finding,) = ordinal.findings(replace(made, ordinal=(*values, *own)))
    assert finding.harm is Harm.RANKING
    assert "less often in female (sex) than in all others" in finding.sentence
    assert "0.60 against 0.84, difference −0.24 (−0.28 to −0.20); 400 rows; 300 patients; p" in finding.sentence


def test_a_group_that_is_graded_better_is_no_finding_and_of_two_groups_the_worse_one_is_told_once():
    made = full()
    kappas = [{**row, "p_holm": 1e-6} for row in made.ordinal if row.get("reference") and row["group"] == "female"]
    better, worse = ([{**row, "value": value} for row in kappas] for value in (0.24, -0.24))
    men = [{**row, "group": "male"} for row in better]
    assert ordinal.findings(replace(made, ordinal=(*better,))) == []
    assert len(ordinal.findings(replace(made, ordinal=(*worse, *men)))) == 1
