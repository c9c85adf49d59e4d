from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.errors import MedclipError, Reason
from medclip.sample import Modality
from medclip.shards.writing.splits import plan_shards
from medclip.shards.writing.table import read_shard_table
from tests.kits.shards import write

ROW = {"file": "a.png", "patient": "p1", "modality": "xray"}


def test_a_row_becomes_a_caption_record(tmp_path):
    row = ROW | {
        "view": "pa",
        "laterality": "left",
        "age": "054Y",
        "sex": "male",
        "split": "Test",
        "caption": "First.",
        "captions": "Second.\nThird.",
        "source": "here",
        "license": "CC0",
        "label:chest_xray_view": "pa",
        "label:chest_xray_findings:pneumonia": "1.0",
        "label:chest_xray_findings:mass": "0",
        "label:chest_xray_findings:edema": "",
        "hospital": "x",
    }
    table = read_shard_table(write(tmp_path / "t.csv", [row]))
    (read,) = table.rows
    assert table.ignored == ("hospital",)
    assert read.path == tmp_path / "a.png"
    assert (read.split, read.source, read.license, read.patient) == ("test", "here", "CC0", "p1")
    record = read.record
    assert (record.modality, record.view, record.laterality) == (Modality.XRAY, "PA", "L")
    assert (record.age_years, record.sex, record.generic) == (54, "M", False)
    assert record.texts == ("First.", "Second.", "Third.")
    assert record.labels == {"chest_xray_view": "pa", "chest_xray_findings": {"pneumonia": 1, "mass": 0}}


def test_csv_tsv_parquet_and_frames_read_alike(tmp_path):
    rows = [
        ROW | {"age": "40", "label:chest_xray_findings:mass": "1"},
        ROW | {"file": "b.png", "age": "", "label:chest_xray_findings:mass": ""},
    ]
    typed = pa.table(
        {
            "file": ["a.png", "b.png"],
            "patient": ["p1", "p1"],
            "modality": ["xray", "xray"],
            "age": [40.0, None],
            "label:chest_xray_findings:mass": [1, None],
        }
    )
    pq.write_table(typed, tmp_path / "t.parquet")
    tables = [
        read_shard_table(write(tmp_path / "t.csv", rows)),
        read_shard_table(write(tmp_path / "t.tsv", rows, "\t")),
        read_shard_table(tmp_path / "t.parquet"),
        read_shard_table(typed, folder=tmp_path),
    ]
    assert all(t.rows == tables[0].rows for t in tables)


def test_the_same_file_may_stand_once_more_for_the_generic_rendering(tmp_path):
    table = read_shard_table(write(tmp_path / "t.csv", [ROW, ROW | {"adapter": "generic"}]))
    assert [r.record.generic for r in table.rows] == [False, True]
    with pytest.raises(MedclipError, match="more than once"):
        read_shard_table(write(tmp_path / "t.csv", [ROW, ROW]))


def test_a_file_under_two_spellings_of_its_path_is_one_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "a" / "x.png")
    for other in ("a/../a/x.png", "./a/x.png", str(tmp_path / "a" / "x.png"), "link.png"):
        rows = [ROW | {"file": "a/x.png"}, ROW | {"file": other, "patient": "p2"}]
        with pytest.raises(MedclipError, match="more than once") as e:
            read_shard_table(write(tmp_path / "t.csv", rows))
        assert e.value.reason is Reason.TABLE_INVALID


def test_a_column_that_stands_twice_is_refused_with_its_name(tmp_path):
    text = "file,patient,modality,patient\na.png,p1,xray,p2\n"
    (tmp_path / "t.csv").write_text(text)
    (tmp_path / "t.tsv").write_text(text.replace(",", "\t"))
    twice = pa.table([["a.png"], ["p1"], ["p2"]], names=["file", "patient", "patient"])
    pq.write_table(twice, tmp_path / "t.parquet")
    for table in (tmp_path / "t.csv", tmp_path / "t.tsv", tmp_path / "t.parquet", twice):
        with pytest.raises(MedclipError, match="'patient'") as e:
            read_shard_table(table)
        assert e.value.reason is Reason.TABLE_INVALID
    (tmp_path / "t.csv").write_text("file,patient,modality,,\na.png,p1,xray,,\n")  # what spreadsheets leave behind
    assert len(read_shard_table(tmp_path / "t.csv").rows) == 1


