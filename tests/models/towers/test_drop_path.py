"""Blocks are skipped as timm skips them, and only in training."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.layers.drop import DropPath

from medclip.errors import MedclipError, Reason
from medclip.models.towers.layers import set_drop_path


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_rates_are_those_that_timm_builds_with(name: str) -> None:
    built: Any = timm.create_model(name, drop_path_rate=0.3)
    tower: Any = timm.create_model(name)
    set_drop_path(tower, 0.3)
    rates, expected = (
        [m.drop_prob for m in of.modules() if isinstance(m, DropPath) and m.drop_prob] for of in (tower, built)
    )
    if name == "test_vit":  # timm counts the blocks of a CNN in which nothing is added up, too
        assert rates == pytest.approx(expected)
    assert rates == sorted(rates)
    assert max(rates) == pytest.approx(0.3)


def test_a_tower_that_is_evaluated_stays_as_it_is() -> None:
    tower: Any = timm.create_model("test_vit").eval()
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        before, keys = tower(images), list(tower.state_dict())
        set_drop_path(tower, 0.9)
        assert torch.equal(tower(images), before)
        assert list(tower.state_dict()) == keys
        torch.manual_seed(0)
        assert not torch.equal(tower.train()(images), before)
        set_drop_path(tower, 0.0)
        assert torch.equal(tower(images), before)


def test_a_tower_without_such_blocks_is_refused() -> None:
    with pytest.raises(MedclipError, match=r"model\.drop_path") as refused:
        set_drop_path(torch.nn.Linear(2, 2), 0.1)
    assert refused.value.reason is Reason.RECIPE_INVALID
