"""Learning rates, parameter groups and averages."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from medclip.models.towers.build import build_clip, default_config
from medclip.training.recipe.schema import load_recipe
from medclip.training.steps.optimizer import MAX_LOGIT_SCALE, Ema, learning_rate, make_optimizer, training_mode
from medclip.training.steps.towers import Towers, weights_of


def _towers(image_tower: str = "test_efficientnet") -> Towers:
    config = default_config(
        vocab_size=300, embed_dim=16, size_px=32, text_width=16, text_heads=2, text_layers=2, image_tower=image_tower
    )
    return Towers(build_clip(config), pad_id=0)


def test_the_average_follows_the_model_and_copies_counters() -> None:
    towers = _towers()
    average = Ema(towers, 0.9)
    norm = next(m for m in towers.modules() if isinstance(m, torch.nn.BatchNorm2d))
    name = next(f"model.{n}" for n, m in towers.named_modules() if m is norm)
    with torch.no_grad():
        norm.weight.fill_(3.0)
        towers.clip.logit_scale.fill_(1.0)
    norm.num_batches_tracked.fill_(5)  # type: ignore[union-attr, operator]
    before = average.state["model.logit_scale"].clone()
    average.after_step(towers, 10**6, torch.tensor(True))
    torch.testing.assert_close(average.state[f"{name}.weight"], torch.full_like(norm.weight, 1.2))
    torch.testing.assert_close(average.state["model.logit_scale"], 0.9 * before + 0.1)
    assert int(average.state[f"{name}.num_batches_tracked"]) == 5


def test_the_average_is_bit_for_bit_that_of_each_tensor_alone_and_stays_after_a_step_that_does_not_count() -> None:
    towers = _towers()
    average = Ema(towers, 0.9)
    expected = {name: value.clone() for name, value in average.state.items()}
    for step, counts in enumerate((True, False, True, True)):
        with torch.no_grad():
            for p in towers.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(step)))
        for name, value in weights_of(towers).items() if counts else ():
            if value.is_floating_point():
                expected[name].lerp_(value, 1 - min(0.9, (1 + step) / (10 + step)))
        average.after_step(towers, step, torch.tensor(counts))
        assert all(torch.equal(average.state[name], value) for name, value in expected.items())


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [learning_rate(s, base=1.0, warmup_steps=4, total_steps=20) for s in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert max(rates) == 1.0
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(20, base=1.0, warmup_steps=4, total_steps=20) == pytest.approx(0)
    assert learning_rate(0, base=1.0, warmup_steps=0, total_steps=2) == 1.0


def test_the_constant_schedule_stays_and_cools_down_at_the_end() -> None:
    rates = [
        learning_rate(s, base=2.0, warmup_steps=2, total_steps=12, schedule="constant", cooldown_steps=4)
        for s in range(12)
    ]
    assert rates == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5]
    assert learning_rate(11, base=2.0, warmup_steps=0, total_steps=12, schedule="constant") == 2.0


@pytest.mark.golden
def test_warm_up_and_cosine_are_those_of_unimed_clip(golden: Path) -> None:
    file = np.load(golden / "core_clip_siglip_losses.npz")
    for step, rate in zip(file["lr/steps"].tolist(), file["lr/values"].tolist(), strict=True):
        assert learning_rate(step, base=5e-4, warmup_steps=2000, total_steps=25800) == pytest.approx(rate, abs=1e-12)


def test_the_limit_of_the_logit_scale_is_one_hundred() -> None:
    assert abs(MAX_LOGIT_SCALE - 4.60517) < 1e-5


def test_every_learning_parameter_is_in_one_group_and_norms_biases_and_the_scale_do_not_decay() -> None:
    towers = _towers()
    recipe = load_recipe({"name": "m", "data": {"shards": "s"}, "train": {"weight_decay": 0.3, "image_lr_factor": 0.5}})
    optimizer = make_optimizer(towers, recipe)
    inside = [id(p) for g in optimizer.param_groups for p in g["params"]]
    wanted = [*towers.parameters(), towers.clip.logit_scale]
    assert sorted(inside) == sorted(map(id, wanted))
    found = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    assert found[id(towers.clip.logit_scale)]["weight_decay"] == 0
    for name, p in towers.named_parameters():
        group = found[id(p)]
        assert group["factor"] == (0.5 if name.startswith("visual.trunk.") else 1.0)
        if p.ndim < 2 or name.endswith(("token_embedding.weight", "positional_embedding")):
            assert group["weight_decay"] == 0
        else:
            assert group["weight_decay"] == 0.3


@pytest.mark.parametrize("image_tower", ["test_efficientnet", "test_vit"])
def test_under_compat_the_same_parameters_decay_as_in_open_clip(image_tower: str) -> None:
    towers = _towers(image_tower)
    recipe = load_recipe({"name": "m", "compat": "open_clip", "data": {"shards": "s"}, "train": {"weight_decay": 0.3}})
    decays = {id(p): g["weight_decay"] > 0 for g in make_optimizer(towers, recipe).param_groups for p in g["params"]}
    for name, p in (*towers.named_parameters(), ("logit_scale", towers.clip.logit_scale)):
        # the rule of open_clip_train.main
        spared = p.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
        assert decays[id(p)] is not spared, name
    assert decays[id(towers.clip.text.token_embedding.weight)]


def test_layer_decay_slows_the_layers_that_are_far_from_the_output() -> None:
    towers = _towers("test_vit")
    recipe = load_recipe({"name": "m", "data": {"shards": "s"}, "train": {"layer_decay": 0.5, "image_lr_factor": 1.0}})
    found = {id(p): g["factor"] for g in make_optimizer(towers, recipe).param_groups for p in g["params"]}
    named = {n: found[id(p)] for n, p in towers.named_parameters()}
    assert named["visual.head.proj.weight"] == 1.0
    blocks = sorted({int(n.split(".")[3]) for n in named if n.startswith("visual.trunk.blocks.")})
    of_blocks = [named[f"visual.trunk.blocks.{i}.attn.qkv.weight"] for i in blocks]
    assert of_blocks == sorted(of_blocks)
    assert named["visual.trunk.patch_embed.proj.weight"] < of_blocks[0]
    assert all(b == 2 * a for a, b in itertools.pairwise(of_blocks))
    assert named["text.token_embedding.weight"] < named["text.text_projection"] == 1.0


def test_betas_eps_and_weight_decay_are_those_of_the_recipe() -> None:
    changed = {"betas": [0.8, 0.93], "eps": 1e-3, "weight_decay": 0.07, "lr": 3e-4}
    optimizer = make_optimizer(_towers(), load_recipe({"name": "m", "data": {"shards": "s"}, "train": changed}))
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.8, 0.93), 1e-3)
        assert group["weight_decay"] in (0.0, 0.07)


def test_a_locked_tower_stays_in_evaluation_mode() -> None:
    towers = _towers()
    towers.clip.visual.requires_grad_(False)
    training_mode(towers, freeze_bn=False)
    assert not any(m.training for m in towers.clip.visual.modules())
    assert towers.clip.text.training
