"""Learn to segment in the image tower itself: first the probe of places alone, then the probe and the tower under it.

A head of random weights would pull the tower towards nothing in its first steps, so that it is learned before (linear
probing then fine-tuning, Kumar et al., ICLR 2022). Images and masks are cut, turned and mirrored by the same change;
what is moved in from outside shows no image, and does not count. Running statistics of batch normalisation stay.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.task_loss import batches, finite
from medclip.adaptation.maps.decoders import BATCH, segmentation_loss, train_head
from medclip.adaptation.maps.map_head import MapHead, map_head
from medclip.adaptation.methods import Fitted
from medclip.adaptation.towers.methods import apply_delta, changed_weights
from medclip.adaptation.towers.train_loop import BETAS, cosine_rate
from medclip.errors import MedclipError, Reason
from medclip.imaging.masks import OUTSIDE
from medclip.models.towers.depths import level_tokens
from medclip.training.batches.augment import Change, apply_change, draw_change
from medclip.training.recipe.augment import Augment

if TYPE_CHECKING:
    from medclip.adaptation.maps.learn import MapExamples
    from medclip.models.model import Model

NAME = "map-tuned"
STEPS = 150
RATE = 0.0003
"""The highest rate of tower and head: a cosine, to a millionth."""
DECAY = 0.01


def fit_map_tuned(
    base: Model,
    text: ClassText,
    train: MapExamples,
    val: MapExamples | None,
    *,
    seed: int,
    steps: int = STEPS,
    lr: float = RATE,
    crop: float = 0.7,
    rotate_deg: float = 10.0,
    brightness: float = 0.2,
    contrast: float = 0.25,
    flip: float = 0.0,
) -> Fitted:
    """Learn the probe of places, then its line and every weight of the image tower, from augmented images.

    Args:
        base: The loaded base model; not changed.
        text: The structure.
        train: Images, masks, and feature maps of the base.
        val: Not used: settings are fixed.
        seed: Seed of the initial values, of the order of images and of augmentation.
        steps: Number of steps of 16 images, after those of the probe.
        lr: Highest rate of AdamW.
        crop: Smallest share of the area that augmentation keeps.
        rotate_deg: Largest turn in degrees.
        brightness: Largest change of brightness, as a share.
        contrast: Largest change of contrast, as the logarithm of gamma.
        flip: Share of images that are mirrored.

    Returns:
        Delta: name to value of every parameter of the tower that changed.

    Raises:
        MedclipError: WRONG_USE for settings that cannot be; NON_FINITE for a loss that is no number.
    """
    if steps < 1 or not lr > 0 or not 0 < crop <= 1:
        raise MedclipError(Reason.WRONG_USE, f"{NAME} cannot learn with steps={steps}, lr={lr:g} and crop={crop:g}.")
    augment = Augment(
        crop_scale=(crop, 1.0), rotate_deg=rotate_deg, brightness=brightness, contrast=contrast, flip=flip
    )
    rows, columns = train.features.shape[2:]
    learned = train_head(train.features, train.maps.labels, train.chosen, seed=seed)
    probe = map_head(learned, (rows, columns), levels=True)
    clip = _copy_to_learn(base)
    line = nn.Linear(*probe.weight_DC.shape)
    with torch.no_grad():
        line.weight.copy_(torch.from_numpy(probe.weight_DC.T.copy()))
        line.bias.copy_(torch.from_numpy(probe.bias_C))
    line.to(base.device)
    _learn(base, clip, line, train, augment, seed=seed, steps=steps, lr=lr)
    weight_DC, bias_C = (p.detach().cpu().numpy() for p in (line.weight.T, line.bias))
    head: Any = MapHead(np.ascontiguousarray(weight_DC), bias_C, rows, columns, levels=True)
    delta = changed_weights(clip, base.clip)
    settings: dict[str, Any] = {"steps": steps, "lr": lr, "crop": crop, "rotate_deg": rotate_deg}
    settings |= {"brightness": brightness, "contrast": contrast, "flip": flip, "batch_size": BATCH}
    size = sum(value.numel() for value in delta.values()) + weight_DC.size + bias_C.size
    return Fitted(head, size, settings, apply_delta(NAME, base.clip, delta, settings), delta)


def _copy_to_learn(base: Model) -> Any:
    """Copy the towers, and let the weights of the image tower alone learn."""
    clip: Any = copy.deepcopy(base.clip).eval().requires_grad_(False)
    clip.visual.requires_grad_(True)
    if any(isinstance(m, nn.Conv2d) and m.kernel_size != m.stride for m in clip.visual.modules()):
        clip.visual.to(memory_format=torch.channels_last)
    for module in clip.visual.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # maps of the depths between are read after it
    return clip


def _learn(
    base: Model,
    clip: Any,
    line: nn.Linear,
    train: MapExamples,
    augment: Augment,
    *,
    seed: int,
    steps: int,
    lr: float,
) -> None:
    parameters = [*clip.visual.parameters(), *line.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=BETAS, weight_decay=DECAY)
    order = steps_of_rows(len(train.chosen), torch.Generator().manual_seed(seed))
    chance = np.random.default_rng(seed)
    size = train.maps.labels.shape[1:]
    with torch.enable_grad():
        for step in range(steps):
            pairs = [changed_pair(train, int(train.chosen[row]), augment, chance) for row in next(order)]
            images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
            seen = level_tokens(clip.visual, base.normalise(images))
            margin_BHW = line(seen.tokens_BLD.float())[:, :, 0].unflatten(1, seen.grid)
            margin_BHW = functional.interpolate(margin_BHW[:, None], size=size, mode="bilinear", align_corners=False)
            logits_B2HW = torch.cat([torch.zeros_like(margin_BHW), margin_BHW], dim=1)
            loss = finite(segmentation_loss(logits_B2HW, torch.from_numpy(labels).to(base.device)), NAME)
            for group in optimizer.param_groups:
                group["lr"] = cosine_rate(step, lr, steps, lr * 1e-6)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def steps_of_rows(count: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield the rows of each step, without end; the last step of a pass takes from the next where it has too few."""
    waiting: list[int] = []
    while True:
        while len(waiting) < BATCH:
            waiting += [int(row) for rows in batches(count, BATCH, generator) for row in rows]
        yield waiting[:BATCH]
        del waiting[:BATCH]


def changed_pair(
    train: MapExamples, number: int, augment: Augment, chance: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Change an image and its mask alike."""
    image, labels = np.array(train.pixels[number]), np.array(train.maps.labels[number])
    change = draw_change(augment, chance, may_flip=True)
    return apply_change(image, change, image.shape[0]), move_mask(labels, change)


def move_mask(labels_LL: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
    """Move a mask as a change moves its image.

    Args:
        labels_LL: 1 where something is, 0, and `OUTSIDE` where no image is shown.
        change: Change, of which grey values and colours are left out.

    Returns:
        The same in the changed square: what is moved in from outside is `OUTSIDE`.
    """
    moving = replace(change, gain=1.0, gamma=1.0, hue=0.0, saturation=1.0, ops=())
    inside, marked = (
        apply_change((of * np.uint8(255))[:, :, None], moving, labels_LL.shape[0])[:, :, 0] > 127
        for of in (labels_LL != OUTSIDE, labels_LL == 1)
    )
    return np.where(inside, marked, OUTSIDE).astype(np.uint8)
