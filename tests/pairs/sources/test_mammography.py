"""Tables of mammography sets become tables for shards, with labels and reports."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from medclip.api.captions import captions
from medclip.errors import MedclipError, Reason
from medclip.files.tables.column_maps import MAMMOGRAPHY_MAPS, mammography_map_of
from medclip.files.tables.mammography.mammogram_row import birads_of
from medclip.files.tables.read_table import read_table
from medclip.pairs.words.breast_check import check_report
from medclip.pairs.words.caption_writer import CaptionFacts
from medclip.shards.writing.table import read_shard_table
from medclip.text.breast_record import record_of
from tests.kits import mammography_tables as sets
from tests.kits.mammography_cohort import write_cohort

TABLES: dict[str, tuple[Sequence[Any], str]] = {
    "vindr": (sets.VINDR, ","),
    "rsna": (sets.RSNA, ","),
    "cbis": (sets.CBIS, ","),
    "cbis_paths": (sets.CBIS_PATHS, ","),
    "ddsm": (sets.DDSM, ","),
    "cdd_cesm": (sets.CESM, ","),
    "cdd_cesm_sheet": (sets.CESM_SHEET, ","),
    "inbreast": (sets.INBREAST, ";"),
}
LEFT_MASS = "label:mammography_findings:mass"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def converted(tmp_path: Path, name: str, **more: Any) -> list[dict[str, str]]:
    table, delimiter = TABLES[name]
    source = sets.write_set(tmp_path / f"{name}.csv", table, delimiter)
    report = captions(source, tmp_path / f"{name}_out.csv", from_="mammography", num_captions=3, **more)
    assert report.dataset == name
    return rows_of(tmp_path / f"{name}_out.csv")


@pytest.mark.parametrize("name", [*TABLES, "embed"])
def test_every_set_is_told_from_its_columns_and_becomes_a_table_that_shards_are_built_of(tmp_path: Path, name: str):
    if name == "embed":
        findings = sets.write_set(tmp_path / "findings.csv", sets.EMBED_FINDINGS)
        source = sets.write_set(tmp_path / "embed.csv", sets.EMBED_IMAGES)
        captions(source, tmp_path / "embed_out.csv", from_="mammography", findings=findings)
    else:
        converted(tmp_path, name)
    if name == "inbreast":
        with pytest.raises(MedclipError, match="patient"):
            read_shard_table(tmp_path / f"{name}_out.csv")
        return
    table = read_shard_table(tmp_path / f"{name}_out.csv")
    assert table.rows
    assert all(row.record.modality == "mammography" and row.record.laterality in ("L", "R") for row in table.rows)
    assert any(row.record.texts for row in table.rows)


def test_rows_of_one_image_of_vindr_are_one_row_and_all_other_findings_are_absent(tmp_path: Path):
    left, right, asymmetric = converted(tmp_path, "vindr")
    assert left["file"] == "images/e1/i1.dicom"
    assert (left["patient"], left["split"], asymmetric["split"]) == ("e1", "train", "test")
    assert (left["label:breast_composition"], left["label:breast_birads"]) == ("heterogeneously_dense", "birads_4")
    present = {k.split(":")[2] for k, v in left.items() if k.startswith("label:mammography_findings") and v == "1"}
    assert present == {"mass", "calcification", "skin_thickening"}
    assert left["label:mammography_findings:asymmetry"] == "0"
    assert [row["label:mammography_subtype"] for row in (left, right, asymmetric)] == ["both", "none", "none"]
    assert all(row["label:mammography_findings:mass"] == "0" for row in (right, asymmetric))
    assert all("right" not in text for text in left["captions"].split("\n"))
    assert "no mass" not in left["captions"].lower()


def test_a_breast_without_cancer_of_rsna_is_neither_called_normal_nor_benign(tmp_path: Path):
    without, cancer = converted(tmp_path, "rsna")
    assert (without["label:breast_cancer:malignancy"], without["label:mammography_malignancy"]) == ("0", "")
    assert (cancer["label:breast_cancer:malignancy"], cancer["label:mammography_malignancy"]) == ("1", "malignant")
    assert cancer["file"] == "train_images/10011/220375232.dcm"
    assert (cancer["label:breast_birads"], cancer["age"]) == ("birads_0", "55.0")
    assert without["captions"].split("\n") == [""], "nothing is known that an image shows"
    assert "implant" in cancer["captions"]


def test_abnormalities_of_one_image_of_cbis_are_findings_of_it(tmp_path: Path):
    both, node = converted(tmp_path, "cbis")
    assert both["file"] == "Mass-Training_P_00001_LEFT_CC/1.2/3.4/000000.dcm"
    assert (both["split"], node["split"]) == ("train", "test")
    assert both["label:mammography_findings:architectural_distortion"] == "1"
    assert both["label:mammography_subtype"] == "both"
    assert (both["label:mammography_malignancy"], both["label:breast_birads"]) == ("malignant", "birads_4")
    text = both["captions"].lower()
    assert all(word in text for word in ("irregular", "spiculated", "pleomorphic", "amorphous", "grouped"))
    assert "no " not in text.replace("no malignancy", ""), "nothing else was looked for"
    assert (node["label:mammography_findings:lymph_node"], node["label:mammography_malignancy"]) == ("0", "benign")
    assert "intramammary lymph node" in node["captions"]


def test_tables_of_masses_and_of_calcifications_of_cbis_may_be_put_into_one(tmp_path: Path):
    mass, calcification, _ = (dict[str, Any](row) for row in sets.CBIS)
    calcification |= {"patient_id": "P_00009", "breast density": 2, "breast_density": ""}
    rows = [mass | {"breast density": ""}, calcification]  # each has its own spelling
    captions(sets.write_set(tmp_path / "t.csv", rows), tmp_path / "o.csv", from_="mammography", num_captions=1)
    assert [row["label:breast_composition"] for row in rows_of(tmp_path / "o.csv")] == [
        "heterogeneously_dense",
        "scattered_fibroglandular",
    ]


def test_patients_of_both_official_parts_of_cbis_are_for_training(tmp_path: Path):
    torn = [dict(sets.CBIS[0]), dict(sets.CBIS[0]) | {"image view": "MLO"}]
    torn[1]["image file path"] = "Mass-Test_P_00001_LEFT_MLO/1/2/000000.dcm"
    source = sets.write_set(tmp_path / "c.csv", torn)
    report = captions(source, tmp_path / "o.csv", from_="mammography")
    assert {row["split"] for row in rows_of(tmp_path / "o.csv")} == {"train"}
    assert "1 patient of both official parts" in report.notes[0]


def test_paths_of_cbis_alone_say_lesion_side_and_view(tmp_path: Path):
    (row,) = converted(tmp_path, "cbis_paths")
    assert (row["patient"], row["laterality"], row["view"], row["split"]) == ("P_01274", "R", "CC", "train")
    assert row["label:mammography_subtype"] == "calcification"
    assert "label:mammography_malignancy" not in row


def test_cesm_keeps_the_radiologists_words_and_kinds_of_images(tmp_path: Path):
    low, subtracted = converted(tmp_path, "cdd_cesm_sheet")
    assert (low["view_kind"], subtracted["view_kind"]) == ("low_energy", "subtracted")
    assert low["file"] == "Low energy images of CDD-CESM/P2_R_DM_CC.jpg"
    assert low["report"] == "Heterogenous oval mass with speculated margin."
    assert (low["label:mammography_findings:mass"], subtracted["label:mammography_findings:mass"]) == ("1", "0")
    assert "oval" in low["captions"]
    assert "spiculated" in low["captions"]
    assert low["label:breast_birads"] == "birads_3", "of several assessments the one that asks for most"
    assert "dense" in low["captions"]
    assert "dense" not in subtracted["captions"], "a subtracted image does not show how dense the breast is"
    (enhancing,) = converted(tmp_path, "cdd_cesm")
    assert enhancing["report"] == "Heterogenous non mass enhancement and nipple retraction."
    assert enhancing["label:mammography_findings:nipple_retraction"] == "1"
    assert "label:mammography_findings:mass" not in enhancing


def embed(tmp_path: Path, **more: Any) -> tuple[Any, dict[str, dict[str, str]]]:
    source = sets.write_set(tmp_path / "embed.csv", sets.EMBED_IMAGES)
    findings = sets.write_set(tmp_path / "findings.csv", sets.EMBED_FINDINGS)
    report = captions(source, tmp_path / "o.csv", from_="mammography", findings=findings, **more)
    return report, {Path(row["file"]).stem + row["study"]: row for row in rows_of(tmp_path / "o.csv")}


@pytest.mark.parametrize(
    ("text", "subtype", "calcification", "others"),
    [
        ("Equal density mass with obscured margin$Benign macrocalcification", "both", "0", ()),
        ("High density mass with overlying microcalcification", "both", "", ()),
        ("Clusters of pleomorphic microcalcification", "calcification", "1", ()),
        (
            "Architectural distortion with overlying mircocalcifications",
            "calcification",
            "",
            ("architectural_distortion",),
        ),
        ("Asymmetrial increased density$Vascular calcifications", "calcification", "0", ("asymmetry",)),
        ("Focal asymmetrical increased density", "", "", ("focal_asymmetry",)),
    ],
)
def test_calcifications_in_the_words_of_cesm_are_findings_beside_a_mass(
    tmp_path: Path, text: str, subtype: str, calcification: str, others: tuple[str, ...]
):
    source = sets.write_set(tmp_path / "s.csv", [dict(sets.CESM_SHEET[0]) | {"Findings": text}])
    captions(source, tmp_path / "o.csv", from_="mammography", num_captions=1)
    (row,) = rows_of(tmp_path / "o.csv")
    assert row.get("label:mammography_subtype", "") == subtype
    assert row.get("label:mammography_findings:calcification", "") == calcification
    present = [
        n.split(":")[-1] for n, cell in row.items() if n.startswith("label:mammography_findings:") and cell == "1"
    ]
    assert [kind for kind in present if kind not in ("mass", "calcification")] == list(others)


def test_a_cell_that_the_sheet_of_cesm_leaves_blank_states_nothing_and_a_folder_does_not_name_the_kind(tmp_path: Path):
    blank = dict(sets.CESM_SHEET[0]) | dict.fromkeys(("Breast density (ACR)", "BIRADS", "Findings"), "_")
    captions(sets.write_set(tmp_path / "s.csv", [blank]), tmp_path / "so.csv", from_="mammography", num_captions=1)
    (row,) = rows_of(tmp_path / "so.csv")
    assert not {"report", "label:breast_birads", "label:breast_composition"} & set(row)
    file = dict(sets.CESM[0]) | {"file": "my_CM_study/P1_L_DM_MLO.jpg"}
    captions(sets.write_set(tmp_path / "f.csv", [file]), tmp_path / "fo.csv", from_="mammography", num_captions=1)
    assert rows_of(tmp_path / "fo.csv")[0]["view_kind"] == "low_energy"


def test_findings_of_embed_go_to_images_of_their_side(tmp_path: Path):
    report, rows = embed(tmp_path)
    assert report.set_aside == {"image type 3D": 1, "spot or magnification view": 1}
    assert rows["LCC2D071"]["file"] == "images/cohort_1/7/71/LCC2D0.dcm"
    clear, vascular, synthetic, cancer = rows["LCC2D071"], rows["RCC2D071"], rows["RCCcview071"], rows["LCC2D072"]
    assert clear["label:mammography_findings:mass"] == "0", "a negative breast without findings is clear"
    assert (synthetic["view_kind"], vascular["view_kind"]) == ("synthetic", "standard")
    assert vascular["label:mammography_findings:calcification"] == "0", "vascular calcifications are typically benign"
    assert "upper outer" in vascular["captions"], "10 o'clock of the right breast"
    assert "upper inner" in cancer["captions"], "10 o'clock of the left breast"
    assert all(word in cancer["captions"] for word in ("14 mm", "high-density", "spiculated", "posterior", "left"))
    assert cancer["label:mammography_findings:nipple_retraction"] == "1"
    assert (cancer["label:mammography_malignancy"], cancer["label:breast_birads"]) == ("malignant", "birads_4")
    assert rows["LMLO2D082"]["label:mammography_malignancy"] == "", "a high-risk lesion is neither benign nor malignant"
    assert rows["LMLO2D082"]["label:breast_cancer:malignancy"] == "0"
    assert "forbids" in report.notes[0]


def test_months_to_the_first_cancer_of_embed_are_labels_of_its_exams(tmp_path: Path):
    _, rows = embed(tmp_path)
    risk = "label:breast_cancer_risk:{}_months"
    months = {
        name: tuple(rows[name][risk.format(field)] for field in ("event", "followup"))
        for name in ("LCC2D071", "LCC2D072", "LCC2D073", "LMLO2D081", "LMLO2D082")
    }
    assert months == {
        "LCC2D071": ("25", "47"),
        "LCC2D072": ("0", "21"),
        "LCC2D073": ("", ""),  # after her cancer
        "LMLO2D081": ("", "48"),
        "LMLO2D082": ("", "0"),
    }


def test_a_biopsy_after_the_last_exam_of_embed_is_followed_up_to_it(tmp_path: Path):
    late = [
        row | {"procdate_anon": "2021-05-02"} if row["path_severity"] == 0 else row
        for row in map(dict[str, Any], sets.EMBED_FINDINGS)
    ]
    source = sets.write_set(tmp_path / "embed.csv", sets.EMBED_IMAGES)
    findings = sets.write_set(tmp_path / "findings.csv", late)
    captions(source, tmp_path / "o.csv", from_="mammography", findings=findings, num_captions=1)
    risk = "label:breast_cancer_risk:{}_months"
    months = {
        Path(row["file"]).stem + row["study"]: tuple(row[risk.format(field)] for field in ("event", "followup"))
        for row in rows_of(tmp_path / "o.csv")
    }
    assert months["LCC2D071"] == ("75", "75")
    assert months["LCC2D073"] == ("28", "28")
    assert read_shard_table(tmp_path / "o.csv").rows


def test_pathology_of_embed_is_that_of_its_own_side_also_where_the_finding_is_of_both(tmp_path: Path):
    left = dict[str, Any](sets.EMBED_IMAGES[0])
    right = left | {"ImageLateralityFinal": "R", "anon_dicom_path": "cohort_1/7/71/r.dcm"}
    finding = dict[str, Any](sets.EMBED_FINDINGS[0]) | {"side": "B", "bside": "L", "path_severity": 0, "asses": "S"}
    source = sets.write_set(tmp_path / "embed.csv", [left, right])
    captions(
        source,
        tmp_path / "o.csv",
        from_="mammography",
        findings=sets.write_set(tmp_path / "findings.csv", [finding]),
        num_captions=1,
    )
    rows = {row["laterality"]: row for row in rows_of(tmp_path / "o.csv")}
    assert [rows[side]["label:mammography_malignancy"] for side in "LR"] == ["malignant", ""]
    assert [rows[side]["label:breast_birads"] for side in "LR"] == ["birads_4", "birads_4"]


def test_the_metadata_of_embed_alone_are_refused(tmp_path: Path):
    with pytest.raises(MedclipError, match="--findings"):
        captions(sets.write_set(tmp_path / "e.csv", sets.EMBED_IMAGES), tmp_path / "o.csv", from_="mammography")


def test_patients_of_inbreast_stand_in_the_names_of_its_files(tmp_path: Path):
    without = converted(tmp_path, "inbreast")
    assert [row.get("patient", "") for row in without] == ["", ""]
    (tmp_path / "AllDICOMs").mkdir()
    for row, side in zip(sets.INBREAST, "RL", strict=True):
        (tmp_path / "AllDICOMs" / f"{row['File Name']}_61b13c59bcba149d_MG_{side}_CC_ANON.dcm").touch()
    rows = converted(tmp_path, "inbreast", overwrite=True)
    assert {row["patient"] for row in rows} == {"61b13c59bcba149d"}
    assert rows[0]["file"].startswith("AllDICOMs/22678622_")
    assert [row["label:breast_birads"] for row in rows] == ["birads_4", "birads_3"]
    assert [row["label:breast_composition"] for row in rows] == ["extremely_dense"] * 2


def test_a_four_view_exam_of_ddsm_says_nothing_of_the_breast_without_a_lesion(tmp_path: Path):
    lesion, other = converted(tmp_path, "ddsm")
    assert (lesion["label:mammography_subtype"], lesion["exam_date"]) == ("mass", "1993-03-02")
    assert other["label:mammography_malignancy"] == other["label:mammography_findings:mass"] == ""
    assert "mass" not in other["captions"]


def test_a_table_of_ones_own_keeps_its_labels_and_gets_reports_of_its_findings(tmp_path: Path):
    table = write_cohort(tmp_path / "cohort", 6)
    report = captions(table, tmp_path / "o.parquet", from_="mammography", num_captions=4)
    assert (report.dataset, report.num_rows, report.num_short) == ("own", 24, 0)
    before, after = rows_of(table), pq.read_table(tmp_path / "o.parquet").to_pylist()
    for old, new in zip(before, after, strict=True):
        assert all(new[name] == cell for name, cell in old.items() if name.startswith("label:"))
        assert (new["patient"], new["split"]) == (old["patient"], old["split"])
        assert len(set(new["captions"])) == 4
        other = {"L": "right", "R": "left"}[old["laterality"]]
        assert not any(other in text.lower().split() for text in new["captions"])
    understood = read_shard_table(tmp_path / "o.parquet").rows
    assert understood[0].record.labels["breast_cancer_risk"]
    assert understood[0].path.exists()


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_reports(tmp_path: Path):
    source = sets.write_set(tmp_path / "v.csv", sets.VINDR)
    turned = sets.write_set(tmp_path / "t.csv", [*sets.VINDR[3:], *sets.VINDR[:3]])
    for name, table, seed in (("a", source, 0), ("b", source, 0), ("c", source, 1), ("d", turned, 0)):
        captions(table, tmp_path / f"{name}.csv", from_="mammography", seed=seed)
    a, b, c, d = ((tmp_path / f"{name}.csv").read_text() for name in "abcd")
    assert a == b != c
    assert sorted(rows_of(tmp_path / "a.csv"), key=str) == sorted(rows_of(tmp_path / "d.csv"), key=str)
    assert a != d


def test_a_writers_report_is_used_where_it_is_true_and_replaced_where_it_is_not(tmp_path: Path):
    told: list[CaptionFacts] = []

    def write(facts: CaptionFacts, n: int) -> list[str]:
        told.append(facts)
        true = " ".join(f"There is {p}." for p in facts.present if " in the left breast" in p)
        return [true or "No suspicious finding on the right.", "A mass in the right breast of Mrs Smith."]

    source = sets.write_set(tmp_path / "v.csv", sets.VINDR[:3])
    report = captions(source, tmp_path / "o.csv", from_="mammography", num_captions=2, writer=write)
    rows = rows_of(tmp_path / "o.csv")
    assert rows[1]["captions"].split("\n")[0] == "No suspicious finding on the right."
    assert report.num_by_writer >= 1
    assert report.rejected_by_reason["unknown word"] >= 1
    assert "e1" not in str(told), "a writer never sees who the patient is"


def test_the_place_of_images_may_be_named_and_files_follow_the_table(tmp_path: Path):
    source = sets.write_set(tmp_path / "v.csv", sets.VINDR)
    (tmp_path / "sub").mkdir()
    report = captions(source, tmp_path / "sub" / "o.csv", from_="mammography", file="png/{image_id}.png")
    assert rows_of(tmp_path / "sub" / "o.csv")[0]["file"] == "../png/i1.png"
    assert report.num_moved == 3
    with pytest.raises(MedclipError, match="no column"):
        captions(source, tmp_path / "p.csv", from_="mammography", file="{image}.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finding_categories": "['Cyst']"}, "row 3: .*no finding"),
        ({"breast_birads": "BI-RADS 9"}, "row 3: .*assessment"),
    ],
)
def test_a_cell_that_is_not_understood_is_refused_with_its_row(tmp_path: Path, change: dict[str, str], message: str):
    rows = [*sets.VINDR[:2], dict(sets.VINDR[2]) | change]
    with pytest.raises(MedclipError, match=message) as refused:
        captions(sets.write_set(tmp_path / "v.csv", rows), tmp_path / "o.csv", from_="mammography")
    assert refused.value.reason is Reason.TABLE_INVALID
    assert not (tmp_path / "o.csv").exists()


OWN = {"file": "a.png", "patient": "P1", "laterality": "L", "view": "CC"}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"pathology": "malignent"}, "row 1: .*pathology"),
        ({"pathology": "Doe^Jane"}, r"row 1: .*pathology` is \(not shown\)"),
        ({"view_kind": "low energy"}, "row 1: .*view_kind"),
        ({"density": "E"}, "row 1: .*density"),
        ({"label:breast_composition": "dense"}, "row 1: .*composition"),
        ({"label:mammography_malignancy": "cancer"}, "row 1: .*malignancy"),
        ({"label:mammography_findings:mas": "0"}, "row 1: .*type of a finding"),
        ({"findings": '[{"type": "mass", "size_mm": "big"}]'}, "row 1: .*size_mm"),
        ({"cancer": "1", "pathology": "benign"}, "row 1: .*cancer. is 1"),
        ({"cancer": "0", "pathology": "malignant"}, "row 1: .*cancer. is 0"),
    ],
)
def test_a_cell_of_a_table_of_ones_own_that_cannot_be_is_refused(tmp_path: Path, cells: dict[str, str], message: str):
    with pytest.raises(MedclipError, match=message) as refused:
        captions(sets.write_set(tmp_path / "t.csv", [OWN | cells]), tmp_path / "o.csv", from_="mammography")
    assert refused.value.reason is Reason.TABLE_INVALID


def test_a_breast_without_cancer_of_a_table_of_ones_own_is_known_to_have_none(tmp_path: Path):
    rows = [OWN | {"cancer": "1"}, OWN | {"file": "b.png", "cancer": "0"}, OWN | {"file": "c.png", "cancer": ""}]
    captions(sets.write_set(tmp_path / "t.csv", rows), tmp_path / "o.csv", from_="mammography")
    read = rows_of(tmp_path / "o.csv")
    assert [row["label:breast_cancer:malignancy"] for row in read] == ["1", "0", ""]
    assert [row["label:mammography_malignancy"] for row in read] == ["malignant", "", ""]


def test_columns_of_no_set_and_sets_that_are_none_are_refused(tmp_path: Path):
    source = sets.write_set(tmp_path / "v.csv", [{"image": "a", "finding": "mass"}])
    with pytest.raises(MedclipError, match="none of the sets"):
        captions(source, tmp_path / "o.csv", from_="mammography")
    table = read_table(source)
    with pytest.raises(MedclipError, match="no set named"):
        mammography_map_of(table, "vinder")
    with pytest.raises(MedclipError, match="has a column"):
        mammography_map_of(table, "vindr")
    assert list(MAMMOGRAPHY_MAPS)[-1] == "own", "the map that fits most tables is tried last"


@pytest.mark.parametrize(
    ("cell", "birads"), [("BI-RADS 5", 5), ("4.0", 4), ("4b", 4), ("3; 2", 3), ("0;3", 0), ("5; 2", 5), ("", None)]
)
def test_an_assessment_is_read_in_its_spellings(cell: str, birads: int | None):
    assert birads_of(cell) == birads


def test_reports_of_a_set_pass_the_check_of_their_record(tmp_path: Path):
    rows = converted(tmp_path, "vindr")
    record = record_of(
        {
            "density": "C",
            "birads": 4,
            "view": "CC",
            "findings": [
                {"type": "mass"},
                {"type": "calcification", "suspicious": True},
                {"type": "skin thickening"},
            ],
        },
        "L",
    )
    assert all(check_report(text, record) == () for text in rows[0]["captions"].split("\n"))


@pytest.mark.shared
@pytest.mark.parametrize(("name", "dataset"), [("cdd_cesm", "cdd_cesm"), ("ddsm_4view", "ddsm"), ("text_cbis", "cbis")])
def test_the_shared_sets_are_read_whole(shared: Path, tmp_path: Path, name: str, dataset: str):
    report = captions(shared / "data" / name / "labels.csv", tmp_path / "o.csv", from_="mammography", num_captions=2)
    assert report.dataset == dataset
    assert report.num_captioned == report.num_rows > 20
    assert read_shard_table(tmp_path / "o.csv").rows


def test_names_of_columns_may_differ_in_case_and_blanks(tmp_path: Path):
    row = {"File": "a.dcm", "Patient_ID": "P1", "Laterality": "L", "View": "CC", "BI-RADS": "2", "Density": "D"}
    captions(sets.write_set(tmp_path / "t.csv", [row]), tmp_path / "o.csv", from_="mammography")
    (read,) = rows_of(tmp_path / "o.csv")
    assert (read["patient"], read["label:breast_birads"], read["label:breast_composition"]) == (
        "P1",
        "birads_2",
        "extremely_dense",
    )


def test_texts_of_ones_own_stay_in_front(tmp_path: Path):
    row = {"file": "a.dcm", "patient": "P1", "laterality": "L", "view": "CC", "birads": "2", "captions": "One.\nTwo."}
    captions(sets.write_set(tmp_path / "t.csv", [row]), tmp_path / "o.csv", from_="mammography", num_captions=2)
    (read,) = rows_of(tmp_path / "o.csv")
    assert read["captions"].split("\n")[:2] == ["One.", "Two."]
    assert len(read["captions"].split("\n")) == 4
