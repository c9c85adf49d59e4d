"""Attention that is written out gives the features of the fused path, and is what one pass leaves behind."""

from __future__ import annotations

import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.explaining.tower import explicit_attention, trace, with_gradient
from tests.kits.explaining import SIDE, tower

TRANSFORMERS = {
    "open_clip": (1, 3, 16),
    "open_clip mean": (1, 3, 16),
    "open_clip coca": (1, 3, 16),
    "timm": (1, 6, 4),
    "timm mean": (1, 6, 4),
}
"""Tokens before the patches, blocks, patches."""


def _image(side: int = SIDE) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_explicit_attention_changes_no_feature_and_goes_when_it_is_over(name: str):
    visual, image = tower(name), _image()
    before = visual(image)
    with explicit_attention(visual) as records:
        inside = visual(image)
    assert float((inside - before).abs().max()) <= 1e-5
    for record in records:
        torch.testing.assert_close(record.weights_BHQK.sum(-1), torch.ones(record.weights_BHQK.shape[:-1]))
    number = len(records)
    assert number >= TRANSFORMERS[name][1]
    torch.testing.assert_close(visual(image), before, rtol=0, atol=0)
    assert len(records) == number


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_one_pass_finds_the_blocks_the_grid_and_the_tokens_before_it(name: str):
    traced = trace(tower(name), with_gradient(_image()))
    before, num_blocks, patches = TRANSFORMERS[name]
    assert traced.is_transformer
    assert (traced.num_before, len(traced.blocks), traced.grid[0] * traced.grid[1]) == (before, num_blocks, patches)


@pytest.mark.parametrize("name", ["resnet", "efficientnet", "convnext"])
def test_a_convolutional_tower_is_read_at_its_last_map_of_more_than_one_place(name: str):
    visual = tower(name)
    traced = trace(visual, with_gradient(_image(64)))
    assert not traced.is_transformer
    assert traced.maps_BCHW is not None
    assert min(traced.grid) > 1
    assert visual.get_submodule(traced.layer) is not None


@pytest.mark.slow
def test_the_attention_pool_of_siglip_is_written_out_too():
    visual, image = tower("timm map"), _image()
    with explicit_attention(visual) as records:
        inside = visual(image)
    assert float((inside - visual(image)).abs().max()) <= 1e-5
    assert records[-1].weights_BHQK.shape[2:] == (1, 4)


@pytest.mark.slow
def test_a_windowed_transformer_is_refused_with_the_towers_that_are_understood():
    with pytest.raises(MedclipError, match="Understood are vision transformers") as caught:
        trace(tower("swin"), with_gradient(_image(224)))
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET
