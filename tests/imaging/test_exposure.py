"""Brightness, contrast, gamma, saturation and vignette on pixels that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.imaging.corruption_operations import black_corner, brightness, contrast, gamma, saturate

TWO = np.array([[[100, 150, 200], [10, 20, 30]]], np.uint8)


@pytest.mark.parametrize(
    ("operation", "strength", "expected"),
    [
        (brightness, 1.3, [[130, 195, 255], [13, 26, 39]]),
        (contrast, 0.5, [[90, 115, 140], [45, 50, 55]]),
        (gamma, 0.7, [[132, 176, 215], [26, 43, 57]]),
    ],
)
def test_two_pixels(operation, strength: float, expected):
    assert operation(TWO, strength)[0].tolist() == expected


@pytest.mark.parametrize("operation", [brightness, contrast, gamma])
def test_a_factor_of_one_changes_nothing(operation):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert np.abs(operation(image, 1.0).astype(int) - image).max() <= 1


def test_saturation_keeps_hue_and_value_and_reddens_grey():
    image = np.array([[[200, 100, 100], [60, 60, 60], [0, 0, 0]]], np.uint8)
    expected = [[200, 50, 50], [60, 45, 45], [0, 0, 0]]
    assert np.abs(saturate(image, 0.25)[0] - np.array(expected)).max() <= 1  # fractions are dropped


def test_a_vignette_blackens_the_corners_and_leaves_the_middle():
    white = np.full((64, 64, 3), 255, np.uint8)
    dark = black_corner(white, 1.1)
    assert (dark[32, 32] == 255).all()
    assert not dark[0, 0].any()
    assert not dark[-1, -1].any()
