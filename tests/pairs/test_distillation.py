"""A student of a pack agrees with it, says whose student it is, and goes on after a stop."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import medclip
from medclip.errors import MedclipError, Reason
from medclip.models.packs.card import TaskCard, read_card
from medclip.models.packs.pack import pack_card, update_pack
from medclip.models.prototypes.sentence_vectors import task_sentences
from medclip.shards.reading.reinforced import ReinforcedShards
from medclip.shards.reading.samples import ShardReader
from medclip.training.loop import run_recipe
from tests.kits.training import make_shards, tiny_recipe

TASK = "chest_xray_findings"
HOW: dict[str, Any] = {"tower": "test_resnet", "augmentations": 2, "epochs": 1}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("films"), num_test=8)


@pytest.fixture(scope="module")
def teacher(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe(films) | {"card": {"tasks": {TASK: {"classes": ["pneumonia"]}}}}
    pack = run_recipe(recipe, ["train.max_steps=2"], out=tmp_path_factory.mktemp("teacher") / "run").pack
    assert pack is not None
    return pack


def test_a_student_has_its_teachers_words_and_is_compared_with_it(films: Path, teacher: Path, tmp_path: Path) -> None:
    result = medclip.models.distil(teacher, images=films, out=tmp_path / "nano", **HOW)
    old, student = medclip.models.load(teacher), medclip.models.load(result.path)
    sentence = ["There is a consolidation."]
    np.testing.assert_allclose(student.encode_text(sentence), old.encode_text(sentence), atol=2e-3)
    assert result.agreement is not None
    assert (result.agreement.split, result.agreement.num_images, result.agreement.num_patients) == ("test", 8, 4)
    one = result.agreement.tasks[TASK]
    assert one.share.low <= one.share.value <= one.share.high
    assert result.agreement.speed_ratio > 0
    card = read_card(result.path)
    assert card.created_from["student_of"].startswith("tiny ")
    assert card.created_from["agreement"]["cosine"]["value"] == result.agreement.cosine.value
    assert list(card.tasks) == [TASK]
    assert not card.tasks[TASK].metrics
    with pytest.raises(MedclipError, match="holds a model pack already"):
        medclip.models.distil(teacher, images=films, out=tmp_path / "nano", **HOW)


def test_a_folder_of_images_without_words_is_asked_the_sentences_of_the_card(teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 200, (48, 48), dtype=np.uint8)).save(tmp_path / "films" / f"{i}.png")
    first = medclip.models.distil(teacher, images=tmp_path / "films", out=tmp_path / "nano", size=64, **HOW)
    again = medclip.models.distil(
        teacher, images=tmp_path / "films", out=tmp_path / "nano", size=64, **HOW, overwrite=True
    )
    assert medclip.models.load(first.path).preprocess.size_px == 64
    assert first.num_train == again.num_train
    with pytest.raises(MedclipError) as e:
        medclip.models.distil(teacher, images=tmp_path / "films", out=tmp_path / "nano", **HOW, overwrite=True)
    assert e.value.reason == Reason.OUTPUT_IN_USE


def test_training_brings_a_student_closer_to_its_teacher(films: Path, teacher: Path, tmp_path: Path) -> None:
    cosines = []
    for epochs in (1, 30):
        how: dict[str, Any] = {**HOW, "epochs": epochs}
        result = medclip.models.distil(teacher, images=films, out=tmp_path / str(epochs), **how)
        assert result.agreement is not None
        cosines.append(result.agreement.cosine.value)
    assert cosines[1] > cosines[0] + 0.05


def test_a_folder_is_of_the_modality_that_is_said_where_the_pack_knows_several(tmp_path: Path) -> None:
    folder, pack = tmp_path / "films", "medclip-mini"
    folder.mkdir()
    for i in range(12):
        Image.effect_noise((48, 48), 40 + i).save(folder / f"{i}.png")
    with pytest.raises(MedclipError, match="nothing says of which modality") as e:
        medclip.models.distil(pack, images=folder, out=tmp_path / "nano", **HOW)
    assert "--modality" in (e.value.hint or "")
    with pytest.raises(MedclipError, match="said to be oct"):
        medclip.models.distil(pack, images=folder, modality="oct", out=tmp_path / "nano", **HOW)
    assert not (tmp_path / "nano.work").exists()
    result = medclip.models.distil(pack, images=folder, modality="xray", size=64, out=tmp_path / "nano", **HOW)
    assert set(pack_card(result.path).tasks) == {"chest_xray_findings", "chest_xray_view"}
    with ShardReader(tmp_path / "nano.work" / "shards", "train") as reader:
        stored = ReinforcedShards(ShardReader(tmp_path / "nano.work" / "reinforced", "train"), reader)
        texts = {text for i in range(len(reader)) for text in stored[i].texts}
    assert texts <= set(task_sentences(pack_card(result.path)))


def test_a_modality_beside_shards_is_refused(films: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="is of a folder of images"):
        medclip.models.distil(teacher, images=films, modality="xray", out=tmp_path / "nano", **HOW)


def test_images_of_which_the_card_has_no_task_need_texts(teacher: Path, films: Path, tmp_path: Path) -> None:
    pack = tmp_path / "other"
    shutil.copytree(teacher, pack)
    tasks = {"brain_mri_tumour": TaskCard(classes=("glioma", "meningioma"))}
    update_pack(pack, card=pack_card(teacher).model_copy(update={"tasks": tasks}))
    with pytest.raises(MedclipError, match="names no task of these images") as e:
        medclip.models.distil(pack, images=films, out=tmp_path / "nano", **HOW)
    assert "--texts" in (e.value.hint or "")
    assert not (tmp_path / "nano.work").exists()


def test_a_tower_that_is_not_there_is_refused_with_a_name_that_is(teacher: Path, films: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="no image tower named 'test_eficientnet'") as e:
        medclip.models.distil(teacher, images=films, tower="test_eficientnet", out=tmp_path / "nano")
    assert "test_efficientnet" in (e.value.hint or "")
    assert not list(tmp_path.iterdir())


def test_a_card_without_tasks_needs_texts(teacher: Path, films: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher, tmp_path / "silent")
    update_pack(tmp_path / "silent", card=pack_card(teacher).model_copy(update={"tasks": {}}))
    with pytest.raises(MedclipError, match="names no task") as e:
        medclip.models.distil(tmp_path / "silent", images=films, out=tmp_path / "nano", **HOW)
    assert "--texts" in (e.value.hint or "")


def test_images_that_were_refused_leave_nothing_behind(teacher: Path, films: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedclipError):
        medclip.models.distil(teacher, images=tmp_path / "empty", out=tmp_path / "nano", **HOW)
    assert not (tmp_path / "nano.work").exists()


def test_stages_of_other_images_of_the_same_name_are_not_gone_on_with(teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for i in range(12):
        Image.effect_noise((48, 48), 40 + i).save(folder / f"{i}.png")
    medclip.models.distil(teacher, images=folder, out=tmp_path / "nano", **HOW)
    Image.effect_noise((48, 48), 90).save(folder / "3.png")
    with pytest.raises(MedclipError, match="another distillation: the images differ"):
        medclip.models.distil(teacher, images=folder, out=tmp_path / "nano", overwrite=True, **HOW)
