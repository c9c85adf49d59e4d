"""Cells of an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.imaging.corruptions import cell_masks, one_cell_each


@pytest.mark.golden
def test_masks_are_the_published_ones(golden: Path):
    with np.load(golden / "patch_and_attention_temperature.npz") as g:
        assert (cell_masks(16, 16, 4) == g["mask_16px_16patches"][:, 0].astype(bool)).all()


@pytest.mark.golden
def test_a_cell_shows_what_the_whole_corrupted_image_shows_there(golden: Path):
    with np.load(golden / "patch_and_attention_temperature.npz") as g:
        images = g["nat_x"].transpose(0, 2, 3, 1) * 255
        published = images[:, None] + g["nat_perturb"].astype(np.float64).transpose(0, 1, 3, 4, 2) * 255
    for image, shown in zip(images, published, strict=True):
        whole = image + (shown - image).sum(axis=0)  # each cell is changed in one of them
        ours = one_cell_each(_levels(image), _levels(whole), cell_masks(16, 16, 4))
        assert np.abs(ours - shown).max() <= 0.6  # published in half precision


def _levels(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [16, 192, 224])
def test_every_pixel_is_in_one_cell(size: int):
    assert (cell_masks(size, size + 9).sum(axis=0) == 1).all()


def test_pixels_outside_the_cell_stay():
    image = np.zeros((14, 14, 3), np.uint8)
    shown = one_cell_each(image, image + 9, cell_masks(14, 14))
    assert shown.shape == (49, 14, 14, 3)
    assert (shown.sum(axis=0) == 9).all()
