from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from medclip.errors import MedclipError
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import merged, plain_name


def test_rows_are_texts_by_column_in_order_also_over_many_blocks():
    table = read_table(pa.table({"n": range(10_000), "text": ["a", None] * 5_000}))
    rows = list(table.rows())
    assert rows[0] == {"n": "0", "text": "a"}
    assert rows[9_999] == {"n": "9999", "text": ""}
    assert len(rows) == 10_000
    assert table.texts("nothing") == [""] * 10_000


def test_cells_that_say_that_nothing_is_known_are_empty_but_none_is_a_value():
    cells = read_table(pa.table({"a": ["NA", "n/a", "NaN", "null", "none", " x "]})).texts("a")
    assert cells == ["", "", "", "", "none", "x"]


def test_categories_booleans_lists_and_lazy_frames_are_read():
    frame = pl.DataFrame({"c": pl.Series(["x", "y"], dtype=pl.Categorical), "b": [True, False], "l": [["p", "q"], []]})
    table = read_table(frame.lazy())
    assert table.coded("c").values == ("x", "y")
    assert table.coded("b").values == ("True", "False")
    assert table.coded("l").values == ("p\nq", "")
    assert table.numbers("b").tolist() == [1, 0]
    assert read_table(pa.table({"n": pa.array([1.5, 2.5]).dictionary_encode()})).numbers("n").tolist() == [1.5, 2.5]


def test_whole_numbers_written_as_decimals_are_the_same_text():
    frame = pd.DataFrame({"a": [1.0, np.nan, 2.5]})
    assert read_table(frame).texts("a") == ["1", "", "2.5"]


def test_cells_that_are_no_number_are_counted_and_names_are_not_shown():
    table = read_table(pa.table({"score": ["0.5", "Doe^John", "high", ""]}))
    with pytest.raises(MedclipError, match="2 cells of the column 'score'") as e:
        table.numbers("score")
    assert "Doe" not in str(e.value)


@pytest.mark.parametrize("cell", ["0,71", "-1,5", "1,5e-3", " ,5 "])
def test_decimal_commas_are_refused_with_the_sentence_that_says_so(cell):
    table = read_table(pa.table({"score": ["0.5", cell]}))
    assert table.is_numeric("score")  # so that nobody passes the column by
    with pytest.raises(MedclipError, match=r"1 cell .* decimal comma, not a point\. Write decimals with a point"):
        table.numbers("score")


def test_a_column_is_found_by_a_name_that_differs_in_case_and_blanks_and_near_ones_are_listed():
    table = read_table(pa.table({"Pleural Effusion": [1], "Age": [2], "PatientID": [3]}))
    assert table.find("pleural_effusion") == "Pleural Effusion"
    assert table.find("patient", "patient_id") == "PatientID"
    assert table.find("sex") is None
    with pytest.raises(MedclipError, match="Did you mean 'Pleural Effusion'"):
        table.need("effusion")
    with pytest.raises(MedclipError, match="Its columns are: Pleural Effusion, Age, PatientID"):
        table.need("zzz")


def test_a_table_without_a_header_shows_no_patient_in_the_list_of_its_columns():
    table = read_table(pa.table({"7700123": ["7700124"], "Doe^John": ["x"], "xray": ["xray"]}))
    with pytest.raises(MedclipError) as e:
        table.need("file")
    assert "(not shown), (not shown), xray" in str(e.value)


def test_texts_that_become_equal_are_one_code():
    cells = merged(np.asarray([0, 1, 2, 1]), ["a", "b", "a"])
    assert cells.values == ("a", "b")
    assert cells.codes_N.tolist() == [0, 1, 0, 1]
    assert cells.mapped(lambda _: "z").values == ("z",)
    assert cells.take(np.asarray([1])).used().values == ("b",)
    assert plain_name("Covid-19 ") == plain_name("COVID_19")


def test_known_names_are_found_in_any_case_and_two_that_are_alike_are_not_guessed_between():
    named = pa.table({"FILE": ["a"], "Mpp UM": ["1"], "Patient": ["p"], "PATIENT": ["q"], "other": ["x"]})
    table = read_table(named).with_names(("file", "mpp_um", "patient"))
    assert table.names == ["file", "mpp_um", "Patient", "PATIENT", "other"]
    assert table.find("patient") is None
    assert table.with_names(("file",)) is table
    for name in ("Patient ID", "subject_id", "CaseID"):
        assert read_table(pa.table({"file": ["a"], name: ["b"]})).with_names(("file", "patient")).names[1] == "patient"
    two = read_table(pa.table({"patient_id": ["a"], "patient": ["b"], "case_id": ["c"]})).with_names(("patient",))
    assert two.texts("patient") == ["b"]
    asked = read_table(pa.table({"patient_id": ["a"], "case_id": ["b"]})).with_names(("patient", "patient_id"))
    assert (asked.texts("patient_id"), asked.texts("patient")) == (["a"], ["b"])
    exact = read_table(pa.table({"file": ["a"], "FILE": ["b"]})).with_names(("file",))
    assert exact.texts("file") == ["a"]
