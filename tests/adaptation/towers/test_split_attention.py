"""Attention splits into queries, keys and values without a change of numbers, and joins again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers.attention import Attention, AttentionRope
from timm.models.beit import Attention as BeitAttention
from torch import nn

from medclip.adaptation.towers.clip_svd import decompose, merge, singular_values
from medclip.adaptation.towers.layers import choose_layers, list_layers
from medclip.adaptation.towers.split_attention import SplitMultihead, join_attention, split_attention
from tests.kits.svd import KINDS, batch, features, tower_pair


class Holder(nn.Module):
    """A tower of one attention, with a name that says it is a block."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"attn": attention})])

    @property
    def attn(self) -> nn.Module:
        return self.blocks[0]["attn"]  # type: ignore[index]


@pytest.mark.golden
def test_a_timm_attention_split_and_decomposed_gives_the_golden_output_and_singular_values(golden: Path) -> None:
    stored = np.load(golden / "clip_svd_timm_attention.npz", allow_pickle=False)
    state = {n[3:]: torch.tensor(stored[n]) for n in stored.files if n.startswith("sd/")}
    holder = Holder(Attention(state["proj.weight"].shape[1], num_heads=4, qkv_bias=True))  # heads: README_core.md
    holder.attn.load_state_dict(state)
    x = torch.tensor(stored["x"])
    np.testing.assert_allclose(holder.attn(x).detach(), stored["y_fused"], atol=1e-5, rtol=1e-4)
    assert split_attention(holder) == ["blocks.0.attn.qkv"]
    np.testing.assert_allclose(holder.attn(x).detach(), stored["y_split"], atol=1e-5, rtol=1e-4)
    decompose(holder, choose_layers(list_layers(holder)))
    np.testing.assert_allclose(holder.attn(x).detach(), stored["y_svd"], atol=1e-5, rtol=1e-4)
    for name, values in singular_values(holder).items():
        np.testing.assert_allclose(values, stored[f"S/{name.rpartition('.')[2]}"][0], atol=1e-5, rtol=1e-4)
    merge(holder)
    assert set(holder.attn.state_dict()) == set(state)


@pytest.mark.parametrize("kind", KINDS)
def test_splitting_keeps_every_output_and_joining_every_weight(kind: str, tmp_path: Path) -> None:
    model, inputs = tower_pair(kind, tmp_path), batch()
    before, state = features(model, *inputs), {n: t.clone() for n, t in model.state_dict().items()}
    split_attention(model)
    torch.testing.assert_close(features(model, *inputs), before, atol=1e-5, rtol=1e-5)
    assert split_attention(model) == []
    join_attention(model)
    assert list(model.state_dict()) == list(state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


@given(
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "bool", "float", "each"]),
    st.sampled_from([None, "bool", "float"]),
)
def test_split_attention_answers_every_call_of_torchs(
    first: bool, need_weights: bool, mask: str | None, padding: str | None
) -> None:
    torch.manual_seed(0)
    fused = nn.MultiheadAttention(8, 2, batch_first=first).eval()
    query, key = (torch.randn(*((3, n) if first else (n, 3)), 8) for n in (4, 5))
    left_out = torch.zeros(4, 5, dtype=torch.bool)
    left_out[1, 2:] = True
    masks = {"bool": left_out, "float": torch.randn(4, 5), "each": torch.randn(6, 4, 5)}
    paddings = {"bool": torch.tensor([[0] * 5, [0, 0, 0, 1, 1], [0] * 5]).bool(), "float": torch.randn(3, 5)}
    calls = {"attn_mask": masks.get(mask or ""), "key_padding_mask": paddings.get(padding or "")}
    if mask and padding and (mask == "bool") != (padding == "bool"):
        return  # torch warns of masks of two types
    calls |= {"need_weights": need_weights, "average_attn_weights": mask is None}
    expected = fused(query, key, key, **calls)
    split = SplitMultihead(fused)
    found, apart = split(query, key, key, **calls), split(query, key, key.clone(), **calls)
    for ours in (found, apart):
        torch.testing.assert_close(ours[0], expected[0])
        assert (ours[1] is None) == (expected[1] is None)
        if ours[1] is not None:
            torch.testing.assert_close(ours[1], expected[1])


@pytest.mark.parametrize("causal", [True, False])
def test_masks_rotary_embeddings_and_attentions_that_read_the_matrix_work_after_the_split(causal: bool) -> None:
    torch.manual_seed(0)
    x, rope = torch.randn(2, 5, 24), torch.randn(4, 24)
    for attention, given_too in (
        (Attention(24, 2, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm), {"is_causal": causal}),
        (Attention(24, 2), {"attn_mask": torch.randn(5, 5)}),
        (AttentionRope(24, 2), {"rope": rope, "is_causal": causal}),
        (BeitAttention(24, 2, qkv_bias=True), {}),
    ):
        holder = Holder(attention.eval())
        expected, state = holder.attn(x, **given_too), list(holder.state_dict())
        assert split_attention(holder)
        torch.testing.assert_close(holder.attn(x, **given_too), expected)
        decompose(holder, choose_layers(list_layers(holder)))
        out = holder.attn(x, **given_too)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
        out.sum().backward()
        assert all(p.grad is not None for p in holder.parameters() if p.requires_grad)
        merge(holder)
        assert list(holder.state_dict()) == state


def test_attention_with_more_keys_than_inputs_is_left_alone() -> None:
    holder = Holder(nn.MultiheadAttention(8, 2, add_bias_kv=True))
    assert split_attention(holder) == []


def test_keys_of_another_width_split_and_join() -> None:
    fused = nn.MultiheadAttention(8, 2, kdim=6, vdim=5, batch_first=True)
    holder, query, key, value = Holder(fused), torch.randn(1, 3, 8), torch.randn(1, 4, 6), torch.randn(1, 4, 5)
    expected, state = fused(query, key, value)[0], list(holder.state_dict())
    split_attention(holder)
    torch.testing.assert_close(holder.attn(query, key, value)[0], expected)
    join_attention(holder)
    assert list(holder.state_dict()) == state
    torch.testing.assert_close(holder.attn(query, key, value)[0], expected)
