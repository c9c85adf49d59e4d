"""Who was left out, as the page shows it."""

from __future__ import annotations

from dataclasses import replace

from medclip.reports.audit.annex.left_out import unscored
from medclip.statistics.cohort import ALL
from tests.kits.audit_report import full


def test_a_model_that_scored_everybody_has_one_line_and_the_other_all_its_groups():
    made = full(models=("a", "b"))
    none = {"n_unscored": 0, "value": 0.0}
    rows = [
        {**row, **none} if row["model"] == "a" else row
        for row in made.unscored
        if row["model"] == "b" or not row.get("reason")
    ]
    heads = [row.head for row in unscored(replace(made, unscored=tuple(rows))).rows]
    of_a = heads[heads.index("Model: a") + 1 : heads.index("Model: b")]
    assert len(of_a) == 1
    assert len({row["group"] for row in rows if row["model"] == "b"}) > 3
    assert len(heads) - heads.index("Model: b") > 4
    assert sum(row["attribute"] == ALL for row in rows) >= 2
