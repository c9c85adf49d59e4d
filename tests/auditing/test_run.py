"""The whole audit, on tables with known gaps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

import medclip
from medclip.auditing import result
from medclip.auditing.declared import declared
from medclip.auditing.disclosure import Policy
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.options import MeasureOptions, Shortcuts, Thresholds
from medclip.auditing.run import run_audit
from medclip.auditing.thresholds.choose import write_thresholds
from medclip.errors import MedclipError, Reason
from medclip.reports.audit.summary import summary
from tests.kits.audit_tables import audit_table
from tests.kits.progress import Recorded

QUICK = MeasureOptions(num_resamples=200, permutations=200)
FEW: dict[str, Any] = {"num_resamples": 200, "num_permutations": 200}
VALIDATION = Thresholds(choose_where={"split": "val"})
TEST = ReadOptions(where={"split": "test"})


def rows(result, table: str, **wanted: object) -> list[dict]:
    return [r for r in result.rows(table) if all(r.get(k) == v for k, v in wanted.items())]


def test_the_numbers_are_those_of_scikit_learn_on_the_rows_of_the_group():
    table = audit_table()
    found = run_audit(table, by=["sex"], options=QUICK).result
    for group in "FM":
        own = table[table.sex == group]
        (row,) = rows(found, "metrics", attribute="sex", group=group, metric="auroc")
        assert row["value"] == pytest.approx(roc_auc_score(own.flu, own.flu_score), abs=1e-12)
        assert row["low"] < row["value"] < row["high"]
        assert (row["n"], row["n_pos"], row["n_patients"]) == (len(own), own.flu.sum(), own.patient.nunique())


def test_a_figure_of_few_cases_is_flagged_by_the_cases_that_it_rests_on():
    table = audit_table(400)
    few_healthy = table[(table.sex == "M") | (table.flu == 1) | (table.index % 8 == 0)]
    flags = {
        row["metric"]: row["flag"]
        for row in rows(run_audit(few_healthy, by=["sex"], options=QUICK).result, "metrics", group="F")
    }
    assert (flags["tpr"], flags["fpr"], flags["auroc"]) == ("", "underpowered", "underpowered")


def test_a_planted_gap_is_found_after_adjusting_and_none_is_found_where_there_is_none():
    planted = run_audit(audit_table(400, gap=0.9), by=["sex", "age"], options=QUICK).result
    (gap,) = rows(planted, "gaps", attribute="sex", gap="auroc_max_min")
    assert gap["worst_group"] == "F"
    assert gap["value"] > 0.2
    (apart,) = rows(planted, "differences", attribute="sex", group="F", metric="auroc")
    assert apart["high"] < 0
    assert gap["p_holm"] == apart["p_holm"] < 0.01
    level = run_audit(audit_table(400), by=["sex", "age"], options=QUICK).result
    assert min(r["p_holm"] for r in level.gaps if r.get("p_holm") is not None) > 0.05


def test_names_that_stand_for_one_gap_share_its_test_and_count_once():
    found = run_audit(audit_table(), by=["sex"], options=QUICK).result
    (one,) = rows(found, "gaps", gap="tpr_max_min")
    (same,) = rows(found, "gaps", gap="equal_opportunity")
    shared = ("value", "p", "p_holm", "family")
    assert [same[k] for k in shared] == [one[k] for k in shared]
    assert one["p_holm"] == min(r["p_holm"] for r in rows(found, "differences", attribute="sex", metric="tpr"))
    (odds,) = rows(found, "gaps", gap="equalised_odds")
    (larger,) = rows(found, "gaps", gap=odds["same_as"])
    assert odds["same_as"] in ("tpr_max_min", "fpr_max_min")
    assert [odds[k] for k in (*shared, "statistic", "group")] == [larger[k] for k in (*shared, "statistic", "group")]
    assert same["same_as"] == "tpr_max_min"
    assert one.get("same_as") is None


@pytest.mark.parametrize(
    "frame", [lambda t: t, pl.from_pandas, pa.Table.from_pandas], ids=["pandas", "polars", "arrow"]
)
def test_any_data_frame_gives_the_same_tables(frame):
    table = audit_table(60)
    one = run_audit(table, by=["sex"], name="m", options=QUICK).result
    assert run_audit(frame(table), by=["sex"], name="m", options=QUICK).result.to_json() == one.to_json()


def test_the_number_of_threads_changes_nothing():
    table = audit_table(60).assign(cold=lambda t: t.flu, cold_score=lambda t: t.flu_score)
    found = [run_audit(table, by=["sex"], options=replace(QUICK, threads=n)).result.to_json() for n in (1, 3)]
    assert found[0] == found[1]


def test_thresholds_are_chosen_on_other_patients_and_say_where_they_come_from(tmp_path: Path):
    table = audit_table(150, splits=True)
    run = run_audit(table, by=["sex"], reading=TEST, options=replace(QUICK, thresholds=VALIDATION))
    (row,) = run.result.thresholds
    assert (row["policy"], row["chosen_on"]) == ("youden", "split val")
    assert row["n_patients"] == table[table.split == "val"].patient.nunique()
    write_thresholds(tmp_path / "t.json", run.thresholds.values())
    again = replace(QUICK, thresholds=Thresholds(file=tmp_path / "t.json"))
    read = run_audit(table, by=["sex"], reading=TEST, options=again).result.tables()["metrics"]
    assert read.equals(run.result.tables()["metrics"])


def test_thresholds_that_were_chosen_on_audited_patients_are_refused(tmp_path: Path):
    table = audit_table(150, splits=True)
    same = replace(QUICK, thresholds=Thresholds(choose_where={"split": ["val", "test"]}))
    with pytest.raises(MedclipError, match="are also in the data that thresholds are chosen on") as refused:
        run_audit(table, by=["sex"], reading=TEST, options=same)
    assert refused.value.reason is Reason.PATIENT_OVERLAP
    assert "P1" not in str(refused.value)
    run = run_audit(table, by=["sex"], reading=TEST, options=replace(QUICK, thresholds=VALIDATION))
    write_thresholds(tmp_path / "t.json", run.thresholds.values())
    there = replace(QUICK, thresholds=Thresholds(file=tmp_path / "t.json"))
    with pytest.raises(MedclipError, match="chosen on the same"):
        run_audit(table, by=["sex"], reading=ReadOptions(where={"split": "val"}), options=there)


def test_without_a_threshold_a_half_is_taken_and_said():
    found = run_audit(audit_table(), by=["sex"], options=QUICK).result
    assert any("Nobody chose a threshold: 0.5" in n for n in found.notes)
    assert found.thresholds[0]["chosen_on"] == "given"


def test_two_sources_of_thresholds_are_refused():
    with pytest.raises(MedclipError, match="not from two"):
        medclip.audit(audit_table(40), threshold=0.3, choose_where={"split": "val"})


def test_two_models_are_compared_on_the_same_patients_and_the_sign_says_who_is_better():
    table = audit_table(200)
    worse = table.assign(flu_score=audit_table(200, gap=1.0).flu_score)
    found = run_audit(table, by=["sex"], name="good", compare={"poor": worse}, options=QUICK).result
    (women,) = rows(found, "models", attribute="sex", group="F", metric="auroc")
    assert (women["model"], women["other"]) == ("good", "poor")
    assert women["high"] < 0
    (everybody,) = rows(found, "models", attribute="all", metric="auroc")
    assert everybody["delong_p"] < 0.05
    same = run_audit(table, by=["sex"], name="a", compare={"b": table}, options=QUICK).result
    assert {r["value"] for r in same.models} == {0.0}
    assert {r["p"] for r in same.models} == {1.0}


def test_one_table_of_scores_and_truths_is_the_label_table_of_the_other_model_too():
    table = audit_table(150, splits=True)
    other = table[["image", "patient", "flu_score"]]
    options = replace(QUICK, thresholds=VALIDATION)
    found = run_audit(table, by=["sex"], name="a", compare={"b": other}, reading=TEST, options=options).result
    assert {r["value"] for r in found.models} == {0.0}


def test_two_models_of_one_name_are_refused():
    table = audit_table(40)
    with pytest.raises(MedclipError, match="the same name"):
        run_audit(table, by=["sex"], name="m", compare={"m": table}, options=QUICK)


def test_a_small_group_is_named_and_nothing_of_it_is_told():
    table = audit_table(120)
    table.loc[table.index[:6], "sex"] = "O"
    found = run_audit(table, by=["sex"], options=QUICK).result
    hidden = rows(found, "metrics", group="O")
    assert {r["flag"] for r in hidden} == {"suppressed"}
    assert all(r.get("value") is None and r.get("n") is None for r in hidden)
    (row,) = rows(found, "suppressed", group="O")
    assert row["n"] == "<10"
    assert not rows(found, "calibration", group="O")
    assert not rows(found, "decision", group="O")
    assert not rows(found, "differences", group="O")
    shown = rows(found, "metrics", group="F", metric="auroc")[0]
    assert shown["n"] % 5 == 0  # nobody subtracts the others from the total
    exact = replace(QUICK, small_cells=Policy(exact_counts=True))
    counted = rows(run_audit(table, by=["sex"], options=exact).result, "metrics", group="F", metric="auroc")[0]
    assert counted["n"] == (table.sex == "F").sum()


def test_while_a_group_is_hidden_no_table_has_an_exact_count_of_its_attribute():
    table = audit_table(120, splits=True)
    table.loc[table.index[:6], "sex"] = "O"
    options = replace(QUICK, shortcuts=Shortcuts(("tube",), reweight=("age",)))
    found = run_audit(table, by=["sex"], options=options).result
    for name in ("metrics", "calibration", "shortcuts"):
        rows_of = [r for r in found.rows(name) if r.get("attribute", "sex") == "sex"]
        counts = [r[c] for r in rows_of for c in ("n", "n_pos", "n_neg", "n_patients") if r.get(c) is not None]
        assert counts
        assert all(n % 5 == 0 for n in counts)
    exact = run_audit(table, by=["sex"], options=replace(options, small_cells=Policy(exact_counts=True))).result
    for name in ("metrics", "shortcuts", "gaps", "differences"):
        kept = [r for r in exact.rows(name) if not str(r.get("stratum", "")).endswith("as it is")]
        pairs = [p for p in zip(found.rows(name), kept, strict=True) if p[0].get("attribute", "sex") == "sex"]
        told = [(a.get("value"), b.get("value"), str(b.get("metric", b.get("gap")))[:3]) for a, b in pairs]
        rates = [(a, b) for a, b, metric in told if metric in ("tpr", "fpr", "ppv")]
        rates = [(a, b) for a, b in rates if a is not None and b is not None and 0 < b < 1]
        assert rates
        assert all(a != b for a, b in rates if round(b, 2) != b)
    shares = {r["group"]: r.get("value") for r in rows(found, "metrics", metric="prevalence")}
    assert all(round(v, 2) == v for group, v in shares.items() if v is not None and group != "all")
    (everybody,) = rows(found, "metrics", metric="tpr", group="all")
    assert everybody == rows(exact, "metrics", metric="tpr", group="all")[0]  # no attribute that hides anybody
    for r in found.decision:  # acting on everybody tells the share of positives, and no more than the table does
        odds = r["threshold"] / (1 - r["threshold"])
        assert (r["treat_all"] + odds) / (1 + odds) == pytest.approx(shares[r["group"]])


def test_no_key_and_no_patient_is_in_any_table():
    found = run_audit(audit_table(80), by=["sex"], options=replace(QUICK, shortcuts=Shortcuts(("tube",)))).result
    text = found.to_json()
    assert not any(f'"{name}"' in text for name in ("P0", "P7", "img0", "img12"))


def test_a_device_that_raises_the_score_is_found_by_the_shortcut_tests():
    table = audit_table(300)
    tube = table.tube * 1.5
    table["flu_score"] = 1 / (1 + np.exp(-(np.log(table.flu_score / (1 - table.flu_score)) + tube)))
    options = replace(QUICK, shortcuts=Shortcuts(devices=("tube",), reweight=("age", "prevalence")))
    found = run_audit(table, by=["sex"], options=options).result
    raised = [r for r in found.shortcuts if r["metric"] == "mean score" and r["stratum"] == "with − without"]
    assert raised[0]["low"] > 0
    assert raised[0]["test"].startswith("tube: ")
    assert any("reweighted for age" in r["test"] for r in found.shortcuts)


def test_masked_copies_are_compared_with_their_originals_and_the_summary_says_what_masking_does():
    table = audit_table(200)
    logit = np.log(table.flu_score / (1 - table.flu_score))
    masked = table[["image"]].assign(flu=1 / (1 + np.exp(-(logit - table.tube))))
    scores = table[["image", "flu_score"]].rename(columns={"flu_score": "flu"})
    options = replace(QUICK, shortcuts=Shortcuts(("tube",), masked=masked))
    found = run_audit(scores, table.drop(columns="flu_score"), by=["sex"], options=options).result
    (row,) = [r for r in found.shortcuts if r["stratum"] == "positives: with − without"]
    assert row["high"] < 0
    (text,) = [" ".join(said.all) for said in summary(found) if said.head == "Shortcuts"]
    assert "device masked" in text
    assert "every interval holds" not in text


def test_scores_of_times_to_events_have_a_c_index_and_rates_at_a_horizon():
    table = audit_table(200)
    rng = np.random.default_rng(1)
    table["days"] = rng.exponential(np.where(table.flu == 1, 300.0, 900.0))
    options = replace(QUICK, horizon=365.0)
    found = run_audit(table, by=["sex"], reading=ReadOptions(time="days"), options=options).result
    assert found.labels == ("flu", "flu by 365")
    assert rows(found, "metrics", label="flu", attribute="sex", group="F", metric="c_index")[0]["value"] > 0.5
    assert not rows(found, "metrics", label="flu", metric="tpr")
    assert rows(found, "metrics", label="flu by 365", attribute="sex", group="F", metric="auroc")[0]["value"] > 0.5
    given = replace(options, thresholds=Thresholds(value=0.4))
    found = run_audit(table, by=["sex"], reading=ReadOptions(time="days"), options=given).result
    assert [(r["label"], r["value"]) for r in found.thresholds] == [("flu by 365", 0.4)]
    with pytest.raises(MedclipError, match="a horizon needs times to events"):
        run_audit(table, by=["sex"], options=options)


def test_a_patient_in_two_splits_of_the_label_table_is_told_in_red():
    table = audit_table(150, splits=True)
    table.loc[table.index[0], "split"], table.loc[table.index[1], "split"] = "val", "test"
    labels = table.drop(columns="flu_score")
    scores = table[["image", "flu_score"]].rename(columns={"flu_score": "flu"})
    fixed = replace(QUICK, thresholds=Thresholds(value=0.5))
    found = run_audit(scores, labels, by=["sex"], reading=TEST, options=fixed).result
    assert found.leaks


def test_the_package_is_also_the_verb():
    found = medclip.audit(audit_table(40), by=["sex"], **FEW)
    assert found.labels == ("flu",)
    assert medclip.statistics.cohort.ALL == "all"


def test_an_audit_that_is_killed_while_it_writes_is_known_as_unfinished_and_goes_on(tmp_path, monkeypatch):
    table, out = audit_table(40), tmp_path / "out"
    medclip.audit(table, by=["age"], **FEW, out=out)
    with monkeypatch.context() as patched:
        patched.setattr(result, "csv_bytes", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            medclip.audit(table, by=["sex"], **FEW, out=out, overwrite=True)
    assert json.loads((out / "audit.json").read_text()) == {"finished": False}
    assert not (out / "report.html").exists()
    medclip.audit(table, by=["sex"], **FEW, out=out)
    medclip.audit(table, by=["sex"], **FEW, out=tmp_path / "other")
    for file in sorted((tmp_path / "other").iterdir()):
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name


def test_another_audit_in_the_folder_is_replaced_only_where_that_is_asked(tmp_path):
    table, out = audit_table(40), tmp_path / "out"
    medclip.audit(table, by=["sex"], **FEW, out=out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    medclip.audit(table, by=["sex"], **FEW, out=out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    with pytest.raises(MedclipError, match="another audit: the grouping differs; nothing was changed") as caught:
        medclip.audit(table, by=["age"], **FEW, out=out)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert medclip.audit(table, by=["age"], **FEW, out=out, overwrite=True).attributes == ("age",)


def test_too_few_resamples_are_refused():
    with pytest.raises(MedclipError, match="num_resamples is at least 100, not 20"):
        medclip.audit(audit_table(40), num_resamples=20)


def test_a_constant_score_is_audited_like_any_other():
    table = audit_table(60).assign(flu_score=0.25)
    found = run_audit(table, by=["sex"], options=QUICK).result
    assert {r["value"] for r in rows(found, "metrics", metric="auroc") if r["flag"] != "suppressed"} == {0.5}
    assert pd.isna(rows(found, "metrics", metric="ppv")[0]["value"])
    assert np.isnan(rows(found, "gaps", gap="auroc_max_min")[0]["smallest_gap"])  # not 0: nothing could have been seen


def test_many_primary_hypotheses_get_enough_shuffles_or_the_notes_say_that_none_can_be_found():
    table = audit_table(60)
    for n in range(12):
        table[f"l{n}"], table[f"l{n}_score"] = table.flu, table.flu_score
    primary = replace(QUICK, declared=declared(primary=["tpr in sex", "fpr in sex", "auroc in sex"]))
    few = run_audit(table, by=["sex"], options=replace(primary, permutations=100)).result
    assert any("none of" in n and "however large" in n for n in few.notes)
    enough = run_audit(table, by=["sex"], options=replace(primary, permutations=None)).result
    assert enough.settings["permutations"] > 1000
    assert not any("however large" in n for n in enough.notes)


def test_tables_without_a_key_choose_thresholds_on_other_patients_too():
    table = audit_table(150, splits=True).drop(columns="image")
    found = run_audit(table, by=["sex"], reading=TEST, options=replace(QUICK, thresholds=VALIDATION)).result
    assert found.thresholds[0]["chosen_on"] == "split val"
    apart = Thresholds(choose_on=table[table.split == "val"])
    again = run_audit(table[table.split == "test"], by=["sex"], options=replace(QUICK, thresholds=apart)).result
    assert again.thresholds[0]["value"] == found.thresholds[0]["value"]


def test_rows_that_share_a_row_of_labels_are_not_paired_between_models():
    table = audit_table(100)
    scores = table[["image", "patient", "flu_score"]].rename(columns={"flu_score": "flu"})
    labels = table.groupby("patient", as_index=False).first()[["patient", "sex", "flu"]]
    reading = ReadOptions(key="patient", repeat_labels=True)
    assert run_audit(scores, labels, by=["sex"], reading=reading, options=QUICK).result.metrics
    with pytest.raises(MedclipError, match="share one row of labels"):
        run_audit(scores, labels, by=["sex"], reading=reading, compare={"b": scores}, options=QUICK)


def test_bins_of_calibration_hold_as_many_patients_as_a_group_needs():
    options = replace(QUICK, small_cells=Policy(30, 30, 30, 30))
    found = run_audit(audit_table(300), by=["sex"], options=options).result
    assert min(r["n"] for r in found.calibration) >= 30


@pytest.mark.parametrize("horizon", [-2.0, 0.0, float("nan")])
def test_a_horizon_is_a_time_after_the_start(horizon: float):
    with pytest.raises(MedclipError, match="a time after the start"):
        MeasureOptions(horizon=horizon)


def test_a_label_that_cannot_be_read_is_named_in_the_notes():
    table = audit_table(60)
    table["cold"], table["cold_score"] = table.flu.astype(str), table.flu_score
    table.loc[table.index[:3], "cold"] = "maybe so"
    found = run_audit(table, by=["sex"], options=QUICK).result
    assert found.labels == ("flu",)
    assert any("cold" in n and "3" in n for n in found.notes)


def test_each_long_stage_says_how_far_it_is():
    progress = Recorded()
    run_audit(audit_table(60), by=["sex", "tube"], name="m", options=QUICK, progress=progress)
    named = {name: total for name, total, _ in progress.stages}
    long = ("Measuring m", "Comparing groups of m", "Shuffling groups of m", "Calibration and decision curves of m")
    assert all(named[stage] > 0 for stage in long)
    assert sum(count for count, _ in progress.steps) >= sum(named[stage] for stage in long)
