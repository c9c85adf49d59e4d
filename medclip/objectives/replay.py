"""VR-LwF: what an old model said of images in random words, the new one is to say as well, so that it forgets less.

No images of before are needed: the images are those of the task that is learned, and the words are chance.

No code of the authors exists. The two re-implementations that there are disagree on whose distribution is the target:
the old model's (ZSCL's code, taken here) or the new one's (WildCLIP's).

Reference: Ding et al., Don't stop learning: towards continual learning for the CLIP model, 2022 (arXiv 2207.09248).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medclip.objectives.ranks import gather, gather_values, rank_and_size, sum_values

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def distillation(target_NV: Tensor, logits_NV: Tensor, temperature: float = 2.0) -> Tensor:
    """Return D = -T^2 sum_j softmax(target/T)_j log softmax(logits/T)_j of each row.

    D never reaches 0: its floor is T^2 times the entropy of the target. `divergence` is what lies above it.

    Args:
        target_NV: float [N, V] logits that are to be kept.
        logits_NV: float [N, V] logits that change.
        temperature: Temperature T of both distributions.

    Returns:
        float [N].

    Example:
        >>> round(distillation(torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2)).item(), 4)
        2.7726
    """
    known_NV = (target_NV / temperature).softmax(dim=-1)
    return -(temperature**2) * (known_NV * (logits_NV / temperature).log_softmax(dim=-1)).sum(dim=-1)


def divergence(target_NV: Tensor, logits_NV: Tensor, temperature: float = 2.0) -> Tensor:
    """Return T^2 KL(softmax(target/T) || softmax(logits/T)) of each row: `distillation` above its floor, [N].

    It is 0 where nothing has changed, and has the gradient of `distillation` with respect to the logits.
    """
    return distillation(target_NV, logits_NV, temperature) - distillation(target_NV, target_NV, temperature)


def replay_loss(
    new_BD: Tensor,
    old_BD: Tensor,
    vocabulary_VD: Tensor,
    scale: float | Tensor,
    temperature: float = 2.0,
    *,
    symmetric: bool = False,
    follow_new: bool = False,
    weights_B: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return how far the similarities of images to random sentences have moved, above the floor of the cross-entropy.

    Args:
        new_BD: float [B, D] unit-norm features of images by the model that learns; gradients flow here.
        old_BD: Features of the same images by the model before.
        vocabulary_VD: float [V, D] unit-norm features of the sentences by the model before.
        scale: Factor that cosines are multiplied with.
        temperature: Temperature of both distributions.
        symmetric: Whether the direction of the text is added: for each sentence a distribution over the images of the
            batch, of all ranks. It has no gradient where the batch is one image.
        follow_new: Whether the new model's distribution is the target and the old one's is measured by it, with
            gradients through the target, as WildCLIP does; then without a floor taken off, which would move too.
        weights_B: float [B]: how much each image counts, 0 for none; all the same where None.
        group: Ranks, as in `clip_loss`: the mean over ranks is the loss of the whole batch.

    Returns:
        Scalar float32: mean over images, plus with `symmetric` the mean over sentences.
    """
    weights = torch.ones(len(new_BD), device=new_BD.device) if weights_B is None else weights_B.float()
    new, old = (torch.where(weights[:, None] > 0, rows.float(), 0) for rows in (new_BD, old_BD.detach()))
    vocabulary = vocabulary_VD.detach().float()
    new_BV, old_BV = scale * new @ vocabulary.T, scale * old @ vocabulary.T
    moved_B = distillation(new_BV, old_BV, temperature) if follow_new else divergence(old_BV, new_BV, temperature)
    ranks = rank_and_size(group)[1]
    share = ranks / sum_values(weights.sum(), group).clamp_min(1e-30)
    loss = (moved_B * weights).sum() * share
    if not symmetric:
        return loss
    every_N = gather_values(weights, group) > 0
    lowest = torch.finfo(torch.float32).min
    new_VN, old_VN = (
        (scale * vocabulary @ rows.T).masked_fill(~every_N, lowest)
        for rows in (gather(new, group), gather_values(old, group))
    )
    moved_V = distillation(new_VN, old_VN, temperature) if follow_new else divergence(old_VN, new_VN, temperature)
    return loss + torch.where(every_N.any(), moved_V.mean(), 0)
