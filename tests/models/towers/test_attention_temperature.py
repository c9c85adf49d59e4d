"""Attention made softer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medclip.models.towers.layers import scale_queries, with_attention_temperature
from tests.models.conftest import random_clip, tiny_config


def _identity_attention(width: int, heads: int) -> nn.MultiheadAttention:
    attention = nn.MultiheadAttention(width, heads, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.eye(width).repeat(3, 1))
        attention.in_proj_bias.zero_()
        attention.out_proj.weight.copy_(torch.eye(width))
        attention.out_proj.bias.zero_()
    return attention.eval()


@pytest.mark.golden
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5, 2.0, 5.0])
def test_attention_is_the_published_one(golden: Path, temperature: float):
    with np.load(golden / "patch_and_attention_temperature.npz") as g:
        q, k, v, out = (torch.tensor(g[f"attn_{n}"]) for n in ("q", "k", "v", f"out_T{temperature}"))
    batch, heads, tokens, width = q.shape

    def joined(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).reshape(batch, tokens, heads * width)

    attention = _identity_attention(heads * width, heads)
    assert scale_queries(attention, temperature)
    with torch.no_grad():
        ours = attention(joined(q), joined(k), joined(v), need_weights=False)[0]
    torch.testing.assert_close(ours, joined(out), atol=1e-5, rtol=0)


def test_queries_of_timm_are_scaled_and_normalised_ones_are_not():
    from timm.layers import Attention

    plain, normalised = Attention(16, 2, qkv_bias=True).eval(), Attention(16, 2, qk_norm=True, norm_layer=nn.LayerNorm)
    x = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sharp = plain(x)
        assert scale_queries(plain, 2.0)
        soft = plain(x)
    assert not torch.allclose(sharp, soft)
    assert not scale_queries(normalised, 2.0)
    assert not scale_queries(nn.Linear(16, 48), 2.0)


def test_a_temperature_of_one_changes_nothing():
    attention = _identity_attention(8, 2)
    before = attention.in_proj_weight.clone()
    scale_queries(attention, 1.0)
    assert torch.equal(before, attention.in_proj_weight)


@pytest.mark.parametrize(("tower", "has_attention"), [("test_vit", True), ("test_efficientnet", False)])
def test_a_whole_tower_attends_more_softly_and_the_model_stays(tmp_path: Path, tower: str, has_attention: bool):
    from medclip.models.packs.pack import load_model
    from tests.kits.adapt_tables import make_pack

    config = tiny_config(400)
    config["vision_cfg"]["timm_model_name"] = tower
    model = load_model(make_pack(tmp_path / "pack"))
    model = model.with_towers(random_clip(config))
    size = model.preprocess.size_px
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
    before = model.encode_image(images)
    softer = with_attention_temperature(model, 2.0)
    assert (softer is not None) == has_attention
    assert (model.encode_image(images) == before).all()
    if softer is not None:
        assert np.abs(softer.encode_image(images) - before).max() > 1e-4
