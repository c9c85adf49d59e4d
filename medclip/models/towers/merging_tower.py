"""A vision transformer that merges tokens between attention and MLP of each block; its weights are the tower's own.

For towers of open_clip and of timm that read their vector from a class token: it is never merged, and no place of a
patch matters after the position embedding was added. Nothing is kept between two batches, so that several threads may
compute at once. A matching comes down to one number for each token: the place of its group among those that are left.

ToMe (Bolya et al., "Token Merging", arXiv 2210.09461; facebookresearch/ToMe @ af95e4b): every other token looks for
its likeness among the others; those with the best matches are merged into them.

PiToMe (Tran et al., arXiv 2405.16148): tokens with many likes are merged, isolated ones are kept. After
`hchautran/PiToMe` @ 550b5de, of which it keeps two traits that its paper has otherwise: a token's energy counts the
token itself, and the margin is subtracted in the linear part, too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medclip.errors import MedclipError, Reason

MARGIN = 0.75
"""Of the first block; it falls in a line to zero. As the code has it for DeiT; for CLIP it has 0.95 and 0.9."""


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which tokens become one."""

    place_BT: Tensor
    """int64 [B, T]: the place of each token's group."""
    num_groups: int

    def sum(self, x_BTC: Tensor) -> Tensor:
        """Add up the tokens of each group: [B, T, C] to [B, groups, C]."""
        places = self.place_BT[..., None].expand(-1, -1, x_BTC.shape[2])
        zeros = x_BTC.new_zeros(x_BTC.shape[0], self.num_groups, x_BTC.shape[2])
        return zeros.scatter_add(1, places, x_BTC[:, : self.place_BT.shape[1]])

    def merge(self, x_BTC: Tensor, size_BT1: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Merge tokens into the mean of those that they stand for.

        Args:
            x_BTC: The tokens.
            size_BT1: Number of tokens that each stands for; one each where None.

        Returns:
            The merged tokens [B, groups, C], and how many each stands for [B, groups, 1].
        """
        if size_BT1 is None:
            size_BT1 = torch.ones_like(x_BTC[..., :1])
        size = self.sum(size_BT1)
        return self.sum(x_BTC * size_BT1) / size, size


def match_tome(metric_BTD: Tensor, num_removed: int, *, class_token: bool = True) -> Grouping | None:
    """Group the tokens of each sequence so that so many fewer are left.

    Order of what is left: tokens of even places that were not merged, by their place; then all of odd places.

    Args:
        metric_BTD: Vectors that tokens are compared by: the attention's keys, mean over heads.
        num_removed: Number of tokens that go, r. At most half of the tokens can go.
        class_token: Whether the first token is one that stays as it is.

    Returns:
        None where nothing is removed.
    """
    num = metric_BTD.shape[1]
    num_removed = min(num_removed, (num - int(class_token)) // 2)
    if num_removed <= 0:
        return None
    unit = metric_BTD / metric_BTD.norm(dim=-1, keepdim=True)
    scores_BAO = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    if class_token:
        scores_BAO[:, 0] = -torch.inf
    best_BA, target_BA = scores_BAO.max(dim=-1)
    num_batch, num_even = best_BA.shape
    order_BA = best_BA.argsort(dim=-1, descending=True, stable=True)
    merged, kept = order_BA[:, :num_removed], order_BA[:, num_removed:]
    kept = kept.sort(dim=1).values if class_token else kept
    num_kept = num_even - num_removed
    device = best_BA.device
    of_even = torch.empty(num_batch, num_even, dtype=torch.int64, device=device)
    of_even = of_even.scatter(1, kept, torch.arange(num_kept, device=device).expand(num_batch, -1))
    of_even = of_even.scatter(1, merged, num_kept + target_BA.gather(1, merged))
    of_odd = torch.arange(num_kept, num - num_removed, device=device).expand(num_batch, -1)
    place_BT = torch.empty(num_batch, num, dtype=torch.int64, device=device)
    place_BT[:, ::2], place_BT[:, 1::2] = of_even, of_odd
    return Grouping(place_BT, num - num_removed)


def margins(num_blocks: int, first: float = MARGIN) -> list[float]:
    """Return the margin of each block: `first` · (1 - block / blocks)."""
    return [first * (1 - block / num_blocks) for block in range(num_blocks)]


def energy(metric_BTD: Tensor, margin: float) -> Tensor:
    """Return the energy of each token, float [B, T]: high where many others are like it.

    Args:
        metric_BTD: Vectors that tokens are compared by.
        margin: Cosine from which on another token counts as alike.
    """
    unit = functional.normalize(metric_BTD, dim=-1)
    return functional.elu(unit @ unit.transpose(1, 2) - margin).mean(dim=-1)


def match_pitome(metric_BTD: Tensor, ratio: float, margin: float, *, class_token: bool = True) -> Grouping | None:
    """Group the tokens of each sequence so that a share of them is left.

    Those of highest energy are candidates, twice as many as go; every other one of them joins the one of the rest that
    it is most alike. Order of what is left: the class token, protected tokens from high energy to low, groups.

    Args:
        metric_BTD: Vectors that tokens are compared by: the attention's keys, mean over heads.
        ratio: Share that is left, from 0.5 to 1; the class token is not counted.
        margin: Cosine margin, as `energy` takes it.
        class_token: Whether the first token is one that stays as it is.

    Returns:
        None where nothing is removed.
    """
    patches = metric_BTD[:, int(class_token) :]
    num_batch, num, _ = patches.shape
    removed = math.floor(num - num * ratio)
    if removed <= 0:
        return None
    order_BT = energy(patches, margin).argsort(dim=-1, descending=True, stable=True)
    candidates, protected = order_BT[:, : 2 * removed], order_BT[:, 2 * removed :]
    joining, target = candidates[:, ::2], candidates[:, 1::2]
    unit = functional.normalize(patches, dim=-1)
    joining_unit, target_unit = (_pick(unit, places) for places in (joining, target))
    joins = (joining_unit @ target_unit.transpose(1, 2)).argmax(dim=-1)
    num_protected = protected.shape[1]
    counted = torch.arange(num_protected + removed, device=patches.device).expand(num_batch, -1)
    place = torch.empty(num_batch, num, dtype=torch.int64, device=patches.device)
    place = place.scatter(1, protected, counted[:, :num_protected])
    place = place.scatter(1, target, counted[:, num_protected:])
    place = place.scatter(1, joining, num_protected + joins)
    if not class_token:
        return Grouping(place, num - removed)
    return Grouping(torch.cat([torch.zeros_like(place[:, :1]), place + 1], dim=1), num - removed + 1)


def _pick(x_BTC: Tensor, places_BN: Tensor) -> Tensor:
    return x_BTC.gather(1, places_BN[..., None].expand(-1, -1, x_BTC.shape[2]))


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
    """
    kept = margins(len(blocks_of(find_vit(tower))))
    merging = Merging(lambda metric_BTD, block: match_pitome(metric_BTD, PITOME_RATIO, kept[block]), proportional=False)
    return with_merging(tower, merging)


def with_merging(tower: nn.Module, merging: Merging) -> nn.Module:
    """Return a tower that merges tokens, with the weights of another."""
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
