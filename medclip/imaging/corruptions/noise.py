"""Noise of the detector: Gaussian, speckle, shot and impulse noise.

Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536 (formulas of its published code).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Draws(Protocol):
    """What noise is drawn from: `numpy.random.Generator`, or the older `RandomState`."""

    def normal(self, loc: float, scale: float, size: Any) -> Any:
        """Draw normal values."""
        ...

    def poisson(self, lam: Any) -> Any:
        """Draw counts."""
        ...

    def random(self, size: Any) -> Any:
        """Draw values from 0 to 1."""
        ...

    def uniform(self, low: float, high: float) -> Any:
        """Draw a value between two."""
        ...


def gaussian_noise(pixels: NDArray[np.uint8], sd: float, rng: Draws) -> NDArray[np.uint8]:
    """Add normal noise of one standard deviation everywhere, in units of the whole range: electronic noise."""
    unit = pixels / 255.0
    return to_8_bit(unit + rng.normal(0.0, sd, unit.shape))


def speckle_noise(pixels: NDArray[np.uint8], sd: float, rng: Draws) -> NDArray[np.uint8]:
    """Multiply each value by 1 plus normal noise: bright tissue is grainier, as where waves are coherent."""
    unit = pixels / 255.0
    return to_8_bit(unit + unit * rng.normal(0.0, sd, unit.shape))


def shot_noise(pixels: NDArray[np.uint8], photons: float, rng: Draws) -> NDArray[np.uint8]:
    """Count photons, so many for the whole range: fewer are noisier, as with a lower dose."""
    return to_8_bit(rng.poisson(pixels / 255.0 * photons) / photons)


def impulse_noise(pixels: NDArray[np.uint8], share: float, rng: Draws) -> NDArray[np.uint8]:
    """Set a share of the values to black or white, half each: dead and hot elements of a detector."""
    struck = rng.random(pixels.shape) <= share
    white = rng.random(pixels.shape) <= 0.5
    return np.where(struck, np.where(white, 255, 0), pixels).astype(np.uint8)


def to_8_bit(unit: NDArray[Any]) -> NDArray[np.uint8]:
    """Cut values to 0 to 1 and bring them to 0 to 255, fractions dropped."""
    return (np.clip(unit, 0, 1) * 255).astype(np.uint8)
