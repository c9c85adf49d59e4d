"""CLIP-IN's symmetric hard negatives: of two samples that differ by one edit, each image fits its own text alone.

The authors' code could not be had: the formula is that of two-way softmaxes with the partner, from images to texts and
from texts to images.

Reference: CLIP-IN: enhancing fine-grained visual understanding in CLIP via instruction editing data and long captions,
2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import softplus

from medclip.objectives.block import check_features, scalar
from medclip.objectives.pairs import positives
from medclip.objectives.ranks import gather, gather_values, rank_and_size, sum_values

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def edit_pair_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    pair_B1: Tensor,
    scale: Tensor | float,
    *,
    same_BK: Tensor | None = None,
    weights_B: Tensor | None = None,
    group: ProcessGroup | None = None,
    chunk: int = 1024,
) -> Tensor:
    """Return half the mean of softplus(logit with the partner - own logit), over texts and over images.

    Args:
        image_BD: [B, D] unit-norm image features.
        text_BD: [B, D] unit-norm features of the texts.
        pair_B1: int64 [B, 1]: key of the edit pair that a sample is half of; -1 where it is of none, or takes no part.
        scale: Factor of the cosines.
        same_BK: int64 [B, K] keys, -1 = no key: samples with an equal key in any column are no negatives of each other.
            So is a sample that stands twice, and so are partners whose texts are equal, or say the same labels.
        weights_B: float [B]: how much each sample counts, 0 for none; all the same where None.
        group: Ranks, as in `clip_loss`: partners may lie on different ranks, and the mean over ranks is the loss of the
            whole batch.
        chunk: Rows at a time that are searched for partners; the result does not depend on it.

    Returns:
        Scalar float32: the mean over samples of the mean over their partners; 0 where no sample has one.

    Example:
        >>> image, text = torch.eye(2), torch.eye(2)
        >>> round(edit_pair_loss(image, text, torch.zeros(2, 1, dtype=torch.int64), 1.0).item(), 6)
        0.313262
    """
    check_features(image_BD, text_BD)
    rank, ranks = rank_and_size(group)
    size, device = len(image_BD), image_BD.device
    weights_B = torch.ones(size, device=device) if weights_B is None else weights_B.float()
    same_BK = pair_B1.new_full((size, 0), -1) if same_BK is None else same_BK
    keys_NK = gather_values(torch.cat([pair_B1, same_BK], 1), group)
    image_ND, text_ND = gather(image_BD.float(), group), gather(text_BD.float(), group)
    first = rank * size
    edges = []
    for start in range(0, size, chunk):
        rows_cK = keys_NK[first + start : first + min(start + chunk, size)]
        partner_cN = positives(rows_cK[:, :1], keys_NK[:, :1]) & ~positives(rows_cK[:, 1:], keys_NK[:, 1:])
        numbers_c = torch.arange(len(rows_cK), device=device)
        partner_cN[numbers_c, first + start + numbers_c] = False
        partner_cN &= (weights_B[start : start + chunk] > 0)[:, None]
        edges.append(partner_cN.nonzero() + torch.tensor([start, 0], device=device))
    row_E, partner_E = torch.cat(edges).unbind(1)
    own_E = row_E + first
    factor = scalar(scale, device)

    def excess(image_E: Tensor, text_E: Tensor) -> Tensor:
        return factor * ((image_ND[image_E] * text_ND[text_E]).sum(1) - (image_ND[own_E] * text_ND[own_E]).sum(1))

    each_E = (softplus(excess(own_E, partner_E)) + softplus(excess(partner_E, own_E))) / 2
    num_partners_B = torch.bincount(row_E, minlength=size)
    total = sum_values((weights_B * (num_partners_B > 0)).sum(), group)
    return (each_E * (weights_B / num_partners_B.clamp_min(1))[row_E]).sum() * (ranks / total.clamp_min(1e-30))
