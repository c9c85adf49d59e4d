"""Masked image modelling: which patches are hidden, what is put there, and the loss of guessing their pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.objectives.ranks import rank_and_size, sum_values

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def num_kept(num_patches: int, ratio: float) -> int:
    """Return how many patches of L stay visible: L * (1 - ratio), rounded down.

    Raises:
        MedclipError: WRONG_USE for a ratio outside [0, 1) or one that leaves no patch to see.

    Example:
        >>> num_kept(196, 0.9), num_kept(196, 0.75)
        (19, 49)
    """
    kept = int(num_patches * (1 - ratio)) if 0 <= ratio < 1 else 0
    if kept < 1:
        raise MedclipError(
            Reason.WRONG_USE,
            f"a mask ratio of {ratio} leaves none of {num_patches} patches to see.",
            hint="Choose a ratio of at least 0 that leaves one patch or more.",
        )
    return kept


def draw_patch_mask(
    batch: int, num_patches: int, ratio: float, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw which patches to hide, the same number in every image.

    Args:
        batch: Number of images B.
        num_patches: Patches of an image L, in row-major order.
        ratio: Share of hidden patches; 0.9 for chest films (Xiao et al., 2023), 0.75 for photographs.
        generator: Where the draws come from; its device decides the draws, not `device`.
        device: Where the mask is wanted.

    Returns:
        bool [B, L], True = hidden.

    Raises:
        MedclipError: WRONG_USE where no patch would stay visible.
    """
    noise_BL = torch.rand(batch, num_patches, generator=generator, device=generator.device)
    return mask_of_noise(noise_BL, ratio).to(device)


def mask_of_noise(noise_BL: Tensor, ratio: float) -> Tensor:
    """Hide the patches with the largest noise: float [B, L] to bool [B, L], True = hidden.

    Raises:
        MedclipError: WRONG_USE where no patch would stay visible.
    """
    rank_BL = noise_BL.argsort(dim=1).argsort(dim=1)
    return rank_BL >= num_kept(noise_BL.shape[1], ratio)


def patches_of(images_BCHW: Tensor, patch_px: int) -> Tensor:
    """Cut images into patches, as masked autoencoders order them.

    Args:
        images_BCHW: [B, C, H, W].
        patch_px: Side of a patch.

    Returns:
        [B, L, P]: patches row by row; in a patch the P = patch_px * patch_px * C values go row, column, channel, with
        the channel fastest.

    Raises:
        MedclipError: WRONG_USE where the sides are no multiples of patch_px.
    """
    B, C = images_BCHW.shape[:2]
    rows, cols = _grid(images_BCHW, patch_px)
    cut = images_BCHW.reshape(B, C, rows, patch_px, cols, patch_px)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(B, rows * cols, patch_px * patch_px * C)


def apply_patch_mask(images_BCHW: Tensor, mask_BL: Tensor, patch_px: int, fill: Tensor | float = 0.0) -> Tensor:
    """Put a value where patches are hidden, for towers that take whole images.

    Args:
        images_BCHW: [B, C, H, W]; not changed.
        mask_BL: bool [B, L], True = hidden.
        patch_px: Side of a patch.
        fill: A number, or a tensor that broadcasts to [B, C, H, W], such as a learned [C, 1, 1] (it gets gradients).

    Returns:
        [B, C, H, W].

    Raises:
        MedclipError: WRONG_USE where the mask has another number of patches.
    """
    rows, cols = _grid(images_BCHW, patch_px)
    _check_mask(mask_BL, len(images_BCHW), rows * cols)
    mask_B1HW = mask_BL.view(-1, 1, rows, cols).repeat_interleave(patch_px, 2).repeat_interleave(patch_px, 3)
    return torch.where(mask_B1HW, fill, images_BCHW)


def masked_pixel_loss(
    pred_BLP: Tensor,
    images_BCHW: Tensor,
    mask_BL: Tensor,
    patch_px: int,
    normalise: bool = False,
    *,
    weights_B: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return the mean squared error of the hidden patches; visible ones count nothing.

    Args:
        pred_BLP: [B, L, P] guessed pixels in the order of `patches_of`; any float dtype, computed in float32.
        images_BCHW: [B, C, H, W] what was hidden, normalised as for the tower.
        mask_BL: bool or float [B, L], True or 1 = hidden.
        patch_px: Side of a patch.
        normalise: Compare with patches of mean 0 and variance 1 (unbiased, plus 1e-6) instead of plain pixels.
        weights_B: float [B], >= 0; 0 for a sample that takes no part. None: all count the same.
        group: As in `clip_loss`: the mean over ranks is the loss of the whole batch.

    Returns:
        Scalar float32; 0 where nothing is hidden.

    Raises:
        MedclipError: WRONG_USE where shapes do not fit each other.

    Reference: He et al., Masked autoencoders are scalable vision learners, CVPR 2022.
    """
    _check_mask(mask_BL, len(images_BCHW), pred_BLP.shape[1])
    error_BL = patch_errors(pred_BLP, images_BCHW, patch_px, normalise)
    weights_BL = mask_BL.float() if weights_B is None else mask_BL * weights_B.float()[:, None]
    # where, not a product: a sample that takes no part may hold anything, also NaN
    total = torch.where(weights_BL > 0, error_BL * weights_BL, 0).sum()
    return total * rank_and_size(group)[1] / sum_values(weights_BL.sum(), group).clamp_min(1e-30)


def patch_errors(pred_BLP: Tensor, images_BCHW: Tensor, patch_px: int, normalise: bool = False) -> Tensor:
    """Return the mean squared error of each patch, float32 [B, L]; arguments as of `masked_pixel_loss`."""
    target_BLP = patches_of(images_BCHW.float(), patch_px)
    if pred_BLP.shape != target_BLP.shape:
        raise MedclipError(
            Reason.WRONG_USE, f"guessed patches are {list(pred_BLP.shape)}, images have {list(target_BLP.shape)}."
        )
    if normalise:
        variance_BL1, mean_BL1 = torch.var_mean(target_BLP, dim=-1, keepdim=True)
        target_BLP = (target_BLP - mean_BL1) / (variance_BL1 + 1e-6).sqrt()
    return (pred_BLP.float() - target_BLP).square().mean(-1)


def _grid(images_BCHW: Tensor, patch_px: int) -> tuple[int, int]:
    height, width = images_BCHW.shape[2:]
    if height % patch_px or width % patch_px:
        raise MedclipError(
            Reason.WRONG_USE, f"images of {height} x {width} pixels cannot be cut into patches of {patch_px}."
        )
    return height // patch_px, width // patch_px


def _check_mask(mask_BL: Tensor, batch: int, num_patches: int) -> None:
    if mask_BL.shape != (batch, num_patches):
        raise MedclipError(
            Reason.WRONG_USE, f"the mask is {list(mask_BL.shape)}, the images have {[batch, num_patches]} patches."
        )
