"""A pile is the pairs of shards or of a table as columns; images are read when a step asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.pairs.pile import Pile, read_pile
from medclip.pairs.pile_columns import COLUMNS, FACTS
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.shards.reading.foreign import ForeignSet
from medclip.shards.reading.index_tars import index_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from tests.kits.shards import KEY, write
from tests.kits.signal_shards import mixed_table

ONE = Settings(workers=1)


def rows(folder: Path) -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    cells = []
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (100 + i, 80), dtype=np.uint8)).save(folder / f"{i}.png")
        cells.append(
            {
                "file": f"{i}.png",
                "patient": f"Doe^{i // 2}",
                "modality": "xray",
                "caption": f"Caption number {i}.",
                "captions": f"One more of {i}." if i % 2 else "",
                "report": f"Report {i}." if i < 2 else "",
                "source": "here" if i else "",
                "license": "CC0",
                "split": "train" if i < 6 else "val",
            }
        )
    return cells


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pile")
    build_shards(write(folder / "t.csv", rows(folder)), folder / "s", Form(key=KEY, max_side=64), settings=ONE)
    return folder


def test_pairs_of_shards_are_columns_in_the_order_of_their_splits(folder: Path) -> None:
    pile = read_pile(folder / "s")
    assert pile.table.column_names == [*COLUMNS, *FACTS]
    assert pile.cells("split") == ["train"] * 6 + ["val"] * 2
    assert len(set(pile.cells("key"))) == len(pile) == 8
    train = ShardReader(folder / "s", "train")
    assert pile.cells("key")[:6] == [train.key(i) for i in range(6)]
    assert sorted(pile.cells("text"))[:2] == ["Caption number 0.", "Caption number 1.\nOne more of 1."]
    assert sorted(pile.cells("report"))[-2:] == ["Report 0.", "Report 1."]
    assert set(pile.cells("source")) == {"", "here"}
    assert set(pile.cells("modality")) == {"xray"}
    assert pile.max_side == 64
    assert set(pile.cells("height")) == {64}


def test_what_has_no_caption_is_judged_by_its_report_and_never_by_a_text_drawn_of_labels(tmp_path: Path) -> None:
    report = "Findings: haze.\nImpression: nodule."
    told = [row | {"caption": "", "captions": "", "report": report * (i < 4)} for i, row in enumerate(rows(tmp_path))]
    table = write(tmp_path / "t.csv", [row | {"label:chest_xray_findings:pneumonia": "1"} for row in told])
    build_shards(table, tmp_path / "s", Form(key=KEY, max_side=64), settings=ONE)
    shards, read = read_pile(tmp_path / "s"), read_pile(table)
    assert shards.words().count(report) == 4
    assert all(shards.words())
    assert read.words() == [report] * 4 + [""] * 4
    assert read.words(np.array([0, 7]), report_as_line=True) == [report.replace("\n", " "), ""]


def test_patients_of_shards_are_hashes(folder: Path) -> None:
    patients = read_pile(folder / "s").cells("patient")
    assert len(set(patients)) == 4
    assert not any("Doe" in patient for patient in patients)


def test_one_split_has_the_keys_that_it_has_among_all(folder: Path) -> None:
    every, val = read_pile(folder / "s"), read_pile(folder / "s", split="val")
    assert val.cells("key") == every.cells("key", np.array([6, 7]))
    assert val.digest != every.digest == read_pile(folder / "s").digest
    with pytest.raises(MedclipError, match="no split"):
        read_pile(folder / "s", split="vla")


def test_images_of_shards_are_those_of_the_rows_that_are_asked(folder: Path) -> None:
    pile = read_pile(folder / "s")
    train, val = ShardReader(folder / "s", "train"), ShardReader(folder / "s", "val")
    last, first = pile.images([7, 0])
    np.testing.assert_array_equal(last, val[1].image)
    np.testing.assert_array_equal(first, train[0].image)


def test_the_columns_of_few_values_are_numbers(folder: Path) -> None:
    for place in (folder / "s", folder / "t.csv"):
        table = read_pile(place).table
        assert all(pa.types.is_dictionary(table.schema.field(n).type) for n in ("split", "modality", "source"))


def test_pairs_of_a_table_are_its_rows_with_its_other_columns_behind(folder: Path) -> None:
    pile = read_pile(folder / "t.csv", settings=ONE)
    assert pile.table.column_names == [*COLUMNS, "file"]
    assert pile.cells("key") == [f"{i}.png" for i in range(8)]
    assert pile.cells("text")[:3] == ["Caption number 0.", "Caption number 1.\nOne more of 1.", "Caption number 2."]
    assert pile.cells("patient")[0] == "Doe^0"
    assert read_pile(folder / "t.csv", split="val").cells("key") == ["6.png", "7.png"]
    image, gone = read_pile(folder / "t.csv", images=folder / "s", settings=ONE).images([0]), pile.images([3])
    assert next(gone).shape == (103, 80, 3)  # type: ignore[union-attr]
    error = next(image)
    assert isinstance(error, MedclipError)
    assert error.reason is Reason.MISSING_FILE


def test_a_table_whose_files_repeat_is_numbered(tmp_path: Path) -> None:
    table = pa.table({"path": ["a", "a", "b"], "text": [["x", " y"], [], None], "width": [1, 2, 3]})
    pq.write_table(table, tmp_path / "t.parquet")
    pile = read_pile(tmp_path / "t.parquet")
    assert pile.cells("key") == ["0", "1", "2"]
    assert pile.cells("text") == ["x\n y", "", ""]
    assert pile.cells("license") == [""] * 3
    assert pile.cells("width") == [1, 2, 3]


@given(st.lists(st.integers(0, 11), max_size=30), st.booleans())
def test_cells_of_some_rows_stand_in_the_order_of_the_rows(rows: list[int], is_coded: bool) -> None:
    values = [f"cell {i % 5}" for i in range(12)]
    column = pa.chunked_array([pa.array(values[:5]), pa.array([], pa.string()), pa.array(values[5:])])
    table = pa.table({"x": column.dictionary_encode() if is_coded else column})
    pile = Pile(table, Path("pile"), "", lambda rows: ())
    assert pile.cells("x", np.array(rows, np.int64)) == [values[row] for row in rows]
    assert pile.cells("x") == values


def test_a_table_without_files_or_texts_is_refused(tmp_path: Path) -> None:
    for name, row in (("path", {"file": "a.png"}), ("caption", {"caption": "a"})):
        path = write(tmp_path / f"{name}.csv", [row])
        with pytest.raises(MedclipError, match="there is no column"):
            read_pile(path)


def test_tars_of_others_are_a_pile_whose_patients_nobody_knows(tmp_path: Path) -> None:
    import io
    import tarfile

    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (
            ("1.png", buffer.getvalue()),
            ("1.txt", b"A film."),
            ("2.png", buffer.getvalue()),
            ("2.json", json.dumps({"captions": ["One.", "Two."], "report": "Long."}).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    index_shards(tmp_path, ForeignSet("web", "CC-BY", Modality.XRAY), key=KEY)
    pile = read_pile(tmp_path)
    assert pile.cells("text") == ["A film.", "One.\nTwo."]
    assert pile.cells("report") == ["", "Long."]
    assert pile.cells("patient") == ["", ""]
    assert pile.cells("license") == ["CC-BY"] * 2
    assert (pile.cells("width"), pile.max_side) == ([20, 20], None)
    assert next(pile.images([1])).shape == (10, 20, 3)  # type: ignore[union-attr]


def test_rows_of_a_mixed_table_are_read_by_their_kind_in_the_order_that_is_asked(tmp_path: Path) -> None:
    pile = read_pile(mixed_table(tmp_path), settings=ONE)
    assert pile.is_record().tolist() == [True, False, True, False, True]
    record, film, again = pile.looks([4, 1, 0])
    assert isinstance(film, np.ndarray)
    assert film.shape == (64, 60, 3)
    assert not isinstance(record, np.ndarray | MedclipError)
    assert not isinstance(again, np.ndarray | MedclipError)
    np.testing.assert_array_equal(record.values_mv, again.values_mv)


def test_a_row_that_names_no_file_has_a_reason_and_the_images_of_others_stay_theirs(tmp_path: Path) -> None:
    for name, width in (("a.png", 64), ("c.png", 80)):
        noise = np.random.default_rng(width).integers(0, 255, (70, width), np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    rows = [{"file": name, "caption": "A film.", "modality": "xray"} for name in ("a.png", "", "c.png")]
    pile = read_pile(write(tmp_path / "pairs.csv", rows), settings=ONE)
    assert pile.cells("key") == ["0", "1", "2"]
    first, none, last = pile.images([0, 1, 2])
    assert isinstance(none, MedclipError)
    assert none.reason is Reason.MISSING_FILE
    assert [one.shape[1] for one in (first, last)] == [64, 80]  # type: ignore[union-attr]
