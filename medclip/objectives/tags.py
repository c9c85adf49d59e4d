"""HQ-CLIP's classification of short tags, softmax form: the tags of an image share the mass among all words.

The binary form is `medclip.training.steps.supervised.supervised_loss` of a task with many answers.

Reference: Wei et al., HQ-CLIP: leveraging vision-language models to create high-quality image-text datasets, ICCV 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medclip.objectives.ranks import rank_and_size, sum_values

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def tag_softmax_loss(
    logits_BC: Tensor, stated_BC: Tensor, *, num_stating: Tensor | None = None, group: ProcessGroup | None = None
) -> Tensor:
    """Return the cross-entropy over all words, with the mass shared equally among the stated ones.

    Args:
        logits_BC: [B, C], computed in float32.
        stated_BC: bool [B, C]: which words are stated of each image. An image without any takes no part.
        num_stating: Number of images with any, of a batch of all ranks that these rows are a part of; counted over the
            ranks where None.
        group: Ranks, as in `clip_loss`: the mean over ranks is the loss of the whole batch.

    Returns:
        Scalar float32; 0 where nothing is stated, with gradients of 0.

    Example:
        >>> round(tag_softmax_loss(torch.zeros(1, 4), torch.tensor([[True, True, False, False]])).item(), 4)
        1.3863
    """
    takes_part_B = stated_BC.any(1)
    if num_stating is None:
        num_stating = sum_values(takes_part_B.sum().float(), group)
    shares_BC = stated_BC / stated_BC.sum(1, keepdim=True).clamp_min(1)
    log_BC = torch.where(takes_part_B[:, None], logits_BC.float(), 0).log_softmax(1)
    total = -torch.where(stated_BC, log_BC * shares_BC, 0).sum()
    return total * (rank_and_size(group)[1] / num_stating.clamp_min(1))
