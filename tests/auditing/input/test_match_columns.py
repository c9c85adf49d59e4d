"""Which score answers which label, and what is said of those that are left out."""

from __future__ import annotations

import pyarrow as pa
import pytest

from medclip.auditing.input.match_columns import pair_up
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.score_table import read_scores
from medclip.errors import MedclipError
from medclip.files.tables.table import Table
from tests.kits.audit_input import tables, write_scored

TAKEN = ["file", "patient_id"]


def found(scores, labels, asked=None, **options):
    """Names of the labels, and what is said of others; one table where `labels` is None."""
    how = ReadOptions(**options)
    table = read_scores(pa.table(scores), how, lambda _: ["file"])
    truths = table.rows if labels is None else Table(pa.table(labels), "labels")
    pairs, passed = pair_up(asked, table, truths, how, TAKEN)
    return [p.name for p in pairs], passed


def test_tables_without_faults_leave_nothing_out():
    scores, labels = tables(60)
    assert found(scores, labels) == (["Pneumonia", "Pleural_Effusion"], [])
    carried = {name: labels[name] for name in ("age", "sex", "view", "patient_id")}
    as_numbers = {"age": [float(a) for a in labels["age"]]}
    assert found(scores | carried | as_numbers, labels) == (["Pneumonia", "Pleural_Effusion"], [])
    both = {f"{n}_score": scores[n] for n in ("Pneumonia", "Pleural_Effusion")} | labels
    assert found(both, None) == (["Pneumonia", "Pleural_Effusion"], [])


@pytest.mark.parametrize("cell", ["maybe", "2"])
def test_a_label_with_a_cell_that_means_nothing_is_left_out_with_a_caution(cell):
    scores, labels = tables(60)
    labels["Pleural_Effusion"] = [cell, cell, "", *map(str, labels["Pleural_Effusion"][3:])]
    (names, said) = found(scores, labels)
    assert names == ["Pneumonia"]
    assert said == [
        f"CAUTION: Pleural_Effusion is left out: 2 of its 59 cells are neither 1, 0, yes, no nor -1: '{cell}'."
    ]
    one = {"Pneumonia_score": scores["Pneumonia"], "effusion_p": scores["Pneumonia"], **labels}
    one["effusion"] = one.pop("Pleural_Effusion")
    assert found(one, None)[1] == [said[0].replace("Pleural_Effusion", "effusion")]
    with pytest.raises(MedclipError, match=rf"says '{cell}' in 2 of 60 cells, which is neither yes or no nor a class"):
        found(scores, labels, ["Pleural_Effusion"])
    assert found(scores, labels, ["Pneumonia"])[1] == []


def test_a_label_of_grades_or_names_beside_a_real_score_is_told_and_names_are_not_shown():
    scores, labels = tables(60)
    labels["Pneumonia"] = ["mild", "severe", "Doe^John"] * 20
    (names, said) = found(scores, labels)
    assert names == ["Pleural_Effusion"]
    assert "Pneumonia is left out: 60 of its 60 cells are neither" in said[0]
    assert "'mild', 'severe', (not shown)" in said[0]
    labels["Pneumonia"] = ["", "-1"] * 30
    assert "none of its 60 cells says yes or no (30 are blank)" in found(scores, labels)[1][0]


def test_scores_with_decimal_commas_are_refused_with_the_sentence_that_says_so():
    scores, labels = tables(60)
    scores["Pneumonia"] = ["0,7", "0,71", *map(str, scores["Pneumonia"][2:])]
    assert found(scores, labels) == (["Pneumonia", "Pleural_Effusion"], [])  # and nobody passes them by
    with pytest.raises(MedclipError, match=r"2 cells .* decimal comma, not a point\. Write decimals with a point"):
        read_scores(pa.table(scores), ReadOptions(), lambda _: ["file"]).score_U("Pneumonia")


def test_a_score_that_is_no_number_is_left_out_with_a_caution_and_refused_by_name():
    scores, labels = tables(60)
    scores["Pneumonia"] = ["n/a?", "n/a?", *map(str, scores["Pneumonia"][2:])]
    (names, said) = found(scores, labels)
    assert names == ["Pleural_Effusion"]
    assert len(said) == 1
    assert said[0].startswith("CAUTION: Pneumonia is left out: 2 cells of the column 'Pneumonia' are not a score")
    with pytest.raises(MedclipError, match=r"2 cells of the column 'Pneumonia' are not a score.*blank"):
        read_scores(pa.table(scores), ReadOptions(), lambda _: ["file"]).score_U("Pneumonia")
    scores["Pneumonia"] = [""] * 60
    assert "the cells of the score 'Pneumonia' are all blank" in found(scores, labels)[1][0]
    scores["Pneumonia"] = [True, False] * 30
    assert "are yes and no (60 of them), not numbers" in found(scores, labels)[1][0]


def test_a_bad_score_is_told_also_where_a_truth_beside_it_was_taken_for_the_score():
    scores, labels = tables(60)
    scores["Pneumonia_score"] = ["n/a?", *map(str, scores["Pneumonia"][1:])]
    scores["Pneumonia"] = labels["Pneumonia"]
    (names, said) = found(scores, labels)
    assert names == ["Pneumonia", "Pleural_Effusion"]
    assert said[0].startswith("CAUTION: the score 'Pneumonia_score' is left out: 1 cell of the column")


def test_where_nothing_pairs_the_refusal_says_why():
    scores, labels = tables(60)
    del scores["Pleural_Effusion"]
    labels["Pneumonia"][5] = 2
    with pytest.raises(MedclipError, match=r"no label has both.*Pneumonia is left out: 1 of its 60 cells is neither"):
        found(scores, labels)


def test_findings_of_medclip_with_unreadable_truths_are_told(tmp_path):
    scores = {f"s{i}": {"chest:pneumonia": 0.1 * i, "chest:edema": 0.5} for i in range(4)}
    folder = write_scored(tmp_path, {s: [f"{s}.png"] for s in scores}, scores, "multilabel")
    how = ReadOptions()
    table = read_scores(folder, how, lambda _: ["path"])
    truths = Table(pa.table({"Pneumonia": ["0", "1", "0", "1"], "Edema": ["0", "1", "?", "1"]}), "labels")
    pairs, (said,) = pair_up(None, table, truths, how, [])
    assert [p.name for p in pairs] == ["Pneumonia"]
    assert said.startswith("CAUTION: Edema is left out: 1 of its 4 cells is neither")
