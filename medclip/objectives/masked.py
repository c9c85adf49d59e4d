"""Masked image modelling: which patches are hidden, what is put there, and the loss of guessing their pixels.

Of volumes and loops tubes are hidden from the encoder, and the decoder leaves out running cells. Reference: Wang et
al., VideoMAE V2: scaling video masked autoencoders with dual masking, CVPR 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

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
    batch: int,
    num_patches: int,
    ratio: float,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    foreground_BL: Tensor | None = None,
) -> Tensor:
    """Draw which patches to hide, the same number in every image.

    Args:
        batch: Number of images B.
        num_patches: Patches of an image L, in row-major order.
        ratio: Share of hidden patches; 0.9 for chest films (Xiao et al., 2023), 0.75 for photographs.
        generator: Source of the draws; its device decides the draws, not `device`.
        device: Device of the mask.
        foreground_BL: Foreground, as in `hide`, on the generator's device.

    Returns:
        bool [B, L], True = hidden.

    Raises:
        MedclipError: WRONG_USE where no patch would stay visible.
    """
    noise_BL = torch.rand(batch, num_patches, generator=generator, device=generator.device)
    return mask_of_noise(noise_BL, ratio, foreground_BL).to(device)


def mask_of_noise(noise_BL: Tensor, ratio: float, foreground_BL: Tensor | None = None) -> Tensor:
    """Hide the patches with the largest noise: float [B, L] to bool [B, L], True = hidden.

    Raises:
        MedclipError: WRONG_USE where no patch would stay visible.
    """
    return hide(noise_BL, num_kept(noise_BL.shape[1], ratio), foreground_BL)


def hide(noise_BL: Tensor, kept: int, foreground_BL: Tensor | None = None) -> Tensor:
    """Hide all but a number of patches, those with the largest noise.

    Args:
        noise_BL: float [B, L] in [0, 1).
        kept: Number of patches of each image that stay visible, K.
        foreground_BL: bool [B, L] from `foreground_of`; None treats all patches alike. With it the F patches of an
            image's foreground show exactly their share, F * K / L rounded down (one at least), and the background the
            rest. Without it chance decides, and an image that is mostly background may show next to nothing of its
            foreground, or nearly all.

    Returns:
        bool [B, L], True = hidden; L - K in every row.
    """
    if foreground_BL is None:
        return _ranks(noise_BL) >= kept
    size_B1 = foreground_BL.sum(1, keepdim=True)
    shown_B1 = torch.maximum(size_B1 * kept // noise_BL.shape[1], size_B1.clamp_max(1))
    front_BL = _ranks(noise_BL + ~foreground_BL) < shown_B1
    back_BL = _ranks(noise_BL + foreground_BL) < kept - shown_B1
    return ~torch.where(foreground_BL, front_BL, back_BL)


def foreground_of(images: Tensor, patch_px: int | Sequence[int], flat: float = 0.01) -> Tensor:
    """Find the patches that show something; bars, corners of an ultrasound sector and air in CT are empty.

    Args:
        images: Images, as `patches_of` takes them; any number type.
        patch_px: Side of a patch, or sides of a tube.
        flat: A patch is empty where no channel has a standard deviation above this share of the range of the type
            (255 of uint8, 1 of floats): 2.55 grey levels.

    Returns:
        bool [B, L], True = foreground.
    """
    scale = 1.0 if images.is_floating_point() else float(torch.iinfo(images.dtype).max)
    pixels_BLVC = patches_of(images, patch_px).float().unflatten(-1, (-1, images.shape[1]))
    return (pixels_BLVC.std(dim=-2, correction=0) > flat * scale).any(-1)


def _ranks(noise_BL: Tensor) -> Tensor:
    return noise_BL.argsort(dim=1).argsort(dim=1)


def patches_of(images: Tensor, patch_px: int | Sequence[int], index_BK: Tensor | None = None) -> Tensor:
    """Cut images into patches, or volumes and cine into tubes, as masked autoencoders order them.

    Args:
        images: [B, C, H, W], or [B, C, T, H, W].
        patch_px: Side of a patch, or (frames, rows, columns) of a tube.
        index_BK: int64 [B, K], which patches of each image are wanted; the others are not touched. None: all.

    Returns:
        [B, L or K, P]: patches row by row, tubes time by time; in a patch the P values go (frame,) row, column,
        channel, with the channel fastest.

    Raises:
        MedclipError: WRONG_USE where the sides are no multiples of the patch.
    """
    sides = _sides(images, patch_px)
    grid = grid_of(images, patch_px)
    cut = images.reshape(*images.shape[:2], *(n for pair in zip(grid, sides, strict=True) for n in pair))
    n = len(grid)
    cut = cut.permute(0, *range(2, 2 * n + 2, 2), *range(3, 2 * n + 2, 2), 1)  # no copy yet
    if index_BK is None:
        return cut.reshape(len(images), math.prod(grid), -1)
    rows_B1 = torch.arange(len(images), device=images.device)[:, None]
    return cut[(rows_B1, *torch.unravel_index(index_BK, grid))].flatten(2)


def grid_of(images: Tensor, patch_px: int | Sequence[int]) -> tuple[int, ...]:
    """Return how many patches (rows, columns) or tubes (time, rows, columns) images have; arguments as of `patches_of`.

    Raises:
        MedclipError: WRONG_USE where the sides are no multiples of the patch.
    """
    sides, sizes = _sides(images, patch_px), images.shape[2:]
    if any(size % side or not size for size, side in zip(sizes, sides, strict=True)):
        what = "images of {} pixels cannot be cut into patches of {}"
        if len(sides) == 3:
            what = "volumes or clips of {} (slices or frames, rows, columns) cannot be cut into tubes of {}"
        raise MedclipError(
            Reason.WRONG_USE,
            what.format(sides_in_words(sizes), patch_px if isinstance(patch_px, int) else sides_in_words(sides)) + ".",
            hint="Choose a size of which every side is a multiple of the patch's.",
        )
    return tuple(size // side for size, side in zip(sizes, sides, strict=True))


def apply_patch_mask(images_BCHW: Tensor, mask_BL: Tensor, patch_px: int, fill: Tensor | float = 0.0) -> Tensor:
    """Fill hidden patches with a value, for towers that take whole images.

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
    rows, cols = grid_of(images_BCHW, patch_px)
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
        normalise: Whether to compare with patches of mean 0 and variance 1 (unbiased, plus 1e-6) instead of plain
            pixels.
        weights_B: float [B], >= 0; 0 for a sample that takes no part. None: all count the same.
        group: Ranks, as in `clip_loss`: the mean over ranks is the loss of the whole batch.

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


