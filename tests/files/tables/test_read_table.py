from __future__ import annotations

import contextlib
import gzip
import io
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import TextForm
from tests.kits.tables import DISGUISES, csv_bytes, disguised

COLUMNS = {
    "id": ["007", "008", "010"],
    "score": [0.5, None, 1.0],
    "n": [1, 2, 3],
    "text": [" a ", "", None],
    "note": ['one, two; "three"\n\tfour', "", "é"],
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_the_same_table_is_read_the_same_in_every_disguise(disguise, tmp_path):
    table = read_table(disguised(COLUMNS, disguise, tmp_path, "t"))
    assert table.names == list(COLUMNS)
    assert table.texts("id") == ["007", "008", "010"]
    assert table.texts("text") == ["a", "", ""]
    assert table.texts("n") == ["1", "2", "3"]
    assert table.texts("note") == COLUMNS["note"]
    np.testing.assert_array_equal(table.numbers("score"), [0.5, np.nan, 1.0])
    assert table.is_numeric("score")
    assert not table.is_numeric("text")


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)


@given(
    rows=st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t"),
    coding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_texts_are_written_come_back(tmp_path_factory, rows, delimiter, coding, newline):
    columns = {"file": [a for a, _ in rows], "a,b; c": [b for _, b in rows]}
    path = tmp_path_factory.mktemp("t") / "t"
    path.write_bytes(csv_bytes(columns, delimiter, coding, newline, quote_all=True))
    table = read_table(path)
    assert table.names == list(columns)
    for name, cells in columns.items():
        assert [c.as_py() for c in table.arrow.column(name)] == cells


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf16_of_either_byte_order_is_read_by_its_mark(tmp_path, order):
    (tmp_path / "t").write_bytes("\ufefffile,note\na,ü\n".encode(f"utf-16-{order}"))
    assert read_table(tmp_path / "t").texts("note") == ["ü"]


def test_headers_are_trimmed_and_what_spreadsheets_add_is_passed_over(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"sep=;\r\n file ; score;;\r\na.png;0.5;;\r\n")
    assert read_table(path).names == ["file", "score"]
    pd.DataFrame({"a": [1]}).to_csv(path)
    assert read_table(path).names == ["a"]
    assert read_table(pd.DataFrame({"a": [1, "x", None]}, index=[5, 6, 9])).texts("a") == ["1", "x", ""]


def test_a_header_may_hold_new_lines_and_blank_lines_may_stand_before_it(tmp_path):
    (tmp_path / "a").write_bytes(b'\r\n\r\nfile,"a\nscore"\r\n\r\na.png,0.5\r\n')
    table = read_table(tmp_path / "a")
    assert table.names == ["file", "a\nscore"]
    assert table.num_rows == 1


@pytest.mark.parametrize("text", ["file,note\na,b;c;d\n", "file;note\na,b,c;d\n", "file\tnote\na,b;c\td\n"])
def test_the_delimiter_is_the_one_of_the_header(text, tmp_path):
    (tmp_path / "a").write_text(text)
    assert read_table(tmp_path / "a").names == ["file", "note"]


def test_a_huge_cell_is_read_and_old_line_ends_too(tmp_path):
    long = "word " * 300_000
    (tmp_path / "a").write_bytes(f'file,report\ra,"{long}"\rb,c\r'.encode())
    assert read_table(tmp_path / "a").texts("report") == [long.strip(), "c"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a,a\n1,2\n", "column 'a' stands more than once"),
        (b" a,a \n1,2\n", "column 'a' stands more than once"),
        (b"a,,b\n1,x,2\n", "column 2 has no name"),
        (b",b\nx,2\n", "column 1 has no name"),
        (b"a,b\n1,2\n\n1,2,3\n1\n", r"row 2 has more cells than there are columns: 3, and the header 2 \(2 rows"),
        (b"a,b\n1,2\n3\n", "row 2 has fewer cells"),
        (b"a,b\n1,0,5\n", "Write decimals with a point"),
        (b"a,b\n", "no rows"),
        (b"", "names no columns"),
        (b" ,\n1,2\n", "names no columns"),
        (b"a,b\n1,2\n\xff,1\n", 'line 3 of the file is not UTF-8 text. Save it as "CSV UTF-8"'),
        (b"a,\xff\n1,2\n", "line 1 of the file is not UTF-8"),
        (b'a,b\n1,"2\n3,4\n5,6\n', "a double quote in row 1 is never closed"),
        ("a,b\n1,2\n".encode("utf-16-le"), "NUL bytes"),
        (b"a,b\n1,\0\n", "NUL bytes"),
        (b"PAR1 and no more", "damaged, or cut off"),
        (gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-9], "gzip file is damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "this is an image"),
        (bytes(128) + b"DICM" + bytes(99), "this is an image"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", r"a web page \(HTML\)"),
        (b'{"file": "a.png"}', "a JSON file"),
        (b"%PDF-1.4\n", "a PDF document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), r"an old Excel file \(.xls\)"),
        (b"ARROW1\0\0", "Feather"),
    ],
)
def test_what_cannot_be_read_whole_is_refused_with_one_sentence_that_says_why(text, words, tmp_path):
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(MedclipError, match=words) as e:
        read_table(tmp_path / "a.csv")
    assert e.value.reason is (Reason.NOTHING_TO_DO if words == "no rows" else Reason.TABLE_INVALID)
    assert str(e.value).startswith(str(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("xl/workbook.xml", "this is an Excel file, and no table that medclip reads. Save it as CSV"),
        ("content.xml", "LibreOffice"),
        ("vectors.npy", "a NumPy .npz file"),
        ("labels.csv", "a zip archive"),
    ],
)
def test_excel_files_and_archives_are_named(member, words, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(member, "a,b\n1,2\n")
    (tmp_path / "a.csv").write_bytes(packed.getvalue())
    with pytest.raises(MedclipError, match=words) as e:
        read_table(tmp_path / "a.csv")
    assert e.value.reason is Reason.TABLE_INVALID


def test_a_missing_table_a_folder_and_a_thing_that_is_none_are_refused(tmp_path):
    for source, reason in (
        (tmp_path / "no.csv", Reason.MISSING_FILE),
        (tmp_path, Reason.WRONG_USE),
        (5, Reason.WRONG_USE),
    ):
        with pytest.raises(MedclipError) as e:
            read_table(source)
        assert e.value.reason is reason


def test_a_column_that_stands_twice_is_refused_in_parquet_and_in_frames(tmp_path):
    twice = pa.table([[1], [2]], names=["a", "a"])
    pq.write_table(twice, tmp_path / "a")
    for source in (tmp_path / "a", twice, pd.DataFrame([[1, 2]], columns=["a", "a"])):
        with pytest.raises(MedclipError, match=r"more than once|same name"):
            read_table(source)


def test_a_file_is_opened_once_and_a_table_that_was_read_is_not_read_again(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a")
    (tmp_path / "b").write_text("a\n1\n")
    opened = []
    original = type(tmp_path).open
    monkeypatch.setattr(
        type(tmp_path), "open", lambda self, *args, **more: opened.append(self.name) or original(self, *args, **more)
    )
    tables = [read_table(tmp_path / name) for name in ("a", "b")]
    assert opened == ["a", "b"]
    assert [read_table(t) for t in tables] == tables
    assert opened == ["a", "b"]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "utf-16-be", "mac_roman"])
def test_a_table_in_the_encoding_that_was_named_is_read_by_it(tmp_path, encoding):
    (tmp_path / "t").write_bytes("file;größe\na;ü\nb;é\n".encode(encoding))
    with pytest.raises(MedclipError, match=r"UTF-8.* Or say what it is in: --encoding"):
        read_table(tmp_path / "t", form=TextForm())
    with pytest.raises(MedclipError) as refused:
        read_table(tmp_path / "t")
    assert "--encoding" not in str(refused.value)  # where there is no such option
    assert read_table(tmp_path / "t", form=TextForm(encoding)).texts("größe") == ["ü", "é"]


@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_that_say_what_they_are_stay_so_beside_one_in_another_encoding(tmp_path, form):
    (tmp_path / "t").write_bytes("file,größe\na,ü\n".encode(form))
    assert read_table(tmp_path / "t", form=TextForm("latin-1")).texts("größe") == ["ü"]


def test_a_table_that_is_not_in_the_encoding_that_was_named_is_refused_with_both_names(tmp_path):
    (tmp_path / "t").write_bytes(b"a,b\n1,\x81\n")  # no character of cp1252
    with pytest.raises(MedclipError, match="neither UTF-8 nor cp1252"):
        read_table(tmp_path / "t", form=TextForm("cp1252"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"encoding": "latin-eins"}, "names no encoding"),
        ({"encoding": "zip"}, "names no encoding"),
        ({"decimal": "coma"}, "`decimal` is 'coma'. Did you mean 'comma'"),
    ],
)
def test_a_form_of_text_that_is_none_is_refused(words, message):
    with pytest.raises(MedclipError, match=message):
        TextForm(**words)


