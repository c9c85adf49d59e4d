from __future__ import annotations

from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot.labelled_set import find_set, places
from medclip.evaluation.zero_shot.suite import SetFile, load_suite
from tests.kits.evaluation import SUITE, image, small_data

KEY = bytes(32)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, SetFile]:
    (tmp_path / "suite.yaml").write_text(SUITE)
    return {part.id: part for part in load_suite(tmp_path / "suite.yaml").sets}


def test_class_folders_are_read_in_the_order_of_paths(parts: dict[str, SetFile], tmp_path: Path) -> None:
    found = find_set(small_data(tmp_path), parts["eyes"], KEY)
    assert found.layout == "class folders"
    assert [(row.row, row.path.name, row.label) for row in found.rows] == [
        (1, "1.png", 0),
        (2, "3.png", 0),
        (3, "5.png", 0),
        (4, "0.png", 1),
        (5, "2.png", 1),
        (6, "4.png", 1),
        (7, "broken.png", 1),
    ]
    assert not found.has_patients


def test_a_table_gives_labels_keyed_patients_and_the_rows_of_the_split(
    parts: dict[str, SetFile], tmp_path: Path
) -> None:
    found = find_set(small_data(tmp_path), parts["chests"], KEY)
    assert [(row.row, row.label) for row in found.rows] == [(1, 1), (2, 0), (4, 1), (5, 0), (7, 1), (8, 0), (11, 0)]
    assert found.num_left_out == 5  # four of the class X, one of the training split
    assert found.has_patients
    assert len({row.patient for row in found.rows}) == 3
    assert not any("MRN" in str(row.patient) for row in found.rows)


def test_a_set_that_is_not_there_is_none_and_its_places_are_named(parts: dict[str, SetFile], tmp_path: Path) -> None:
    assert find_set(tmp_path, parts["eyes"], KEY) is None
    (tmp_path / "eyes").mkdir()
    assert find_set(tmp_path, parts["eyes"], KEY) is None
    assert places(parts["eyes"]) == ("eyes/labels.csv", "eyes/{clear,hazy}/")
    assert places(parts["chests"]) == ("chests/labels.csv", "chests/{P,N}/")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("path,label\na.png,P\n", "no column 'file'"),
        ("file,label\na.png,Q\n", "is 'Q', which set chests does not know; it knows: P, N, X, other"),
        ("file,label\n,P\n", "`file` is empty"),
        ("file,label\na.png,P\na.png,N\n", "a second time"),
        ("file,label,label\na.png,P,N\n", "more than once"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(
    parts: dict[str, SetFile], tmp_path: Path, table: str, said: str
) -> None:
    (tmp_path / "chests").mkdir()
    (tmp_path / "chests" / "labels.csv").write_text(table)
    with pytest.raises(MedclipError) as error:
        find_set(tmp_path, parts["chests"], KEY)
    assert said in str(error.value)
    assert "labels.csv" in str(error.value)


def test_a_class_folder_that_the_suite_does_not_know_is_refused(parts: dict[str, SetFile], tmp_path: Path) -> None:
    small_data(tmp_path)
    (tmp_path / "eyes" / "blurred").mkdir()
    with pytest.raises(MedclipError, match="'blurred', which set eyes does not know; it knows: clear, hazy"):
        find_set(tmp_path, parts["eyes"], KEY)


def test_a_table_without_a_split_column_is_taken_whole_and_says_so(parts: dict[str, SetFile], tmp_path: Path) -> None:
    small_data(tmp_path)
    (tmp_path / "chests" / "labels.csv").write_text("file,label\nimages/1.png,P\nimages/2.png,other\n")
    found = find_set(tmp_path, parts["chests"], KEY)
    assert found.ignores_split
    assert [row.label for row in found.rows] == [1, 2]
    assert not found.has_patients


def test_class_folders_of_a_set_with_a_split_say_that_all_is_taken(parts: dict[str, SetFile], tmp_path: Path) -> None:
    for name in ("healthy", "ill"):
        image(tmp_path / "chests" / name / "a.png", 1)
    assert find_set(tmp_path, parts["chests"], KEY).ignores_split
    assert not find_set(small_data(tmp_path / "x"), parts["eyes"], KEY).ignores_split


def test_a_table_that_is_no_text_is_refused(parts: dict[str, SetFile], tmp_path: Path) -> None:
    (tmp_path / "chests").mkdir()
    for junk in (b"\xff\xfe", b"\x89PNG\r\n\x1a\n", b"file,label\na,\xff\n"):
        (tmp_path / "chests" / "labels.csv").write_bytes(junk)
        with pytest.raises(MedclipError) as refused:
            find_set(tmp_path, parts["chests"], KEY)
        assert refused.value.reason is Reason.TABLE_INVALID


def test_the_digest_changes_when_a_file_or_a_label_does(parts: dict[str, SetFile], tmp_path: Path) -> None:
    small_data(tmp_path)

    def digest() -> str:
        return find_set(tmp_path, parts["chests"], KEY).digest(tmp_path)

    first = digest()
    assert digest() == first
    (tmp_path / "chests" / "images" / "1.png").write_bytes(b"other")
    second = digest()
    table = tmp_path / "chests" / "labels.csv"
    table.write_text(table.read_text().replace("1.png,N", "1.png,P"))
    assert len({first, second, digest()}) == 3
