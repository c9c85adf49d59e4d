"""What one step does to the weights: the rate of each layer, the norm of the gradient, the limit of the scale."""

from __future__ import annotations

import math
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from medclip.training.recipe.schema import load_recipe
from medclip.training.trainer import Trainer

LR, TRUNK, DECAY = 1e-3, 0.5, 0.8


def _stepped(
    recipe: dict[str, Any], changes: list[str], folder: Path, lr: float = LR
) -> tuple[Trainer, dict[str, torch.Tensor]]:
    """Take one step; return the trainer, and how far each parameter moved."""
    recipe["model"]["image_tower"] = "test_vit"
    shared = ["train.max_steps=1", "train.warmup_steps=0", f"train.lr={lr}", "train.weight_decay=0", "train.ema=0"]
    trainer = Trainer(load_recipe(recipe, [*shared, *changes]), folder)
    before = {n: p.detach().clone() for n, p in trainer.towers.clip.named_parameters()}
    trainer.run(lambda step: False)
    return trainer, {n: p.detach() - before[n] for n, p in trainer.towers.clip.named_parameters()}


def _layers_above(name: str) -> int:
    """Count the groups between a parameter of the small towers and their output: 6 and 2 blocks, then the head."""
    num_blocks = 6 if name.startswith("visual.") else 2
    if name in ("visual.head.proj.weight", "text.text_projection"):
        return 0
    if name.startswith(("visual.trunk.norm.", "text.ln_final.")):
        return 1
    block = re.search(r"blocks\.(\d+)\.", name)
    return num_blocks - int(block[1]) if block else num_blocks + 1


def test_the_first_step_moves_each_layer_by_its_own_rate(recipe: dict[str, Any], tmp_path: Path) -> None:
    """The first step of Adam moves a weight by its rate, whatever the size of its gradient."""
    recipe["model"]["text_layers"] = 2
    changes = [f"train.image_lr_factor={TRUNK}", f"train.layer_decay={DECAY}", "train.eps=1e-15"]
    _, moved = _stepped(recipe, changes, tmp_path)
    for name, change in moved.items():
        rate = LR * (TRUNK if name.startswith("visual.trunk.") else 1.0)
        rate *= 1.0 if name == "logit_scale" else DECAY ** _layers_above(name)
        assert float(change.abs().max()) == pytest.approx(rate, rel=2e-3), name


@pytest.mark.parametrize(("start", "after"), [(101.0, 100.0), (0.5, 1.0)])
def test_the_scale_is_brought_back_between_one_and_a_hundred(
    recipe: dict[str, Any], tmp_path: Path, start: float, after: float
) -> None:
    trainer, _ = _stepped(recipe, [f"model.logit_scale={start}"], tmp_path)
    assert float(trainer.towers.clip.logit_scale.detach().exp()) == pytest.approx(after, rel=1e-6)


def test_a_long_gradient_is_shortened_to_the_limit_and_a_short_one_is_left(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    """With a rate and an eps of 10,000 Adam's first step is the gradient itself."""
    lengths = {}
    for limit in ("null", "0.25", "1000"):
        _, moved = _stepped(
            recipe, ["train.eps=1e4", f"train.clip_norm={limit}", "train.image_lr_factor=1"], tmp_path / limit, lr=1e4
        )
        lengths[limit] = math.sqrt(sum(float(change.double().square().sum()) for change in moved.values()))
    assert lengths["null"] > 1
    assert lengths["0.25"] == pytest.approx(0.25, rel=1e-3)
    assert lengths["1000"] == pytest.approx(lengths["null"], rel=1e-6)


def test_one_crew_of_workers_makes_the_batches_of_training_and_of_validation(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    working: list[list[str]] = []

    def look(step: int) -> bool:
        own = set(threading.enumerate()) - before
        working.append(sorted(t.name for t in own if t.name.startswith("medclip-data")))
        return False

    trainer = Trainer(load_recipe(recipe, ["data.workers=2", "train.epochs=2"]), tmp_path)
    trainer.run(look)
    assert trainer.step > trainer.data.steps_per_epoch  # so that validation was in between
    assert set(map(tuple, working)) == {("medclip-data-0", "medclip-data-1")}
