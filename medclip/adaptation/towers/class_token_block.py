"""The last block of an image tower that is read at its class token: compute that token alone.

Only the first row of its output is looked at, so queries, output, MLP and their gradients of the other rows are work
for nothing: a fifteenth of a training step of ViT-B/16. Keys and values are still of every token.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medclip.adaptation.towers.split_attention import SplitMultihead, SplitQkv
from medclip.adaptation.towers.svd_linear import project_together


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
