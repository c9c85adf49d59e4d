"""What a head learns of maps that hold the answer, what it leaves as it was, and what position alone knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medclip.adaptation.maps import decoders
from medclip.adaptation.maps.decoders import (
    STEPS,
    margins,
    position_margin,
    segmentation_loss,
    train_head,
)
from medclip.imaging.masks import OUTSIDE
from medclip.statistics.metrics.masks import dice_and_iou

SIDE = 24


def circles(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates about the middle of a circle, with their squares, and the circle."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    maps, labels = [], []
    for _ in range(number):
        dy, dx = y - rng.uniform(0.35, 0.65), x - rng.uniform(0.35, 0.65)
        maps.append(np.stack([dy, dx, dy**2, dx**2]))
        labels.append(dy**2 + dx**2 < 0.25**2)
    return np.array(maps, np.float32), np.array(labels, np.uint8)


def test_circles_are_learned_from_coordinates_in_less_than_200_steps() -> None:
    assert STEPS < 200
    maps, labels = circles(24)
    head = train_head(maps, labels, np.arange(16), seed=0)
    said = margins(head, maps[16:]) > 0
    assert np.mean([dice_and_iou(s, t == 1)[0] for s, t in zip(said, labels[16:], strict=True)]) > 0.95


def test_the_same_seed_gives_the_same_head_and_another_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "STEPS", 5)
    maps, labels = circles(6)
    first, again, other = (train_head(maps, labels, np.arange(6), seed=s)[1].weight for s in (1, 1, 2))  # pyright: ignore
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_pixels_that_show_no_image_do_not_count() -> None:
    logits = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[:, 2:5, 2:5] = 1
    labels[:, 6:] = OUTSIDE
    before = segmentation_loss(logits, labels)
    logits[:, :, 6:] = 100 * torch.randn(2, 2, 2, 8)
    assert torch.equal(segmentation_loss(logits, labels), before)


def test_position_alone_expects_what_lies_where_masks_mostly_lie() -> None:
    labels = np.zeros((4, 10, 10), np.uint8)
    labels[:, 3:6, 3:6] = 1
    labels[0, 0, 0] = 1
    labels[:, 9] = OUTSIDE
    said = position_margin(labels) > 0
    assert said[3:6, 3:6].all()
    assert said.sum() == 9


def test_position_alone_is_learned_from_masks_in_which_something_is() -> None:
    labels = np.zeros((6, 10, 10), np.uint8)
    labels[:2, 3:6, 3:6] = 1
    labels[:, 9] = OUTSIDE
    assert (position_margin(labels) > 0).sum() == 9
