"""Blur keeps flat images, and spreads an edge."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.imaging.corruption_operations import defocus_blur, gaussian_blur, smeared, zoom_blur

EDGE = np.zeros((48, 64, 3), np.uint8)
EDGE[:, 32:] = 200
BLURS = [
    lambda x: gaussian_blur(x, 7),
    lambda x: defocus_blur(x, (4.0, 0.1)),
    lambda x: smeared(x, (10.0, 5.0), 20.0),
    lambda x: zoom_blur(x, (1.22, 0.02)),
]


@pytest.mark.parametrize("blur", BLURS)
def test_a_flat_image_stays_flat_and_keeps_its_size(blur):
    flat = np.full((40, 56, 3), 90, np.uint8)
    blurred = blur(flat)
    assert blurred.shape == flat.shape
    assert np.abs(blurred.astype(int) - 90).max() <= 1


@pytest.mark.parametrize("blur", BLURS)
def test_an_edge_is_softer_afterwards(blur):
    steepest = np.abs(np.diff(blur(EDGE)[24, :, 0].astype(int))).max()
    assert steepest < 150


def test_a_zoom_by_nothing_changes_nothing():
    assert (np.abs(zoom_blur(EDGE, (1.01, 0.01)).astype(int) - EDGE) <= 1).all()


def test_motion_smears_to_one_side():
    blurred = smeared(EDGE, (10.0, 5.0), 0.0)[24, :, 0]
    assert blurred[30] > 0
    assert (blurred[33:] >= 199).all()
