"""The sigmoid loss of SigLIP: every pair is a question of its own, so no sum over the batch is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from medclip.objectives.block import Block, FeatureGradients, check_features, make_block, scalar, walked
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import gather, gather_pairs, rank_and_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def siglip_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    pairs: Pairs | None = None,
    *,
    group: ProcessGroup | None = None,
    chunk: int = 1024,
) -> Tensor:
    """Return the sum over all pairs of -log sigmoid(y * (scale * cosine + bias)), divided by B (not by B squared).

    y is 1 for positives and -1 for all other pairs; ignored pairs and samples that are not valid add nothing. With
    weights, a pair counts with the mean of its two samples' weights, and B becomes their sum.

    Args:
        image_BD: [B, D] unit-norm image features; any float dtype, computed in float32.
        text_BD: [B, D] unit-norm text features; row i belongs to image i.
        logit_scale: exp of the learned log-scale; the paper begins with 10.
        logit_bias: The paper begins with -10, because nearly all pairs are negatives.
        pairs: Pairs, as in `clip_loss`.
        group: Ranks, as in `clip_loss`. Only texts are sent to other ranks.
        chunk: Rows at a time. Memory is O(B x chunk); the result does not depend on it.

    Returns:
        Scalar float32.

    Raises:
        MedclipError: WRONG_USE for features or pairs of different sizes, or a chunk of no rows.

    Reference: Zhai et al., Sigmoid loss for language image pre-training, ICCV 2023.

    Example:
        >>> round(float(siglip_loss(torch.eye(2), torch.eye(2), 10.0, -10.0)), 6)
        0.693193
    """
    check_features(image_BD, text_BD)
    rank, ranks = rank_and_size(group)
    return sigmoid_block(
        image_BD.float(),
        gather(text_BD.float(), group),
        scalar(logit_scale, image_BD.device),
        scalar(logit_bias, image_BD.device),
        make_block(gather_pairs(pairs, group), ranks * len(image_BD), rank, ranks, image_BD.device),
        chunk=chunk,
    )


def sigmoid_block(
    rows_bD: Tensor,
    cols_ND: Tensor,
    scale: Tensor,
    bias: Tensor,
    block: Block,
    *,
    chunk: int = 1024,
) -> Tensor:
    """Return one rank's part of the sigmoid loss: its rows against the columns of all ranks.

    Args:
        rows_bD: float32 [b, D], this rank's rows.
        cols_ND: float32 [N, D], the columns of all ranks.
        scale: float32 scalar.
        bias: float32 scalar.
        block: Kind and weight of each pair.
        chunk: Rows at a time.

    Returns:
        Scalar float32, whose mean over ranks is the loss of the whole batch.
    """
    rows, cols = block.take_rows(rows_bD), block.take_cols(cols_ND)
    rows_bD, cols_ND, s, b = rows.detach(), cols.detach(), scale.detach(), bias.detach()

    def walk(needs: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
        grads = FeatureGradients(rows_bD, cols_ND, needs)
        value, of_bias = torch.zeros_like(b), torch.zeros_like(b)
        for part in block.parts(chunk):
            logits_cN = (rows_bD[part] @ cols_ND.T).mul_(s).add_(b)
            positive_cN = block.positive(part)
            left_out_cN = block.left_out(part, positive_cN)
            weights_cN = block.pair_weights(part)
            if left_out_cN is not None:
                weights_cN = weights_cN * ~left_out_cN
            own_c1 = block.own_b[part, None]
            # softplus(z) is the loss of a negative; that of a positive is softplus(-z) = softplus(z) - z
            losses_cN = _less_at_positives(F.softplus(logits_cN), logits_cN, positive_cN, own_c1)
            value += losses_cN.mul_(weights_cN).sum()
            if any(needs):
                one_cN = weights_cN.new_ones(()).expand_as(logits_cN)
                grad_cN = _less_at_positives(logits_cN.sigmoid_(), one_cN, positive_cN, own_c1).mul_(weights_cN)
                of_bias += grad_cN.sum()
                grads.add(part, grad_cN)
        return value, [*grads.result(s), of_bias]

    return walked(walk, rows, cols, scale, bias)


def _less_at_positives(table_cN: Tensor, amounts_cN: Tensor, positive_cN: Tensor | None, own_c1: Tensor) -> Tensor:
    """Subtract, in place, at the positives of each row (its own column where no others are known)."""
    if positive_cN is None:
        return table_cN.scatter_add_(1, own_c1, -amounts_cN.gather(1, own_c1))
    return table_cN.sub_(torch.where(positive_cN, amounts_cN, 0))
