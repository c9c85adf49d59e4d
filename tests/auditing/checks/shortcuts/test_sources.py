"""Whether a score follows the source of an image: pairs within and across sources, and what is red."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import medclip
from medclip.auditing.checks.shortcuts.sources import AGAINST, ALONE, KNOWN, POOLED, WITHIN, joined
from medclip.cli.main import main
from medclip.reports.audit.report import render
from medclip.reports.audit.sections.sources import answers, findings
from medclip.wording import real

QUICK = {"num_resamples": 200, "num_permutations": 100, "threshold": 0.5}


def hospitals(
    *shares: float, shifts: tuple[float, ...] = (0.0, 0.0), patients: int = 150, seed: int = 0
) -> pd.DataFrame:
    """Make hospitals with these shares of positives, whose scores are all shifted by so much."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients * len(shares)), 2)
    place = who // patients
    flu = (rng.random(patients * len(shares)) < np.asarray(shares)[np.arange(patients * len(shares)) // patients])[who]
    logit = 1.5 * flu + np.asarray(shifts)[place] + rng.normal(size=len(who)) - 1
    return pd.DataFrame(
        {
            "image": [f"i{i}" for i in range(len(who))],
            "patient": [f"P{p}" for p in who],
            "hospital": np.asarray(["north", "south", "west"])[place],
            "flu": flu.astype(int),
            "flu_score": 1 / (1 + np.exp(-logit)),
        }
    )


def audited(table: pd.DataFrame, **more):
    return medclip.audit(table, by=["hospital"], **QUICK, **more)


def one(result, what: str, source: str = "all") -> dict:
    (row,) = [r for r in result.sources if r["what"] == what and r["source"] == source]
    return row


def share_won(table: pd.DataFrame, allowed) -> float:
    """Count pairs by hand."""
    positives, negatives = table[table.flu == 1], table[table.flu == 0]
    ours, theirs = positives.flu_score.to_numpy()[:, None], negatives.flu_score.to_numpy()[None]
    wins = (ours > theirs) + 0.5 * (ours == theirs)
    return float(wins[allowed(positives.hospital.to_numpy()[:, None], negatives.hospital.to_numpy()[None])].mean())


def test_pairs_within_sources_and_across_them_are_those_counted_by_hand():
    table = hospitals(0.6, 0.2, 0.4, shifts=(0.5, 0.0, -0.3), patients=60)
    result = audited(table)
    assert one(result, WITHIN)["value"] == pytest.approx(share_won(table, lambda a, b: a == b))
    assert one(result, "across sources")["value"] == pytest.approx(share_won(table, lambda a, b: a != b))
    assert one(result, POOLED)["value"] == pytest.approx(share_won(table, lambda a, b: (a == b) | (a != b)))
    north = one(result, "its positives, others' negatives", "north")
    assert north["value"] == pytest.approx(share_won(table, lambda a, b: (a == "north") & (b != "north")))
    for row in result.sources:
        assert row["low"] <= row["value"] <= row["high"]


def test_a_score_that_follows_the_source_is_red_on_the_page_and_first_of_its_kind_in_the_summary():
    result = audited(hospitals(0.8, 0.2, shifts=(2.5, 0.0)))
    row = one(result, AGAINST, "north")
    assert row["severity"] == "red"
    assert row["low"] > 0
    assert one(result, KNOWN, "north")["value"] > 0.9
    assert one(result, POOLED)["value"] > one(result, WITHIN)["value"]
    assert result.red_box
    assert not result.leaks
    assert "a score that follows the source" in render(result)
    assert len(findings(result)) == 1


def test_an_honest_score_is_not_red_although_the_hospitals_differ_in_prevalence():
    result = audited(hospitals(0.7, 0.2))
    row = one(result, AGAINST, "north")
    assert row["severity"] == "note"
    assert row["high"] < 0
    assert not result.red_box
    assert not findings(result)
    assert any("of pairs within a source" in sentence for sentence in answers(result))


def test_the_source_alone_is_worth_what_prevalence_gives_and_nothing_where_prevalences_are_alike():
    known = one(audited(hospitals(0.8, 0.2)), ALONE)["value"]
    assert known == pytest.approx(0.8, abs=0.06)  # .8 · .8 + ½ · (.8 · .2 + .2 · .8)
    assert one(audited(hospitals(0.4, 0.4, patients=400)), ALONE)["value"] == pytest.approx(0.5, abs=0.05)


def test_where_no_source_has_both_classes_nothing_tells_the_finding_from_the_source():
    table = hospitals(1.0, 0.0)
    result = audited(table)
    row = one(result, WITHIN)
    assert row["severity"] == "red"
    assert real(row["value"]) is None
    assert "cannot be told apart" in row["note"]


def test_a_source_with_few_negatives_is_named_as_not_seen_without_a_number():
    table = hospitals(0.99, 0.3, patients=100)
    result = audited(table)
    row = one(result, AGAINST, "north")
    assert real(row["value"]) is None
    assert row.get("n_pos") is None
    assert "too few patients" in row["note"]
    assert not [r for r in result.sources if r["what"] == KNOWN]


def test_nothing_is_measured_where_no_attribute_is_a_source():
    table = hospitals(0.5, 0.5).rename(columns={"hospital": "ward"})
    assert not medclip.audit(table, by=["ward"], **QUICK).sources
    assert medclip.audit(table, site="ward", **QUICK).sources


def test_the_command_adds_the_named_column_to_the_groups_and_ends_with_the_code_of_the_red_box(tmp_path: Path, capsys):
    hospitals(0.8, 0.2, shifts=(2.5, 0.0)).rename(columns={"hospital": "ward"}).to_csv(tmp_path / "t.csv", index=False)
    more = ("--num-resamples", "100", "--num-permutations", "100", "--threshold", "0.5")
    assert main(["audit", str(tmp_path / "t.csv"), "--site", "ward", "--out", str(tmp_path / "out"), *more]) == 6
    assert "The score follows the source" in capsys.readouterr().out


def test_areas_are_joined_by_their_pairs_and_a_source_without_pairs_does_not_count():
    value, drawn_B = joined(np.array([0.8, np.nan]), np.array([[0.6], [np.nan]]), np.array([[10.0, 5.0], [0.0, 0.0]]))
    assert value == pytest.approx(0.8)
    assert drawn_B == pytest.approx([0.6])


def test_a_score_that_is_reversed_does_not_follow_the_source_for_that():
    table = hospitals(0.3, 0.3)
    table["flu_score"] = 1 - table.flu_score
    result = audited(table)
    assert one(result, AGAINST, "north")["p_holm"] < 0.05
    assert findings(result) == []


def test_a_source_that_is_told_surely_but_less_well_than_the_finding_is_not_red():
    result = audited(hospitals(0.5, 0.3, shifts=(0.3, 0.0), patients=400))
    row, known = one(result, AGAINST, "north"), one(result, KNOWN, "north")
    assert row["value"] < 0
    assert row["p_holm"] <= 0.05
    assert known["low"] > 0.5
    assert row["severity"] == "note"
