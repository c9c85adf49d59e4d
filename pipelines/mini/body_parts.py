"""Radiographs of body parts that no chest model has seen, drawn by code: a jaw, a hand, a knee."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def panoramic(seed: int = 0, height: int = 300, width: int = 600) -> NDArray[np.uint8]:
    """Draw a dental panoramic film: two rows of teeth along a curved jaw, with the spine as a shadow at both sides."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -2 : 2 : width * 1j]
    bend = 0.18 * x**2
    image = 0.12 + 0.22 * np.exp(-(((y - 0.55 + bend) / 0.22) ** 2)) + 0.14 * np.exp(-(((y + 0.55 + bend) / 0.2) ** 2))
    image += 0.15 * np.exp(-(((np.abs(x) - 1.9) / 0.16) ** 2))
    for row, sign in ((0.18, 1), (-0.2, -1)):
        for place in np.linspace(-1.35, 1.35, 14) + rng.normal(0, 0.015, 14):
            middle = row - 0.18 * place**2
            wide = 0.075 + 0.035 * min(1.0, abs(place))
            crown = np.abs(x - place) < wide * (1 - 0.25 * np.clip(sign * (y - middle) / 0.3, 0, 1))
            tooth = crown & (np.abs(y - middle - sign * 0.1) < 0.2)
            pulp = (np.abs(x - place) < 0.2 * wide) & (np.abs(y - middle - sign * 0.1) < 0.13)
            image = np.where(tooth, 0.72 - 0.18 * pulp + 0.02 * rng.normal(), image)
    return _exposed(image, rng)


def hand(seed: int = 0, height: int = 480, width: int = 380) -> NDArray[np.uint8]:
    """Draw the bones of a hand in soft tissue on a black background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    image = 0.02 + 0.2 * (((x - 0.5) / 0.3) ** 2 + ((y - 0.66) / 0.2) ** 2 < 1)
    for number, angle in enumerate(np.deg2rad([-42, -17, -4, 9, 22]) + rng.normal(0, 0.02, 5)):
        start, reach = (0.5 + 0.09 * (number - 2), 0.72), (0.36, 0.56, 0.6, 0.56, 0.46)[number]
        along = (x - start[0]) * np.sin(angle) - (y - start[1]) * np.cos(angle)
        across = (x - start[0]) * np.cos(angle) + (y - start[1]) * np.sin(angle)
        inside = (along > 0) & (along < reach)
        image = np.where(inside & (np.abs(across) < 0.045), np.maximum(image, 0.22), image)
        share = along / reach * 4 % 1
        waist = 0.016 + 0.012 * np.abs(2 * share - 1) ** 2
        image = np.where(inside & (np.abs(across) < waist) & (share > 0.06), 0.62, image)
    for _ in range(8):
        cx, cy = 0.5 + rng.uniform(-0.14, 0.14), 0.78 + rng.uniform(-0.05, 0.05)
        image = np.where(np.hypot(x - cx, y - cy) < 0.045, 0.6, image)
    image = np.where((np.abs(x - 0.5) < 0.13) & (y > 0.86), 0.22, image)
    for place in (0.43, 0.57):
        image = np.where((np.abs(x - place) < 0.05) & (y > 0.86), 0.62, image)
    return _exposed(image, rng)


def knee(seed: int = 0, height: int = 480, width: int = 360) -> NDArray[np.uint8]:
    """Draw a thigh bone above a shin bone, with the gap of the joint between them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -0.75 : 0.75 : width * 1j]
    image = 0.05 + 0.28 * (np.abs(x) < 0.5 + 0.06 * np.cos(3 * y))
    above, below = y < -0.03, y > 0.05
    thigh = 0.19 + 0.17 * np.exp(-(((y + 0.1) / 0.22) ** 2))
    shin = 0.15 + 0.2 * np.exp(-(((y - 0.12) / 0.2) ** 2))
    for part, wide in ((above, thigh), (below, shin)):
        bone = part & (np.abs(x) < wide)
        image = np.where(bone, 0.55 + 0.2 * (np.abs(x) / wide) ** 4, image)
    image = np.where(below & (np.abs(x - 0.4) < 0.045) & (y > 0.2), 0.5, image)
    return _exposed(image + 0.12 * np.exp(-((x**2 + (y + 0.2) ** 2) / 0.03)), rng)


def _exposed(image: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur edges a little and add the grain of a detector."""
    for axis in (0, 1):
        image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    return ((image + rng.normal(0, 0.012, image.shape)).clip(0, 1) * 255).astype(np.uint8)
