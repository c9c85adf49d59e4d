"""Images of any aspect ratio as patches with their places, in the form that towers of native aspect ratios take.

It is apart from those towers: timm's take a second of processor time to import, and few models have one.
"""

from __future__ import annotations

import torch
from torch import Tensor

Patches = dict[str, Tensor]
"""timm's NaFlex batch: `patches` float [B, N, p * p * 3], `patch_coord` int64 [B, N, 2] (row, column), `patch_valid`
bool [B, N]."""


def unpack_batch(packed_BMP: Tensor, mean: Tensor, std: Tensor) -> Patches:
    """Normalise images from `TokenBudget.pack` and put them into the form that the towers take.

    Args:
        packed_BMP: uint8 [B, 1 + N, p * p * 3]; zeros alone are an image of one black patch.
        mean: Mean of each channel, in units of [0, 1], in any shape.
        std: Standard deviation of each channel, in units of [0, 1], in any shape.
    """
    low_B2, high_B2 = packed_BMP[:, 0, 0:4:2].long(), packed_BMP[:, 0, 1:4:2].long()
    pixels_BNPC = packed_BMP[:, 1:].float().div_(255).unflatten(2, (-1, 3)).sub_(mean.flatten()).div_(std.flatten())
    return place_patches(pixels_BNPC.flatten(2), (low_B2 + 256 * high_B2).clamp_min(1))


def place_patches(patches_BNP: Tensor, grid_B2: Tensor) -> Patches:
    """Put normalised patches with their places into the form that the towers take.

    Args:
        patches_BNP: float [B, N, p * p * 3], row by row of each image, anything after its last patch.
        grid_B2: Whole numbers [B, 2], rows and columns of patches of each image.
    """
    num = patches_BNP.shape[1]
    place_N = torch.arange(num, device=grid_B2.device)
    rows_B1, columns_B1 = grid_B2[:, :1], grid_B2[:, 1:]
    valid_BN = place_N < rows_B1 * columns_B1
    coordinate_BN2 = torch.stack([place_N // columns_B1, place_N % columns_B1], dim=-1)
    return {
        "patches": patches_BNP,
        "patch_coord": torch.where(valid_BN[..., None], coordinate_BN2, 0),
        "patch_valid": valid_BN,
    }
