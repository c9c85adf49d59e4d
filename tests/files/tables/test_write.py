"""Tables as CSV: what a spreadsheet would run stays text, and what is a number stays one."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.files.tables.write import csv_bytes, defused_text, write_as_csv

HOT = [
    "=1+1",
    '=HYPERLINK("http://example.org?x="&A1)',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1,1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1+1",
    "＋1+1",
    "－1+1",
    "＠SUM(1)",
    "- no finding",
]
COLD = ["", "pneumonia", "a=b", "-0.5", "+4e3", "-", "--", "-12%", "'=1", "1-2", " =1", "−5"]


def _rows(table: pa.Table) -> list[list[str]]:
    return list(csv.reader(io.StringIO(csv_bytes(table).decode(), newline="")))


@pytest.mark.parametrize("text", HOT)
def test_a_text_that_a_spreadsheet_would_run_has_an_apostrophe_before_it(text: str):
    kinds = (pa.array([text]), pa.array([text], pa.large_string()), pa.array([text]).dictionary_encode())
    for cells in kinds:
        assert _rows(pa.table({"group": cells})) == [["group"], [f"'{text}"]]
    assert _rows(pa.table({text: ["x"]})) == [[f"'{text}"], ["x"]], "a column may be called anything, too"


@pytest.mark.parametrize("text", COLD)
def test_numbers_dashes_and_all_other_texts_stay_as_they_are(text: str):
    assert _rows(pa.table({"group": [text]})) == [["group"], [text]]


def test_numbers_that_are_no_texts_and_missing_values_stay_as_they_are():
    table = pa.table({"d": [-1.5, None], "n": [-2, 3], "t": ["=1", None]})
    assert csv_bytes(table) == b'"d","n","t"\n-1.5,-2,"\'=1"\n,3,\n'


def test_a_parquet_file_is_written_as_the_csv_that_its_table_would_be(tmp_path: Path):
    table = pa.table({"=path": [*HOT, *COLD, None], "n": range(len(HOT) + len(COLD) + 1)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=5)
    write_as_csv(tmp_path / "a.csv", tmp_path / "a.parquet")
    assert (tmp_path / "a.csv").read_bytes() == csv_bytes(table)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=6), min_size=1, max_size=5))
def test_one_text_and_a_column_of_texts_are_defused_alike(texts: list[str]):
    cells = pa.array(texts)
    assert [row[0] if row else "" for row in _rows(pa.table({"c": cells}))[1:]] == [defused_text(t) for t in texts]
