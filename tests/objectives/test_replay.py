"""VR-LwF: the golden vectors of both re-implementations, the sum by hand, and what holds of any features."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medclip.objectives.replay import distillation, divergence, replay_loss
from tests.kits.objectives import unit

SCALE = 100.0


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in np.load(golden / "vr_lwf.npz").items()}


@pytest.mark.golden
def test_both_directions_and_the_gradient_equal_zscls(vectors: dict[str, Tensor]) -> None:
    scale, t = float(vectors["logit_scale"]), float(vectors["T"])
    new = vectors["new_image"].requires_grad_()
    old_BV = scale * vectors["old_image"] @ vectors["vocab_text"].T
    new_BV = scale * new @ vectors["vocab_text"].T
    torch.testing.assert_close(old_BV, vectors["logits_old"], rtol=0, atol=1e-4)
    torch.testing.assert_close(new_BV.detach(), vectors["logits_new"], rtol=0, atol=1e-4)
    of_images, of_texts = distillation(old_BV, new_BV, t).mean(), distillation(old_BV.T, new_BV.T, t).mean()
    assert of_images.item() == pytest.approx(vectors["zscl_image_loss"].item(), abs=1e-4)
    assert of_texts.item() == pytest.approx(vectors["zscl_text_loss"].item(), abs=1e-4)
    assert (of_images + of_texts).item() == pytest.approx(vectors["zscl_total"].item(), abs=1e-4)
    args = (vectors["old_image"], vectors["vocab_text"], scale, t)
    loss = replay_loss(new, *args, symmetric=True)
    loss.backward()
    torch.testing.assert_close(new.grad, vectors["grad_new_image"], rtol=0, atol=1e-4)
    floor = distillation(old_BV, old_BV, t).mean() + distillation(old_BV.T, old_BV.T, t).mean()
    assert (loss + floor).item() == pytest.approx(vectors["zscl_total"].item(), abs=1e-4)


@pytest.mark.golden
def test_the_swapped_target_equals_wildclips_and_the_divergence_its_value(vectors: dict[str, Tensor]) -> None:
    features = (vectors["new_image"], vectors["old_image"], vectors["vocab_text"], float(vectors["logit_scale"]))
    assert replay_loss(*features, 1.0, follow_new=True).item() == pytest.approx(
        vectors["wildclip_loss"].item(), abs=1e-4
    )
    assert replay_loss(*features, 1.0).item() == pytest.approx(vectors["kl_T1_images_over_vocab"].item(), abs=1e-4)


def test_the_sum_by_hand() -> None:
    old, new = torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2)
    assert distillation(old, new).item() == pytest.approx(4 * math.log(2), abs=1e-6)
    assert distillation(old, old).item() == pytest.approx(4 * 0.582203, abs=1e-5)
    assert divergence(old, new).item() == pytest.approx(0.443777, abs=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_an_unchanged_model_has_no_loss_and_no_gradient(symmetric: bool) -> None:
    old, words = unit(6, 8, 0), unit(20, 8, 1)
    new = old.clone().requires_grad_()
    loss = replay_loss(new, old, words, SCALE, symmetric=symmetric)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert new.grad is not None
    assert float(new.grad.abs().max()) < 1e-4


def test_a_changed_model_has_a_loss_and_only_it_gets_gradients() -> None:
    new, old, words = (unit(n, 8, n).requires_grad_() for n in (5, 5, 9))
    loss = replay_loss(new, old, words, SCALE)  # the same seed: equal rows
    assert loss.item() == pytest.approx(0, abs=1e-4)
    other = unit(5, 8, 3).requires_grad_()
    loss = replay_loss(other, old, words, SCALE)
    loss.backward()
    assert loss.item() > 1
    assert other.grad is not None
    assert old.grad is None
    assert words.grad is None


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("follow_new", [False, True])
def test_an_image_without_weight_changes_nothing_even_if_it_is_not_a_number(symmetric: bool, follow_new: bool) -> None:
    new, old, words = unit(4, 8, 0), unit(4, 8, 1), unit(7, 8, 2)
    how = {"symmetric": symmetric, "follow_new": follow_new}
    expected = replay_loss(new[:3], old[:3], words, 10.0, **how)
    damaged = torch.cat([new[:3], torch.full((1, 8), torch.nan)]).requires_grad_()
    loss = replay_loss(damaged, old, words, 10.0, weights_B=torch.tensor([1.0, 1, 1, 0]), **how)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert damaged.grad is not None
    assert torch.isfinite(damaged.grad).all()


def test_the_text_direction_of_one_image_says_nothing() -> None:
    new, old, words = unit(1, 8, 0), unit(1, 8, 1), unit(7, 8, 2)
    both, alone = (replay_loss(new, old, words, SCALE, symmetric=s) for s in (True, False))
    assert both.item() == pytest.approx(alone.item(), abs=1e-5)


def test_images_count_by_their_weights() -> None:
    new, old, words = unit(2, 8, 0), unit(2, 8, 1), unit(7, 8, 2)
    one, two = (replay_loss(new[i : i + 1], old[i : i + 1], words, SCALE).item() for i in (0, 1))
    loss = replay_loss(new, old, words, SCALE, weights_B=torch.tensor([3.0, 1.0]))
    assert loss.item() == pytest.approx((3 * one + two) / 4, rel=1e-5)
