"""Towers that are built without random numbers: all else of them is as ever, and a seed is not used up."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medclip.models.towers.build import build_clip, default_config
from medclip.models.towers.state_dict import Unfilled

SMALL = default_config(
    vocab_size=320, context_length=16, embed_dim=32, size_px=64, text_width=32, text_heads=2, text_layers=1
)
VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1},
}


def test_an_unfilled_tower_computes_what_the_weights_say_that_are_read_into_it() -> None:
    for config in (SMALL, VIT):
        usual: Any = build_clip(config).eval()
        with Unfilled():
            unfilled: Any = build_clip(config)
        unfilled.load_state_dict(usual.state_dict(), strict=True)
        size = config["vision_cfg"]["image_size"]
        images = torch.rand(2, 3, size, size)
        tokens = torch.randint(1, 100, (2, config["text_cfg"]["context_length"]))
        with torch.inference_mode():
            assert torch.equal(unfilled.eval().encode_image(images), usual.encode_image(images))
            assert torch.equal(unfilled.encode_text(tokens), usual.encode_text(tokens))


def test_what_is_computed_and_not_drawn_is_there() -> None:
    usual: Any = build_clip(VIT)
    with Unfilled():
        unfilled: Any = build_clip(VIT)
    assert torch.equal(unfilled.attn_mask, usual.attn_mask)
    assert torch.equal(unfilled.logit_scale, usual.logit_scale)
    assert torch.equal(unfilled.ln_final.weight, torch.ones(32))


def test_no_random_number_is_drawn_for_a_parameter_and_numbers_outside_are_as_ever() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with Unfilled():
        layers = [nn.Linear(40, 40), nn.Conv2d(3, 8, 3), nn.Embedding(50, 8), nn.MultiheadAttention(16, 2)]
        nn.init.xavier_uniform_(layers[0].weight)
        numbers = torch.empty(3).uniform_()
    assert torch.equal(numbers, expected)
