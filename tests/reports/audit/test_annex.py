"""The annex: of attributes with very many groups it has the worst."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medclip.auditing.result import AuditResult
from medclip.reports.audit.annex import with_worst_groups
from medclip.reports.audit.report import render

PLACE: dict[str, Any] = {"model": "m", "label": "flu", "metric": "tpr"}


def of_wards(num: int) -> AuditResult:
    """Make an audit of as many wards, of which the seventh fares worst."""
    wards = [f"ward {n}" for n in range(num)]
    measured = {"n": 50, "n_pos": 20, "n_neg": 30, "n_patients": 50, "low": 0.5, "high": 0.9, "flag": ""}
    rows = [{**PLACE, "attribute": "ward", "group": ward, "value": 0.8, **measured} for ward in wards]
    everybody = {**PLACE, "attribute": "all", "group": "all", "value": 0.8, **measured}
    apart = [
        {
            **{**PLACE, "attribute": "ward", "group": ward, "reference": "rest"},
            **{"value": -0.3 if n == 7 else 0.1, "low": -0.4, "high": 0.2, "p": 1e-6 if n in (7, 9) else 0.5},
        }
        for n, ward in enumerate(wards)
    ]
    return AuditResult(
        metrics=(everybody, *rows),
        differences=tuple(apart),
        model_names=("m",),
        labels=("flu",),
        attributes=("ward",),
    )


def test_of_very_many_groups_the_worst_stay_and_a_sentence_says_so():
    made = of_wards(300)
    kept, sentences = with_worst_groups(made)
    groups = {row["group"] for row in kept.metrics}
    assert len(groups) == 1 + 12
    assert {"all", "ward 7"} <= groups
    assert "ward 9" not in groups  # as sure, but it fares better
    assert sentences == ("Ward has 300 groups: the annex has the 12 that fare worst, the tables all.",)
    assert "the annex has the 12 that fare worst" in render(made)
    assert len(made.metrics) == 301


def test_few_groups_all_stay():
    made = of_wards(24)
    assert with_worst_groups(made) == (made, ())


def test_a_group_that_may_not_be_shown_stays_after_all_that_are():
    made = of_wards(30)
    hidden = tuple({**row, "flag": "suppressed"} if row["group"] == "ward 0" else row for row in made.metrics)
    kept, _ = with_worst_groups(replace(made, metrics=hidden, differences=()))
    assert "ward 0" not in {row["group"] for row in kept.metrics}
