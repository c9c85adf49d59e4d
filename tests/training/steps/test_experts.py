"""Experts averaged: each token is dealt once, experts are pulled together by the formula, and the pack is plain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from medclip.errors import MedclipError
from medclip.models.packs.pack import load_model
from medclip.training.loop import run_recipe
from medclip.training.recipe.model import ExpertsPart
from medclip.training.recipe.schema import load_recipe
from medclip.training.steps.experts import Experts, ExpertsHook, fold_experts, place_experts, pull_together
from medclip.training.trainer import Trainer


def layer(width: int = 3, inner: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("share", ["0.0", "0.3", "0.75"])
def test_experts_are_pulled_together_as_the_formula_says(share: str, others: bool, golden: Path) -> None:
    with np.load(golden / "spec_ewa.npz") as g:
        moved = pull_together(torch.tensor(g["experts"]), float(share), others)
        expected = g[f"after_{'others' if others else 'all'}_b{share}"]
        np.testing.assert_allclose(moved.numpy(), expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(moved.mean(dim=0).numpy(), g["merged"], rtol=0, atol=1e-6)


@given(st.integers(2, 6), st.floats(0, 1), st.integers(0, 1000))
def test_the_mean_stays_and_the_distance_shrinks(num: int, part: float, seed: int) -> None:
    share = part * (num - 1) / num
    before = torch.randn(num, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    after = pull_together(before, share)
    torch.testing.assert_close(after.mean(dim=0), before.mean(dim=0), rtol=0, atol=1e-12)
    shrunk = (1 - share * num / (num - 1)) * (before - before.mean(dim=0))
    torch.testing.assert_close(after - after.mean(dim=0), shrunk, rtol=0, atol=1e-12)


def test_tokens_go_through_the_experts_of_the_stored_deal(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(golden / "spec_ewa.npz") as g:
        experts = Experts(layer().double(), 4, 0, alike=True)
        for e, one in enumerate(experts.experts):
            state = {"0.weight": g["W1_in_out"][e].T, "0.bias": g["b1"][e], "2.weight": g["W2_in_out"][e].T}
            one.load_state_dict({n: torch.tensor(v) for n, v in (state | {"2.bias": g["b2"][e]}).items()})
        monkeypatch.setattr(experts, "deal", lambda num, seed: torch.tensor(g["perm"]))
        tokens = torch.tensor(g["tokens"])
        with torch.no_grad():
            np.testing.assert_allclose(experts.train()(tokens).numpy(), g["rup_output_relu"], atol=1e-9)
            np.testing.assert_allclose(experts.eval()(tokens).numpy(), g["dense_output_relu"], atol=1e-9)


def test_the_share_grows_in_a_line(golden: Path) -> None:
    with np.load(golden / "spec_ewa.npz") as g:
        hook = ExpertsHook(ExpertsPart(share=float(g["beta_max"])), int(g["total_steps"]))
        np.testing.assert_allclose([hook.share(k) for k in range(11)], g["beta_schedule"], atol=1e-9)
    assert ExpertsHook(ExpertsPart(share=0.2, schedule="constant"), 10).share(1) == 0.2


def test_after_a_step_that_counts_experts_are_pulled_by_its_share_and_after_another_one_nothing_moves() -> None:
    experts: Any = nn.Sequential(Experts(layer(), 4, 0, alike=False))
    hook = ExpertsHook(ExpertsPart(share=0.6), 3)

    def weights() -> torch.Tensor:
        return torch.stack([one[0].weight.detach().clone() for one in experts[0].experts])

    before = weights()
    hook.after_step(experts, 2, torch.tensor(False))
    assert torch.equal(weights(), before)
    hook.after_step(experts, 0, torch.tensor(True))
    first = weights()
    torch.testing.assert_close(first, pull_together(before, 0.2))
    hook.after_step(experts, 2, torch.tensor(True))
    torch.testing.assert_close(weights(), pull_together(first, 0.6))


@given(st.integers(4, 40), st.integers(0, 10**6))
def test_each_token_is_dealt_once_and_parts_are_even(num: int, seed: int) -> None:
    experts = Experts(layer(), 4, 1, alike=True)
    order = experts.deal(num, seed)
    assert sorted(order.tolist()) == list(range(num))
    sizes = [len(part) for part in order.tensor_split(4)]
    assert max(sizes) - min(sizes) <= 1
    assert torch.equal(order, experts.deal(num, seed))
    if num > 10:
        assert not torch.equal(order, experts.deal(num, seed + 1))
        assert not torch.equal(order, Experts(layer(), 4, 2, alike=True).deal(num, seed))


def test_equal_experts_are_the_layer_that_stood_there() -> None:
    plain, x = layer(), torch.randn(2, 7, 3)
    experts = Experts(plain, 4, 0, alike=True)
    torch.testing.assert_close(experts.train()(x), plain(x))
    torch.testing.assert_close(experts.eval()(x), plain(x))
    apart = Experts(layer(), 4, 0, alike=False)
    weights = [one[0].weight for one in apart.experts]  # pyright: ignore
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_too_few_tokens_and_a_tower_without_blocks_are_refused() -> None:
    with pytest.raises(MedclipError, match="3 tokens are dealt to 4 experts"):
        Experts(layer(), 4, 0, alike=True).train()(torch.randn(1, 3, 3))
    with pytest.raises(MedclipError, match="this image tower has 0 transformer blocks, of which none is every 2"):
        place_experts(nn.Sequential(nn.Linear(2, 2)), ExpertsPart(), alike=True)
    with pytest.raises(ValidationError, match=r"with 4 experts it is at most 0\.75"):
        ExpertsPart(share=0.8)


def of_vit(recipe: dict[str, Any]) -> dict[str, Any]:
    recipe["model"] |= {"image_tower": "test_vit", "experts": {"count": 3, "every": 2, "share": 0.4}}
    return recipe


def test_the_pack_is_plain_and_answers_as_the_run_was_validated(recipe: dict[str, Any], tmp_path: Path) -> None:
    trainer = Trainer(load_recipe(of_vit(recipe)), tmp_path)
    layers = [m for m in trainer.towers.modules() if isinstance(m, Experts)]
    assert len(layers) == 3  # of six blocks
    before = [[p.detach().clone() for p in one.experts[1].parameters()] for one in layers]
    result = trainer.run(lambda step: False)
    assert result.pack is not None
    model: Any = load_model(result.pack)
    assert not any("experts" in name for name in model.clip.state_dict())
    for one, old in zip(layers, before, strict=True):
        assert all(not torch.equal(p, q) for p, q in zip(one.experts[1].parameters(), old, strict=True))
    averaged = fold_experts({k.removeprefix("model."): v for k, v in trainer.ema.state.items()})  # pyright: ignore
    name = "visual.trunk.blocks.3.mlp.fc1.weight"
    stored = model.clip.state_dict()[name]
    torch.testing.assert_close(stored.half(), averaged[name].half(), rtol=0, atol=0)


def test_experts_and_locked_towers_do_not_go_together(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="experts do not go with lock_image"):
        run_recipe(of_vit(recipe), ["model.lock_image=true"], out=tmp_path)