def sides_in_words(sizes: Sequence[int]) -> str:
    """Write the sides of a grid: "8 x 14 x 14"."""
    return " x ".join(map(str, sizes))


def patch_errors(
    pred_BKP: Tensor,
    images: Tensor,
    patch_px: int | Sequence[int],
    normalise: bool = False,
    index_BK: Tensor | None = None,
) -> Tensor:
    """Return the mean squared error of each patch, float32 [B, K].

    Args:
        pred_BKP: Guessed pixels of all patches, or of those that index_BK names.
        images: Images, as `patches_of` takes them.
        patch_px: Side of a patch, or sides of a tube.
        normalise: Whether patches are normalised, as in `masked_pixel_loss`.
        index_BK: Numbers of the patches, int64 [B, K], as in `patches_of`.

    Raises:
        MedclipError: WRONG_USE where shapes do not fit each other.
    """
    target_BKP = patches_of(images.float(), patch_px, index_BK)
    if pred_BKP.shape != target_BKP.shape:
        raise MedclipError(
            Reason.WRONG_USE, f"guessed patches are {list(pred_BKP.shape)}, images have {list(target_BKP.shape)}."
        )
    if normalise:
        variance_BK1, mean_BK1 = torch.var_mean(target_BKP, dim=-1, keepdim=True)
        target_BKP = (target_BKP - mean_BK1) * (variance_BK1 + 1e-6).rsqrt()
    return mse_loss(pred_BKP.float(), target_BKP, reduction="none").mean(-1)


def _sides(images: Tensor, patch_px: int | Sequence[int]) -> tuple[int, ...]:
    return (patch_px,) * (images.ndim - 2) if isinstance(patch_px, int) else tuple(patch_px)


def _check_mask(mask_BL: Tensor, batch: int, num_patches: int) -> None:
    if mask_BL.shape != (batch, num_patches):
        raise MedclipError(
            Reason.WRONG_USE, f"the mask is {list(mask_BL.shape)}, the images have {[batch, num_patches]} patches."
        )


CELL_RATIOS = (0.25, 0.5, 0.75)
"""Shares that the four places of a running cell can leave out."""
TUBE_FLOOR = 0.01
"""Under the deviation that tubes are divided by, so that noise in a dark background does not become the target."""


def draw_tube_mask(
    batch: int,
    grid: tuple[int, int, int],
    ratio: float,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    foreground_BN: Tensor | None = None,
) -> Tensor:
    """Draw which tubes to hide from the encoder: the same places at all times.

    Args:
        batch: Number of clips or volumes B.
        grid: (time, rows, columns) of tubes.
        ratio: Share of hidden places, rounded down; 0.9 for cine, 0.75 to 0.85 for volumes.
        generator: Source of the draws; its device decides the draws, not `device`.
        device: Device of the mask.
        foreground_BN: bool [B, N] from `foreground_of`, used as in `hide`: no clip shows places alone at which nothing
            is to be seen at any time.

    Returns:
        bool [B, N], True = hidden; N = time x rows x columns, time slowest.

    Raises:
        MedclipError: WRONG_USE for a ratio outside [0, 1) or one that leaves no place to see.
    """
    times, rows, cols = grid
    places = rows * cols
    noise_BS = torch.rand(batch, places, generator=generator, device=generator.device)
    foreground_BS = None if foreground_BN is None else foreground_BN.view(batch, times, places).any(1)
    return hide(noise_BS, places - num_hidden_places(places, ratio), foreground_BS).repeat(1, times).to(device)