def test_a_row_with_more_cells_than_columns_is_refused_with_its_number(tmp_path):
    (tmp_path / "t.csv").write_text("file,patient,modality\na.png,p1,xray\nb.png,p1,xray,oops\n")
    with pytest.raises(MedclipError, match="row 2 has more cells") as e:
        read_shard_table(tmp_path / "t.csv")
    assert e.value.reason is Reason.TABLE_INVALID


def test_without_a_patient_column_the_error_says_what_to_add(tmp_path):
    path = write(tmp_path / "t.csv", [{"file": "a.png", "modality": "xray", "who": "s"}])
    with pytest.raises(MedclipError, match="--patient file") as e:
        read_shard_table(path)
    assert e.value.reason is Reason.TABLE_INVALID
    assert "who" in str(e.value)
    assert read_shard_table(path, patient_from="file").rows[0].patient == "a.png"
    assert read_shard_table(path, patient_from="who").rows[0].patient == "s"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": ""}, "row 2: `file`"),
        ({"patient": ""}, "row 2: `patient`"),
        ({"modality": "pet"}, "row 2: `modality` is 'pet'"),
        ({"modality": ""}, "row 2: `modality` is empty"),
        ({"adapter": "xray"}, "row 2: `adapter`"),
        ({"age": "old"}, "row 2: `age`"),
        ({"age": "400"}, "row 2: `age`"),
        ({"mpp_um": "20x"}, "row 2: `mpp_um`"),
        ({"mpp_um": "0,5"}, "row 2: `mpp_um` is not understood. Write decimals with a point"),
        ({"age": "54,5"}, "row 2: `age` is .* Write decimals with a point"),
        ({"label:chest_xray_findings:mass": "1,0"}, "row 2: .* Write decimals with a point"),
        ({"split": "../x"}, "row 2: `split`"),
        ({"label:chest_xray_view": "oblique"}, "row 2: .*oblique"),
        ({"label:chest_xray_findings:mass": "yes"}, "row 2: .*'yes'"),
        ({"label:weather": "rain"}, "column label:weather"),
        ({"label:chest_xray_findings": "mass"}, "label:chest_xray_findings:CLASS"),
        ({"label:chest_xray_view:pa": "1"}, "multiclass"),
        ({"label:chest_xray_findings:rain": "1"}, "column label:chest_xray_findings:rain"),
    ],
)
def test_a_mistake_is_named_by_row_and_column(tmp_path, change, message):
    with pytest.raises(MedclipError, match=message) as e:
        read_shard_table(write(tmp_path / "t.csv", [ROW, ROW | {"file": "b.png"} | change]))
    assert e.value.reason is Reason.TABLE_INVALID
    assert "p1" not in str(e.value)


def test_missing_empty_and_binary_tables_are_refused(tmp_path):
    with pytest.raises(MedclipError) as e:
        read_shard_table(tmp_path / "t.csv")
    assert e.value.reason is Reason.MISSING_FILE
    (tmp_path / "t.csv").write_text("file,patient,modality\n")
    with pytest.raises(MedclipError) as e:
        read_shard_table(tmp_path / "t.csv")
    assert e.value.reason is Reason.NOTHING_TO_DO
    for junk in (b"", b"\xff\xfe\x00", b"\x00" * 9):
        (tmp_path / "t.csv").write_bytes(junk)
        with pytest.raises(MedclipError) as e:
            read_shard_table(tmp_path / "t.csv")
        assert e.value.reason is Reason.TABLE_INVALID
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MedclipError) as e:
        read_shard_table(tmp_path / "t.parquet")
    assert e.value.reason is Reason.TABLE_INVALID


