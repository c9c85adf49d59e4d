from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.tables.manifest import read_manifest
from medclip.sample import Modality, ViewType

COLUMNS: dict[str, list[Any]] = {
    "file": ["a/1.png", "b.png"],
    "patient": ["007", None],
    "modality": ["xray", ""],
    "laterality": ["left", None],
    "age": [63.0, None],
    "sex": ["female", None],
    "label:chest_xray_view": ["pa", ""],
    "site": ["x", "y"],
}


def _forms(tmp_path: Path) -> list[Any]:
    frame = pandas.DataFrame(COLUMNS)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    pyarrow.parquet.write_table(pyarrow.table(COLUMNS), tmp_path / "t.parquet")
    return [tmp_path / "t.csv", tmp_path / "t.tsv", str(tmp_path / "t.parquet"), frame, pyarrow.table(COLUMNS)]


@pytest.mark.parametrize("form", range(5))
def test_every_kind_of_table_says_the_same(tmp_path: Path, form: int) -> None:
    manifest = read_manifest(_forms(tmp_path)[form])
    first, second = manifest.rows
    assert (first.patient, first.modality, first.laterality, first.age, first.sex) == (
        "007",
        Modality.XRAY,
        "L",
        63,
        "F",
    )
    assert first.labels == {"chest_xray_view": "pa"}
    assert first.extra == {"site": "x"}
    assert (second.patient, second.modality, second.laterality, second.age) == (None, None, None, None)
    assert second.labels == {}


def test_a_row_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file\n./a/1.png\n")
    manifest = read_manifest(tmp_path / "t.csv")
    assert manifest.row_for("a/1.png") is manifest.rows[0]
    assert manifest.row_for(tmp_path / "a/1.png") is manifest.rows[0]
    assert manifest.row_for("1.png") is None
    assert manifest.row_for(tmp_path / "1.png") is None


def test_a_row_is_found_by_a_path_that_leaves_the_tables_folder(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.csv").write_text("file\n../images/1.png\n")
    manifest = read_manifest(tmp_path / "tables" / "t.csv")
    assert manifest.row_for(tmp_path / "images" / "1.png") is manifest.rows[0]


@pytest.mark.parametrize("named", ["../images", "../link"])
@pytest.mark.parametrize("scored", ["images", "link"])
def test_a_row_is_found_whichever_way_leads_to_its_file(named: str, scored: str, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    (tmp_path / "tables" / "t.csv").write_text(f"file\n{named}/1.png\n")
    manifest = read_manifest(tmp_path / "tables" / "t.csv")
    assert manifest.row_for(tmp_path / scored / "1.png") is manifest.rows[0]
    assert manifest.row_for(tmp_path / scored / "2.png") is None


def test_captions_come_from_lines_or_lists(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('file,captions\na.png,"one\ntwo"\n')
    assert read_manifest(tmp_path / "t.csv").rows[0].captions == ("one", "two")
    table = pyarrow.table({"file": ["a.png"], "captions": [["one", "two"]]})
    assert read_manifest(table).rows[0].captions == ("one", "two")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\na,b\n", ["'file'", "image, label"]),
        ("file\na.png\n./a.png\n", ["second time"]),
        ("file,modality\na.png,pet\n", ["modality", "mammography"]),
        ("file,age\na.png,SECRET\n", ["age", "row 1"]),
        ("file;age\na.png;63,5\n", ["age", "row 1", "decimals with a point"]),
        ("file,mpp_um\na.svs,SECRET\n", ["mpp_um", "row 1", "0.01 to 1000"]),
        ("file,mpp_um\na.svs,-1\n", ["mpp_um", "row 1"]),
        ("file,laterality\na.png,SECRET\n", ["laterality", "row 1"]),
        ("file,age\na.png,1,2\n", ["row 1", "more cells"]),
        ("file\n\x20\n", ["file"]),
    ],
)
def test_a_bad_table_is_refused_with_what_is_wrong(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(MedclipError) as caught:
        read_manifest(tmp_path / "t.csv")
    assert caught.value.reason is Reason.TABLE_INVALID
    assert all(word in str(caught.value) for word in words)
    assert "SECRET" not in str(caught.value)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"file\n\xff\xfe\x00")
    for table, reason in ((tmp_path / "t.csv", Reason.TABLE_INVALID), (3, Reason.WRONG_USE)):
        with pytest.raises(MedclipError) as caught:
            read_manifest(table)
        assert caught.value.reason is reason
    with pytest.raises(MedclipError) as caught:
        read_manifest(tmp_path / "none.csv")
    assert caught.value.reason is Reason.MISSING_FILE


def test_a_column_that_stands_twice_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,modality,modality\na.png,xray,mri\n")
    twice = pyarrow.table([["a.png"], ["xray"], ["mri"]], names=["file", "modality", "modality"])
    pyarrow.parquet.write_table(twice, tmp_path / "t.parquet")
    for table in (tmp_path / "t.csv", tmp_path / "t.parquet", twice):
        with pytest.raises(MedclipError, match="'modality'") as caught:
            read_manifest(table)
        assert caught.value.reason is Reason.TABLE_INVALID


def test_a_mammograms_view_kind_and_day_are_understood_or_refused(tmp_path: Path) -> None:
    table = {"file": ["a", "b"], "laterality": ["left", ""], "view": ["cc", ""], "view_kind": ["Subtracted", ""]}
    first, second = read_manifest(pyarrow.table({**table, "exam_date": ["20240301", ""]})).rows
    assert (first.mammography_view, first.exam_date) == (ViewType("L", "CC", "subtracted"), date(2024, 3, 1))
    assert (second.mammography_view, second.exam_date) == (None, None)
    for column, value, expected in (
        ("view_kind", "sideways", "low_energy"),
        ("exam_date", "01.03.2024", "2024-03-01"),
        ("exam_date", "20241301", "2024-03-01"),
    ):
        with pytest.raises(MedclipError, match=f"row 1: column '{column}'.*{expected}"):
            read_manifest(pyarrow.table({"file": ["a"], column: [value]}))


def test_a_table_can_be_asked_for_some_columns_and_is_the_same_when_others_change(tmp_path: Path):
    tables = []
    for number, finding in enumerate(("mucin", "necrosis")):
        table = tmp_path / str(number) / "table.csv"
        table.parent.mkdir()
        table.write_text(f"file,patient,mpp_um,findings\na.tiff,P{number},0.25,{finding}\nb.tiff,P2,,\n")
        (table.parent / "a.tiff").touch()
        tables.append(read_manifest(table))
    scales = [table.only("mpp_um") for table in tables]
    assert tables[0].digest != tables[1].digest
    assert scales[0].digest == scales[1].digest
    assert [row.file for row in scales[0].rows] == ["a.tiff"]
    row = scales[0].row_for(tmp_path / "0" / "a.tiff")
    assert row == scales[0].row_for("a.tiff")
    assert row is not None
    assert (row.mpp_um, row.patient, row.extra) == (0.25, None, {})
    assert scales[0].row_for("b.tiff") is None
