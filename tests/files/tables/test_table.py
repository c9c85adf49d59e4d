from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import merged, plain_name, read_table
from tests.kits.audit_input import FORMS, form_of

COLUMNS = {"id": ["007", "008", "010"], "score": [0.5, None, 1.0], "n": [1, 2, 3], "text": [" a ", "", None]}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_a_table_say_the_same(form, tmp_path):
    table = read_table(form_of(COLUMNS, form, tmp_path, "t"), "the table")
    assert table.coded("id").texts_N().tolist() == ["007", "008", "010"]
    assert table.coded("text").texts_N().tolist() == ["a", "", ""]
    assert table.coded("n").texts_N().tolist() == ["1", "2", "3"]
    np.testing.assert_array_equal(table.numbers("score"), [0.5, np.nan, 1.0])
    assert table.is_numeric("score")
    assert not table.is_numeric("text")


def test_other_delimiters_packed_files_and_byte_marks_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffid;score\n1;0.5\n")
    with gzip.open(tmp_path / "b.csv.gz", "wt") as stream:
        stream.write("id,score\r\n1,+5e-1\r\n")
    for name in ("a.csv", "b.csv.gz"):
        table = read_table(tmp_path / name, "the table")
        assert table.names == ["id", "score"]
        assert table.numbers("score").tolist() == [0.5]


def test_cells_with_delimiters_and_new_lines_in_quotes_stay_whole(tmp_path):
    (tmp_path / "a.csv").write_text('id,note\n1,"a, b\nc"\n2,""\n')
    assert read_table(tmp_path / "a.csv", "t").coded("note").texts_N().tolist() == ["a, b\nc", ""]


def test_a_saved_index_without_a_name_is_no_column(tmp_path):
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "a.csv")
    assert read_table(tmp_path / "a.csv", "t").names == ["a"]


def test_the_index_of_a_frame_is_no_column_and_mixed_cells_are_texts():
    frame = pd.DataFrame({"a": [1, "x", None]}, index=[5, 6, 9])
    table = read_table(frame, "t")
    assert table.names == ["a"]
    assert table.coded("a").texts_N().tolist() == ["1", "x", ""]


def test_categories_booleans_lists_and_lazy_frames_are_read():
    frame = pl.DataFrame({"c": pl.Series(["x", "y"], dtype=pl.Categorical), "b": [True, False], "l": [["p", "q"], []]})
    table = read_table(frame.lazy(), "t")
    assert table.coded("c").values == ("x", "y")
    assert [v.lower() for v in table.coded("b").values] == ["true", "false"]
    assert table.coded("l").values == ("p\nq", "")
    assert table.numbers("b").tolist() == [1, 0]


def test_whole_numbers_written_as_decimals_are_the_same_text():
    frame = pd.DataFrame({"a": [1.0, np.nan, 2.5]})
    assert read_table(frame, "t").coded("a").texts_N().tolist() == ["1", "", "2.5"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,a\n1,2\n", "more than once"),
        ("a,b\n1,2\n1,2,3\n", "1 rows do not have the 2 cells"),
        ("a,b\n", "no rows"),
        ("", "names no columns"),
    ],
)
def test_a_broken_text_table_is_refused_with_a_sentence(text, words, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(MedclipError, match=words) as e:
        read_table(tmp_path / "a.csv", "t")
    assert "a.csv" in str(e.value)


@pytest.mark.parametrize("body", [b"a,b\n\xff\xfe,1\n", b"PAR1 and no more", "a,b\n1,2\n".encode("utf-16")])
def test_what_is_no_table_is_refused(body, tmp_path):
    (tmp_path / "a.csv").write_bytes(body)
    with pytest.raises(MedclipError, match="neither UTF-8") as e:
        read_table(tmp_path / "a.csv", "t")
    assert e.value.reason == Reason.TABLE_INVALID


def test_a_missing_table_and_a_thing_that_is_none_are_refused(tmp_path):
    with pytest.raises(MedclipError) as e:
        read_table(tmp_path / "no.csv", "t")
    assert e.value.reason == Reason.MISSING_FILE
    with pytest.raises(MedclipError) as e:
        read_table(5, "the table of labels")
    assert e.value.reason == Reason.WRONG_USE
    with pytest.raises(MedclipError, match=r"more than once|same name"):
        read_table(pa.table([[1], [2]], names=["a", "a"]), "t")


def test_cells_that_are_no_number_are_counted_and_names_are_not_shown():
    table = read_table(pa.table({"score": ["0.5", "Doe^John", "high", ""]}), "t")
    with pytest.raises(MedclipError, match="2 cells of the column 'score'") as e:
        table.numbers("score")
    assert "Doe" not in str(e.value)
    with pytest.raises(MedclipError, match="with a point"):
        read_table(pa.table({"score": ["0,5"]}), "t").numbers("score")


def test_a_column_is_found_by_a_name_that_differs_in_case_and_blanks_and_near_ones_are_listed():
    table = read_table(pa.table({"Pleural Effusion": [1], "Age": [2], "PatientID": [3]}), "t")
    assert table.find("pleural_effusion") == "Pleural Effusion"
    assert table.find("patient", "patient_id") == "PatientID"
    assert table.find("sex") is None
    with pytest.raises(MedclipError, match="Did you mean 'Pleural Effusion'"):
        table.need("effusion")
    with pytest.raises(MedclipError, match="Its columns are: Pleural Effusion, Age, PatientID"):
        table.need("zzz")


def test_texts_that_become_equal_are_one_code():
    cells = merged(np.asarray([0, 1, 2, 1]), ["a", "b", "a"])
    assert cells.values == ("a", "b")
    assert cells.codes_N.tolist() == [0, 1, 0, 1]
    assert cells.mapped(lambda _: "z").values == ("z",)
    assert cells.take(np.asarray([1])).used().values == ("b",)
    assert plain_name("Covid-19 ") == plain_name("COVID_19")
