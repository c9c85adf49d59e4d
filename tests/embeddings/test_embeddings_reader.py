"""A folder of embeddings answers in the place of files: the same features, and a reason for what it does not hold."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from medclip.api.embed import embed
from medclip.embeddings.embeddings_reader import EmbeddingsReader, open_for, open_reader
from medclip.embeddings.open_embeddings import open_embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.tables.write import write_rows
from medclip.models.encoding.unit_reader import ReadUnit, UnitReader
from medclip.models.model import Model
from medclip.models.packs.pack import load_model
from medclip.runs.rows import FileRow
from medclip.sample import Modality
from medclip.settings import Settings
from tests.kits.embeddings import PACK, embed_files, make_units, write_store
from tests.kits.files import write_image
from tests.kits.scoring import make_pack, texture, write_dicom

SETTINGS = Settings(workers=1)


class Named(NamedTuple):
    path: Path
    modality: Modality | None = Modality.XRAY


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(make_pack(tmp_path_factory.mktemp("packs") / "tiny"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "b").mkdir()
    for n in range(4):
        write_image(folder / f"{'b/' if n % 2 else ''}{n}.png", texture(n, 90, 120))
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:90])
    return folder


@pytest.fixture(scope="module")
def store(model: Model, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embed_files(tmp_path_factory.mktemp("stores") / "e", model, images)


def _read(reader: UnitReader | EmbeddingsReader, root: Path, names: list[str]) -> list[ReadUnit]:
    with reader:
        return reader.read([Named(root / name) for name in names], lambda _: None, keep_pixels=False)


def test_units_are_answered_as_their_files_would_be(model: Model, images: Path, store: Path) -> None:
    names = ["b/3.png", "0.png", "broken.png", "b/1.png", "gone.png", "0.png"]
    of_files = _read(open_reader(model, SETTINGS), images, names)
    reader = open_reader(model, SETTINGS, store)
    assert isinstance(reader, EmbeddingsReader)
    of_store = _read(reader, store, names)
    for one, other in zip(of_files, of_store, strict=True):
        assert np.array_equal(one.features, other.features)
        assert (one.sha256, one.way) == (other.sha256, other.way if other.problem is None else one.way)
        assert (one.problem and one.problem.reason) == (other.problem and other.problem.reason)
    assert of_store[2].problem.message == of_files[2].problem.message  # type: ignore[union-attr]
    assert of_store[4].problem.reason is Reason.MISSING_FILE  # type: ignore[union-attr]


def test_paths_may_lie_below_the_folder_that_was_embedded(model: Model, images: Path, store: Path) -> None:
    (unit,) = _read(open_reader(model, SETTINGS, store, root=images), images / "b", ["../b/1.png"])
    assert unit.problem is None


def test_a_modality_that_it_was_not_embedded_as_is_a_reason(model: Model, store: Path) -> None:
    with open_reader(model, SETTINGS, store) as reader:
        named = [Named(store / "0.png", m) for m in (Modality.MRI, None, Modality.XRAY)]
        other, unsaid, same = reader.read(named, lambda _: None)
    assert other.problem is not None
    assert other.problem.reason is Reason.PREPROCESSING_MISMATCH
    assert other.problem.message == "The file was embedded as X-ray, and is asked for as MRI."
    assert np.array_equal(unsaid.features, same.features)


def test_a_series_is_named_by_its_folder_and_a_copy_by_its_own_name(tmp_path: Path) -> None:
    first, second, third = make_units(3)
    write_store(tmp_path / "e", [first, second, third])
    rows = [
        *(FileRow(n, f"ct/{n}.dcm", f"{n}", 9, "dicom", "scored", None, None, kind="volume", unit=1) for n in (1,)),
        FileRow(2, "ct/s2.dcm", "part", 9, "dicom", "scored", None, None, unit=1),
        FileRow(3, "film.png", third.sha256, 9, "png", "scored", None, None, unit=3),
        FileRow(4, "film_again.png", "other bytes", 9, "png", "skipped", "duplicate", "It is a copy.", copy_of=3),
        FileRow(5, "note.txt", "t", 9, "text", "skipped", "not_an_image", "The file is text."),
        FileRow(6, "record.hea", "h", 9, "wfdb", "scored", None, None, unit=6),
    ]
    write_store(tmp_path / "s", [first, replace(third, row=3), replace(second, row=6)])
    write_rows(tmp_path / "s" / "files.parquet", FileRow, rows)
    store = open_embeddings(tmp_path / "s")
    names = ["ct", "ct/s2.dcm", "ct/1.dcm", "film.png", "film_again.png", "note.txt", "record.hea", ".", "nowhere"]
    read = _read(EmbeddingsReader(store, Path("x")), Path("x"), names)
    reasons = [unit.problem and str(unit.problem.reason) for unit in read]
    assert reasons == [None, "wrong_use", "wrong_use", None, None, "not_an_image", None, "wrong_use", "missing_file"]
    assert np.array_equal(read[0].features, first.features)
    assert read[0].sha256 == first.sha256
    assert np.array_equal(read[3].features, third.features)
    assert np.array_equal(read[4].features, third.features)
    assert read[4].sha256 == "other bytes"
    assert np.array_equal(read[6].features, second.features)


def test_vectors_of_some_units_are_picked(tmp_path: Path) -> None:
    units = make_units(50)
    store = open_embeddings(write_store(tmp_path / "e", units))
    chosen = [units[n] for n in (48, 3, 3, 0, 20)]
    read = _read(EmbeddingsReader(store, Path("x")), Path("x"), [f"{unit.row:06}.png" for unit in chosen])
    for unit, answer in zip(chosen, read, strict=True):
        assert np.array_equal(unit.features, answer.features)


def test_units_are_found_by_hashed_paths_with_the_key_of_these_embeddings_alone(
    model: Model, images: Path, store: Path, tmp_path: Path
) -> None:
    settings = Settings(workers=1)  # with the home of this test
    write_dicom(tmp_path / "in" / "ct" / "1.dcm", 1)
    shutil.copytree(images, tmp_path / "in", dirs_exist_ok=True)
    embed(tmp_path / "in", tmp_path / "e", model=model, modality="xray", group_by="file", hash_paths=True, workers=1)
    assert not any("png" in path for path in open_embeddings(tmp_path / "e").files.column("path").to_pylist())
    names = ["b/3.png", "0.png", "broken.png", "gone.png"]
    of_names = _read(open_reader(model, settings, store), store, names)
    of_hashes = _read(open_reader(model, settings, tmp_path / "e"), tmp_path / "e", names)
    for one, other in zip(of_names, of_hashes, strict=True):
        assert np.array_equal(one.features, other.features)
        assert one.sha256 == other.sha256
        assert (one.problem and one.problem.reason) == (other.problem and other.problem.reason)
    asked = open_reader(model, settings, tmp_path / "e", root=tmp_path / "in")
    folder, *others = _read(asked, tmp_path / "in", ["ct", "b", "nowhere"])
    (film,) = _read(asked, tmp_path / "in", ["ct/1.dcm"])
    assert folder.problem is None
    assert np.array_equal(folder.features, film.features)
    assert [unit.problem and unit.problem.reason for unit in others] == [Reason.WRONG_USE, Reason.MISSING_FILE]
    (tmp_path / "in" / "0.png").write_bytes(b"other")
    with pytest.raises(MedclipError, match=r"0\.png: this file is not the one that was embedded"):
        _read(open_reader(model, settings, tmp_path / "e", originals=tmp_path / "in"), tmp_path / "e", names)
    (tmp_path / "other.key").write_bytes(b"k" * 32)
    with pytest.raises(MedclipError, match="another identity key") as caught:
        open_for(tmp_path / "e", model.path, settings, tmp_path / "other.key")
    assert caught.value.reason is Reason.WRONG_USE


def test_another_packs_folder_and_what_needs_images_are_refused(model: Model, store: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other", make_units(3), PACK)
    with pytest.raises(MedclipError, match="these embeddings are of another pack: tiny 1"):
        open_reader(model, SETTINGS, other)
    with open_reader(model, SETTINGS, store) as reader, pytest.raises(MedclipError, match="holds no images") as caught:
        reader.read([Named(store / "0.png")], lambda _: None, others=[model])
    assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize("change", ["size", "bytes"])
def test_files_that_changed_since_are_refused_where_they_are_there(
    change: str, model: Model, images: Path, store: Path, tmp_path: Path
) -> None:
    names = ["0.png", "2.png", "absent.png"]
    for name in names[:2]:
        (tmp_path / name).write_bytes((images / name).read_bytes())
    assert _read(open_reader(model, SETTINGS, store, originals=tmp_path), store, names)[0].problem is None
    body = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(body[:-1] if change == "size" else body[:-1] + b"\0")
    with pytest.raises(MedclipError, match=r"2\.png: this file is not the one that was embedded") as caught:
        _read(open_reader(model, SETTINGS, store, originals=tmp_path), store, names)
    assert caught.value.reason is Reason.CHANGED
