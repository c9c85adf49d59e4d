"""HQ-CLIP's hard-negative identification: an image fits its own text better than one that is plausible and wrong.

The authors published no training code. Both readings of the loss are here: each sample by itself (pairwise), and the
false text as one more column of the image's own row.

Reference: Wei et al., HQ-CLIP: leveraging vision-language models to create high-quality image-text datasets, ICCV 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import softplus

from medclip.objectives.block import FeatureGradients, check_features, make_block, scalar, walked
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import gather, gather_pairs, rank_and_size, sum_values

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_LOWEST = torch.finfo(torch.float32).min


def pairwise_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    negative_BKD: Tensor,
    mask_BK: Tensor,
    scale: Tensor | float,
    *,
    weights_B: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return the mean of softplus(logit of the false text - logit of the true one).

    Args:
        image_BD: [B, D] unit-norm image features.
        text_BD: [B, D] unit-norm features of the true texts.
        negative_BKD: [B, K, D] unit-norm features of false texts, each of its own image alone.
        mask_BK: bool [B, K]: which false texts there are. A sample without any takes no part.
        scale: Factor of the cosines.
        weights_B: float [B]: how much each sample counts, 0 for none; all the same where None.
        group: Ranks, as in `clip_loss`: the mean over ranks is the loss of the whole batch.

    Returns:
        Scalar float32: the mean over samples of the mean over their false texts; 0 where no sample has one.

    Example:
        >>> image, text = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.75**0.5]])
        >>> negative = torch.tensor([[[0.4, 0.84**0.5]]])
        >>> round(pairwise_loss(image, text, negative, torch.ones(1, 1, dtype=torch.bool), 20.0).item(), 6)
        0.126928
    """
    check_features(image_BD, text_BD)
    weights_B = _weights(mask_BK, weights_B)
    takes_part = weights_B[:, None] > 0
    image, text = (torch.where(takes_part, rows.float(), 0) for rows in (image_BD, text_BD))
    negative = torch.where(mask_BK[:, :, None] & takes_part[:, :, None], negative_BKD.float(), 0)
    factor = scalar(scale, image.device)
    excess_BK = factor * ((negative * image[:, None]).sum(-1) - (text * image).sum(-1, keepdim=True))
    each_B = torch.where(mask_BK, softplus(excess_BK), 0).sum(1) / mask_BK.sum(1).clamp_min(1)
    ranks = rank_and_size(group)[1]
    return (each_B * weights_B).sum() * (ranks / sum_values(weights_B.sum(), group).clamp_min(1e-30))


def row_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    negative_BKD: Tensor,
    mask_BK: Tensor,
    scale: Tensor | float,
    pairs: Pairs | None = None,
    *,
    group: ProcessGroup | None = None,
    chunk: int = 1024,
) -> Tensor:
    """Return the cross-entropy of images over the texts of the batch and their own false ones.

    It is the image-to-text direction of `clip_loss` over the samples that have a false text, with the false texts of an
    image among its columns and in no other row.

    Args:
        image_BD: [B, D] unit-norm image features.
        text_BD: [B, D] unit-norm features of the true texts.
        negative_BKD: [B, K, D] unit-norm features of false texts.
        mask_BK: bool [B, K]: which false texts there are. A sample without any is a column and no row.
        scale: Factor of the cosines.
        pairs: Pairs, as in `clip_loss`.
        group: Ranks, as in `clip_loss`: the mean over ranks is the loss of the whole batch.
        chunk: Rows at a time. Memory is O(B x chunk); the result does not depend on it.

    Returns:
        Scalar float32, at least the image-to-text part of `clip_loss`, which it reaches as the false logits fall.
    """
    check_features(image_BD, text_BD)
    rank, ranks = rank_and_size(group)
    weighed = replace(pairs or Pairs(), weights_B=_weights(mask_BK, pairs.weights_B if pairs else None))
    block = make_block(gather_pairs(weighed, group), ranks * len(image_BD), rank, ranks, image_BD.device)
    rows, cols = block.take_rows(image_BD.float()), block.take_cols(gather(text_BD.float(), group))
    counts_BK = mask_BK & (block.row_weights_b[:, None] > 0)
    negative = torch.where(counts_BK[:, :, None], negative_BKD.float(), 0)
    factor = scalar(scale, image_BD.device)
    rows_bD, cols_ND, false_bKD, by = rows.detach(), cols.detach(), negative.detach(), factor.detach()

    def walk(needs: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
        value = by.new_zeros(())
        grads, of_false_bK = FeatureGradients(rows_bD, cols_ND, needs), by.new_zeros(mask_BK.shape)
        for part in block.parts(chunk):
            weights_c, own_c = block.row_weights_b[part], block.own_b[part]
            logits_cN, positive_cN = (rows_bD[part] @ cols_ND.T).mul_(by), block.positive(part)
            if (left_out_cN := block.left_out(part, positive_cN)) is not None:
                logits_cN.masked_fill_(left_out_cN, _LOWEST)
            if positive_cN is None:
                positive_cN = torch.zeros_like(logits_cN, dtype=torch.bool).scatter_(1, own_c[:, None], True)
            shares_cN = positive_cN / positive_cN.sum(1, keepdim=True).clamp_min(1)
            false_cK = (rows_bD[part, None] * false_bKD[part]).sum(-1) * by
            log_cM = torch.cat([logits_cN, false_cK.masked_fill(~counts_BK[part], _LOWEST)], 1).log_softmax(1)
            each_c = -(torch.where(positive_cN, log_cM[:, : len(cols_ND)], 0) * shares_cN).sum(1)
            value += torch.where(weights_c > 0, each_c * weights_c, 0).sum()
            if any(needs):
                grad_cM = log_cM.exp_().mul_(weights_c[:, None])
                of_false_bK[part] = grad_cM[:, len(cols_ND) :]
                grads.add(part, grad_cM[:, : len(cols_ND)].sub_(shares_cN.mul_(weights_c[:, None])))
        if not any(needs):
            return value, []
        of_rows, of_cols, of_scale = grads.result(by)
        if of_rows is not None:
            of_rows += by * (of_false_bK[:, :, None] * false_bKD).sum(1)
        if of_scale is not None:
            of_scale = of_scale + (of_false_bK[:, :, None] * false_bKD * rows_bD[:, None]).sum()
        of_false = by * of_false_bK[:, :, None] * rows_bD[:, None] if needs[3] else None
        return value, [of_rows, of_cols, of_scale, of_false]

    return walked(walk, rows, cols, factor, negative)


def _weights(mask_BK: Tensor, weights_B: Tensor | None) -> Tensor:
    """Return how much each sample counts that has a false text, 0 for the others."""
    has_B = mask_BK.any(1).float()
    return has_B if weights_B is None else weights_B.float() * has_B
