"""A slide of haematoxylin and eosin made by code: a section with nuclei of several densities on bright glass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from medclip.imaging.slides.stain import MACENKO_SC, light
from tests.kits.slides import write_pyramid


def draw_stained(height: int = 1200, width: int = 1600, seed: int = 0) -> np.ndarray:
    """Draw a section, RGB uint8 [height, width, 3], at 0.5 µm/px: nuclei are denser on the left."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    section = (np.abs(y - height / 2) < height * 0.36) & (np.abs(x - width / 2) < width * 0.38)
    seeds = np.zeros((height, width))
    number = height * width // 250
    top, left = rng.integers(0, height, number), (rng.beta(1, 2, number) * width).astype(int)
    seeds[top, left] = 1
    nuclei = ndimage.maximum_filter(seeds, footprint=np.hypot(*np.mgrid[-6:7, -6:7]) <= 5.5)
    grain = ndimage.gaussian_filter(rng.normal(0, 1, (height, width)), 0.7)
    amounts = np.stack([np.where(nuclei > 0, 0.7, 0.06), np.where(nuclei > 0, 0.1, 0.35)], -1)
    amounts *= section[..., None] * (1 + 0.3 * grain[..., None])
    return light(np.maximum(amounts, 0) @ MACENKO_SC)


def write_stained(path: Path, seed: int = 0, **sizes: int) -> Path:
    """Write a section as a tiled TIFF."""
    return write_pyramid(path, draw_stained(seed=seed, **sizes))
