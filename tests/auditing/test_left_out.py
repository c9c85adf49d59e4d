"""The tables of what was left out: rows after each step, and who was never scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import medclip
from tests.kits.audit_input import write_scored
from tests.kits.audit_tables import audit_table

QUICK: dict[str, Any] = {"num_resamples": 100, "num_permutations": 100, "threshold": 0.5}


def rows(result: medclip.AuditResult, table: str, **wanted: object) -> list[Any]:
    return [row for row in result.tidied().rows(table) if all(row[key] == value for key, value in wanted.items())]


def without(table: Any, lost: Any) -> Any:
    return table.loc[~lost, ["image", "flu_score"]].rename(columns={"flu_score": "flu"})


def test_the_steps_from_the_table_to_what_is_measured_are_counted():
    table = audit_table(200, splits=True)
    labels = pd.concat([table.drop(columns="flu_score"), table.drop(columns="flu_score")[:7]])
    labels.loc[labels.index[:20], "flu"] = -1
    result = medclip.audit(without(table, table.image == "img1"), labels, by=["sex"], where={"split": "test"}, **QUICK)
    test = table[table.split == "test"]
    flow = {(row["label"], row["step"]): row["n"] for row in rows(result, "flow")}
    assert flow["", "rows of the label table"] == len(labels)
    assert flow["", "asked for (--where)"] == (labels.split == "test").sum()
    assert flow["", "that repeat no other"] == len(test)
    assert flow["", "joined with scores"] == flow["", "rows of the audit"] == len(test) - (test.image == "img1").sum()
    assert flow["flu", "with truth and score"] == flow["flu", "with a truth"] < flow["", "rows of the audit"]


def test_a_group_whose_scores_are_missing_is_counted_tested_and_found():
    table = audit_table(400)
    lost = (table.sex == "F") & (table.index % 4 == 0)
    result = medclip.audit(without(table, lost), table.drop(columns="flu_score"), by=["sex", "tube"], **QUICK)
    (row,) = rows(result, "unscored", group="F", reason="")
    women = table.sex == "F"
    assert (row["n"], row["n_unscored"]) == (women.sum(), lost.sum())
    assert row["value"] == lost.sum() / women.sum()
    assert row["difference"] == row["value"]
    assert row["p_holm"] < 0.001
    (other,) = rows(result, "unscored", attribute="tube", group="yes", reason="")
    assert other["p_holm"] > 0.05
    (reason,) = rows(result, "unscored", group="F", reason="no row of scores")
    assert reason["n_unscored"] == lost.sum()


def test_files_that_were_skipped_or_failed_are_counted_by_their_reasons_and_blanks_as_blanks(tmp_path: Path):
    table = audit_table(150)
    kept = [n for n in range(len(table)) if n % 5]
    studies = {f"s{n}": [table.image[n]] for n in kept}
    scores = {f"s{n}": {"findings:flu": table.flu_score[n]} for n in kept}
    folder = write_scored(tmp_path / "run", studies, scores, "multilabel")
    files = pd.read_parquet(folder / "files.parquet")
    more = pd.DataFrame(
        {"path": [table.image[n] for n in range(0, len(table), 5)], "status": "failed", "reason": "truncated"}
    )
    pd.concat([files, more]).to_parquet(folder / "files.parquet")
    result = medclip.audit(folder, table.drop(columns="flu_score"), by=["sex"], **QUICK)
    (row,) = rows(result, "unscored", attribute="all", reason="failed: truncated")
    assert row["n_unscored"] == len(more)
    blank = table.assign(flu_score=table.flu_score.where(table.index % 5 > 0))
    (row,) = rows(medclip.audit(blank, by=["sex"], **QUICK), "unscored", attribute="all", reason="the score is blank")
    assert row["n_unscored"] == len(more)


def test_a_few_rows_are_no_count_and_no_exact_share():
    table = audit_table(400)
    lost = table.index.isin(table.index[table.sex == "F"][:3])
    result = medclip.audit(without(table, lost), table.drop(columns="flu_score"), by=["sex"], **QUICK)
    (row,) = rows(result, "unscored", group="F", reason="")
    assert row["n_unscored"] is None
    assert row["value"] == 0.01
    assert rows(result, "unscored", group="F", reason="no row of scores")[0]["n_unscored"] is None


def test_a_group_that_is_too_small_has_no_number():
    table = audit_table(200)
    table["site"] = ["rare" if n < 6 else "usual" for n in range(len(table))]
    result = medclip.audit(table, by=["site"], **QUICK)
    (row,) = rows(result, "unscored", group="rare")
    assert (row["flag"], row["n"], row["value"]) == ("suppressed", None, None)


def test_shares_without_a_score_that_are_ten_points_apart_are_a_caution():
    table = audit_table(400)
    lost = (table.sex == "F") & (table.index % 10 == 0)
    result = medclip.audit(without(table, lost), table.drop(columns="flu_score"), by=["sex"], **QUICK)
    assert any("CAUTION: scores are missing more often in some groups of sex" in note for note in result.notes)


def test_a_label_whose_score_alone_is_missing_for_a_group_is_found():
    table = audit_table(400).assign(cold=lambda t: t.flu, cold_score=lambda t: t.flu_score)
    lost = (table.sex == "F") & (table.index % 3 == 0)
    table.loc[lost, "cold_score"] = float("nan")
    result = medclip.audit(table, by=["sex"], **QUICK)
    (row,) = rows(result, "unscored", group="F", reason="")
    assert row["n_unscored"] == lost.sum()
    assert row["p_holm"] < 0.001
    (reason,) = rows(result, "unscored", group="F", reason="blank for some of the labels")
    assert reason["n_unscored"] == lost.sum()
    unknown = table.assign(cold=table.cold.where(~lost))  # nobody asked for a score there
    assert rows(medclip.audit(unknown, by=["sex"], **QUICK), "unscored", group="F", reason="")[0]["n_unscored"] == 0


def test_labels_that_are_missing_where_the_score_is_high_are_a_caution_and_by_chance_they_are_none():
    table = audit_table(400)
    rng = np.random.default_rng(0)
    by_score = rng.random(len(table)) < np.where(table.flu_score > 0.6, 0.6, 0.2)
    result = medclip.audit(table.assign(flu=table.flu.where(~by_score)), by=["sex"], **QUICK)
    (note,) = (note for note in result.notes if "labels are missing, and not by chance" in note)
    assert "in the highest third of scores" in note
    (everybody,) = rows(result, "unlabelled", attribute="all")
    assert (everybody["n"], everybody["n_unlabelled"]) == (len(table), by_score.sum())
    (highest,) = rows(result, "unlabelled", group="highest third")
    assert highest["p_holm"] < 0.001
    by_chance = rng.random(len(table)) < 0.3
    result = medclip.audit(table.assign(flu=table.flu.where(~by_chance)), by=["sex"], **QUICK)
    assert not any("labels are missing" in note for note in result.notes)
    assert rows(medclip.audit(table, by=["sex"], **QUICK), "unlabelled") == []


def test_a_group_without_labels_is_named_and_tested():
    table = audit_table(400)
    lost = (table.sex == "F") & (table.index % 3 == 0)
    result = medclip.audit(table.assign(flu=table.flu.where(~lost)), by=["sex"], **QUICK)
    (row,) = rows(result, "unlabelled", group="F")
    assert row["n_unlabelled"] == lost.sum()
    assert row["p_holm"] < 0.001
    assert any("in F (sex), 0% in all others" in note for note in result.notes)


def test_rows_that_repeat_an_image_are_dropped_or_refused_and_counted_where_no_column_names_it():
    table = audit_table(100)
    copied = pd.concat([table, *[table.iloc[:1]] * 50])
    result = medclip.audit(copied, by=["sex"], **QUICK)
    assert max(row["n"] for row in rows(result, "metrics", attribute="all")) == len(table)
    assert any("Dropped: 50 rows that repeat another" in note for note in result.notes)
    unnamed = medclip.audit(copied.drop(columns="image"), by=["sex"], **QUICK)
    assert any("CAUTION: 50 rows equal another" in note for note in unnamed.notes)
    copied.iloc[-1, copied.columns.get_loc("flu_score")] = 0.123
    with pytest.raises(medclip.MedclipError, match="have several rows, which differ"):
        medclip.audit(copied, by=["sex"], **QUICK)


def test_scores_without_a_row_of_labels_count_as_without_a_label_and_tell_by_the_score():
    table = audit_table(400)
    named = table.flu_score < 0.6
    labels = table[named][["image", "patient", "sex", "flu"]]
    result = medclip.audit(table[["image", "flu_score"]], labels, by=["sex"], **QUICK)
    (everybody,) = rows(result, "unlabelled", attribute="all")
    assert (everybody["n"], everybody["n_unlabelled"]) == (len(table), (~named).sum())
    (highest,) = rows(result, "unlabelled", group="highest third")
    assert highest["p_holm"] < 0.001
    assert rows(result, "unlabelled", attribute="sex") == []
    assert any("in the highest third of scores" in note for note in result.notes)
    asked = medclip.audit(
        table[["image", "flu_score"]], labels.assign(part="test"), where=["part=test"], by=["sex"], **QUICK
    )
    assert rows(asked, "unlabelled") == []


def test_different_scores_are_counted():
    table = audit_table(100).assign(flu_score=0.5)
    result = medclip.audit(table, by=["sex"], **QUICK)
    (row,) = rows(result, "score_values")
    assert (row["n"], row["n_values"]) == (len(table), 1)


def test_the_name_of_everybody_is_no_name_of_a_group():
    table = audit_table(100).assign(all="x", site=lambda t: np.where(t.index % 2, "all", "b"))
    with pytest.raises(medclip.MedclipError, match="rows of everybody are called 'all'"):
        medclip.audit(table, by=["all"], **QUICK)
    groups = {row["group"] for row in rows(medclip.audit(table, by=["site"], **QUICK), "metrics", attribute="site")}
    assert groups == {"all (a value)", "b"}
