"""Who was left out, as the page shows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medclip.reports.audit.sections.left_out import findings, unlabelled, unscored
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
    of_a, of_b = heads[heads.index("Model: a") + 1 : heads.index("Model: b")], heads[heads.index("Model: b") + 1 :]
    assert of_a == of_b[:1]  # everybody
    assert of_b[1:] == ["Sex", "female", "male"]


def test_a_label_has_a_line_of_everybody_and_of_what_lacks_it_beyond_chance():
    heads = [row.head for row in unlabelled(full(models=("a",), labels=("flu", "cold"))).rows]
    assert heads == ["flu", "Everybody", "Highest third of scores"]
    assert not unlabelled(replace(full(), unlabelled=()))


def test_a_group_that_lacks_fewer_scores_than_the_others_is_no_finding():
    made = full()
    sure = [{**row, "p": 1e-6, "p_holm": 1e-5} for row in made.unscored if row.get("difference")]
    signs = [row["difference"] > 0 for row in sure]
    assert {True, False} <= {*signs}
    assert len(findings(replace(made, unscored=tuple(sure)))) == sum(signs)


def test_others_who_all_have_a_score_are_called_so_where_counts_are_exact():
    made = full()
    row = next(r for r in made.unscored if (r.get("difference") or 0) > 0)
    share = 0.59027777777
    sure = {**row, "value": share, "difference": np.nextafter(share, 0), "p": 1e-6, "p_holm": 1e-5}
    for counts, words in (("exact", "59 % against none in all others"), ("rounded", "59 % against < 1 % in")):
        (finding,) = findings(replace(made, unscored=(sure,), settings={**made.settings, "counts": counts}))
        assert words in finding.sentence
