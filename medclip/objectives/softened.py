"""InfoNCE with softened targets: a share of each row's mass goes to the other pairs, more to those that are alike.

With share a, cosines c and similarity k the target of a row is 1 − a for its own partner and a · softmax(k · c) over
the others, where c is not moved by the gradient. With k = 0 the others are alike (PyramidCLIP's target, i.e. label
smoothing of a · B / (B − 1)); with a = 0 it is the CLIP loss. Many "negatives" of a batch of films are true matches,
all normal.

References: LightCLIP, 2023 (targets that soften as training goes on; no code of it was found, and the weights of the
others are a reconstruction); Gao et al., PyramidCLIP, NeurIPS 2022.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medclip.objectives.block import Block, check_features, make_block, scalar
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import gather, gather_pairs, rank_and_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_LOWEST = torch.finfo(torch.float32).min / 4


def softened_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    scale: Tensor | float,
    share: Tensor | float,
    *,
    similarity: float = 5.0,
    pairs: Pairs | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return the mean of both directions' cross-entropies with softened targets.

    Args:
        image_BD: [B, D] unit-norm image features.
        text_BD: [B, D] unit-norm text features; row i belongs to image i.
        scale: Factor of the cosines.
        share: Share of the mass that goes to the others, from 0 to 1; a row without any keeps it.
        similarity: Factor of the cosines in the weights of the others; 0 weighs them alike.
        pairs: Pairs, as in `clip_loss`: the mass of the own partner is shared among the positives, and what is left out
            is neither.
        group: Ranks, as in `clip_loss`: the mean over ranks is the loss of the whole batch.

    Returns:
        Scalar float32. Memory is O(b x B) for b rows of a rank.

    Example:
        >>> image, text = torch.eye(3), torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
        >>> round(float(softened_loss(image, text, 2.0, 0.2, similarity=0.0)), 6)
        0.639545
    """
    check_features(image_BD, text_BD)
    rank, ranks = rank_and_size(group)
    block = make_block(gather_pairs(pairs, group), ranks * len(image_BD), rank, ranks, image_BD.device)
    texts_first = block if pairs is None or pairs.text_positive_BK is None else _turned(pairs, block, group)
    sides = [(image_BD.float(), text_BD.float(), block), (text_BD.float(), image_BD.float(), texts_first)]
    factor = scalar(scale, image_BD.device)
    both = [_one_way(rows, gather(cols, group), factor, share, similarity, of) for rows, cols, of in sides]
    return (both[0] + both[1]) / 2


def softened_targets(
    cosine_bN: Tensor, positive_bN: Tensor, negative_bN: Tensor, share: Tensor | float, similarity: float
) -> Tensor:
    """Return the target of each pair, [b, N]; rows add up to 1.

    Args:
        cosine_bN: Cosines; no gradient goes through the targets.
        positive_bN: Positives; at least one in each row.
        negative_bN: Others, which the share goes to.
        share: Share of the others.
        similarity: Factor of the cosines.
    """
    own_bN = positive_bN / positive_bN.sum(1, keepdim=True).clamp_min(1)
    alike_bN = (similarity * cosine_bN.detach()).masked_fill(~negative_bN, _LOWEST).softmax(1)
    share_b1 = share * negative_bN.any(1, keepdim=True)
    return (1 - share_b1) * own_bN + share_b1 * torch.where(negative_bN, alike_bN, 0)


def _one_way(
    rows_bD: Tensor, cols_ND: Tensor, scale: Tensor, share: Tensor | float, similarity: float, block: Block
) -> Tensor:
    every = slice(0, len(block.own_b))
    with torch.autocast(rows_bD.device.type, enabled=False):
        cosine_bN = block.take_rows(rows_bD) @ block.take_cols(cols_ND).T
        positive_bN = block.positive(every)
        left_out_bN = block.left_out(every, positive_bN)
        if positive_bN is None:
            positive_bN = torch.zeros_like(cosine_bN, dtype=torch.bool).scatter_(1, block.own_b[:, None], True)
        logits_bN, negative_bN = scale * cosine_bN, ~positive_bN
        if left_out_bN is not None:
            logits_bN, negative_bN = logits_bN.masked_fill(left_out_bN, _LOWEST), negative_bN & ~left_out_bN
        target_bN = softened_targets(cosine_bN, positive_bN, negative_bN, share, similarity)
        each_b = -torch.where(target_bN > 0, target_bN * logits_bN.log_softmax(1), 0).sum(1)
        return torch.where(block.row_weights_b > 0, each_b * block.row_weights_b, 0).sum()


def _turned(pairs: Pairs, block: Block, group: ProcessGroup | None) -> Block:
    """Return the block of texts against images, where a text's keys are not those of its image."""
    turned = replace(pairs, positive_BK=pairs.text_positive_BK, text_positive_BK=pairs.positive_BK)
    rank, ranks = rank_and_size(group)
    return make_block(gather_pairs(turned, group), len(block.col_weights_N), rank, ranks, block.own_b.device)
