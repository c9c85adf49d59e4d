"""The SCP-ECG statements of PTB-XL, and the labels that follow from them."""

from __future__ import annotations

from collections import Counter

import pytest

from medclip.text.ecg_statements import TASKS, code_of_snomed, labels_of, statements
from medclip.text.vocabulary.load import load_task

_OF_THE_CHALLENGE = {
    "NST_": ("s t changes", "55930002"),
    "LNGQT": ("prolonged qt interval", "111975006"),
    "LVH": ("left ventricular hypertrophy", "164873001"),
    "LAFB": ("left anterior fascicular block", "445118002"),
    "ISC_": ("myocardial ischemia", "164861001"),
    "IRBBB": ("incomplete right bundle branch block", "713426002"),
    "1AVB": ("1st degree av block", "270492004"),
    "IVCD": ("nonspecific intraventricular conduction disorder", "698252002"),
    "CRBBB": ("complete right bundle branch block", "713427006"),
    "CLBBB": ("complete left bundle branch block", "733534002"),
    "LAO/LAE": ("left atrial enlargement", "67741000119109"),
    "ISCIN": ("inferior ischaemia", "425419005"),
    "LPFB": ("left posterior fascicular block", "445211001"),
    "ISCLA": ("lateral ischaemia", "425623009"),
    "RVH": ("right ventricular hypertrophy", "89792004"),
    "RAO/RAE": ("right atrial hypertrophy", "446358003"),
    "WPW": ("wolff parkinson white pattern", "74390002"),
    "ILBBB": ("incomplete left bundle branch block", "251120003"),
    "ISCAN": ("anterior ischemia", "426434006"),
    "3AVB": ("complete heart block", "27885002"),
    "2AVB": ("2nd degree av block", "195042002"),
    "ABQRS": ("abnormal QRS", "164951009"),
    "PVC": ("premature ventricular contractions", "427172004"),
    "STD_": ("st depression", "429622005"),
    "VCLVH": ("left ventricular high voltage", "55827005"),
    "QWAVE": ("qwave abnormal", "164917005"),
    "PAC": ("premature atrial contraction", "284470004"),
    "LPR": ("prolonged pr interval", "164947007"),
    "INVT": ("t wave inversion", "59931005"),
    "LVOLT": ("low qrs voltages", "251146004"),
    "TAB_": ("t wave abnormal", "164934002"),
    "STE_": ("st elevation", "164931005"),
    "SR": ("sinus rhythm", "426783006"),
    "AFIB": ("atrial fibrillation", "164889003"),
    "STACH": ("sinus tachycardia", "427084000"),
    "SARRH": ("sinus arrhythmia", "427393009"),
    "SBRAD": ("sinus bradycardia", "426177001"),
    "PACE": ("pacing rhythm", "10370003"),
    "AFLT": ("atrial flutter", "164890007"),
    "SVTAC": ("supraventricular tachycardia", "426761007"),
    "PSVT": ("paroxysmal supraventricular tachycardia", "67198005"),
}
"""Name and code in the tables of the PhysioNet/CinC challenge 2021 (dx_mapping_scored.csv, dx_mapping_unscored.csv)."""
_OTHERS_OF_THE_CHALLENGE = {
    "164909002": ("left bundle branch block", "CLBBB"),
    "59118001": ("right bundle branch block", "CRBBB"),
    "17338001": ("ventricular premature beats", "PVC"),
    "164884008": ("ventricular ectopics", "PVC"),
    "63593006": ("supraventricular premature beats", "PAC"),
    "11157007": ("ventricular bigeminy", "BIGU"),
    "251173003": ("atrial bigeminy", "BIGU"),
    "251168009": ("supraventricular bigeminy", "BIGU"),
    "251180001": ("ventricular trigeminy", "TRIGU"),
    "251266004": ("ventricular pacing pattern", "PACE"),
    "251268003": ("atrial pacing pattern", "PACE"),
    "54016002": ("mobitz type i wenckebach atrioventricular block", "2AVB"),
    "426183003": ("mobitz type II atrioventricular block", "2AVB"),
    "195060002": ("ventricular pre excitation", "WPW"),
    "253352002": ("left atrial abnormality", "LAO/LAE"),
    "446813000": ("left atrial hypertrophy", "LAO/LAE"),
    "253339007": ("right atrial abnormality", "RAO/RAE"),
    "713422000": ("atrial tachycardia", "SVTAC"),
    "251166008": ("atrioventricular node reentrant tachycardia", "SVTAC"),
    "233897008": ("atrioventricular reentrant tachycardia", "SVTAC"),
    "54329005": ("anterior myocardial infarction", "AMI"),
    "39732003": ("left axis deviation", None),
    "428750005": ("nonspecific st t abnormality", None),
    "57054005": ("acute myocardial infarction", None),
}
_SUBCLASSES = {
    "AMI": "ASMI AMI ALMI INJAS INJAL INJLA",
    "IMI": "IMI ILMI IPLMI IPMI INJIN INJIL",
    "LMI": "LMI",
    "PMI": "PMI",
    "STTC": "NDT DIG LNGQT ANEUR EL",
    "NST_": "NST_",
    "ISC_": "ISC_",
    "ISCA": "ISCAL ISCAS ISCLA ISCAN",
    "ISCI": "ISCIN ISCIL",
    "_AVB": "1AVB 2AVB 3AVB",
    "LAFB/LPFB": "LAFB LPFB",
}


@pytest.mark.parametrize("code", _OF_THE_CHALLENGE)
def test_a_statement_has_the_snomed_code_that_the_challenge_has_for_it(code: str) -> None:
    assert statements()[code].vocabulary.codes["sct"] == _OF_THE_CHALLENGE[code][1], _OF_THE_CHALLENGE[code][0]


def test_no_other_statement_but_the_normal_ecg_has_a_snomed_code() -> None:
    coded = {code for code, s in statements().items() if "sct" in s.vocabulary.codes}
    assert coded == {*_OF_THE_CHALLENGE, "NORM"}


@pytest.mark.parametrize("snomed", _OTHERS_OF_THE_CHALLENGE)
def test_other_codes_of_the_challenge_are_read_as_what_they_say(snomed: str) -> None:
    name, code = _OTHERS_OF_THE_CHALLENGE[snomed]
    assert code_of_snomed(snomed) == code, name


def test_every_diagnosis_is_in_the_subclass_that_ptb_xl_has_it_in() -> None:
    subclasses = {code: group for group, codes in _SUBCLASSES.items() for code in codes.split()}
    rows = [s for s in statements().values() if s.diagnostic]
    assert {s.code: s.subclass for s in rows} == {s.code: subclasses.get(s.code, s.code) for s in rows}


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
    assert all(
        code_of_snomed(s.vocabulary.codes["sct"]) == s.code
        for s in statements().values()
        if "sct" in s.vocabulary.codes
    )