def test_decimal_commas_are_read_as_points_where_that_was_said_and_texts_keep_theirs(tmp_path):
    (tmp_path / "t").write_text("id;score;age;note\na;0,71;12,0;1,2 or 3\nb;1;040Y;x,y\nc;-1,5e-3;;\n")
    with pytest.raises(MedclipError, match=r"decimal comma, not a point\..* Or have them read so: --decimal comma\."):
        read_table(tmp_path / "t", form=TextForm()).numbers("score")
    table = read_table(tmp_path / "t", form=TextForm(decimal="comma"))
    np.testing.assert_array_equal(table.numbers("score"), [0.71, 1.0, -0.0015])
    assert table.texts("age") == ["12.0", "040Y", ""]
    assert table.texts("note") == ["1,2 or 3", "x,y", ""]
    frame = pa.table({"score": ["0,5", "0,25"], "n": [1, 2]})
    np.testing.assert_array_equal(read_table(frame, form=TextForm(decimal="comma")).numbers("score"), [0.5, 0.25])


def test_a_column_with_decimal_commas_and_points_is_refused_for_a_point_may_part_thousands():
    with pytest.raises(MedclipError, match="column 'dose' have a decimal comma, and some a point"):
        read_table(pa.table({"dose": ["1,5", "1.500"]}), form=TextForm(decimal="comma"))


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "a,b\n1,2\n3\n"])
def test_threads_of_arrow_are_given_no_function_of_python(text, tmp_path, monkeypatch):
    """One that is let go of while Python shuts down aborts the process."""
    calls = []
    read_csv = pacsv.read_csv

    def watched(source, reading, parsing, converting):
        calls.append((reading.use_threads, parsing.invalid_row_handler is not None))
        return read_csv(source, reading, parsing, converting)

    monkeypatch.setattr(pacsv, "read_csv", watched)
    path = tmp_path / "t.csv"
    path.write_text(text)
    with contextlib.suppress(MedclipError):
        read_table(path)
    assert calls[0] == (True, False)
    assert all(threads != handler for threads, handler in calls)


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "labels.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b"file,label\n")
        for _ in range(600):
            file.write(b"0" * 2**20)
    assert path.stat().st_size < 10**6
    tracemalloc.start()
    try:
        with pytest.raises(MedclipError, match=r"labels\.csv\.gz: .* more than 536,870,912 unpacked") as caught:
            read_table(path)
        assert tracemalloc.get_traced_memory()[1] < 1.3 * 2**30, "no more than the limit, and its copy"
    finally:
        tracemalloc.stop()
    assert caught.value.reason is Reason.TOO_LARGE


def test_gzip_in_gzip_is_refused_so_that_no_file_unpacks_to_itself_for_ever(tmp_path):
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(gzip.compress(gzip.compress(b"a,b\n1,2\n")))
    with pytest.raises(MedclipError, match="packed with gzip twice"):
        read_table(path)
