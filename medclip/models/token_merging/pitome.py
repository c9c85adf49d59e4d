"""PiToMe: tokens with many likes are merged, isolated ones are kept (Tran et al., arXiv 2405.16148).

After `hchautran/PiToMe` @ 550b5de, of which it keeps two traits that its paper has otherwise: a token's energy counts
the token itself, and the margin is subtracted in the linear part, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from medclip.models.token_merging.grouping import Grouping
from medclip.models.token_merging.tome import group_even

MARGIN = 0.75
"""Of the first block; it falls in a line to zero. As the code has it for DeiT; for CLIP it has 0.95 and 0.9."""


def margins(num_blocks: int, first: float = MARGIN) -> list[float]:
    """Return the margin of each block: `first` · (1 - block / blocks)."""
    return [first * (1 - block / num_blocks) for block in range(num_blocks)]


def energy(metric_BTD: Tensor, margin: float) -> Tensor:
    """Return the energy of each token, float [B, T]: high where many others are like it.

    Args:
        metric_BTD: What tokens are compared by.
        margin: Cosine from which on another token counts as alike.
    """
    unit = functional.normalize(metric_BTD, dim=-1)
    return functional.elu(unit @ unit.transpose(1, 2) - margin).mean(dim=-1)


def energy_of_words(metric_BTD: Tensor, margin: float) -> Tensor:
    """Return the energy of each token of a text, float [B, T]: a Gaussian of width 1 - margin around cosine 1."""
    unit, sigma = functional.normalize(metric_BTD, dim=-1), 1 - margin
    distance = (1 - unit @ unit.transpose(1, 2)) / sigma
    return (torch.exp(-(distance**2) / 2) / (sigma * math.sqrt(2 * math.pi))).mean(dim=-1)


def match_tokens(metric_BTD: Tensor, ratio: float, margin: float, *, class_token: bool = True) -> Grouping | None:
    """Group the tokens of each sequence so that a share of them is left.

    Those of highest energy are candidates, twice as many as go; every other one of them joins the one of the rest that
    it is most alike. Order of what is left: the class token, protected tokens from high energy to low, groups.

    Args:
        metric_BTD: What tokens are compared by: the attention's keys, mean over heads.
        ratio: Share that is left, from 0.5 to 1; the class token is not counted.
        margin: As `energy` takes it.
        class_token: The first token is one that stays as it is.

    Returns:
        None where nothing is removed.
    """
    return _match(metric_BTD, ratio, lambda patches: energy(patches, margin), _alternate, class_token)


def match_by_energy(metric_BTD: Tensor, ratio: float, margin: float, *, class_token: bool = True) -> Grouping | None:
    """Group tokens as ToMe does, in the order of their energy: the code's variant for the first blocks of DeiT.

    Nothing is protected. Order of what is left: the class token, tokens that looked for a likeness and were not merged
    from the best match down, all others. As `match_tokens`.
    """
    patches = metric_BTD[:, int(class_token) :]
    num = patches.shape[1]
    removed = min(num_removed(num, ratio), num // 2)
    if removed <= 0:
        return None
    order_BT = energy(patches, margin).argsort(dim=-1, descending=True, stable=True)
    unit = _pick(functional.normalize(patches, dim=-1), order_BT)
    best, target = (unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)).max(dim=-1)
    sorted_place = group_even(best, target, removed, num, in_order=False).place_BT
    place = torch.empty_like(sorted_place).scatter(1, order_BT, sorted_place)
    return _with_class(place, num - removed) if class_token else Grouping(place, num - removed)


def match_words(metric_BTD: Tensor, ratio: float, margin: float, *, class_token: bool = True) -> Grouping | None:
    """Group the tokens of texts: those of highest energy join those of the next highest. As `match_tokens`."""
    return _match(metric_BTD, ratio, lambda words: energy_of_words(words, margin), _halve, class_token)


def num_removed(num_tokens: int, ratio: float) -> int:
    """Return how many of so many tokens go where a share is left: the whole number below T - T · ratio."""
    return math.floor(num_tokens - num_tokens * ratio)


def _match(
    metric_BTD: Tensor,
    ratio: float,
    energy_of: Callable[[Tensor], Tensor],
    part: Callable[[Tensor], tuple[Tensor, Tensor]],
    class_token: bool,
) -> Grouping | None:
    patches = metric_BTD[:, int(class_token) :]
    num_batch, num, _ = patches.shape
    removed = num_removed(num, ratio)
    if removed <= 0:
        return None
    order_BT = energy_of(patches).argsort(dim=-1, descending=True, stable=True)
    candidates, protected = order_BT[:, : 2 * removed], order_BT[:, 2 * removed :]
    joining, target = part(candidates)
    unit = functional.normalize(patches, dim=-1)
    joining_unit, target_unit = (_pick(unit, places) for places in (joining, target))
    joins = (joining_unit @ target_unit.transpose(1, 2)).argmax(dim=-1)
    num_protected = protected.shape[1]
    counted = torch.arange(num_protected + removed, device=patches.device).expand(num_batch, -1)
    place = torch.empty(num_batch, num, dtype=torch.int64, device=patches.device)
    place = place.scatter(1, protected, counted[:, :num_protected])
    place = place.scatter(1, target, counted[:, num_protected:])
    place = place.scatter(1, joining, num_protected + joins)
    return _with_class(place, num - removed) if class_token else Grouping(place, num - removed)


def _with_class(place_BT: Tensor, num_groups: int) -> Grouping:
    return Grouping(torch.cat([torch.zeros_like(place_BT[:, :1]), place_BT + 1], dim=1), num_groups + 1)


def _alternate(candidates: Tensor) -> tuple[Tensor, Tensor]:
    return candidates[:, ::2], candidates[:, 1::2]


def _halve(candidates: Tensor) -> tuple[Tensor, Tensor]:
    return candidates.tensor_split(2, dim=1)  # type: ignore[return-value]


def _pick(x_BTC: Tensor, places_BN: Tensor) -> Tensor:
    return x_BTC.gather(1, places_BN[..., None].expand(-1, -1, x_BTC.shape[2]))
