"""A store that `slides embed` wrote is asked in words, by a task's name: answers, maps, what is said beside them."""

import json
from pathlib import Path

import numpy as np
import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import load_model
from medclip.settings import Settings
from medclip.slides.learning.predict import SlidePredictions
from medclip.text.vocabulary.load import load_task, spoken_names
from medclip.text.vocabulary.prompts import expand
from tests.kits.scoring import make_pack
from tests.kits.slides import make_pathology_pack, write_pyramid
from tests.kits.stained_slide import draw_stained

TASK = "histology_tumour"
OF_SLIDES = ("histology_breast_malignancy", "histology_colon_tissue", "histology_organ", "histology_tumour")
GRID = {"size_px": 128, "settings": Settings(workers=1)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_pyramid(folder / "a.tiff", draw_stained(600, 800))
    write_pyramid(folder / "glass.tiff", np.full((600, 800, 3), 244, np.uint8))
    return folder


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pathology_pack(tmp_path_factory.mktemp("packs") / "pathology")


@pytest.fixture(scope="module")
def store(images: Path, pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "store"
    medclip.slides.embed(images, out, model=pack, **GRID)
    return out


@pytest.fixture(scope="module")
def answered(store: Path, images: Path, pack: Path, tmp_path_factory: pytest.TempPathFactory) -> SlidePredictions:
    out = tmp_path_factory.mktemp("answers") / "answers"
    return medclip.slides.predict(store, task=TASK, model=pack, images=images, top_patches=4, out=out)


def test_an_answer_is_the_mean_of_the_best_patches_of_each_class_by_the_packs_own_words(
    answered: SlidePredictions, store: Path, pack: Path
):
    model, (features, *_) = load_model(pack), medclip.slides.open_store(store)
    logits = []
    for words in expand(load_task(TASK)):
        vectors = model.encode_text(list(words.positive))
        mean = vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
        logits.append(np.sort(model.logit_scale * features.features_ND @ mean)[-4:].mean())
    chances = np.exp(logits) / np.exp(logits).sum()
    slide = next(slide for slide in answered.slides if slide.status == "done")
    assert slide.probabilities is not None
    assert answered.names == ("normal", "tumour")
    assert list(slide.probabilities.values()) == pytest.approx(chances, rel=1e-4)
    assert slide.answer == answered.names[int(np.argmax(chances))]


def test_a_slide_without_tissue_keeps_its_row_and_the_other_one_has_a_map_over_its_own_pixels(
    answered: SlidePredictions,
):
    rows = {slide.file: slide for slide in answered.slides}
    assert (rows["glass.tiff"].status, rows["glass.tiff"].reason) == ("skipped", Reason.NO_TISSUE)
    assert rows["glass.tiff"].answer is None
    key = rows["a.tiff"].key
    assert {path.name for path in (answered.out / "maps").iterdir()} == {f"{key}.png", f"{key}.geojson"}
    assert rows["a.tiff"].map_note is None
    assert str(rows["a.tiff"].map_of).startswith("evidence for ")


def test_what_nobody_has_measured_is_said(answered: SlidePredictions):
    title = load_task(TASK).title
    assert answered.notes == (f"{title} is not a task of the model's card: nobody has measured how good it is there.",)


def test_a_task_of_the_packs_card_is_asked_with_the_cards_classes_and_needs_no_such_note(images: Path, tmp_path: Path):
    known = make_pathology_pack(tmp_path / "source")
    classes = ["tumour", "stroma", "muscle"]
    adapters = dict(load_model(known).preprocess.adapters)
    pack = make_pack(
        tmp_path / "pack", adapters, modalities=["pathology"], tasks={"histology_colon_tissue": {"classes": classes}}
    )
    medclip.slides.embed(images, tmp_path / "store", model=pack, **GRID)
    answers = medclip.slides.predict(
        tmp_path / "store", task="histology_colon_tissue", model=pack, out=tmp_path / "answers"
    )
    assert answers.names == tuple(classes)
    assert answers.notes == ()


def test_a_task_about_other_images_is_refused_and_those_about_slides_are_named(store: Path, pack: Path, tmp_path: Path):
    with pytest.raises(MedclipError, match="is about X-ray, not about slides") as refused:
        medclip.slides.predict(store, task="chest_xray_findings", model=pack, out=tmp_path / "answers")
    assert refused.value.reason is Reason.WRONG_USE
    assert all(name in str(refused.value.hint) for name in OF_SLIDES)
    assert not (tmp_path / "answers").exists()


def test_four_tasks_of_the_vocabulary_are_about_slides_alone():
    about = {name: tuple(map(str, load_task(name).modalities)) for name in spoken_names()}
    assert tuple(name for name in about if about[name] == ("pathology",)) == OF_SLIDES
    assert len(load_task("histology_colon_tissue").classes) == 9  # NCT-CRC-HE-100K


def test_the_command_says_what_was_answered_and_what_nobody_has_measured(
    store: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["slides", "predict", str(store), "--task", TASK, "--model", str(pack), "--out", str(tmp_path / "a")]
    assert main(command) == 0
    assert "nobody has measured how good it is there" in capsys.readouterr().out
    assert main([*command[:-1], str(tmp_path / "b"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["counts"] == {"done": 1, "skipped": 1}
    assert sum(facts["answers"].values()) == 1
