"""The SCP-ECG statements of PTB-XL, and the labels that follow from them."""

from __future__ import annotations

from collections import Counter

import pytest

from medclip.text.ecg.statements import TASKS, code_of_snomed, labels_of, statements
from medclip.text.vocabulary.load import load_task


def test_the_statements_are_grouped_as_the_benchmark_counts_them():
    rows = statements().values()
    kinds = (sum(s.diagnostic for s in rows), sum(s.form for s in rows), sum(s.rhythm for s in rows), len(rows))
    assert kinds == (44, 19, 12, 71)
    assert {s.code for s in rows if s.diagnostic and s.form} == {"NDT", "NST_", "DIG", "LNGQT"}
    assert Counter(s.superclass for s in rows if s.diagnostic) == {"NORM": 1, "MI": 14, "STTC": 13, "CD": 11, "HYP": 5}
    assert len({s.subclass for s in rows if s.diagnostic}) == 23
    assert all(s.german for s in rows)


@pytest.mark.parametrize(
    ("task", "kind"), [("ecg_diagnostic", "diagnostic"), ("ecg_form", "form"), ("ecg_rhythm", "rhythm")]
)
def test_a_level_of_the_vocabulary_has_the_statements_of_its_kind(task: str, kind: str):
    codes = {c.codes["scp"] for c in load_task(task).classes}
    assert codes == {s.code for s in statements().values() if getattr(s, kind)}


def test_the_groups_of_the_vocabulary_are_those_of_the_statements():
    for task, group in (("ecg_superclass", "superclass"), ("ecg_subclass", "subclass")):
        codes = {c.codes["scp"] for c in load_task(task).classes}
        assert codes == {getattr(s, group) for s in statements().values() if s.diagnostic}


def test_a_subendocardial_injury_is_an_infarction_and_an_ischaemia_is_none():
    labels = labels_of(["INJAL", "ISC_"], ["ecg_superclass", "ecg_subclass"])
    assert {c for c, v in labels["ecg_superclass"].items() if v} == {"mi", "sttc"}
    assert {c for c, v in labels["ecg_subclass"].items() if v} == {"ami", "isc"}


def test_labels_of_all_tasks_have_every_class_and_unknown_codes_change_nothing():
    labels = labels_of(["1AVB", "LPR", "SR", "XYZ"])
    assert tuple(labels) == TASKS
    assert labels == labels_of(["SR", "LPR", "1AVB"])
    assert [c for c, v in labels["ecg_all"].items() if v] == ["avb_1", "lpr", "sr"]
    assert labels["ecg_superclass"]["cd"] == 1
    assert not any(labels["ecg_form"][c] for c in labels["ecg_form"] if c != "lpr")


def test_no_class_of_an_infarction_of_any_age_has_the_code_of_an_acute_one():
    acute = {"54329005", "57054005", "73795002", "65547006", "58612006", "70211005", "70998009", "62695002", "76593002"}
    for task in TASKS:
        assert not acute & {c.codes.get("sct") for c in load_task(task).classes}, task


def test_codes_of_the_challenge_are_statements_where_they_say_the_same():
    assert code_of_snomed("733534002") == code_of_snomed(" 164909002 ") == "CLBBB"
    assert code_of_snomed("39732003") is None, "an axis is none of the 71"
    assert code_of_snomed("428750005") is None, "says neither which of ST and T is changed nor how"
    assert code_of_snomed("54329005") == "AMI", "the challenge writes it for anterior infarctions of any age"
    assert all(
        code_of_snomed(s.vocabulary.codes["sct"]) == s.code
        for s in statements().values()
        if "sct" in s.vocabulary.codes
    )
