"""Coarse pixels and JPEG."""

from __future__ import annotations

import numpy as np

from medclip.imaging.corruption_operations import jpeg_compression, pixelate


def test_coarse_pixels_are_blocks():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    coarse = pixelate(image, 0.1)
    assert coarse.shape == image.shape
    assert len(np.unique(coarse.reshape(-1, 3), axis=0)) <= 4 * 6


def test_a_tiny_image_keeps_a_pixel():
    assert pixelate(np.zeros((3, 3, 3), np.uint8), 0.1).shape == (3, 3, 3)


def test_a_lower_quality_loses_more():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    losses = [np.square(jpeg_compression(image, q).astype(float) - image).mean() for q in (90, 50, 10)]
    assert losses == sorted(losses)
