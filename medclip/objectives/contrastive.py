"""The symmetric InfoNCE loss of CLIP, with hard or soft targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def clip_loss(
    image_BD: Tensor, text_BD: Tensor, logit_scale: Tensor | float, targets_BB: Tensor | None = None
) -> Tensor:
    """Give the mean of the image-to-text and text-to-image cross-entropies over a batch.

    Args:
        image_BD: [B, D] unit-norm image features; any float dtype, computed in float32.
        text_BD: [B, D] unit-norm text features; row i belongs to image i.
        logit_scale: exp of the learned log-scale (multiplies the cosines).
        targets_BB: Probability of text j for image i, rows sum to 1 and the matrix is used for text to image with its
            columns normalised; None means the identity (one positive each).

    Returns:
        Scalar float32. Identical features give ln B; without negatives (B = 1) it is 0.

    Reference: Radford et al., Learning transferable visual models from natural language supervision, 2021.
    """
    logits_BB = logit_scale * image_BD.float() @ text_BD.float().T
    if targets_BB is None:
        labels_B = torch.arange(len(logits_BB), device=logits_BB.device)
        return (F.cross_entropy(logits_BB, labels_B) + F.cross_entropy(logits_BB.T, labels_B)) / 2
    to_text = targets_BB.float()
    to_image = to_text.T / to_text.sum(dim=0).unsqueeze(1).clamp_min(1e-12)
    return (F.cross_entropy(logits_BB, to_text) + F.cross_entropy(logits_BB.T, to_image)) / 2
