"""Noise of known strength on a flat image."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.imaging.corruption_operations import gaussian_noise, impulse_noise, shot_noise, speckle_noise

FLAT = np.full((400, 400, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("operation", "strength", "spread"),
    [
        (gaussian_noise, 0.04, 0.04),
        (gaussian_noise, 0.12, 0.12),
        (speckle_noise, 0.05, 0.0251),
        (shot_noise, 60, 0.0913),
    ],
)
def test_noise_has_the_spread_that_was_asked_for(operation, strength: float, spread: float):
    noisy = operation(FLAT, strength, np.random.default_rng(0)) / 255
    assert noisy.std() == pytest.approx(spread, abs=5e-4)


def test_impulses_are_half_black_half_white_and_leave_the_others_alone():
    noisy = impulse_noise(FLAT, 0.01, np.random.default_rng(0))
    assert (noisy == 0).mean() == pytest.approx(0.005, abs=5e-4)
    assert (noisy == 255).mean() == pytest.approx(0.005, abs=5e-4)
    assert ((noisy == 128) | (noisy == 0) | (noisy == 255)).all()


def test_no_impulse_changes_nothing():
    assert (impulse_noise(FLAT, 0.0, np.random.default_rng(0)) == FLAT).all()
