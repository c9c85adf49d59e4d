"""Tables of ECG sets become tables for shards: labels, cleaned reports, reports of codes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from medclip.api.captions import captions
from medclip.errors import MedclipError, Reason
from medclip.files.tables.column_maps import ECG_MAPS
from medclip.pairs.sources.captioned_table import CaptionsReport
from medclip.shards.writing.table import read_shard_table
from medclip.text.ecg_statements import labels_of
from tests.kits import ecg_tables
from tests.kits.ecg_cohort import write_cohort

SETS = {
    "ptbxl": ecg_tables.PTBXL,
    "ptbxl_z": ecg_tables.PTBXL_Z,
    "mimic_iv_ecg": ecg_tables.MIMIC,
    "cpsc2018": ecg_tables.CPSC,
    "chapman": ecg_tables.CHAPMAN,
}


def convert(folder: Path, name: str, **options: object) -> tuple[CaptionsReport, list[dict[str, str]]]:
    table = ecg_tables.write_table(folder / "set.csv", SETS[name])
    report = captions(table, folder / "out.csv", from_="ecg", overwrite=True, **options)  # type: ignore[arg-type]
    with report.out.open(newline="", encoding="utf-8") as file:
        return report, list(csv.DictReader(file))


def positives(row: Mapping[str, str], task: str) -> set[str]:
    return {c.split(":")[2] for c, v in row.items() if c.startswith(f"label:{task}:") and v == "1"}


def labelled(rows: Sequence[Mapping[str, str]], task: str) -> set[str]:
    return {c.split(":")[2] for row in rows for c, v in row.items() if c.startswith(f"label:{task}:") and v}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_told_by_its_columns_and_its_table_is_one_for_shards(tmp_path: Path, name: str):
    report, rows = convert(tmp_path, name)
    assert report.dataset == name
    assert set(SETS) == set(ECG_MAPS)
    assert len(rows) == len(SETS[name])
    assert all(row["patient"] and row["modality"] == "ecg" for row in rows)
    assert len(read_shard_table(tmp_path / "out.csv").rows) == len(rows)


def test_ptb_xl_keeps_folds_labels_and_cleaned_reports(tmp_path: Path):
    report, rows = convert(tmp_path, "ptbxl", num_captions=2)
    assert [r["file"] for r in rows] == [f"records500/00000/0000{k}_hr.hea" for k in (1, 2, 3)]
    assert [r["split"] for r in rows] == ["train", "val", "test"]
    assert [(r["patient"], r["age"], r["sex"]) for r in rows] == [
        ("101", "56", "F"),
        ("102", "90", "M"),
        ("103", "", ""),
    ]
    assert positives(rows[0], "ecg_superclass") == {"mi", "hyp"}
    assert positives(rows[0], "ecg_all") == {"imi", "lvh", "sr"}
    assert rows[0]["captions"].split("\n")[0] == "sinusrhythmus linkstyp"
    assert rows[1]["captions"].split("\n")[0] == "sinus rhythm. normal ecg"
    assert (report.num_reports, report.left_out) == (2, {"no reading of the record": 1})
    assert report.languages == {"de": 1, "en": 1}
    assert "1 report ended with labels of an editor" in report.notes[0]
    assert len(rows[2]["captions"].split("\n")) == 2, "written of its code alone"


def test_any_listed_code_counts_unless_a_likelihood_is_asked_for_and_rhythms_have_none(tmp_path: Path):
    _, rows = convert(tmp_path, "ptbxl", min_likelihood=50)
    assert positives(rows[0], "ecg_all") == {"lvh", "sr"}
    assert positives(rows[0], "ecg_superclass") == {"hyp"}
    assert positives(rows[2], "ecg_rhythm") == {"afib"}


def test_the_place_of_records_may_be_another_column(tmp_path: Path):
    _, rows = convert(tmp_path, "ptbxl", file="{filename_lr}")
    assert rows[0]["file"] == "records100/00000/00001_lr.hea"


def test_of_the_filtered_part_no_voltage_is_labelled_and_patients_are_those_of_the_set(tmp_path: Path):
    report, rows = convert(tmp_path, "ptbxl_z")
    assert labelled(rows, "ecg_superclass") == {"norm", "mi", "sttc", "cd"}
    assert positives(rows[0], "ecg_superclass") == {"cd"}
    assert not {"lvh", "vclvh", "hvolt", "lvolt", "rvh"} & labelled(rows, "ecg_all")
    assert "lvh" not in rows[1]["scp_codes"].lower()
    assert rows[0]["patient"] == "101", "as PTB-XL writes the same patient"
    assert rows[0]["file"] == "records/11.hea"
    assert "not labelled" in report.notes[0]


def test_statements_of_mimic_are_joined_and_short_ones_left_out(tmp_path: Path):
    report, rows = convert(tmp_path, "mimic_iv_ecg")
    assert rows[0]["captions"] == "sinus rhythm. possible inferior infarct - age undetermined. abnormal ecg"
    assert rows[1]["captions"] == ""
    assert report.left_out == {"too short": 1}
    assert rows[0]["file"] == "files/p1000/p10000032/s40689238/40689238.hea"
    assert not [c for c in rows[0] if c.startswith("label:")]


def test_lists_of_labels_label_what_is_on_them_and_nothing_else(tmp_path: Path):
    _, rows = convert(tmp_path, "cpsc2018")
    assert positives(rows[1], "ecg_all") == {"afib", "pvc"}
    assert labelled(rows, "ecg_all") == {"norm", "afib", "avb_1", "clbbb", "crbbb", "pac", "pvc", "std", "ste"}
    assert not labelled(rows, "ecg_superclass")
    assert rows[0]["file"] == "A0001.mat"
    _, rows = convert(tmp_path, "chapman")
    assert positives(rows[0], "ecg_all") == {"afib", "crbbb", "tab"}
    assert "imi" not in labelled(rows, "ecg_all")
    assert (rows[1]["sex"], rows[1]["age"], positives(rows[1], "ecg_rhythm")) == ("F", "59", {"sbrad"})


def test_the_same_seed_writes_the_same_table_and_german_is_written_where_it_is_asked_for(tmp_path: Path):
    _, first = convert(tmp_path, "ptbxl", seed=1)
    _, second = convert(tmp_path, "ptbxl", seed=1)
    _, other = convert(tmp_path, "ptbxl", seed=1, language="de")
    assert first == second
    assert "vorhofflimmern" in other[2]["captions"]


@pytest.mark.parametrize(
    ("options", "reason", "message"),
    [
        ({"language": "sv"}, Reason.WRONG_USE, "en and de"),
        ({"min_likelihood": 101}, Reason.WRONG_USE, "0 to 100"),
        ({"dataset": "ptbx"}, Reason.WRONG_USE, "ptbxl"),
        ({"dataset": "cpsc2018"}, Reason.TABLE_INVALID, "Recording"),
        ({"num_captions": 0}, Reason.WRONG_USE, "at least 1, not 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, options, reason, message):
    with pytest.raises(MedclipError, match=message) as e:
        convert(tmp_path, "ptbxl", **options)
    assert e.value.reason is reason
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("name", "column", "cell"), [("ptbxl", "scp_codes", "NORM"), ("cpsc2018", "First_label", "12")]
)
def test_a_cell_that_cannot_be_read_is_named_with_its_row(
    tmp_path: Path, monkeypatch, name: str, column: str, cell: str
):
    rows = [*SETS[name][:1], {**SETS[name][1], column: cell}]
    monkeypatch.setitem(SETS, name, rows)
    with pytest.raises(MedclipError, match="row 2: ") as e:
        convert(tmp_path, name)
    assert e.value.reason is Reason.TABLE_INVALID


def test_the_simulated_cohort_reads_as_ptb_xl_with_the_labels_that_were_planted(tmp_path: Path):
    write_cohort(tmp_path, 20, seconds=1)
    captions(tmp_path / "ptbxl_database.csv", tmp_path / "out.csv", from_="ecg")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        planted = list(csv.DictReader(file))
    for row, truth in zip(rows, planted, strict=True):
        assert {c: row[c] for c in truth if c.startswith("label:")} == {
            f"label:{t}:{c}": str(v) for t, m in labels_of(truth["scp_codes"].split("|")).items() for c, v in m.items()
        }
        assert (tmp_path / row["file"]).is_file()
        assert row["split"] == truth["split"]
