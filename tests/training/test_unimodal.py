"""MERL's loss through a training step: words beside images at a fixed temperature, and the term of images alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from medclip.errors import MedclipError
from medclip.models.packs.pack import load_model
from medclip.objectives.contrastive import clip_loss
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.steps.towers import TowerOutputs
from medclip.training.trainer import Trainer


@pytest.fixture
def merl(recipe: dict[str, Any]) -> dict[str, Any]:
    """The word `merl` on six tiny steps; the captions of a few images are alike, and count as MERL has them."""
    recipe["model"] |= {"image_tower": "test_vit"}
    return recipe | {"objective": "merl"}


@pytest.mark.golden
def test_the_step_gives_the_golden_loss_of_merl_and_twice_it_with_the_unimodal_term(
    merl: dict[str, Any], golden: Path, tmp_path: Path
) -> None:
    stored = np.load(golden / "ecg_vit1d_and_loss.npz", allow_pickle=False)
    ecg, report = (normalize(torch.tensor(stored[f"loss_{k}"]), dim=1) for k in "ab")
    trainer = Trainer(load_recipe(merl), tmp_path / "run")
    batch = next(iter(trainer.data.training(0, 1)))
    batch.pair_keys[:] = -1
    inputs = trainer.computer.prepare(batch, 0)
    trainer.data.close()
    outputs = TowerOutputs(
        ecg,
        report,
        torch.zeros(6, 2),
        torch.zeros(6, 0),
        torch.zeros(6, 0),
        {"unimodal": torch.cat([ecg, report], dim=1)},
    )
    expected = float(stored["merl_clip_loss"])
    assert float(trainer.computer._loss(inputs, outputs)) == pytest.approx(2 * expected, rel=1e-6)
    assert float(2 * trainer.computer.contrast(outputs, inputs.pairs)) == pytest.approx(expected, rel=1e-6)


def test_for_equal_orthonormal_features_each_direction_is_what_the_paper_s_temperature_gives() -> None:
    eye = torch.eye(2)
    assert 2 * float(clip_loss(eye, eye, 1 / 0.07)) == pytest.approx(2 * math.log1p(math.exp(-1 / 0.07)), abs=1.2e-7)


def test_a_run_keeps_its_temperature_and_leaves_the_term_behind(merl: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = run_recipe(merl, out=run)
    first = load_file(next(sorted((run / "checkpoints").iterdir())[-1].glob("*.safetensors")))
    views = [name for name in first if "unimodal.first.weight" in name or "unimodal.second.weight" in name]
    assert views
    assert result.pack is not None
    assert load_model(result.pack).logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert not any("unimodal" in name for name in load_file(next(result.pack.glob("*.safetensors"))))
    kept = json.loads((run / "recipe.json").read_text())["objective"]
    assert (kept["contrastive"], kept["unimodal"], kept["temperature"]) == (2, {"weight": 2, "dropout": 0.1}, 0.07)


def test_both_maps_learn_and_chunks_give_the_gradients_of_the_whole_batch(merl: dict[str, Any], tmp_path: Path) -> None:
    overrides = {"contrastive": 2, "temperature": 0.07, "unimodal": {"weight": 2, "dropout": 0}}
    gradients = []
    for name, micro in (("whole", None), ("chunks", 2)):
        plan = merl | {"objective": overrides, "train": merl["train"] | {"micro_batch": micro}}
        trainer = Trainer(load_recipe(plan), tmp_path / name)
        inputs = trainer.computer.prepare(next(iter(trainer.data.training(0, 1))), 0)
        trainer.towers.train()
        loss = trainer.computer.backward(inputs, 0)
        trainer.data.close()
        named = {n: p.grad.clone() for n, p in trainer.towers.named_parameters() if p.grad is not None}
        gradients.append((float(loss), named))
    (loss, whole), (again, chunks) = gradients
    assert again == pytest.approx(loss, rel=1e-5)
    assert {"unimodal.first.weight", "unimodal.second.weight"} <= whole.keys() == chunks.keys()
    assert all(whole[f"unimodal.{n}.weight"].abs().max() > 0 for n in ("first", "second"))
    for name in whole:
        torch.testing.assert_close(chunks[name], whole[name], rtol=1e-3, atol=1e-5)  # sums of float32 in another order


def test_the_views_are_of_what_the_tower_pools_in_front_of_its_projection(merl: dict[str, Any], tmp_path: Path) -> None:
    trainer = Trainer(load_recipe(merl), tmp_path / "run")
    towers = trainer.towers.eval()
    trainer.data.close()
    views = towers.get_submodule("unimodal")
    images = torch.rand(2, 3, 32, 32)
    towers.training = True  # alone: drop-out stays off
    outputs = towers(images, torch.zeros(2, 24, dtype=torch.long))
    with torch.no_grad():
        expected = views(towers.clip.visual.trunk(images))
        plain = normalize(towers.clip.encode_image(images), dim=-1)
    torch.testing.assert_close(outputs.extra["unimodal"], expected)
    torch.testing.assert_close(outputs.image_BD, plain)


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"unimodal": {}, "contrastive": 0, "masked": {}}, "unimodal does not go with contrastive: 0"),
        ({"unimodal": {}, "two_views": {}}, "unimodal does not go with two_views"),
        ({"temperature": 0.001}, "temperature"),
        ({"contrastive": 0, "masked": {}, "temperature": 0.07}, "objective.temperature does nothing without words"),
    ],
)
def test_what_does_not_go_together_is_refused(recipe: dict[str, Any], objective: dict[str, Any], said: str) -> None:
    recipe["text"] = {}
    for name in ("embed_dim", "text_width", "text_heads", "text_layers"):
        del recipe["model"][name]
    with pytest.raises(MedclipError, match=said):
        load_recipe(recipe | {"objective": objective})


def test_a_fixed_temperature_and_a_start_for_a_learned_one_exclude_each_other(recipe: dict[str, Any]) -> None:
    recipe["model"]["logit_scale"] = 10
    with pytest.raises(MedclipError, match="choose one"):
        load_recipe(recipe | {"objective": {"temperature": 0.07}})
