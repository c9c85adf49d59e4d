"""What a recipe does otherwise than open_clip is listed, and nothing that it does as open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medclip.training.recipe.deviations import deviations
from medclip.training.recipe.schema import Recipe, load_recipe

AS_OPEN_CLIP: dict[str, Any] = {
    "name": "a",
    "compat": "open_clip",
    "data": {"shards": "s"},
    "train": {"max_bad_steps": 0},
}


def keys(recipe: Recipe) -> set[str]:
    return {d.key for d in deviations(recipe)}


def test_a_recipe_as_open_clips_differs_only_in_what_no_key_can_change() -> None:
    assert keys(load_recipe(AS_OPEN_CLIP)) == {"", "data.policy"}


@pytest.mark.parametrize(
    "change",
    [
        "data.decode=auto",
        "data.decode=scaled",
        "train.decay_embeddings=false",
        "augment.stretch=1",
        "augment.flip=0.5",
        "objective.same_study=ignored",
        "objective.same_label=positive",
        "train.ema=0.9",
        "train.image_lr_factor=0.3",
        "train.max_bad_steps=5",
        "model.freeze_bn=true",
        "objective.masked={}",
        "objective.two_views={}",
        "objective.source_weights={s: 2}",
        "objective.text_teacher={folder: x}",
    ],
)
def test_each_choice_that_differs_is_listed_under_its_key(change: str) -> None:
    key = change.partition("=")[0]
    assert keys(load_recipe(AS_OPEN_CLIP, [change])) - keys(load_recipe(AS_OPEN_CLIP)) == {key}


def test_holding_to_the_start_is_listed_under_its_key() -> None:
    again = AS_OPEN_CLIP | {"model": {"start": "ViT-B-32"}}
    assert keys(load_recipe(again, ["train.keep=vr-lwf"])) - keys(load_recipe(again)) == {"train.keep"}


def test_every_key_that_is_named_is_a_key_of_a_recipe() -> None:
    recipe = load_recipe({"name": "a", "data": {"shards": "s"}})
    for deviation in deviations(recipe):
        part, _, name = deviation.key.partition(".")
        assert not part or name in type(getattr(recipe, part)).model_fields


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe_smoke.yaml"])
def test_the_readme_of_unimed_names_every_deviation_of_its_recipes(name: str) -> None:
    folder = Path(__file__).parents[3] / "pipelines" / "unimed"
    text = (folder / "README.md").read_text()
    for deviation in deviations(load_recipe(folder / name)):
        assert deviation.what in text, deviation.what


AS_MEDICAL_MAE: dict[str, Any] = {
    "name": "a",
    "objective": "masked",
    "data": {"shards": "s", "decode": "full"},
    "augment": {"flip": 0},
    "train": {"max_bad_steps": 0, "clip_norm": None, "eps": 1e-8, "decay_embeddings": True},
}


def test_a_run_without_words_is_held_against_medical_mae() -> None:
    recipe = load_recipe(AS_MEDICAL_MAE)
    assert keys(recipe) == {"", "data.policy"}
    assert {d.of for d in deviations(recipe)} == {"medical_mae"}
    assert all("; medical_mae: " in d.sentence for d in deviations(recipe))
    unfinite = deviations(load_recipe(AS_MEDICAL_MAE, ["train.max_bad_steps=5"]))
    assert "medical_mae: ends the run" in " ".join(d.sentence for d in unfinite)  # sys.exit(1) in engine_pretrain.py


@pytest.mark.parametrize(
    "change",
    [
        "data.decode=auto",
        "augment.stretch=1",
        "augment.flip=0.5",
        "augment.brightness=0.1",
        "train.clip_norm=1",
        "train.eps=1e-6",
        "train.decay_embeddings=false",
        "train.ema=0.9",
        "train.image_lr_factor=0.3",
    ],
)
def test_each_choice_that_differs_from_medical_mae_is_listed_under_its_key(change: str) -> None:
    key = change.partition("=")[0]
    assert keys(load_recipe(AS_MEDICAL_MAE, [change])) - keys(load_recipe(AS_MEDICAL_MAE)) == {key}


@pytest.mark.parametrize("change", ["decoder=linear", "foreground=true"])
def test_another_way_to_hide_or_guess_is_listed(change: str) -> None:
    changed = load_recipe(AS_MEDICAL_MAE, [f"objective.masked.{change}"])
    assert keys(changed) - keys(load_recipe(AS_MEDICAL_MAE)) == {"objective.masked"}
