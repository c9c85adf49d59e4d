"""A head over frozen feature maps that learns to segment, a baseline of position alone, and how near they come.

The head is BatchNorm, a 1 x 1 convolution to two classes and bilinear upsampling; its loss is the cross-entropy plus
one minus the soft Dice of what is marked, over the pixels that show image. Nothing of the tower is learned: it gets
maps, not the tower. Steps, rate and decay are alike for all towers. They were looked at on training patients of three
sets: six of them, 150 or 400 steps at 0.0001 to 0.01, gave medclip-mini 0.44 to 0.49 (kvasir_seg) and 0.25 to 0.33.

Reference: the dense probe of `objectives/quality_captions.md`, after CLIP with Quality Captions (2025).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medclip.imaging.masks import OUTSIDE
from medclip.statistics.metrics.masks import dice_and_iou

STEPS = 150
BATCH = 16
RATE = 0.3
"""Divided by the root of the number of channels, since a step of Adam moves a logit by all of them: 0.0084 of 1,280."""
DECAY = 0.01
_THRESHOLDS = np.linspace(0.05, 0.95, 19)
VERSION = 2
"""Raise when the same maps give other figures: results of before are then computed again."""


class Head(nn.Sequential):
    """BatchNorm and a 1 x 1 convolution to logits of background and mask, [B, 2, h, w]."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.BatchNorm2d(dim), nn.Conv2d(dim, 2, 1))


def segmentation_loss(logits_B2HW: Tensor, labels_BHW: Tensor) -> Tensor:
    """Return the cross-entropy plus one minus the soft Dice over the batch; pixels of `OUTSIDE` do not count."""
    entropy = functional.cross_entropy(logits_B2HW, labels_BHW.long(), ignore_index=OUTSIDE)
    inside = labels_BHW != OUTSIDE
    marked = (labels_BHW == 1).float()
    probability = logits_B2HW.softmax(dim=1)[:, 1] * inside
    dice = (2 * (probability * marked).sum() + 1) / (probability.sum() + marked.sum() + 1)
    return entropy + 1 - dice


def train_head(
    maps_NDhw: NDArray[np.float32],
    labels_NLL: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    seed: int,
    steps: int | None = None,
) -> Head:
    """Learn a head.

    Args:
        maps_NDhw: Feature maps, float32; only batches of the rows are read.
        labels_NLL: Masks on the model's side, see `FeatureMaps.labels`.
        rows: Images that are learned from.
        seed: Seed of the weights and of the order of images.
        steps: Number of steps; `STEPS` where None.

    Returns:
        The head, in eval mode.
    """
    steps = STEPS if steps is None else steps
    generator = torch.Generator().manual_seed(seed)
    head = Head(maps_NDhw.shape[1])
    bound = maps_NDhw.shape[1] ** -0.5
    with torch.no_grad():
        for parameter in head[1].parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE * bound, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    size = labels_NLL.shape[1:]
    waiting = np.zeros(0, np.int64)
    with torch.enable_grad():
        for _ in range(steps):
            if len(waiting) < min(BATCH, len(rows)):
                order = torch.randperm(len(rows), generator=generator).numpy()
                waiting = np.concatenate([waiting, rows[order]])
            batch, waiting = waiting[:BATCH], waiting[BATCH:]
            maps = torch.from_numpy(np.array(maps_NDhw[batch]))
            labels = torch.from_numpy(np.array(labels_NLL[batch]))
            logits = functional.interpolate(head(maps), size=size, mode="bilinear", align_corners=False)
            optimiser.zero_grad()
            segmentation_loss(logits, labels).backward()
            optimiser.step()
            schedule.step()
    return head.eval().requires_grad_(False)


def margins(head: nn.Module, maps_BDhw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logit of the mask less that of the background on the tower's grid, float32 [B, h, w].

    Upsampling is linear, so that it may follow the difference: the mask is where the upsampled margin is above 0.
    """
    with torch.inference_mode():
        logits: Any = head(torch.from_numpy(np.array(maps_BDhw)))
        return (logits[:, 1] - logits[:, 0]).numpy()


def position_margin(labels_KLL: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what is known without looking at an image: the mean mask less the threshold of the best mean Dice.

    Args:
        labels_KLL: Masks that are learned from, with `OUTSIDE` where no image is shown; one of them has a pixel.

    Returns:
        float32 [L, L]; above 0 where a mask is expected.
    """
    inside, marked = labels_KLL != OUTSIDE, labels_KLL == 1
    mean = marked.sum(axis=0) / np.maximum(inside.sum(axis=0), 1)
    dices = [np.mean([dice_and_iou(mean > t, m)[0] for m in marked if m.any()]) for t in _THRESHOLDS]
    return (mean - _THRESHOLDS[int(np.argmax(dices))]).astype(np.float32)