def test_study_and_report_are_read_and_counted(tmp_path):
    rows = [
        ROW | {"study": "1", "report": "FINDINGS: Clear lungs.\nIMPRESSION: Normal."},
        ROW | {"file": "b.png", "study": "1", "report": " "},
        ROW | {"file": "c.png", "patient": "p2", "study": "1"},
        ROW | {"file": "d.png", "patient": "p2"},
    ]
    path = write(tmp_path / "t.csv", rows)
    table = read_shard_table(path)
    assert table.ignored == ()
    assert [r.study for r in table.rows] == ["1", "1", "1", ""]
    assert table.rows[0].record.report == "FINDINGS: Clear lungs.\nIMPRESSION: Normal."
    assert table.rows[1].record.report is None
    plan = plan_shards(path)
    assert (plan.num_studies, plan.num_with_report) == (2, 1)  # a study has the number 1 for each of the two patients
    assert {"study", "report"} <= set(plan.columns)


def test_an_uncertain_label_is_not_known_and_is_counted(tmp_path):
    labels = [("1", "-1"), ("-1.0", ""), ("0", "-1")]
    rows = [
        ROW | {"file": f"{i}.png", "label:chest_xray_findings:mass": a, "label:chest_xray_findings:edema": b}
        for i, (a, b) in enumerate(labels)
    ]
    path = write(tmp_path / "t.csv", rows)
    first, second, third = read_shard_table(path).rows
    assert first.record.labels == {"chest_xray_findings": {"mass": 1}}
    assert first.uncertain == (("chest_xray_findings", "edema"),)
    assert second.record.labels == {}
    assert third.record.labels == {"chest_xray_findings": {"mass": 0}}
    said = plan_shards(path).labels["chest_xray_findings"]
    assert said == {"edema": {"uncertain": 2}, "mass": {"present": 1, "absent": 1, "uncertain": 1}}
    for number in ("2", "-2", "0.5"):
        with pytest.raises(MedclipError, match="row 1: label:chest_xray_findings:mass"):
            read_shard_table(write(path, [ROW | {"label:chest_xray_findings:mass": number}]))


@pytest.mark.parametrize(
    ("modality", "cell", "side"),
    [("fundus", "OD", "R"), ("oct", "os", "L"), ("xray", "OD", None), ("fundus", "R", "R")],
)
def test_eyes_are_told_in_latin_too(tmp_path, modality, cell, side):
    row = ROW | {"modality": modality, "laterality": cell}
    (read,) = read_shard_table(write(tmp_path / "t.csv", [row])).rows
    assert read.record.laterality == side
    assert read.not_understood == ({} if side else {"laterality": cell})


def test_a_plan_says_what_is_known_of_the_images_and_what_was_not_understood(tmp_path):
    cells = [
        ("PA", "L", "F", "40"),
        ("XX", "both", "weiblich", ""),
        ("xx", "", "2", "5"),
        ("Doe^John", "", "M", ""),
        ("", "", "Mary Doe", ""),
    ]
    rows = [
        ROW | {"file": f"{i}.png", "view": v, "laterality": side, "sex": sex, "age": age}
        for i, (v, side, sex, age) in enumerate(cells)
    ]
    (tmp_path / "0.png").touch()
    plan = plan_shards(write(tmp_path / "t.csv", rows))
    assert plan.rows_by_view == {"PA": 1, "unknown": 4}
    assert plan.rows_by_laterality == {"L": 1, "unknown": 4}
    assert plan.rows_by_sex == {"F": 1, "M": 1, "unknown": 3}
    assert plan.rows_by_age == {"known": 2, "unknown": 3}
    assert plan.not_understood == {
        "laterality": {"both": 1},
        "sex": {"(not shown)": 1, "2": 1, "weiblich": 1},
        "view": {"(not shown)": 1, "XX": 1, "xx": 1},
    }
    assert (plan.num_missing_files, plan.missing_files) == (4, ("1.png", "2.png", "3.png"))
    assert "Doe" not in str(plan)


