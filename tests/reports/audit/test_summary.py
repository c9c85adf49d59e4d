"""The sentences and numbers of an audit: drawn from the tables, and never more certain than they are."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from medclip.auditing.checks.shortcuts.masked_pairs import MEAN_CHANGE
from medclip.auditing.result import AuditResult
from medclip.reports.audit.findings import Harm
from medclip.reports.audit.names import parts, with_interval
from medclip.reports.audit.report import card, markdown
from medclip.reports.audit.summary import FOUND, HIDDEN, UNSCORED, UNSEEN, alarms, collect_findings, lead, summary
from tests.kits.audit_report import EVIL, full, nearly_empty, without_findings


def told(result: AuditResult) -> dict[str, str]:
    return {matter.head: " ".join(matter.all) for matter in summary(result.tidied())}


def test_scores_that_are_all_equal_stand_in_the_red_box_and_few_values_lead_only():
    made = without_findings()
    (row, *others) = made.score_values
    assert collect_findings(made) == ()
    equal = replace(made, score_values=({**row, "n_values": 1}, *others))
    assert "are equal: they tell nobody apart" in lead(equal)
    assert alarms(equal) == ("Stop: scores that are all equal.", (lead(equal),))
    few = replace(made, score_values=({**row, "n_values": 2}, *others))
    assert "have 2 different values" in lead(few)
    assert alarms(few)[1] == ()
    assert collect_findings(replace(made, score_values=({**row, "n_values": 5}, *others))) == ()


def test_a_row_has_its_value_and_interval_with_the_same_decimals():
    assert with_interval({"value": 0.8312, "low": 0.79, "high": 0.871}) == "0.83 (0.79 to 0.87)"
    assert with_interval({"value": 0.8312, "low": None, "high": float("nan")}) == "0.83 (no interval)"
    assert with_interval({"value": float("nan")}) == "–"
    assert parts({"value": 0.031, "low": -0.01, "high": 0.06}, signed=True) == ("+0.03", "−0.01 to +0.06")


def test_the_size_comes_from_everybody_and_not_from_the_largest_group():
    assert (
        "1,204 rows of 818 patients, for 3 labels, 1 risk by year, 1 grading and masks of 1 structure, by sex, age and "
        "site" in told(full())["Size"]
    )


def test_gaps_above_chance_are_told_with_size_interval_ends_and_what_chance_gives():
    text = told(full())[FOUND]
    assert "Pneumothorax by age: TPR, highest − lowest, 0." in text
    assert "worst for 80+, best for 25-50; p\u00a0<0.001, after adjusting for " in text
    assert "chance alone would give 0.027 on average" in text


def test_the_same_gap_by_another_name_is_told_and_counted_once():
    made = full()
    row = next(r for r in made.gaps if r["gap"] == "underdiagnosis_max_min" and r["p_holm"] <= 0.05)
    row |= {"family": "primary gaps, net"}
    twins = ({**row, "same_as": "tpr_max_min"}, {**row, "gap": "tpr_max_min"})
    matter = next(
        m
        for m in summary(
            replace(made, differences=(), ordinal=(), masks=(), gaps=twins, unscored=(), requirements=(), leakage=())
        )
        if m.head == FOUND
    )
    assert matter.sentences[1].startswith("1 finding in all: missed disease 1. 1 gap of a primary hypothesis tested.")
    assert matter.items == ()


def test_where_nothing_is_found_the_size_that_could_have_been_seen_stands_beside_it():
    text = told(without_findings())
    assert "none is larger than chance" in text[FOUND]
    assert "does not show that there are none" in text[FOUND]
    assert "a difference in sensitivity (TPR) had to be 0.090." in lead(without_findings())
    assert "smaller differences may well be there" in text[UNSEEN]
    assert "Sensitivity (TPR): from 0.090 for" in text[UNSEEN]
    alone = replace(without_findings(), differences=())
    assert "AUROC, highest − lowest: from 0." in told(alone)[UNSEEN]


def test_a_difference_that_no_share_can_reach_could_not_have_been_seen_at_all():
    made = without_findings()
    row = {**made.differences[0], "smallest_gap": 1.3}
    assert "no difference, however large, for" in told(replace(made, differences=(row,)))[UNSEEN]


def test_a_sensitivity_had_to_differ_by_no_more_than_it_can():
    made = without_findings()
    large = tuple({**row, "smallest_gap": 5.08} for row in made.differences[3:])
    text = lead(replace(made, differences=(*made.differences[:3], *large)))
    assert "had to be 0.090, and in " in text
    assert "none could be seen, however large" in text
    assert "5.08" not in text
    none = lead(replace(made, differences=large))
    assert "no difference in sensitivity (TPR), however large, could be seen" in none


def test_of_very_many_groups_that_are_hidden_some_are_named():
    rows = tuple(
        {"label": "flu", "attribute": "site", "group": f"s{n}", "reason": "few", "n": "<10"} for n in range(300)
    )
    text = told(replace(full(), suppressed=rows))[HIDDEN]
    assert text.startswith("300 groups had too few patients")
    assert len(text) < 400


def test_without_power_nothing_follows_from_what_was_not_found():
    made = without_findings()
    rows = {name: tuple({**row, "smallest_gap": None} for row in made.rows(name)) for name in ("gaps", "differences")}
    assert "nothing follows from one that was not found" in told(replace(made, **rows))[UNSEEN]


def test_p_that_does_not_survive_is_something_to_look_at_again_and_not_a_finding():
    made = without_findings()
    worse = {"value": -0.3, "low": -0.5, "high": -0.1, "p_holm": 0.4}
    places = [row for row in made.differences if row["metric"] == "tpr"][::3]
    rows = tuple({**row, **worse, "p": 0.01 + 0.005 * n} for n, row in enumerate(places[:4]))
    text = told(replace(made, differences=rows))[FOUND]
    assert "Leads, not found: p is at most 0.05 before adjusting only" in text
    assert "the first 3 of 4" in text
    assert text.count("is missed more often in") == 3
    assert "p\u00a00.010, after adjusting for 4 tests 0.40" in text
    found = replace(made, differences=(*rows[:1], {**rows[1], "p_holm": 0.001}))
    assert "1 lead, with p at most 0.05 before adjusting only: to be looked at again" in told(found)[FOUND]


def test_the_level_is_that_of_the_settings():
    made = full()
    strict = replace(made, settings={**made.settings, "alpha": 1e-9}, leakage=())
    assert "none is larger than chance" in told(strict)[FOUND]


def test_groups_that_are_hidden_are_named_and_nothing_is_said_about_them():
    text = told(full())[HIDDEN]
    assert "18-25 (age), site C (site) and not stated (sex)" in text
    assert "Nothing is known here" in text
    assert HIDDEN not in told(nearly_empty())


def test_thresholds_come_with_policy_and_source():
    assert (
        "3 thresholds by the policy “youden”, chosen on validation split (410 patients)." in told(full())["Thresholds"]
    )
    assert "not in this audit" in told(nearly_empty())["Thresholds"]
    given = replace(full(), thresholds=({"label": "x", "value": 0.5, "policy": "fixed=0.5", "chosen_on": "given"},))
    assert told(given)["Thresholds"] == "1 threshold given beforehand (fixed=0.5): no data chose it here."


def test_models_are_compared_in_words():
    text = told(full(models=("a", "b")))["Models compared"]
    assert "Pneumonia: AUROC of b minus that of a +0.0" in text
    assert re.search(r"p\xa00\.\d+ by itself, 0\.1\d adjusted", text)
    assert "Models compared" not in told(full())


def test_shortcuts_embeddings_and_leakage_are_told():
    text = told(full())
    assert "Pneumothorax, positives with and without the device: AUROC +0.12 (+0.08 to +0.16)." in text["Shortcuts"]
    assert "sex (logistic AUROC 0.93 (0.89 to 0.97))" in text["Embeddings"]
    assert "Finding patients again, anybody: For 41 %" in text["Embeddings"]
    assert "2 checks came out red" in text["Leakage"]
    assert "1 check could not be made" in text["Leakage"]
    assert "not looked for" in told(nearly_empty())["Leakage"]
    calm = replace(full(), shortcuts=tuple({**row, "low": -0.1} for row in full().shortcuts))
    assert "does not show that the device plays no part" in told(calm)["Shortcuts"]


@pytest.mark.parametrize("strata", [("positives with device",), ("positives with device", "positives: with − without")])
def test_what_masking_a_device_does_to_the_score_is_told_with_and_without_controls(strata: tuple[str, ...]):
    row = {"model": "medclip-mini", "label": "Pneumothorax", "test": "drain: device masked", "metric": MEAN_CHANGE}
    rows = tuple(
        {**row, "stratum": s, "value": -0.15, "low": -0.17, "high": -0.13, "note": f"{s}: drops."} for s in strata
    )
    text = told(replace(full(), shortcuts=rows))["Shortcuts"]
    assert f"{strata[-1]}: drops." in text
    assert text.count("drops.") == 1
    assert "every interval holds" not in text


def test_an_attribute_is_told_from_embeddings_only_where_the_interval_is_above_chance_and_drift_is_counted():
    probe = {"model": "medclip-mini", "what": "probe", "attribute": "sex", "p": 0.01}
    wide = {**probe, "name": "logistic: macro AUROC", "value": 0.64, "low": 0.46, "high": 0.81}
    ridge = {**probe, "name": "ridge: macro AUROC", "value": 0.64}
    drift = {"model": "medclip-mini", "what": "drift", "attribute": "site", "value": 0.1}
    rows = [{**drift, "name": f"{name}: Fréchet distance", "p": p} for name, p in (("north", 0.01), ("south", 0.4))]
    text = told(replace(full(), embeddings=(wide, ridge, *rows)))["Embeddings"]
    assert "No attribute was told" in text
    assert "Of 2 tests of drift, 1 has p at most 0.05, each by itself (not adjusted): site north." in text


def test_shortcut_tests_that_could_not_be_done_are_told():
    row = {"model": "medclip-mini", "label": "Pneumothorax", "test": "drain", "note": "Not done: too few patients."}
    assert (
        told(replace(full(), shortcuts=(row,)))["Shortcuts"]
        == "1 test of shortcuts could not be done; the table says why."
    )


def test_the_section_of_the_card_is_markdown_that_holds_its_text():
    text = markdown(full(labels=(EVIL, "a|b\n# c")).tidied())
    assert "<img" not in text.replace("\\<img", "")
    assert "a\\|b" in text
    assert "\n# c" not in text
    assert text.count("\n**") == len(card(full()))
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 7 for line in tables)
    assert "| medclip-mini | a\\|b" in text
    assert "Made by medclip 0.4.0" in text


def test_the_section_of_the_card_stays_under_sixty_lines():
    labels = tuple(f"finding {n}" for n in range(14))
    text = markdown(full(labels=labels, models=("a", "b")).tidied())
    assert text.count("\n") < 60
    assert "The first 30 of 56 rows; metrics.csv has all." in text
    rows = [line for line in text.splitlines() if line.startswith("| a | finding 0 | TPR |")]
    assert len(rows) == 1
    assert rows[0].count("(") == 5  # everybody, and two groups with their attributes


def test_the_card_says_what_was_red():
    assert "3 of 812 audited patients" in markdown(full().tidied())


def test_of_masks_alone_it_is_said_that_the_size_that_could_have_been_seen_is_not_known():
    alone = replace(full(), differences=(), gaps=())
    assert "is not known, so nothing follows from one that was not found" in told(alone)[UNSEEN]
    assert UNSEEN not in told(replace(alone, masks=()))


def test_groups_are_written_as_the_table_writes_them():
    made = replace(full(), differences=())
    row = {**next(r for r in made.gaps if r["p_holm"] <= 0.05), "worst_group": "ward_7", "best_group": None}
    assert "worst for ward_7" not in told(replace(made, gaps=(row,)))[FOUND]
    assert "worst for ward_7, best for a_b" in told(replace(made, gaps=({**row, "best_group": "a_b"},)))[FOUND]


def test_a_label_that_is_hidden_altogether_is_a_page_without_its_numbers():
    hidden = tuple(
        {**row, "value": None, "n": None, "n_pos": None, "n_patients": None, "flag": "suppressed", "reason": "few"}
        for row in full().metrics
    )
    page = told(replace(full(), metrics=hidden, risk=(), ordinal=(), masks=()))
    assert "audited on too few patients to be counted here, for 3 labels" in page["Size"]
    assert "Overall" not in page


def test_rows_that_were_never_scored_are_told_with_their_reasons_and_found_where_a_group_has_more():
    text = told(full())
    assert text[UNSCORED].startswith("4 % of 1,221 labelled rows lack a score (failed: truncated 37 and no row")
    (finding,) = [f for f in collect_findings(full()) if f.harm is Harm.UNSCORED]
    assert finding.sentence == (
        "Scores are missing more often in female (sex): 7 % against 1 % in all others, a difference of +0.06 (+0.02 to "
        "+0.09); 600 labelled rows, 300 patients (failed: truncated 30 and no row of scores few); p\u00a0<0.001, after "
        "adjusting for 2 tests <0.001."
    )


def test_leakage_leads_for_no_other_figure_holds_then():
    made = full()
    worst, *others = collect_findings(made)
    assert worst.harm is Harm.LEAKED
    assert lead(made) == "3 of 812 audited patients also stand in the training manifest."
    assert others


def test_where_only_leakage_was_found_nothing_is_said_of_tests_that_were_not_made():
    red = {"check": "files", "found": 3, "tested": 5, "severity": "red", "sentence": "3 of 5 files are shared."}
    (matter, *_) = summary(AuditResult(leakage=(red,), model_names=("a",)))
    assert "1 finding in all: leakage 1." in matter.sentences
