"""From feature maps to where a class is seen: Grad-CAM, Score-CAM and gScoreCAM, as plain functions.

References: Selvaraju et al., Grad-CAM, ICCV 2017; Wang et al., Score-CAM, CVPR workshops 2020; Chen et al., gScoreCAM:
What objects is CLIP looking at? ACCV 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Unselected = Literal["zero_score", "mask"]
_EPS = 1e-6


def gradient_weights(gradient_CHW: Tensor) -> Tensor:
    """Return Grad-CAM's weight of each channel, [C]: the mean of the score's gradient in it."""
    return gradient_CHW.mean(dim=(-2, -1))


def weighted_map(weights_C: Tensor, activation_CHW: Tensor) -> Tensor:
    """Return [h, w]: the weighted sum of channels, where positive."""
    return torch.einsum("c,chw->hw", weights_C, activation_CHW).clamp_min(0)


def score_weights(
    activation_CHW: Tensor,
    image_CHW: Tensor,
    score: Callable[[Tensor], Tensor],
    *,
    gradient_CHW: Tensor | None = None,
    num_channels: int | None = None,
    unselected: Unselected = "zero_score",
    batch_size: int = 16,
) -> Tensor:
    """Return Score-CAM's weight of each channel: a softmax over how the image scores where the channel is active.

    Args:
        activation_CHW: Feature maps.
        image_CHW: What the tower takes, normalised.
        score: Turns a batch of images [N, 3, H, W] into N scores.
        gradient_CHW: Of the score, in the feature maps; for gScoreCAM, which looks at the channels with the largest
            mean alone.
        num_channels: Their number; all where None.
        unselected: The other channels keep a score of 0 and with it a weight, as the published code has it, or "mask"
            leaves them out.
        batch_size: Images in one pass.

    Returns:
        [C]; the sum is 1.
    """
    channels = torch.arange(len(activation_CHW))
    if num_channels is not None and num_channels < len(channels):
        assert gradient_CHW is not None
        channels = gradient_weights(gradient_CHW).topk(num_channels).indices
    scores_C = torch.full((len(activation_CHW),), 0.0 if unselected == "zero_score" else float("-inf"))
    eps = _EPS if gradient_CHW is not None else 0.0
    for chosen in channels.split(batch_size):
        large = functional.interpolate(
            activation_CHW[chosen.to(activation_CHW.device)][:, None],
            size=image_CHW.shape[-2:], mode="bilinear", align_corners=True,
        )  # fmt: skip
        low, high = large.amin(dim=(2, 3), keepdim=True), large.amax(dim=(2, 3), keepdim=True)
        mask = torch.nan_to_num((large - low) / (high - low + eps))
        scores_C[chosen.cpu()] = score(image_CHW[None] * mask).detach().float().cpu()
    return scores_C.softmax(dim=0).to(activation_CHW.device)
