"""Masked image modelling beside the contrastive loss: a linear head that predicts the pixels of hidden patches.

The image tower sees the image with patches painted over and the head reads its last feature map, one location for each
patch, so it works with any tower, convolutional or not. (The form of SimMIM: Xie et al., CVPR 2022.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.objectives.masked import apply_patch_mask, patch_errors
from medclip.training.steps.frozen_prefix import FrozenPrefix


class MaskedPart(nn.Module):
    """Predicts hidden pixels from an image tower's last feature map. Trained and checkpointed, never exported.

    Args:
        clip: The dual encoder.
        size_px: Side of its images.
        normalise: Compare pixels after normalising each patch.
    """

    def __init__(self, clip: nn.Module, size_px: int, *, normalise: bool) -> None:
        super().__init__()
        device = next(clip.parameters()).device
        was_training = clip.training
        with torch.no_grad():
            shape = feature_map(clip.eval(), torch.zeros(1, 3, size_px, size_px, device=device)).shape
        clip.train(was_training)
        if len(shape) != 4 or shape[2] != shape[3] or size_px % shape[2]:
            raise MedclipError(
                Reason.RECIPE_INVALID,
                f"objective.masked: {size_px} px give a feature map of {list(shape[2:])}, no grid of whole patches.",
                hint="Choose a model.size_px that is a multiple of the tower's stride.",
            )
        self.side, self.patch_px, self._normalise = shape[2], size_px // shape[2], normalise
        self.head = nn.Linear(shape[1], self.patch_px**2 * 3, device=device)

    @property
    def num_patches(self) -> int:
        """Patches of an image, L."""
        return self.side**2

    def forward(self, clip: nn.Module, images_BCHW: Tensor, mask_BL: Tensor, prefix: FrozenPrefix | None) -> Tensor:
        """Return the error of the hidden pixels of each image, float32 [B]; 0 where none is hidden.

        Args:
            clip: The dual encoder.
            images_BCHW: Normalised images, whole.
            mask_BL: bool [B, L], True where hidden.
            prefix: Runs the frozen front of the tower.
        """
        hidden_BCHW = apply_patch_mask(images_BCHW, mask_BL, self.patch_px)
        map_BCHW = prefix.feature_map(clip, hidden_BCHW) if prefix is not None else feature_map(clip, hidden_BCHW)
        pixels_BLP = self.head(map_BCHW.flatten(2).transpose(1, 2)).float()
        error_BL = patch_errors(pixels_BLP, images_BCHW, self.patch_px, self._normalise)
        return torch.where(mask_BL, error_BL, 0).sum(1) / mask_BL.sum(1).clamp_min(1)


def feature_map(clip: nn.Module, images_BCHW: Tensor) -> Tensor:
    """Return the last feature map [B, C, h, w] of the image tower."""
    visual: Any = clip.visual
    trunk = getattr(visual, "trunk", None)
    if trunk is not None:  # timm
        features = trunk.forward_features(images_BCHW)
        if features.ndim == 4:
            return features
        tokens_BNC = features[:, trunk.num_prefix_tokens :]
        side = math.isqrt(tokens_BNC.shape[1])
        return tokens_BNC.transpose(1, 2).unflatten(2, (side, side))
    out = visual.forward_intermediates(images_BCHW, indices=1, intermediates_only=True, normalize_intermediates=True)
    return out["image_intermediates"][-1]
