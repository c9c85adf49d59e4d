"""The loss of a lens: its features against those of frozen towers, of images and of texts.

Reference: Lei et al., ViT-Lens, CVPR 2024.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss


def anchored_loss(features_BD: Tensor, anchors: tuple[Tensor, ...], scale: Tensor | float) -> Tensor:
    """Return the sum over the anchors of the contrastive loss with each: four cross-entropies, halved, for two anchors.

    Args:
        features_BD: Of the lens, of unit norm.
        anchors: [B, D] of unit norm: images, texts, or either.
        scale: What cosines are multiplied with.

    Example:
        >>> one = torch.eye(2)
        >>> bool(anchored_loss(one, (one, one), 1.0) == 2 * anchored_loss(one, (one,), 1.0))
        True
    """
    truth_B = torch.arange(len(features_BD), device=features_BD.device)
    total = features_BD.new_zeros(())
    for anchor_BD in anchors:
        logits_BB = scale * anchor_BD @ features_BD.T
        total = total + (cross_entropy(logits_BB, truth_B) + cross_entropy(logits_BB.T, truth_B)) / 2
    return total


def token_distance(tokens_BND: Tensor, anchor_BND: Tensor, kind: Literal["mse", "cosine"]) -> Tensor:
    """Return how far tokens behind a lens are from those of an image: mean squared error, or the negative cosine."""
    if kind == "mse":
        return mse_loss(tokens_BND, anchor_BND)
    return -cosine_similarity(tokens_BND, anchor_BND, dim=-1).mean()
