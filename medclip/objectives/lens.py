"""The losses of a lens: its features against those of frozen towers, of images and of texts, and its tokens.

Reference: Lei et al., ViT-Lens, CVPR 2024.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor
from torch.nn.functional import cosine_similarity

from medclip.objectives.contrastive import clip_loss
from medclip.objectives.pairs import Pairs

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def anchored_loss(
    features_BD: Tensor,
    anchors: tuple[Tensor, ...],
    scale: Tensor | float,
    pairs: Pairs | None = None,
    *,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return the sum over the anchors of `clip_loss`: four cross-entropies, halved, for images and texts.

    Args:
        features_BD: Features of the lens, of unit norm.
        anchors: [B, D] of unit norm: texts, images, or either.
        scale: Factor that cosines are multiplied with.
        pairs: Pairs, as `clip_loss` takes them.
        group: Ranks, as `clip_loss` takes them.

    Example:
        >>> import torch
        >>> one = torch.eye(2)
        >>> bool(anchored_loss(one, (one, one), 1.0) == 2 * anchored_loss(one, (one,), 1.0))
        True
    """
    return sum(
        (clip_loss(features_BD, anchor_BD, scale, pairs, group=group) for anchor_BD in anchors),
        features_BD.new_zeros(()),
    )


def token_distances(tokens_BLD: Tensor, wanted_BLD: Tensor, form: Literal["mse", "cosine"] = "mse") -> Tensor:
    """Compare the tokens that a tower makes behind a lens with those that it makes of an image.

    Args:
        tokens_BLD: Tokens behind the lens, class token and all.
        wanted_BLD: Tokens of the frozen tower, as many; no gradients flow there.
        form: "mse", the mean square of the differences; or "cosine", the negative mean cosine of the tokens.

    Returns:
        float32 [B]; the published loss is the mean.
    """
    tokens, wanted = tokens_BLD.float(), wanted_BLD.detach().float()
    if form == "mse":
        return (tokens - wanted).square().mean(dim=(1, 2))
    return -cosine_similarity(tokens, wanted, dim=2).mean(dim=1)
