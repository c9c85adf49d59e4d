"""From feature maps to where a class is seen: Grad-CAM, Score-CAM and gScoreCAM, as plain functions.

References: Selvaraju et al., Grad-CAM, ICCV 2017; Wang et al., Score-CAM, CVPR workshops 2020; Chen et al., gScoreCAM:
What objects is CLIP looking at? ACCV 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medclip.explaining.maps import Work, WorkMaps

_CHANNELS = 300
"""gScoreCAM's k."""
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
        image_CHW: Input of the tower, normalised.
        score: Function that turns a batch of images [N, 3, H, W] into N scores.
        gradient_CHW: Gradient of the score in the feature maps; for gScoreCAM, which looks at the channels with the
            largest mean alone.
        num_channels: Number of channels looked at; all where None.
        unselected: Rule for the other channels: "zero_score" keeps a score of 0 and with it a weight, as the published
            code has it; "mask" leaves them out.
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
            size=image_CHW.shape[-2:],
            mode="bilinear",
            align_corners=True,
        )
        low, high = large.amin(dim=(2, 3), keepdim=True), large.amax(dim=(2, 3), keepdim=True)
        mask = torch.nan_to_num((large - low) / (high - low + eps))
        scores_C[chosen.cpu()] = score(image_CHW[None] * mask).detach().float().cpu()
    return scores_C.softmax(dim=0).to(activation_CHW.device)


def grad_cam_maps(work: Work) -> WorkMaps:
    """Map images by Grad-CAM: of a convolutional tower captum's, of a transformer that of its patches."""
    traced = work.traced
    if traced.is_transformer:
        activation_BCHW, gradient_BCHW, layer = work.activation()
        pairs = zip(activation_BCHW.detach(), gradient_BCHW, strict=True)
        return [_array(weighted_map(gradient_weights(gradient), one)) for one, gradient in pairs], layer
    maps_BCHW = traced.maps_BCHW
    assert maps_BCHW is not None
    if not work.gradients([maps_BCHW])[0].any():  # captum raises where nothing hangs on the layer
        return list(np.zeros((len(maps_BCHW), *maps_BCHW.shape[2:]), np.float32)), traced.layer
    module = work.tower.get_submodule(traced.layer)
    values = LayerGradCam(work.scores, module).attribute(work.batch, relu_attributions=True)
    assert isinstance(values, Tensor)
    return list(_array(values[:, 0].detach())), traced.layer


def score_cam_maps(work: Work) -> WorkMaps:
    """Map images by Score-CAM."""
    return _scored_maps(work, None)


def gscore_cam_maps(work: Work) -> WorkMaps:
    """Map images by gScoreCAM."""
    return _scored_maps(work, _CHANNELS)


def _scored_maps(work: Work, most_channels: int | None) -> WorkMaps:
    activation_BCHW, gradient_BCHW, layer = work.activation()
    maps = []
    for number, (activation, gradient) in enumerate(zip(activation_BCHW.detach(), gradient_BCHW, strict=True)):
        weights = score_weights(
            activation,
            work.batch[number].detach(),
            lambda images, number=number: work.score_of(images, number),
            gradient_CHW=None if most_channels is None else gradient,
            num_channels=None if most_channels is None else min(most_channels, len(activation)),
        )
        maps.append(_array(weighted_map(weights, activation)))
    return maps, layer


def _array(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()
