"""pipelines/mae_all --words: the recipes of the small ViT go together, and its table compares like with like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from medclip.training.recipe.schema import Recipe, load_recipe
from tests.kits.stages import load_stage

PIPELINES = Path(__file__).parents[2] / "pipelines"
ALL = PIPELINES / "mae_all"


def recipe(name: str) -> Recipe:
    return load_recipe(ALL / f"{name}.yaml")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stages put the folder of pipelines/mini in front; other pipelines have a stage of the same name."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("evaluate", "measured_split", "shared_sets", "baselines"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return load_stage(ALL, "vit_figures")


def test_the_tower_is_one_of_sixteen_pixel_patches_that_ends_with_a_grid_of_14_by_14():
    masked, words, full = (recipe(name) for name in ("vit_masked", "vit_words", "vit_full"))
    assert masked.model.image_tower == words.model.image_tower == "vit_tiny_patch16_224"
    assert [one.model.size_px // 16 for one in (masked, words, full)] == [14, 7, 14]
    assert full.model.start is not None


def test_the_masked_stage_is_that_of_the_start_of_medclip_mini_at_another_size():
    before, here = recipe("full"), recipe("vit_masked")
    assert (here.objective, here.augment) == (before.objective, before.augment)
    assert here.train.lr == before.train.lr


def test_the_stages_of_words_differ_in_size_and_in_nothing_that_they_learn_from():
    words, full = recipe("vit_words"), recipe("vit_full")
    assert words.data == full.data
    assert words.objective == full.objective
    assert words.objective.losses["distill"] is not None


def test_words_are_drawn_as_for_medclip_mini():
    mini, words = load_recipe(PIPELINES / "mini" / "recipe.yaml"), recipe("vit_words")
    for key in ("policy", "source_power", "max_repeats", "native_share"):
        assert getattr(words.data, key) == getattr(mini.data, key), key
    assert words.text == mini.text
    for key in ("embed_dim", "text_width", "text_layers"):
        assert getattr(words.model, key) == getattr(mini.model, key), key
    for key in ("same_label", "same_text", "other_source"):
        assert getattr(words.objective, key) == getattr(mini.objective, key), key


def of(value: float, num_images: int = 10) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "num_images": num_images}


def test_areas_are_of_tasks_with_one_answer_and_of_each_finding_of_the_others(figures: ModuleType):
    one = {"metrics": {"balanced_accuracy": {}, "macro_auroc": {"zero_shot": of(0.6)}}}
    many = {"metrics": {"auroc": {"mass": {"zero_shot": of(0.7)}}}}
    assert figures.areas({"view": one, "findings": many, "retrieval": {}}) == {
        "view": {"zero_shot": of(0.6)},
        "findings: mass": {"zero_shot": of(0.7)},
    }


def test_a_figure_of_other_images_is_no_rival_and_stays_out_of_the_mean(figures: ModuleType):
    ours = {name: {"zero_shot": of(value), "linear_probe": of(0.9)} for name, value in (("a", 0.5), ("b", 0.7))}
    lines = figures.table(ours, {"a": {"zero_shot": of(0.8)}, "b": {"zero_shot": of(0.9, num_images=11)}}).splitlines()
    assert lines[2] == "| a | 10 | 0.500 (0.400 to 0.600) | 0.900 (0.800 to 1.000) | 0.800 (0.700 to 0.900) |"
    assert lines[3].endswith("|  |")
    assert lines[4] == "| **mean of 1** | | 0.500 | 0.900 | 0.800 |"


def test_an_option_that_the_script_does_not_know_is_refused_before_anything_is_written(tmp_path: Path):
    script = str(ALL / "run.sh")
    done = subprocess.run(
        ["bash", script, "--word", "data", str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "unknown option --word\n")
    assert not (tmp_path / "run").exists()
