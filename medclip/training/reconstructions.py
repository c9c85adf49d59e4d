"""What a masked autoencoder makes of a few held-out images: the original, what it saw of it, and its guess.

These are images of patients. They are values in memory for the report of the run, and nothing here writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medclip.models.inputs.normalise import normalise_with
from medclip.models.inputs.preprocess import Preprocess
from medclip.objectives.masked import TUBE_FLOOR, normalise_tubes, patches_of
from medclip.shards.reading.mapped_rows import Columns
from medclip.training.batches.loader import Batches
from medclip.training.steps.masked_pixels import MaskedPart

NUM_SHOWN = 8
_STREAM = 17
"""Chance of what is shown: no other draw of a run depends on it."""
_TRACE_PX, _TRACE_WIDTH_PX, _TRACE_UNITS = 20, 256, 6.0
"""Of a drawn lead: its height, its greatest width, and what the height stands for."""
_HIDDEN = 0.5
"""Grey, of [0, 1], that stands where a patch is hidden."""


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """One held-out image; of a volume or loop its middle slice or frame, of an ECG its leads as they are drawn."""

    original_HWC: NDArray[np.uint8]
    """As the model takes it, with three channels."""
    visible_HWC: NDArray[np.uint8]
    """The same with hidden patches grey."""
    filled_HWC: NDArray[np.uint8]
    """The same with the model's guess in hidden patches."""
    modality: str
    """Name of its modality, "" where it is not known."""
    hidden_share: float
    """Of its patches."""
    error: float
    """Mean squared error of the hidden patches, in the unit of the loss."""
    naive_error: float
    """The same of a guess without a model: the mean of the visible pixels of each channel; of targets that are
    normalised for each patch, nothing but its mean."""


@torch.no_grad()
def fill_in(
    model: nn.Module, part: MaskedPart, batches: Batches, preprocess: Preprocess, seed: int, limit: int
) -> list[Reconstruction]:
    """Have a trained model fill in a few images of the validation split; those that cannot be read are left out.

    Args:
        model: The trained model, on the CPU.
        part: Part that was trained with it to guess hidden pixels, on the CPU.
        batches: Batches of the validation split.
        preprocess: The model's treatment of images.
        seed: Seed of the run.
        limit: Samples of the split that validation uses, from the front.
    """
    model.eval()
    part.eval()
    columns = batches.reader.columns
    samples = choose_samples(columns, seed, limit)
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    results: list[Reconstruction] = []
    start = 0
    for batch in batches.chosen(samples):
        valid_rows = [row for row, is_valid in enumerate(batch.valid) if is_valid]
        if valid_rows:
            pixels = torch.from_numpy(batch.images[valid_rows])
            images = normalise_with(preprocess, pixels, mean, std)
            mask_BL = _masks(part, len(samples), [start + row for row in valid_rows], part.foreground(pixels), seed)
            names = [columns.modalities[columns.modality_N[samples[start + row]]] for row in valid_rows]
            results += reconstruct(
                images,
                mask_BL,
                partial(part.guess, model),
                part.patch,
                mean=mean,
                std=std,
                normalised=part.normalise,
                modalities=names,
            )
        start += len(batch.valid)
        batch.release()
    return results


def _masks(part: MaskedPart, size: int, rows: list[int], foreground_BL: Tensor | None, seed: int) -> Tensor:
    """Draw what is hidden of some of the samples as in training; which others can be read changes nothing."""
    every = None
    if foreground_BL is not None:
        every = torch.ones(size, part.num_patches, dtype=torch.bool).index_copy(0, torch.tensor(rows), foreground_BL)
    return part.draw(size, torch.Generator().manual_seed(seed), every)[0][rows]


def choose_samples(columns: Columns, seed: int, limit: int, most: int = NUM_SHOWN) -> list[int]:
    """Choose samples of a split by chance, modalities in turn.

    Args:
        columns: Columns of the split.
        seed: Seed of the run; the same one chooses the same samples.
        limit: Number of samples, from the front, to choose among.
        most: Highest number of samples.

    Returns:
        Numbers of samples, sorted by modality.
    """
    order = np.random.default_rng((seed, _STREAM)).permutation(min(limit, len(columns)))
    turns: dict[int, int] = {}
    ranked = []
    for sample in order.tolist():
        modality = int(columns.modality_N[sample])
        turns[modality] = turns.get(modality, 0) + 1
        ranked.append((turns[modality], sample))
    chosen = [sample for _, sample in sorted(ranked, key=lambda pair: pair[0])[:most]]
    return sorted(chosen, key=lambda sample: int(columns.modality_N[sample]))


