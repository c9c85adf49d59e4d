"""A model embeds images of any form, through the reader that scoring has."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest

from medclip.adapters.base import source_of
from medclip.adapters.registry import read_unit
from medclip.api.open_study import open_study
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.models.model import Model
from medclip.models.packs.pack import load_model
from medclip.sample import Modality
from medclip.settings import Settings
from tests.kits.files import write_dicom, write_image
from tests.kits.progress import Recorded
from tests.kits.scoring import texture


@pytest.fixture(scope="module")
def model(_pack: Path) -> Model:
    return load_model(_pack)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    pngs = [write_image(folder / f"{n}.png", texture(n, 90, 120)) for n in range(3)]
    return [*pngs, write_dicom(folder / "3.dcm", texture(3, 90, 120))]


def _views(path: Path) -> tuple:
    return read_unit(source_of(path, Settings()), Modality.XRAY, Settings()).views


def test_files_become_the_vectors_of_what_their_adapter_reads(model: Model, images: list[Path]) -> None:
    vectors = model.embed_images(images)
    plain = np.stack([model.preprocess.to_array(_views(path)[0]) for path in images])
    np.testing.assert_allclose(vectors, model.encode_image(plain), atol=1e-6)
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, model.dim)


def test_an_opened_study_is_one_vector_of_all_its_views(model: Model, images: list[Path], tmp_path: Path) -> None:
    for n in (5, 6):
        write_dicom(tmp_path / "study" / f"{n}.dcm", texture(n, 90, 120))
    one, other = (open_study(tmp_path / "study" / f"{n}.dcm") for n in (5, 6))
    study = replace(one, units=(*one.units, *other.units))
    each = model.embed_images(study.samples())
    assert len(each) == 2
    both = each.mean(axis=0) / np.linalg.norm(each.mean(axis=0))
    rows = model.embed_images([images[0], study, images[1]])
    np.testing.assert_allclose(rows[1], both, atol=1e-6)
    np.testing.assert_allclose(rows[[0, 2]], model.embed_images(images[:2]), atol=1e-6)
    np.testing.assert_allclose(model.embed_images(study), both[None], atol=1e-6)
    with pytest.raises(MedclipError, match="study was read already"):
        score(study, model=model)


def test_every_form_of_an_image_gives_the_same_vector(model: Model, images: list[Path]) -> None:
    path = images[0]
    sample = read_unit(source_of(path, Settings()), Modality.XRAY, Settings())
    frame = pandas.DataFrame({"file": [str(path)], "modality": ["xray"]})
    forms = [path, str(path), texture(0, 90, 120), sample.views[0], sample, frame]
    rows = np.concatenate([model.embed_images(form) for form in forms])
    np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), atol=1e-6)
    mixed = model.embed_images([images[1], sample, texture(0, 90, 120), images[1]])
    np.testing.assert_allclose(mixed[[1, 2]], rows[:2], atol=1e-6)
    np.testing.assert_allclose(mixed[0], mixed[3], atol=1e-6)
    assert abs(mixed[0] - mixed[1]).max() > 1e-3


def test_deep_arrays_are_read_as_deep_files_are(model: Model, tmp_path: Path) -> None:
    deep = texture(5, 90, 120).astype(np.uint16) * 13
    path = write_image(tmp_path / "deep.png", deep)
    np.testing.assert_allclose(model.embed_images([deep, deep / 7]), model.embed_images([path, path]), atol=1e-6)


def test_what_cannot_be_read_is_named_or_left_as_nan(model: Model, images: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:80])
    given = [images[0], broken, tmp_path / "gone.png", np.zeros((4, 4), np.uint8)]
    with pytest.raises(MedclipError, match=r"broken\.png: ") as caught:
        model.embed_images(given)
    assert caught.value.reason is not Reason.WRONG_USE
    progress = Recorded()
    vectors = model.embed_images(given, errors="nan", progress=progress)
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, True, True]
    assert progress.notes[0].startswith("3 images could not be read, and have no vector: ")
    assert sum(step for step, _ in progress.steps) == progress.stages[0][1] == 4
    with pytest.raises(MedclipError, match="image 3: "):
        model.embed_images(given[:1] + given[:1] + given[:1] + given[3:])


def test_a_modality_that_nothing_says_is_asked_for(model: Model, images: list[Path]) -> None:
    several = copy.copy(model)
    several.card = model.card.model_copy(update={"modalities": ("xray", "mri")})
    with pytest.raises(MedclipError, match="image 0: an array does not say of which modality") as caught:
        several.embed_images([texture(0, 90, 120)])
    assert caught.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match=r"0\.png: the file does not say of which modality.*--modality"):
        several.embed_images(images[0])
    assert several.embed_images(images[3]).shape == (1, model.dim)  # its header says
    with pytest.raises(MedclipError, match="no modality 'x-rai'"):
        model.embed_images(images[0], modality="x-rai")


def test_no_images_have_no_vectors_and_other_words_for_errors_are_refused(model: Model) -> None:
    assert model.embed_images([]).shape == (0, model.dim)
    with pytest.raises(MedclipError, match="errors is 'skip'"):
        model.embed_images([], errors="skip")  # type: ignore[arg-type]


def test_another_batch_size_is_that_of_one_call(model: Model, images: list[Path]) -> None:
    before = model.batch_size
    np.testing.assert_allclose(model.embed_images(images, batch_size=2), model.embed_images(images), atol=1e-5)
    assert model.batch_size == before
