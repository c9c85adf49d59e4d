"""The table of labelled files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from medclip.adaptation.data.table import read_adapt_table
from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import keyed_hash
from tests.kits.adapt_tables import KEY, write_table

ROWS = [
    {"file": f"{n}.png", "patient": f"MRN-77{n // 2}", "modality": "xray", "view": v, "effusion": e, "mass": m}
    for n, (v, e, m) in enumerate([("AP", 1, ""), ("pa", 0, 1), ("ap", -1, 0), ("", "", ""), ("Lateral", 1, 0)])
]


def read(tmp_path: Path, labels: list[str], rows=ROWS, **options):
    return read_adapt_table(write_table(tmp_path / "t.csv", rows), labels, key=KEY, **options)


def test_one_column_of_names_is_a_task_with_one_answer(tmp_path: Path):
    found = read(tmp_path, ["view"])
    assert (found.text.kind, found.text.names) == ("multiclass", ("ap", "lateral", "pa"))
    assert [u.target for u in found.units] == [0, 2, 0, 1]
    assert [u.number for u in found.units] == [1, 2, 3, 5]
    assert found.units[0].path == tmp_path / "0.png"
    assert found.units[0].patient == keyed_hash("patient", "MRN-770", KEY)
    assert found.notes == ("Rows without a label, which are not used: 1.",)


def test_a_vocabulary_task_gives_the_words_and_the_order(tmp_path: Path):
    found = read(tmp_path, ["view"], task="chest_xray_view")
    assert found.text.names == ("ap", "pa", "lateral")
    assert [u.target for u in found.units] == [0, 1, 0, 2]
    assert len(found.text.positive()[0]) > 5


def test_a_task_file_of_ones_own_names_the_tables_values_in_its_prompts(tmp_path: Path):
    (tmp_path / "projection.yaml").write_text(
        "kind: multiclass\nmodality: xray\nclasses:\n"
        "- {name: back, prompts: [PA, film taken from the back]}\n- {name: front, prompts: [AP, film from the front]}\n"
    )
    found = read(tmp_path, ["view"], ROWS[:3], task=tmp_path / "projection.yaml")
    assert (found.text.task.name, found.text.names) == ("projection", ("back", "front"))
    assert [u.target for u in found.units] == [1, 0, 1]


def test_several_columns_of_0_and_1_are_findings_and_unknown_stays_unknown(tmp_path: Path):
    found = read(tmp_path, ["effusion", "mass"])
    assert found.text.kind == "multilabel"
    assert [u.target for u in found.units] == [(1.0, None), (0.0, 1.0), (None, 0.0), (1.0, 0.0)]
    assert found.notes[0] == "Labels that are -1 (uncertain), taken as not known: 1."


def test_one_column_of_0_and_1_is_one_finding(tmp_path: Path):
    assert read(tmp_path, ["mass"]).text.names == ("mass",)


def test_columns_find_their_class_of_a_vocabulary_task(tmp_path: Path):
    found = read(tmp_path, ["effusion", "mass"], task="chest_xray_findings")
    assert found.text.names == ("effusion", "mass")
    with pytest.raises(MedclipError, match="'view' is no class of the task chest_xray_findings"):
        read(tmp_path, ["view"], task="chest_xray_findings")


def test_columns_of_tables_for_shards_are_understood(tmp_path: Path):
    rows = [
        {
            "file": f"{n}.png",
            "patient": n,
            "modality": "xray",
            "label:chest_xray_view": v,
            "label:chest_xray_findings:mass": n % 2,
            "label:chest_xray_findings:edema": 1 - n % 2,
        }
        for n, v in enumerate(["ap", "pa", "pa"])
    ]
    assert read(tmp_path, ["label:chest_xray_view"], rows).text.task.name == "chest_xray_view"
    assert read(tmp_path, ["label:chest_xray_findings:mass"], rows).text.names == ("mass",)
    assert read(tmp_path, ["label:chest_xray_findings"], rows).text.names == ("mass", "edema")
    with pytest.raises(MedclipError, match="belong to several tasks"):
        read(tmp_path, ["label:chest_xray_findings:mass", "label:chest_xray_view"], rows)


def test_data_frames_and_other_patient_columns_work_alike(tmp_path: Path):
    frame = pd.DataFrame({"file": ["a.png", "b.png"], "person": [1, 2], "ill": [True, False]})
    found = read_adapt_table(frame, ["ill"], modality="fundus", patient_from="person", folder=tmp_path, key=KEY)
    assert [u.target for u in found.units] == [(1.0,), (0.0,)]
    alone = read_adapt_table(frame, ["ill"], modality="fundus", patient_from="file", key=KEY)
    assert len({u.patient for u in alone.units}) == 2


def test_splits_have_several_spellings_and_one_meaning(tmp_path: Path):
    splits = ["training", "VAL", "test", "", "dev"]
    found = read(tmp_path, ["effusion"], [r | {"split": s} for r, s in zip(ROWS, splits, strict=True)])
    assert [u.split for u in found.units] == ["train", "val", "val"]


def test_rows_of_the_generic_rendering_are_left_out(tmp_path: Path):
    rows = [r | {"adapter": a} for r in ROWS for a in ("", "generic")]
    found = read(tmp_path, ["view"], rows)
    assert Counter(u.file for u in found.units) == {f"{n}.png": 1 for n in (0, 1, 2, 4)}
    assert found.notes[0] == "Rows with adapter=generic, which are not used: 5."


@pytest.mark.parametrize(
    ("change", "labels", "options", "reason", "said"),
    [
        ({}, ["colour"], {}, Reason.TABLE_INVALID, "no column 'colour' .--label names one.. Its columns are: file"),
        ({}, [], {}, Reason.WRONG_USE, "no column of labels"),
        ({"view": "AP"}, ["view"], {}, Reason.WRONG_USE, "only the class 'ap'; there is nothing to tell apart"),
        ({"view": ""}, ["view"], {}, Reason.WRONG_USE, "no label at all"),
        ({"mass": 0}, ["mass"], {}, Reason.WRONG_USE, r"only one answer for mass \(no 1\)"),
        ({"mass": 2}, ["effusion", "mass"], {}, Reason.TABLE_INVALID, "row 1: mass is '2'"),
        ({"view": "oblique"}, ["view"], {"task": "chest_xray_view"}, Reason.TABLE_INVALID, "It has: ap, pa, lateral"),
        ({"modality": ""}, ["view"], {}, Reason.TABLE_INVALID, "row 1: nothing says which modality"),
        ({"modality": "fundus"}, ["view"], {"task": "chest_xray_view"}, Reason.TABLE_INVALID, "is about X-ray"),
        ({"patient": ""}, ["view"], {}, Reason.TABLE_INVALID, "row 1: `patient` is empty"),
        ({"split": "mine"}, ["view"], {}, Reason.TABLE_INVALID, "row 1: `split` is 'mine'"),
        ({}, ["view"], {"patient_from": "person"}, Reason.TABLE_INVALID, "--patient"),
        ({}, ["view"], {"modality": "xrai"}, Reason.WRONG_USE, "'xrai'"),
        ({}, ["view", "mass"], {"task": "chest_xray_view"}, Reason.WRONG_USE, "takes one column"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_a_sentence(tmp_path, change, labels, options, reason, said):
    with pytest.raises(MedclipError, match=said) as refused:
        read(tmp_path, labels, [r | change for r in ROWS], **options)
    assert refused.value.reason is reason


def test_a_column_that_slipped_is_refused_and_its_values_are_not_shown(tmp_path: Path):
    rows = [{"file": f"{n}.png", "patient": n, "modality": "xray", "who": f"Doe^{n:05d}"} for n in range(30)]
    with pytest.raises(MedclipError, match="30 different values in 30 rows") as refused:
        read(tmp_path, ["who"], rows)
    assert "Doe" not in str(refused.value)
    with pytest.raises(MedclipError, match=r"who is \(not shown\)") as unknown:
        read(tmp_path, ["who"], rows, task="chest_xray_view")
    assert "Doe" not in str(unknown.value)


def test_a_file_that_stands_twice_is_refused(tmp_path: Path):
    with pytest.raises(MedclipError, match=r"listed more than once, e\.g\. rows 1 and 6") as refused:
        read(tmp_path, ["view"], [*ROWS, ROWS[0] | {"file": "./0.png"}])
    assert ".png" not in str(refused.value)
    assert "generic" not in str(refused.value)


def numbered(values, column="grade", **more):
    return [
        {"file": f"{n}.png", "patient": f"P{n}", "modality": "xray", column: v, **more} for n, v in enumerate(values)
    ]


@pytest.mark.parametrize("column", ["x", "?", "X", "é", "q" * 300])
@pytest.mark.parametrize("values", [["a", "b", "a", "b"], [1, 0, 1, 0], [1, 2, 1, 2]])
def test_a_column_of_any_name_makes_a_task(tmp_path: Path, column: str, values):
    found = read(tmp_path, [column], numbered(values, column))
    assert len(found.text.task.title) >= 2


def test_a_column_of_numbers_is_said_to_be_taken_for_classes(tmp_path: Path):
    said = "The column 'grade' holds numbers; each of them is taken for a class."
    assert said in read(tmp_path, ["grade"], numbered([31, 47, 31, 58])).notes
    assert said not in read(tmp_path, ["grade"], numbered(["low", "high"] * 2)).notes


def test_a_word_that_several_patients_have_is_shown_and_one_that_may_be_a_name_is_not(tmp_path: Path):
    rows = numbered(["glioma tumor", "no tumor"] * 2)
    with pytest.raises(MedclipError, match="grade is 'glioma tumor'"):
        read(tmp_path, ["grade"], rows, task="chest_xray_view")
    rows[2]["patient"] = rows[0]["patient"]
    with pytest.raises(MedclipError, match=r"grade is \(not shown\)"):
        read(tmp_path, ["grade"], rows, task="chest_xray_view")


def test_a_column_of_patients_that_is_one_of_classes_is_refused_or_said(tmp_path: Path):
    rows = [r | {"patient": r["grade"]} for r in numbered(["low", "high"] * 3)]
    with pytest.raises(MedclipError, match="cannot name both the patients and the labels"):
        read(tmp_path, ["grade"], rows, patient_from="grade")
    assert any("does 'patient' really name the patients" in note for note in read(tmp_path, ["grade"], rows).notes)
    assert not read(tmp_path, ["grade"], numbered(["low", "high"] * 3)).notes


def test_folders_that_are_mistaken_are_said(tmp_path: Path):
    with pytest.raises(MedclipError, match="this is a folder"):
        read_adapt_table(tmp_path, ["view"], key=KEY)
    with pytest.raises(MedclipError, match="no such folder") as refused:
        read(tmp_path, ["view"], folder=tmp_path / "nope")
    assert refused.value.reason is Reason.MISSING_FILE
