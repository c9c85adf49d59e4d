"""Split fused attention: query, key and value become layers of their own, so that each can be adapted by itself.

open_clip and torch keep the three projections as rows 0:d, d:2d and 2d:3d of one matrix, timm as one linear layer named
`qkv`. The split modules answer the same calls, give the same numbers, and can be joined again.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medclip.adaptation.towers.svd_linear import project_together
from medclip.models.towers.rotary_text import RotaryAttention

PARTS = ("q_proj", "k_proj", "v_proj")


class SplitQkv(nn.Module):
    """Stands for the `qkv` layer of a timm attention: three layers whose outputs lie side by side.

    The attention around it stays timm's own, so masks, rotary embeddings and norms of queries work as before.

    Args:
        fused: The layer to split; its outputs are the queries', the keys' and the values', in this order.
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        biases = [None] * 3 if fused.bias is None else list(fused.bias.chunk(3))
        for name, weight, bias in zip(PARTS, fused.weight.chunk(3), biases, strict=True):
            setattr(self, name, _linear(weight, bias))
        self._emptied = (_empty(fused, "weight", "bias"),)
        self.train(fused.training)

    @property
    def weight(self) -> Tensor:
        """The weights one above the other, for attentions that take the matrix itself (BEiT, EVA)."""
        return torch.cat([getattr(self, name).weight for name in PARTS])

    @property
    def bias(self) -> Tensor | None:
        """The biases one after the other."""
        biases = [getattr(self, name).bias for name in PARTS]
        return None if biases[0] is None else torch.cat(biases)

    def forward(self, x: Tensor) -> Tensor:
        """Return float [..., 3 * d] of float [..., n]."""
        return project_together([self.q_proj, self.k_proj, self.v_proj], x)

    def join(self) -> nn.Module:
        """Return the layer that was split, with the weights of now."""
        fused = self._emptied[0]
        _fill(fused, weight=_stacked(self, "weight"), bias=_stacked(self, "bias"))
        return fused.train(self.training)


class SplitMultihead(nn.Module):
    """Stands for torch's `nn.MultiheadAttention`, also where it turns queries and keys by their places.

    Args:
        fused: The module to split; without `add_bias_kv` and `add_zero_attn`.
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.dropout = fused.embed_dim, fused.num_heads, fused.dropout
        self.head_dim, self.batch_first = fused.head_dim, fused.batch_first
        self._turn = fused.turn if isinstance(fused, RotaryAttention) else None
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        together = fused.in_proj_weight is not None
        weights = fused.in_proj_weight.chunk(3) if together else [getattr(fused, name) for name in names]
        biases = [None] * 3 if fused.in_proj_bias is None else list(fused.in_proj_bias.chunk(3))
        for name, weight, bias in zip(PARTS, weights, biases, strict=True):
            setattr(self, name, _linear(weight, bias))
        self.out_proj: nn.Module = fused.out_proj
        gone = ("in_proj_weight",) if together else names
        self._emptied = (_empty(fused, *gone, "in_proj_bias"), gone)
        self.train(fused.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as `nn.MultiheadAttention.forward` does, with the same arguments; inputs are batches (3-D)."""
        shared = key is value
        same = shared and query is key
        if not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        if same:
            q, k, v = project_together([self.q_proj, self.k_proj, self.v_proj], query).chunk(3, dim=-1)
        elif shared:  # the last block, read at one token
            q, (k, v) = self.q_proj(query), project_together([self.k_proj, self.v_proj], key).chunk(2, dim=-1)
        else:
            q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        if self._turn is not None:
            q, k = self._turn(q), self._turn(k)
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        drop = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            out = F.dropout(weights, drop, self.training) @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, drop, is_causal and mask is None)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Return one mask to add to the scores, [B or 1, H or 1, L, S]; torch's bools say what is left out."""
        total = None
        if mask is not None:
            total = _added(mask, q)
            total = total.unflatten(0, (-1, self.num_heads)) if mask.ndim == 3 else total[None, None]
        if padding is not None:
            of_keys = _added(padding, q).view(k.shape[0], 1, 1, k.shape[2])
            total = of_keys if total is None else total + of_keys
        return total

    def join(self) -> nn.Module:
        """Return the module that was split, with the weights of now."""
        fused, gone = self._emptied
        weights = [_stacked(self, "weight")] if len(gone) == 1 else [getattr(self, name).weight for name in PARTS]
        _fill(fused, **dict(zip(gone, weights, strict=True)), in_proj_bias=_stacked(self, "bias"))
        fused.out_proj = self.out_proj
        return fused.train(self.training)


def split_attention(clip: nn.Module) -> list[str]:
    """Split every fused attention of both towers, in place.

    BERT towers keep query, key and value apart already and stay as they are. A module that is split already is too.

    Args:
        clip: A dual encoder, or any module.

    Returns:
        Names of the modules that were replaced.
    """
    replaced = []
    for name, module in list(clip.named_modules()):
        if isinstance(module, nn.MultiheadAttention) and module.bias_k is None and not module.add_zero_attn:
            replace_module(clip, name, SplitMultihead(module))
        elif isinstance(qkv := getattr(module, "qkv", None), nn.Linear) and _in_thirds(module, qkv):
            name = f"{name}.qkv" if name else "qkv"
            replace_module(clip, name, SplitQkv(qkv))
        else:
            continue
        replaced.append(name)
    return replaced