@torch.no_grad()
def reconstruct(
    images: Tensor,
    mask_BL: Tensor,
    guess: Callable[[Tensor, Tensor], Tensor],
    patch: Sequence[int],
    *,
    mean: Tensor,
    std: Tensor,
    normalised: bool,
    modalities: Sequence[str],
) -> list[Reconstruction]:
    """Fill in the hidden patches of images.

    Args:
        images: Normalised images [B, C, H, W] or [B, C, T, H, W], C 1 or 3; ECGs [B, 1, 12, T].
        mask_BL: bool [B, L], True = hidden, at least one in each image.
        guess: Function of images and mask that returns what the model makes of every patch, [B, L, P] in the order of
            `patches_of`.
        patch: Sides of a patch (rows, columns) or a tube (frames, rows, columns).
        mean: Mean per channel, in units of [0, 1].
        std: Standard deviation per channel, in units of [0, 1].
        normalised: Whether guesses are of patches of mean 0 and variance 1. They are then shown with the mean and the
            deviation of the hidden patch itself, which the model does not know.
        modalities: Modality of each image.

    Returns:
        One for each image.
    """
    channels, std_C = images.shape[1], _of_channels(std, images)
    target_BLP = patches_of(images.float(), patch)
    guessed_BLP = guess(images, mask_BL).float()
    wanted_BLP, naive_BLP, counted_BL = _compared(target_BLP, mask_BL, std_C, normalised, is_tube=len(patch) == 3)
    shown_BLP = guessed_BLP
    if normalised:
        centre_BLP, width_BLP = _centre_and_width(target_BLP, std_C, is_tube=len(patch) == 3)
        shown_BLP = guessed_BLP * width_BLP + centre_BLP
    errors = [_error(rival_BLP, wanted_BLP, counted_BL) for rival_BLP in (guessed_BLP, naive_BLP)]
    grey_P = (
        ((_HIDDEN - mean.flatten()) / std.flatten())[:channels].to(target_BLP).repeat(target_BLP.shape[2] // channels)
    )
    hidden_BL1 = mask_BL[:, :, None]
    images_of_parts = [
        _pixels(images_of(patches_BLP, images.shape, patch), mean, std)
        for patches_BLP in (
            target_BLP,
            torch.where(hidden_BL1, grey_P, target_BLP),
            torch.where(hidden_BL1, shown_BLP, target_BLP),
        )
    ]
    shares = mask_BL.float().mean(1).tolist()
    return [Reconstruction(*values) for values in zip(*images_of_parts, modalities, shares, *errors, strict=True)]


def naive_errors(
    images: Tensor, mask_BL: Tensor, patch: Sequence[int], *, std: Tensor, normalised: bool
) -> list[float]:
    """Return the error of a guess without a model of each image, as `Reconstruction.naive_error`.

    Arguments are those of `reconstruct`.
    """
    target_BLP = patches_of(images.float(), patch)
    wanted_BLP, naive_BLP, counted_BL = _compared(
        target_BLP, mask_BL, _of_channels(std, images), normalised, is_tube=len(patch) == 3
    )
    return _error(naive_BLP, wanted_BLP, counted_BL)


def _compared(
    target_BLP: Tensor, mask_BL: Tensor, std_C: Tensor, normalised: bool, *, is_tube: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is to be guessed, what a guess without a model is, and which patches count."""
    if not normalised:
        return target_BLP, _mean_of_seen(target_BLP, mask_BL, len(std_C)), mask_BL
    centre_BLP, width_BLP = _centre_and_width(target_BLP, std_C, is_tube=is_tube)
    counted_BL = mask_BL & normalise_tubes(target_BLP, std_C)[1] if is_tube else mask_BL
    return (target_BLP - centre_BLP) / width_BLP, torch.zeros_like(target_BLP), counted_BL


def _of_channels(std: Tensor, images: Tensor) -> Tensor:
    return std.flatten()[: images.shape[1]].to(images.device)


def _mean_of_seen(target_BLP: Tensor, mask_BL: Tensor, channels: int) -> Tensor:
    """Guess the mean of the visible pixels of each channel everywhere."""
    pixels_BLVC = target_BLP.unflatten(2, (-1, channels))
    seen_BL11 = (~mask_BL)[:, :, None, None]
    total_B11C = (pixels_BLVC * seen_BL11).sum((1, 2), keepdim=True)
    mean_B11C = total_B11C / (seen_BL11.sum((1, 2), keepdim=True) * pixels_BLVC.shape[2]).clamp_min(1)
    return mean_B11C.expand_as(pixels_BLVC).flatten(2)


def _centre_and_width(target_BLP: Tensor, std_C: Tensor, *, is_tube: bool) -> tuple[Tensor, Tensor]:
    """Return what a normalised target takes off each patch and divides it by (`patch_errors`, `normalise_tubes`)."""
    if not is_tube:
        variance_BL1, centre_BL1 = torch.var_mean(target_BLP, dim=-1, keepdim=True)
        return centre_BL1.expand_as(target_BLP), (variance_BL1 + 1e-6).sqrt().expand_as(target_BLP)
    pixels_BLVC = target_BLP.unflatten(2, (-1, len(std_C)))
    variance_BL1C, centre_BL1C = torch.var_mean(pixels_BLVC, dim=-2, keepdim=True)
    width_BL1C = (variance_BL1C.sqrt() * std_C + TUBE_FLOOR) / std_C
    return centre_BL1C.expand_as(pixels_BLVC).flatten(2), width_BL1C.expand_as(pixels_BLVC).flatten(2)


def images_of(patches_BLP: Tensor, shape: Sequence[int], patch: Sequence[int]) -> Tensor:
    """Join patches: what `patches_of` takes apart.

    Args:
        patches_BLP: All patches, [B, L, P].
        shape: Shape of the images, [B, C, H, W] or [B, C, T, H, W].
        patch: Sides of a patch, as many as the images have behind the channels.
    """
    n = len(patch)
    grid = [size // side for size, side in zip(shape[2:], patch, strict=True)]
    cut = patches_BLP.reshape(shape[0], *grid, *patch, shape[1])
    order = [0, 2 * n + 1, *(axis for i in range(n) for axis in (1 + i, 1 + n + i))]
    return cut.permute(*order).reshape(*shape)


def _error(guessed_BLP: Tensor, wanted_BLP: Tensor, counted_BL: Tensor) -> list[float]:
    error_BL = (guessed_BLP - wanted_BLP).square().mean(-1)
    return (torch.where(counted_BL, error_BL, 0).sum(1) / counted_BL.sum(1).clamp_min(1)).tolist()


def _pixels(images: Tensor, mean: Tensor, std: Tensor) -> NDArray[np.uint8]:
    """Return uint8 [B, H, W, 3] of normalised images, of the middle of clips, or of the traces of ECGs."""
    if images.ndim == 4 and tuple(images.shape[1:3]) == (1, 12):  # clips of twelve frames have an axis more
        return _traces(images[:, 0].cpu().numpy())
    if images.ndim == 5:
        images = images[:, :, images.shape[2] // 2]
    channels = images.shape[1]
    std_C11, mean_C11 = (values.flatten()[:channels, None, None].to(images.device) for values in (std, mean))
    plain = (images * std_C11 + mean_C11).cpu()
    pixels = (plain * 255).round().clamp(0, 255).to(torch.uint8).movedim(1, -1)
    return pixels.expand(-1, -1, -1, 3).numpy() if channels == 1 else pixels.numpy()


def _traces(values_BLT: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Draw leads below each other, black on white: uint8 [B, 12 * 20, up to 256, 3], 20 px for six units of a tower."""
    width = min(_TRACE_WIDTH_PX, values_BLT.shape[2])
    starts = np.arange(width) * values_BLT.shape[2] // width
    lowest, highest = (each.reduceat(values_BLT, starts, axis=2) for each in (np.minimum, np.maximum))
    top_BLW, bottom_BLW = (
        np.clip(np.rint(_TRACE_PX / 2 - ends_BLW * _TRACE_PX / _TRACE_UNITS), 0, _TRACE_PX - 1)
        for ends_BLW in (highest, lowest)
    )
    row_H1 = np.arange(_TRACE_PX)[:, None]
    is_line_BLHW = (top_BLW[:, :, None] <= row_H1) & (row_H1 <= bottom_BLW[:, :, None])
    drawn_BHW = np.where(is_line_BLHW, 0, 255).astype(np.uint8).reshape(len(values_BLT), -1, width)
    return np.repeat(drawn_BHW[..., None], 3, axis=3)
