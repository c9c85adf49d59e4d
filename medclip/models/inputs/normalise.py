"""Pixels and microvolts as a tower takes them: tensors of whole batches, on the device where they lie."""

from __future__ import annotations

import math

import torch

from medclip.imaging.ecg.recording import MISSING
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.inputs.signal_input import SignalInput


def normalise_square(images_BHWC: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Turn square images into what a tower takes: (x / 255 - mean) / std.

    Whole lines of pixels are computed with, as three channels side by side leave a processor's vectors empty: half the
    time of the plain form on a CPU, with the same bits.

    Args:
        images_BHWC: uint8 [B, H, W, 3], contiguous.
        mean: float32, three values in units of [0, 1].
        std: Standard deviation, three values in units of [0, 1].

    Returns:
        float32 [B, 3, H, W], channels last in memory.
    """
    width = images_BHWC.shape[2]
    mean_L, std_L = (values.flatten().repeat(width) for values in (mean, std))
    lines_BHL = images_BHWC.flatten(2).float().div_(255).sub_(mean_L).div_(std_L)
    return lines_BHL.unflatten(2, (width, 3)).permute(0, 3, 1, 2)


def normalise_clips(images_BTHWC: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Turn clips into what a tower of tubelets takes: (x / 255 - mean) / std.

    Args:
        images_BTHWC: uint8 [B, T, H, W, C], C = 1 or 3.
        mean: float32, three values in units of [0, 1]; the first is that of clips with one channel.
        std: Standard deviation, as `mean`.

    Returns:
        float32 [B, C, T, H, W].
    """
    channels = images_BTHWC.shape[4]
    mean_C, std_C = (values.flatten()[:channels] for values in (mean, std))
    return images_BTHWC.float().div_(255).sub_(mean_C).div_(std_C).permute(0, 4, 1, 2, 3).contiguous()


def normalise_records(records_BLT: torch.Tensor, signal: SignalInput) -> torch.Tensor:
    """Turn ECGs into what a tower of signals takes: in the model's scale, leads that are missing all zero.

    Args:
        records_BLT: int16 [B, 12, T] in microvolts, missing leads all `MISSING`.
        signal: The model's treatment of ECGs.

    Returns:
        float32 [B, 1, 12, T]; only leads that are missing are exactly zero throughout.
    """
    there_BL1 = (records_BLT != MISSING).any(2, keepdim=True)
    values_BLT = records_BLT.float().div_(1000)
    if signal.normalise == "zscore_global":
        values_BLT = (values_BLT - signal.mean_mv) / signal.std_mv
    elif signal.normalise == "zscore_lead":
        mean_BL1 = values_BLT.mean(2, keepdim=True)
        values_BLT = (values_BLT - mean_BL1) / (values_BLT.std(2, correction=0, keepdim=True) + 1e-8)
    elif signal.normalise == "minmax_record":
        low_B11 = values_BLT.masked_fill(~there_BL1, math.inf).amin((1, 2), keepdim=True)
        high_B11 = values_BLT.masked_fill(~there_BL1, -math.inf).amax((1, 2), keepdim=True)
        values_BLT = (values_BLT - low_B11) / (high_B11 - low_B11 + 1e-8)
    return values_BLT.masked_fill(~there_BL1, 0)[:, None]


def normalise_with(preprocess: Preprocess, images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Turn squares, clips or ECGs into what a model's tower takes, as `normalise_square` and its siblings do."""
    if preprocess.signal is not None:
        return normalise_records(images, preprocess.signal)
    return (normalise_square if preprocess.volume is None else normalise_clips)(images, mean, std)
