"""The symmetric InfoNCE loss of CLIP, for one process or many, with any number of positives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from medclip.objectives.block import check_features, make_block
from medclip.objectives.chunked import scalar
from medclip.objectives.info_nce import symmetric_info_nce
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import gather, gather_pairs, rank_and_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def clip_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    logit_scale: Tensor | float,
    pairs: Pairs | None = None,
    *,
    group: ProcessGroup | None = None,
    chunk: int = 1024,
) -> Tensor:
    """Return the mean of the image-to-text and text-to-image cross-entropies over a batch.

    MERL adds the two directions up: twice this (`objective.contrastive: 2`).

    Args:
        image_BD: [B, D] unit-norm image features; any float dtype, computed in float32.
        text_BD: [B, D] unit-norm text features; row i belongs to image i.
        logit_scale: exp of the learned log-scale (multiplies the cosines).
        pairs: Pairs that are positives too, ignored or of no part, and their weights; each row's mass is shared equally
            among its positives. None: each image has its own text only.
        group: Ranks: the features are this rank's rows of a batch spread over these ranks, each with the same number of
            rows and the same fields of pairs. The mean over ranks of the results is the loss of the whole batch, and so
            are the gradients of parameters once they are averaged over ranks. None: one process.
        chunk: Rows at a time. Memory is O(B x chunk); the result does not depend on it.

    Returns:
        Scalar float32. Identical features give ln B; without negatives (B = 1), or without a valid sample, it is 0.

    Raises:
        MedclipError: WRONG_USE for features or pairs of different sizes, or a chunk of no rows.

    Reference: Radford et al., Learning transferable visual models from natural language supervision, 2021; shared mass:
    Khosla et al., Supervised contrastive learning, 2020 (the form with the sum outside the logarithm).

    Example:
        >>> import torch
        >>> eye = torch.eye(3)
        >>> round(float(clip_loss(eye, eye, 10.0)), 6)
        9.1e-05
    """
    check_features(image_BD, text_BD)
    rank, ranks = rank_and_size(group)
    block = make_block(gather_pairs(pairs, group), ranks * len(image_BD), rank, ranks, image_BD.device)
    return symmetric_info_nce(
        image_BD.float(),
        gather(text_BD.float(), group),
        scalar(logit_scale, image_BD.device),
        block,
        group=group,
        chunk=chunk,
        factor=0.5,
    )
