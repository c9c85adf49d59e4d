"""A vision transformer that merges tokens between attention and MLP of each block; its weights are the tower's own.

For towers of open_clip and of timm that read their vector from a class token: it is never merged, and no place of a
patch matters after the position embedding was added. Nothing is kept between two batches, so that several threads may
compute at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from medclip.errors import MedclipError, Reason
from medclip.models.token_merging.matching import Grouping, margins, match_pitome, match_tome

TOME_SHARE = 13 / 196
"""Share of the patches that ToMe removes in each block: r = 13 for a ViT-B/16 at 224 px, as published."""
PITOME_RATIO = 0.95
"""Share of the patches that PiToMe leaves in each block."""


@dataclass(frozen=True)
class Merging:
    """How many tokens go in each block, and which."""

    match: Callable[[Tensor, int], Grouping | None]
    """Groups the tokens of one block [B, T, D], by its number; None where nothing is removed."""
    proportional: bool = True
    """A token weighs in attention by how many it stands for: ToMe's way for towers that were not trained to merge; the
    code of PiToMe keeps sizes and does not use them so."""


def tome_merging(removed: Sequence[int], *, proportional: bool = True) -> Merging:
    """Return how ToMe merges, with the number of tokens that each block removes."""
    return Merging(lambda metric_BTD, block: match_tome(metric_BTD, removed[block]), proportional)


def tome_tower(tower: nn.Module) -> nn.Module:
    """Return a tower that merges tokens as ToMe does, at the number that was published for a ViT-B/16.

    Args:
        tower: Tower of open_clip or timm, or a module with one inside; it stays as it is.

    Raises:
        MedclipError: WRONG_USE for a tower that is no vision transformer with a class token.
    """
    vit = find_vit(tower)
    removed = max(1, round(TOME_SHARE * (_num_tokens(vit) - 1)))
    return with_merging(tower, tome_merging((removed,) * len(blocks_of(vit))))


def pitome_tower(tower: nn.Module) -> nn.Module:
    """Return a tower that merges tokens as PiToMe does, at the share that was published for a ViT-B/16.

    Args:
        tower: Tower, as `tome_tower` takes it.

    Raises:
        MedclipError: As `tome_tower`.
    """
    kept = margins(len(blocks_of(find_vit(tower))))
    merging = Merging(lambda metric_BTD, block: match_pitome(metric_BTD, PITOME_RATIO, kept[block]), proportional=False)
    return with_merging(tower, merging)


def with_merging(tower: nn.Module, merging: Merging) -> nn.Module:
    """Return a tower that merges tokens, with the weights of another.

    Raises:
        MedclipError: As `tome_tower`.
    """
    vit = find_vit(tower)
    merged = copy.copy(vit)
    merged._modules = dict(vit._modules)
    name = "transformer" if is_open_clip(vit) else "blocks"
    merged._modules[name] = MergingBlocks(blocks_of(vit), merging)
    return merged if vit is tower else _with_module(tower, vit, merged)


def find_vit(tower: nn.Module) -> Any:
    """Return the vision transformer in a tower.

    Raises:
        MedclipError: WRONG_USE where there is none whose class token is all that it is read from.
    """
    from open_clip.transformer import VisionTransformer as OpenClipViT
    from timm.models.vision_transformer import VisionTransformer as TimmViT

    for module in tower.modules():
        if type(module) is OpenClipViT:
            ends_in_class = module.pool_type == "tok" and module.attn_pool is None
            parts = ("ln_1", "attn.in_proj_weight")
        elif type(module) is TimmViT:
            ends_in_class = module.global_pool == "token" and module.num_prefix_tokens == 1
            parts = ("norm1", "attn.qkv")
        else:
            continue
        if ends_in_class and all(_has(block, part) for block in blocks_of(module) for part in parts):
            return module
    raise MedclipError(
        Reason.WRONG_USE,
        "this image tower is no vision transformer that ends in a class token.",
        hint="Use another back-end.",
    )


class MergingBlocks(nn.Module):
    """Computes the blocks of a transformer one after the other and merges tokens in each.

    Args:
        blocks: Blocks of open_clip or timm.
        merging: Merging, which says what is merged in each block.
    """

    def __init__(self, blocks: Any, merging: Merging) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.merging = merging

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return the tokens that are left, [B, groups, C], the class token first."""
        size_BT1: Tensor | None = None
        for number, block in enumerate(self.blocks):
            bias = None
            if self.merging.proportional and size_BT1 is not None:
                bias = size_BT1.log()[:, None, None, :, 0]
            attended, keys_BHTD = _attend(block, x_BTC, bias)
            x_BTC = x_BTC + attended
            groups = self.merging.match(keys_BHTD.mean(dim=1), number)
            if groups is not None:
                x_BTC, size_BT1 = groups.merge(x_BTC, size_BT1)
            x_BTC = x_BTC + _mlp(block, x_BTC)
        return x_BTC


def _attend(block: Any, x_BTC: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what attention adds to tokens, and the keys [B, heads, T, D].

    Args:
        block: Block of open_clip or timm.
        x_BTC: The tokens.
        bias: Bias that is added to every query's logits, [B, 1, 1, T].
    """
    if hasattr(block, "ln_1"):
        attention, normed = block.attn, block.ln_1(x_BTC)
        packed = functional.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = (split_heads(part, attention.num_heads) for part in packed.chunk(3, dim=-1))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return block.ls_1(attention.out_proj(mixed.transpose(1, 2).flatten(2))), key
    attention, normed = block.attn, block.norm1(x_BTC)
    query, key, value = (split_heads(part, attention.num_heads) for part in attention.qkv(normed).chunk(3, dim=-1))
    query, key = attention.q_norm(query), attention.k_norm(key)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=attention.scale)
    return block.ls1(attention.proj(attention.norm(mixed.transpose(1, 2).flatten(2)))), key


def _mlp(block: Any, x_BTC: Tensor) -> Tensor:
    if hasattr(block, "ln_2"):
        return block.ls_2(block.mlp(block.ln_2(x_BTC)))
    return block.ls2(block.mlp(block.norm2(x_BTC)))


def split_heads(x_BTC: Tensor, num_heads: int) -> Tensor:
    """Return [B, heads, T, C / heads]."""
    return x_BTC.unflatten(2, (num_heads, -1)).transpose(1, 2)


def _has(block: Any, path: str) -> bool:
    try:
        attrgetter(path)(block)
    except AttributeError:
        return False
    return getattr(block.attn, "gate", None) is None


def is_open_clip(vit: Any) -> bool:
    """Return whether a transformer is one of open_clip and not of timm."""
    return hasattr(vit, "transformer")


def blocks_of(vit: Any) -> Any:
    """Return the blocks of a transformer of open_clip or timm, in order."""
    return vit.transformer.resblocks if is_open_clip(vit) else vit.blocks


def _num_tokens(vit: Any) -> int:
    positions = vit.positional_embedding if is_open_clip(vit) else vit.pos_embed
    return int(positions.shape[-2])


def _with_module(tower: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Return a tower with one of its modules replaced; modules on the way are copied, weights are not."""
    if tower is old:
        return new
    copied = copy.copy(tower)
    copied._modules = {
        name: None if child is None else _with_module(child, old, new) if _holds(child, old) else child
        for name, child in tower._modules.items()
    }
    return copied


def _holds(module: nn.Module, wanted: nn.Module) -> bool:
    return any(inner is wanted for inner in module.modules())