def test_only_the_most_frequent_values_are_told(tmp_path):
    rows = [ROW | {"file": f"{i}.png", "view": f"V{min(i, 7)}"} for i in range(10)]
    told = plan_shards(write(tmp_path / "t.csv", rows)).not_understood["view"]
    assert told == {"V7": 3, "V0": 1, "V1": 1, "V2": 1, "V3": 1, "(others)": 3}


@pytest.mark.parametrize(
    "column", ["modality", "adapter", "age", "label:chest_xray_view", "label:chest_xray_findings:mass"]
)
@pytest.mark.parametrize("cell", ["Doe^John", "John Doe", "7700123", "averylongsurname"])
def test_a_column_that_slipped_shows_no_name_and_no_number_of_a_patient(tmp_path, column, cell):
    with pytest.raises(MedclipError, match=r"row 1: .*\(not shown\)") as e:
        read_shard_table(write(tmp_path / "t.csv", [ROW | {column: cell}]))
    assert cell.lower() not in str(e.value).lower()


def test_long_reports_are_read_and_a_cell_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    long = "word " * 60_000
    path = write(tmp_path / "t.csv", [ROW, ROW | {"file": "b.png", "report": long}])
    assert read_shard_table(path).rows[1].record.report == long.strip()
    monkeypatch.setattr("medclip.files.tables.read_table.MAX_ROW_BYTES", 1000)
    with pytest.raises(MedclipError, match="a row of the table is longer than 1,000 bytes") as e:
        read_shard_table(path)
    assert e.value.reason is Reason.TABLE_INVALID


def test_a_name_that_no_file_can_have_is_a_missing_table(tmp_path):
    for name in ("x" * 300, "t.csv/x"):
        (tmp_path / "t.csv").touch()
        with pytest.raises(MedclipError) as e:
            read_shard_table(tmp_path / name)
        assert e.value.reason is Reason.MISSING_FILE


def test_a_risk_is_two_columns_of_whole_months(tmp_path):
    event, followup = (f"label:breast_cancer_risk:{field}" for field in ("event_months", "followup_months"))
    cells = [("14", "60"), ("", "60"), ("14", ""), ("", "")]
    rows = [
        {"file": f"{n}.png", "patient": str(n), "modality": "mammography", event: e, followup: f}
        for n, (e, f) in enumerate(cells)
    ]
    labels = [row.record.labels for row in read_shard_table(write(tmp_path / "t.csv", rows)).rows]
    assert [label.get("breast_cancer_risk") for label in labels] == [
        {"event_months": 14, "followup_months": 60},
        {"followup_months": 60},
        {"event_months": 14, "followup_months": 14},
        None,
    ]


@pytest.mark.parametrize(
    ("event", "followup", "message"),
    [("14", "12", "row 1: .*shorter"), ("-2", "12", "row 1: .*cannot be"), ("1.5", "12", "row 1: .*event_months")],
)
def test_months_that_contradict_are_refused_with_their_row(tmp_path, event, followup, message):
    row = {"file": "1.png", "patient": "1", "modality": "mammography"}
    row |= {"label:breast_cancer_risk:event_months": event, "label:breast_cancer_risk:followup_months": followup}
    with pytest.raises(MedclipError, match=message):
        read_shard_table(write(tmp_path / "t.csv", [row]))


def test_another_column_of_a_risk_is_refused(tmp_path):
    row = {"file": "1.png", "patient": "1", "modality": "mammography", "label:breast_cancer_risk:year_1": "1"}
    with pytest.raises(MedclipError, match="whole months"):
        read_shard_table(write(tmp_path / "t.csv", [row]))
