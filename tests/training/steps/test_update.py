"""A step that is not finite changes nothing, and nobody asks the device whether it was."""

from __future__ import annotations

import pytest
import torch

from medclip.models.towers.build import build_clip, default_config
from medclip.training.ranks import World
from medclip.training.recipe.schema import load_recipe
from medclip.training.steps.optimizer import Ema, Update, make_optimizer, moving_statistics, read
from medclip.training.steps.towers import Towers, weights_of

RECIPE = load_recipe({"name": "m", "data": {"shards": "s"}, "train": {"lr": 0.01}})


class Steps:
    """Small towers with batch normalisation that learns its statistics, and their update."""

    def __init__(self) -> None:
        config = default_config(
            vocab_size=300,
            embed_dim=8,
            size_px=32,
            text_width=16,
            text_heads=2,
            text_layers=1,
            image_tower="test_efficientnet",
        )
        torch.manual_seed(0)
        self.towers = Towers(build_clip(config), pad_id=0)
        self.optimizer = make_optimizer(self.towers, RECIPE)
        self.ema = Ema(self.towers, 0.5)
        statistics = moving_statistics(self.towers, freeze_bn=False)
        self.update = Update(self.towers, World(), self.optimizer, [self.ema], statistics, clip_norm=1.0)
        self.images = torch.randn(4, 3, 32, 32)
        self.tokens = torch.randint(1, 299, (4, 48))
        self.step = 0

    def take(self, factor: float = 1.0, *, spoilt_gradient: bool = False, failed: bool = False) -> torch.Tensor:
        self.update.begin()
        image, text, *_ = self.towers(self.images, self.tokens)
        loss = -(image * text).sum() * self.towers.clip.logit_scale.exp() * factor
        loss.backward()
        if spoilt_gradient:
            self.towers.clip.visual.head.proj.weight.grad[0, 0] = float("inf")
        self.step += 1
        return self.update.apply(loss, self.step - 1, 0.01, failed=failed)

    def tensors(self) -> dict[str, torch.Tensor]:
        of_optimizer = {f"{i} {k}": v for i, s in enumerate(self.optimizer.state.values()) for k, v in s.items()}
        averaged = {f"averaged {k}": v for k, v in self.ema.state.items()}
        return {k: v.clone() for k, v in (weights_of(self.towers) | of_optimizer | averaged).items()}


@pytest.mark.parametrize(
    "spoilt", [{"factor": float("nan")}, {"factor": float("inf")}, {"spoilt_gradient": True}, {"failed": True}]
)
def test_a_step_that_does_not_count_changes_nothing_and_the_next_one_is_as_if_it_had_not_been(
    spoilt: dict[str, float],
) -> None:
    steps, plain = Steps(), Steps()
    rows = [steps.take(), plain.take()]
    before = steps.tensors()
    rows.append(steps.take(**spoilt))
    after = steps.tensors()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)
    for each in (steps, plain):
        each.step = 2
        rows.append(each.take())
    ours, theirs = steps.tensors(), plain.tensors()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert any(not torch.equal(ours[k], before[k]) for k in before)
    outcomes = read(rows)
    assert [o.counts for o in outcomes] == [True, True, False, True, True]
    assert outcomes[3] == outcomes[4]
    assert outcomes[2].num_failed == ("failed" in spoilt)


def test_ten_steps_are_read_back_at_once() -> None:
    steps = Steps()
    rows = [steps.take() for _ in range(10)]
    losses = [o.loss for o in read(rows)]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert read([]) == []