def join_attention(clip: nn.Module) -> None:
    """Restore the fused modules, in place, with the weights of the split ones; names are those of before."""
    for name, module in list(clip.named_modules()):
        if isinstance(module, SplitQkv | SplitMultihead):
            replace_module(clip, name, module.join())


def _in_thirds(module: Any, qkv: nn.Linear) -> bool:
    """Whether the rows of `qkv` are queries, keys and values one after the other."""
    proj = getattr(module, "proj", None)
    return (
        isinstance(proj, nn.Linear)
        and qkv.out_features == 3 * proj.in_features
        and not getattr(module, "head_first", False)
    )


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    out_features, in_features = weight.shape
    linear = nn.Linear(in_features, out_features, bias=bias is not None, device="meta", dtype=weight.dtype)
    linear.weight = _parameter(weight, weight.requires_grad)
    if bias is not None:
        linear.bias = _parameter(bias, bias.requires_grad)
    return linear


def _parameter(values: Tensor, requires_grad: bool) -> nn.Parameter:
    return nn.Parameter(values.detach().clone(), requires_grad=requires_grad)


def _stacked(split: nn.Module, what: str) -> nn.Parameter | None:
    parts = [getattr(getattr(split, name), what) for name in PARTS]
    return None if parts[0] is None else nn.Parameter(torch.cat(parts).detach(), requires_grad=parts[0].requires_grad)


def _empty(module: nn.Module, *names: str) -> Any:
    """Take parameters out of a module, leaving their places."""
    for name in names:
        setattr(module, name, None)
    return module


def _fill(module: nn.Module, **parameters: nn.Parameter | None) -> None:
    for name, parameter in parameters.items():
        setattr(module, name, parameter)


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))


def replace_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Replace a module by another, by its path."""
    parent, _, last = name.rpartition(".")
    setattr(root.get_submodule(parent), last, module)


def read_class_token_only(clip: nn.Module) -> bool:
    """Let the last block of the image tower give its class token alone, [B, 1, D], in place.

    Args:
        clip: Dual encoder after `split_attention`.

    Returns:
        Whether the tower is one where nothing else is read: open_clip's ViT with the pool "tok", or timm's with "token"
        and plain attention. Others are left as they are.
    """
    visual: Any = getattr(clip, "visual", None)
    block, stand_in = _open_clip(visual) or _timm(getattr(visual, "trunk", None)) or (None, None)
    if block is None or stand_in is None:
        return False
    block.forward = MethodType(stand_in, block)
    return True


def read_all_tokens(clip: nn.Module) -> None:
    """Undo `read_class_token_only`, in place."""
    for module in clip.modules():
        if getattr(module.__dict__.get("forward"), "__func__", None) in (_open_clip_first_row, _timm_first_row):
            del module.__dict__["forward"]


def _open_clip(visual: Any) -> tuple[Any, Any] | None:
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if (
        getattr(visual, "pool_type", None) != "tok"
        or visual.attn_pool is not None
        or visual.output_tokens
        or not blocks
    ):
        return None
    return (blocks[-1], _open_clip_first_row) if isinstance(blocks[-1].attn, SplitMultihead) else None


def _timm(trunk: Any) -> tuple[Any, Any] | None:
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import Block, VisionTransformer

    if type(trunk) is not VisionTransformer or trunk.global_pool != "token" or trunk.attn_pool is not None:
        return None
    blocks: Any = trunk.blocks
    block = blocks[-1]
    plain = type(block) is Block and type(block.attn) is Attention and block.attn.gate is None
    return (block, _timm_first_row) if plain and isinstance(block.attn.qkv, SplitQkv) else None


def _open_clip_first_row(
    self: Any, q_x: Tensor, k_x: None = None, v_x: None = None, attn_mask: Tensor | None = None
) -> Tensor:
    """Stand in for `ResidualAttentionBlock.forward`."""
    normed = self.ln_1(q_x)
    rows = None if attn_mask is None else attn_mask[..., :1, :]
    x = q_x[:, :1] + self.ls_1(self.attention(normed[:, :1], normed, normed, attn_mask=rows))
    return x + self.ls_2(self.mlp(self.ln_2(x)))


def _timm_first_row(self: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Stand in for timm's `Block.forward`; a class token that attends causally would see itself alone."""
    assert attn_mask is None
    assert not is_causal
    normed, first = self.norm1(x), x[:, :1]
    first = first + self.drop_path1(self.ls1(_timm_attention(self.attn, normed)))
    return first + self.drop_path2(self.ls2(self.mlp(self.norm2(first))))


def _timm_attention(attn: Any, x_BLD: Tensor) -> Tensor:
    parts = attn.qkv
    keys_values = project_together([parts.k_proj, parts.v_proj], x_BLD).chunk(2, dim=-1)
    q, k, v = (
        t.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for t in (parts.q_proj(x_BLD[:, :1]), *keys_values)
    )
    q, k = attn.q_norm(q), attn.k_norm(k)
    drop = attn.attn_drop.p if attn.training else 0.0
    out: Tensor = F.scaled_dot_product_attention(q, k, v, dropout_p=drop, scale=attn.scale)
    return attn.proj_drop(attn.proj(attn.norm(torch.flatten(out.transpose(1, 2), 2))))