def num_hidden_places(places: int, ratio: float) -> int:
    """Return how many of a frame's places are hidden: places * ratio, rounded down.

    Raises:
        MedclipError: WRONG_USE for a ratio outside [0, 1) or one that leaves no place to see.

    Example:
        >>> num_hidden_places(196, 0.9)
        176
    """
    hidden = int(places * ratio) if 0 <= ratio < 1 else places
    if hidden >= places:
        raise MedclipError(
            Reason.WRONG_USE,
            f"a mask ratio of {ratio} leaves none of {places} places of a frame to see.",
            hint="Choose a ratio of at least 0 that leaves one place or more.",
        )
    return hidden


def running_cell_mask(grid: tuple[int, int, int], ratio: float, start: int) -> Tensor:
    """Return which tubes the decoder leaves out: cells of 2 x 2 places in which the left-out ones move on in time.

    Args:
        grid: (time, rows, columns) of tubes; rows and columns are even.
        ratio: Share that is left out: 0.25, 0.5 or 0.75.
        start: 0 to 3, where the cells begin.

    Returns:
        bool [N], True = NOT decoded, as upstream has it.

    Raises:
        MedclipError: WRONG_USE for odd rows or columns, or another ratio.

    Example:
        >>> running_cell_mask((1, 2, 2), 0.5, start=0).int().tolist()
        [1, 0, 0, 1]
    """
    times, rows, cols = grid
    if rows % 2 or cols % 2:
        raise MedclipError(
            Reason.WRONG_USE,
            f"running cells take two rows and two columns of tubes each; there are {rows} rows and {cols} columns.",
            hint="Choose a size of an even number of patches, or decode all that is hidden (no decode ratio).",
        )
    if ratio not in CELL_RATIOS:
        raise MedclipError(
            Reason.WRONG_USE,
            f"running cells of four places cannot leave out {ratio} of the tubes.",
            hint=f"Choose {', '.join(map(str, CELL_RATIOS[:-1]))} or {CELL_RATIOS[-1]}.",
        )
    queue_Q = torch.arange(4) < int(4 * ratio)
    place_T4 = (torch.arange(4) + torch.arange(times)[:, None] + start + 1) % 4
    return queue_Q[place_T4].view(times, 2, 2).repeat(1, rows // 2, cols // 2).flatten()


def draw_decoded(
    batch: int, grid: tuple[int, int, int], ratio: float, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw which tubes are decoded: of each clip, running cells with a start of its own.

    Args:
        batch: Number of clips or volumes B.
        grid: (time, rows, columns) of tubes; rows and columns are even.
        ratio: Share that is left out: 0.25, 0.5 or 0.75.
        generator: Source of the draws.
        device: Device of the mask.

    Returns:
        bool [B, N], True = decoded (the opposite of `running_cell_mask`), equally many in each clip.

    Raises:
        MedclipError: WRONG_USE for odd rows or columns, or another ratio.
    """
    starts_B = torch.randint(4, (batch,), generator=generator, device=generator.device).cpu()
    cells_4N = torch.stack([running_cell_mask(grid, ratio, start) for start in range(4)])
    return ~cells_4N[starts_B].to(device)


def normalise_tubes(
    target_BKP: Tensor, pixel_std_C: Tensor, *, floor: float = TUBE_FLOOR, flat: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Normalise tubes, each channel by itself: (x - mean) / (unbiased standard deviation + floor).

    Args:
        target_BKP: [B, K, P] pixels as of `patches_of`, the channel fastest.
        pixel_std_C: [C] standard deviations that the pixels were divided by; floors are in units of [0, 1]. Ones for
            pixels in [0, 1].
        floor: Floor of the deviation; upstream has 1e-6.
        flat: A tube of which no channel has this deviation is flat.

    Returns:
        float32 [B, K, P], and bool [B, K], False where a tube is flat: there is nothing to guess in it.
    """
    pixels_BKVC = target_BKP.float().unflatten(-1, (-1, len(pixel_std_C)))
    variance_BK1C, mean_BK1C = torch.var_mean(pixels_BKVC, dim=-2, keepdim=True)
    std_BK1C = variance_BK1C.sqrt() * pixel_std_C
    normalised_BKVC = (pixels_BKVC - mean_BK1C) * (pixel_std_C / (std_BK1C + floor))
    return normalised_BKVC.flatten(-2), (std_BK1C >= flat).any(-1)[..., 0]
