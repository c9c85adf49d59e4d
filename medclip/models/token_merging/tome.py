"""ToMe: bipartite soft matching (Bolya et al., "Token Merging", arXiv 2210.09461; facebookresearch/ToMe @ af95e4b).

Every other token looks for its likeness among the others; those with the best matches are merged into them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medclip.models.token_merging.grouping import Grouping


def match_tokens(metric_BTD: Tensor, num_removed: int, *, class_token: bool = True) -> Grouping | None:
    """Group the tokens of each sequence so that so many fewer are left.

    Order of what is left: tokens of even places that were not merged, by their place; then all of odd places.

    Args:
        metric_BTD: What tokens are compared by: the attention's keys, mean over heads.
        num_removed: r. At most half of the tokens can go.
        class_token: The first token is one that stays as it is.

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
    return group_even(best_BA, target_BA, num_removed, num, in_order=class_token)


def group_even(best_BA: Tensor, target_BA: Tensor, num_removed: int, num: int, *, in_order: bool) -> Grouping:
    """Group even tokens that have the best matches with their odd ones.

    Args:
        best_BA: Of each even token.
        target_BA: Which odd token that is.
        num_removed: So many are merged.
        num: Of all tokens.
        in_order: Even tokens that are kept stay in their order; otherwise they are ordered by their matches.
    """
    num_batch, num_even = best_BA.shape
    order_BA = best_BA.argsort(dim=-1, descending=True, stable=True)
    merged, kept = order_BA[:, :num_removed], order_BA[:, num_removed:]
    kept = kept.sort(dim=1).values if in_order else kept
    num_kept = num_even - num_removed
    device = best_BA.device
    of_even = torch.empty(num_batch, num_even, dtype=torch.int64, device=device)
    of_even = of_even.scatter(1, kept, torch.arange(num_kept, device=device).expand(num_batch, -1))
    of_even = of_even.scatter(1, merged, num_kept + target_BA.gather(1, merged))
    of_odd = torch.arange(num_kept, num - num_removed, device=device).expand(num_batch, -1)
    place_BT = torch.empty(num_batch, num, dtype=torch.int64, device=device)
    place_BT[:, ::2], place_BT[:, 1::2] = of_even, of_odd
    return Grouping(place_BT, num - num_removed)


def match_every(metric_BTD: Tensor, k: int) -> Grouping:
    """Group tokens around every k-th one; what is left over at the end of a sequence is dropped.

    Args:
        metric_BTD: What tokens are compared by.
        k: The last of each k tokens stays, the others join the one that they are most alike.
    """
    num_batch, num, _ = metric_BTD.shape
    num_groups = num // k
    unit = (metric_BTD / metric_BTD.norm(dim=-1, keepdim=True))[:, : num_groups * k]
    blocks = unit.unflatten(1, (num_groups, k))
    others, stays = blocks[:, :, :-1].flatten(1, 2), blocks[:, :, -1]
    target = (others @ stays.transpose(1, 2)).argmax(dim=-1)
    own = torch.arange(num_groups, device=metric_BTD.device).expand(num_batch, -1)
    place = torch.cat([target.unflatten(1, (num_groups, k - 1)), own[..., None]], dim=2).flatten(1)
    return Grouping(place, num_groups)


def removed_by_block(num_blocks: int, r: int | tuple[int, float] | Sequence[int]) -> list[int]:
    """Return how many tokens go in each block.

    Args:
        num_blocks: Of the tower.
        r: So many in each; or r and an inflection from -1 (more in the first blocks) to 1 (more in the last), linear
            with the same sum; or a list, filled up with 0.
    """
    inflection = 0.0
    if isinstance(r, tuple):
        r, inflection = r
    if not isinstance(r, int):
        return [*r, *[0] * (num_blocks - len(r))][:num_blocks]
    least = int(r * (1 - inflection))
    step = (2 * r - 2 * least) / (num_blocks - 1) if num_blocks > 1 else 0.0
    return [int(least + step * block) for block in range(num_blocks)]
