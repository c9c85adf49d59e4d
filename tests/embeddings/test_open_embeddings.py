"""A folder of embeddings: what was written is read, and what is not whole is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.embeddings import write_embeddings as writer
from medclip.embeddings.open_embeddings import is_embeddings, open_embeddings
from medclip.errors import MedclipError, Reason
from tests.kits.embeddings import PACK, make_units, write_store


def test_vectors_come_back_in_the_order_of_their_tables(tmp_path: Path) -> None:
    units = make_units(40)
    store = open_embeddings(write_store(tmp_path / "e", units))
    assert (store.num_units, store.num_views, store.num_studies) == (40, sum(len(u.features) for u in units), 20)
    assert np.array_equal(store.vectors("views"), np.concatenate([u.features for u in units]))
    means = store.vectors("units")
    assert store.units.column("row").to_pylist() == [u.row for u in units]
    for unit, mean in zip(units, means, strict=True):
        expected = unit.features.mean(axis=0)
        assert np.allclose(mean, expected / np.linalg.norm(expected), atol=1e-6)
    studies = store.studies.to_pylist()
    assert [study["row"] for study in studies] == sorted(study["row"] for study in studies)
    of_first = np.concatenate([u.features for u in units if u.study == studies[0]["study"]]).mean(axis=0)
    assert np.allclose(store.vectors("studies")[0], of_first / np.linalg.norm(of_first), atol=1e-6)
    assert studies[0]["num_units"] == 2
    assert "vector" not in store.views.column_names


def test_blocks_are_small_and_together_all_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_GROUP_BYTES", 1)  # row groups of 1,024
    store = open_embeddings(write_store(tmp_path / "e", make_units(3000)))
    blocks = list(store.blocks("units", rows=500))
    assert max(map(len, blocks)) <= 500
    assert np.array_equal(np.concatenate(blocks), store.vectors("units"))


def test_vectors_are_taken_by_their_places_and_other_parts_of_the_table_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_GROUP_BYTES", 1)  # row groups of 1,024
    store = open_embeddings(write_store(tmp_path / "e", make_units(3000)))
    places, read = np.array([2999, 5, 2048, 5, 0]), []
    read_row_group = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda f, n, **k: read.append(n) or read_row_group(f, n, **k))
    assert np.array_equal(store.take("units", places), store.vectors("units")[places])
    assert read == [0, 2]
    assert store.take("units", np.array([], np.intp)).shape == (0, 8)


def test_the_table_of_files_comes_in_blocks(tmp_path: Path) -> None:
    store = open_embeddings(write_store(tmp_path / "e", make_units(30)))
    blocks = list(store.file_blocks(8))
    assert [block.num_rows for block in blocks] == [8, 8, 8, 6]
    assert pa.concat_tables(blocks).equals(store.files)


def test_equal_units_give_equal_bytes_and_half_precision_half_the_room(tmp_path: Path) -> None:
    units = make_units(300)
    first, second = (write_store(tmp_path / name, units) for name in "ab")
    for name in (*writer.TABLES, writer.NOTE):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    half = open_embeddings(write_store(tmp_path / "half", units, dtype="float16"))
    assert np.abs(half.vectors("views") - open_embeddings(first).vectors("views")).max() < 1e-3
    assert (half.folder / "views.parquet").stat().st_size < 0.8 * (first / "views.parquet").stat().st_size


def test_what_is_written_is_its_owners_alone(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "e", make_units(3))
    assert {(folder / name).stat().st_mode & 0o777 for name in (*writer.TABLES, writer.NOTE)} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_without_any_vector_opens(tmp_path: Path) -> None:
    store = open_embeddings(write_store(tmp_path / "e", []))
    assert store.vectors("studies").shape == (0, 8)


def test_thumbnails_are_found_by_row(tmp_path: Path) -> None:
    store = open_embeddings(write_store(tmp_path / "e", make_units(3), thumbnails=[(1, b"one"), (3, b"three")]))
    assert [store.thumbnail(row) for row in (1, 2, 3)] == [b"one", b"", b"three"]
    assert dict(store.thumbnails()) == {1: b"one", 3: b"three"}


def test_a_half_written_folder_is_known_and_refused(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "e", make_units(3))
    writer.begin_embeddings(folder)
    assert is_embeddings(folder)
    with pytest.raises(MedclipError, match="not complete") as caught:
        open_embeddings(folder)
    assert caught.value.reason is Reason.MISSING_FILE


def test_another_format_and_no_embeddings_at_all_are_refused(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "e", make_units(3))
    note = json.loads((folder / writer.NOTE).read_text())
    (folder / writer.NOTE).write_text(json.dumps({**note, "format": 99}))
    with pytest.raises(MedclipError, match="format 99, this medclip reads 1"):
        open_embeddings(folder)
    with pytest.raises(MedclipError, match="no embeddings here"):
        open_embeddings(tmp_path)
    assert not is_embeddings(tmp_path)


@pytest.mark.parametrize("name", ["views.parquet", "units.parquet"])
def test_a_changed_byte_is_noticed_also_in_a_table_too_large_to_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = write_store(tmp_path / "e", make_units(300))
    data = bytearray((folder / name).read_bytes())
    data[len(data) * 3 // 4] ^= 1  # among the vectors, which come last
    (folder / name).write_bytes(data)
    with pytest.raises(MedclipError, match="not the one that medclip embed wrote") as caught:
        open_embeddings(folder)
    assert caught.value.reason is Reason.CHANGED
    monkeypatch.setattr("medclip.embeddings.open_embeddings._HASHED_BYTES", 0)
    store = open_embeddings(folder)
    with pytest.raises(MedclipError, match="not the one that medclip embed wrote"):
        store.vectors("views" if name.startswith("views") else "units")


def test_a_pack_of_another_digest_is_refused_and_one_of_the_same_tower_is_not(tmp_path: Path) -> None:
    store = open_embeddings(write_store(tmp_path / "e", make_units(3)))
    store.check_pack(PACK.digest)
    store.check_pack("other", image_tower=PACK.image_tower, preprocessing=PACK.preprocessing)
    for tower, preprocessing in (("", ""), ("other", PACK.preprocessing), (PACK.image_tower, "other")):
        with pytest.raises(MedclipError, match="another pack: tiny 1"):
            store.check_pack("other", image_tower=tower, preprocessing=preprocessing)
    assert "tiny 1" in repr(store)
    with pytest.raises(MedclipError, match="views, units, studies"):
        store.vectors("tiles")  # pyright: ignore[reportArgumentType]
