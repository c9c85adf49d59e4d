"""Which tokens of a transformer become one, after ToMe and PiToMe.

ToMe (Bolya et al., "Token Merging", arXiv 2210.09461; facebookresearch/ToMe @ af95e4b): every other token looks for
its likeness among the others; those with the best matches are merged into them.

PiToMe (Tran et al., arXiv 2405.16148): tokens with many likes are merged, isolated ones are kept. After
`hchautran/PiToMe` @ 550b5de, of which it keeps two traits that its paper has otherwise: a token's energy counts the
token itself, and the margin is subtracted in the linear part, too.

A matching of either kind comes down to one number for each token: the place of its group among the tokens that are
left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

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
