"""Embeddings of a cohort: read from files, made from images, written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import medclip
from medclip.auditing.checks.embeddings.vectors import embed_images, read_embeddings, unit_vectors
from medclip.errors import MedclipError, Reason
from medclip.sample import Modality
from medclip.settings import Settings
from tests.kits import bombs

KEYS = ["a", "b", "c"]
VALUES = np.array([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]])
UNIT = np.array([[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]], np.float32)


def as_lists(path: Path) -> None:
    pq.write_table(pa.table({"key": KEYS, "vector": VALUES.tolist(), "note": ["x", "y", "z"]}), path)


def as_fixed_lists(path: Path) -> None:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(VALUES.ravel(), pa.float32()), 2)
    pq.write_table(pa.table({"image": KEYS, "v": flat}), path)


def as_columns(path: Path) -> None:
    pq.write_table(pa.table({"file": KEYS, "d0": VALUES[:, 0], "d1": VALUES[:, 1]}), path)


def as_text(path: Path) -> None:
    path.write_text("file;d0;d1\n" + "".join(f"{k};{a};{b}\n" for k, (a, b) in zip(KEYS, VALUES, strict=True)))


def as_npz(path: Path) -> None:
    with path.open("wb") as stream:  # numpy would add its suffix to a path
        np.savez(stream, keys=np.array(KEYS), vectors=VALUES)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (as_lists, "e.parquet"),
        (as_fixed_lists, "e.parquet"),
        (as_columns, "e.parquet"),
        (as_text, "e.csv"),
        (as_text, "e.npz"),
        (as_npz, "e.npz"),
        (as_npz, "e.parquet"),
    ],
)
def test_each_form_gives_unit_vectors_in_the_order_of_the_keys(make, name: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    found = read_embeddings(tmp_path / name, ["c", "a", "nowhere", "b", "a"])
    np.testing.assert_allclose(found.vectors_ND, [UNIT[2], UNIT[0], [np.nan] * 2, UNIT[1], UNIT[0]], atol=1e-7)
    assert found.vectors_ND.dtype == np.float32
    assert found.problems == {"not in the file": 1}
    assert found.there_N.tolist() == [True, True, False, True, True]
    assert "embeddings: 1 of 5 rows (" in found.notes[0]
    assert "nowhere" not in found.notes[0]


def test_a_blank_or_empty_vector_is_missing_and_counted(tmp_path: Path) -> None:
    rows = [[1.0, 0.0], None, [0.0, 0.0], [float("nan"), 1.0]]
    pq.write_table(
        pa.table({"key": list("abcd"), "vector": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "e.parquet"
    )
    found = read_embeddings(tmp_path / "e.parquet", list("abcd"))
    assert found.there_N.tolist() == [True, False, False, False]
    assert found.problems == {"non_finite": 3}


def test_a_named_column_holds_the_keys(tmp_path: Path) -> None:
    pq.write_table(pa.table({"file": KEYS, "uid": ["x", "y", "z"], "v": VALUES.tolist()}), tmp_path / "e.parquet")
    with pytest.raises(MedclipError, match="2 columns of text"):
        read_embeddings(tmp_path / "e.parquet", KEYS)
    assert read_embeddings(tmp_path / "e.parquet", KEYS, key="file").there_N.all()
    with pytest.raises(MedclipError, match="no column"):
        read_embeddings(tmp_path / "e.parquet", KEYS, key="nothing")


def refused(path: Path, match: str, keys: list[str] = KEYS) -> None:
    with pytest.raises(MedclipError, match=match) as caught:
        read_embeddings(path, keys)
    assert caught.value.reason is Reason.TABLE_INVALID


def test_an_npz_that_unpacks_to_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "e.npz", keys=np.array(KEYS), vectors=np.zeros((3, 50 * 2**20), np.float32))
    with bombs.peak_memory() as peak, pytest.raises(MedclipError, match="more than 536,870,912 unpacked") as caught:
        read_embeddings(tmp_path / "e.npz", KEYS)
    assert caught.value.reason is Reason.TOO_LARGE
    assert peak.num_bytes < 16 * 2**20


def test_other_files_are_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"key": KEYS, "vector": [[1.0], [1.0, 2.0], [1.0]]}), path)
    refused(path, "2 different lengths")
    pq.write_table(pa.table({"key": ["a", "a", "b"], "vector": VALUES.tolist()}), path)
    refused(path, "1 keys of the embeddings are there more than once")
    pq.write_table(pa.table({"key": KEYS, "v": VALUES.tolist(), "w": VALUES.tolist()}), path)
    refused(path, "2 list columns")
    pq.write_table(pa.table({"key": KEYS, "other": KEYS}), path)
    refused(path, "0 list columns and 0 numeric")
    as_lists(path)
    refused(path, "none of the 1 rows", ["zzz"])
    path.write_bytes(b"key,vector\na,x\n")
    refused(path, "0 list columns and 0 numeric")
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    refused(path, "an HDF5 file")
    with pytest.raises(MedclipError) as caught:
        read_embeddings(tmp_path / "absent.npz", KEYS)
    assert caught.value.reason is Reason.MISSING_FILE


def test_nothing_pickled_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", keys=np.array(KEYS, object), vectors=VALUES)
    refused(tmp_path / "e.npz", "pickled")
    np.savez(tmp_path / "e.npz", vectors=VALUES)
    refused(tmp_path / "e.npz", "lacks `keys`")
    (tmp_path / "e.npz").write_bytes(b"PK\x03\x04 damaged")
    refused(tmp_path / "e.npz", "damaged")
    np.savez(tmp_path / "e.npz", keys=np.array(KEYS), vectors=VALUES[0])
    refused(tmp_path / "e.npz", "3 keys, but 2 vectors")
    np.savez(tmp_path / "e.npz", keys=np.array(KEYS), vectors=np.ones(3))
    refused(tmp_path / "e.npz", "shape")


@given(st.lists(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=3, max_size=3), max_size=5))
def test_rows_have_length_one_or_are_missing(rows: list[list[float]]) -> None:
    found = unit_vectors(np.array(rows, float).reshape(-1, 3))
    there = ~np.isnan(found).any(axis=1)
    np.testing.assert_allclose(np.linalg.norm(found[there], axis=1), 1, atol=1e-6)
    assert np.isnan(found[~there]).all()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path | None]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths: list[Path | None] = []
    for i in range(3):
        paths.append(folder / f"{i}.png")
        Image.fromarray(rng.integers(0, 255, (64, 48), np.uint8)).save(paths[-1])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return [paths[0], folder / "broken.png", paths[1], None, folder / "absent.png", paths[0], paths[2]]


def test_images_are_encoded_as_scoring_encodes_them_and_bad_ones_stop_nothing(images: list[Path | None]) -> None:
    from medclip.models.inputs.read_pixels import read_pixels

    model, settings, seen, steps = medclip.models.load(), Settings(workers=1), [], []
    found = embed_images(
        model, images, Modality.XRAY, settings, also=lambda views: seen.append(views) or len(seen), step=steps.append
    )
    assert found.there_N.tolist() == [True, False, True, False, False, True, True]
    np.testing.assert_allclose(np.linalg.norm(found.vectors_ND[found.there_N], axis=1), 1, atol=1e-6)
    pixels = read_pixels(images[0], Modality.XRAY, model.preprocess, settings)
    expected = model.encode_image(pixels.images).mean(axis=0)
    np.testing.assert_allclose(found.vectors_ND[0], expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_array_equal(found.vectors_ND[5], found.vectors_ND[0])
    assert [v.shape[1:] for v in seen] == [(model.preprocess.size_px,) * 2 + (3,)] * 3
    assert found.also == (1, None, 2, None, None, 1, 3)
    assert found.hashes[0] == pixels.sha256 == found.hashes[5]
    assert found.hashes[3] == ""
    assert sum(found.problems.values()) == 3
    assert sum(steps) == 5  # each file once
    assert not any(str(p) in note for p in images for note in found.notes)


def test_no_images_at_all_give_an_empty_table() -> None:
    found = embed_images(medclip.models.load(), [], Modality.XRAY, Settings(workers=1))
    assert found.vectors_ND.shape[0] == 0
    assert found.notes == ()
