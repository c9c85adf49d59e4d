"""Images that look like films, copies of them as people make them, and cohorts of files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medclip.statistics.cohort import Cohort

Pixels = NDArray[np.uint8]


def film(seed: int, height: int = 200, width: int = 180) -> Pixels:
    """Draw two dark fields in a bright body, with ribs and noise: all alike in the large, none in the small."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    value = 150 + 20 * y
    for side in (-0.45, 0.45):
        field = ((x - side - rng.normal(0, 0.05)) / 0.35) ** 2 + ((y + rng.normal(0, 0.05)) / 0.7) ** 2 < 1
        value = value - 70 * field
    for _ in range(60):
        cx, cy, radius = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0.05, 0.25)
        value = value + rng.normal(0, 30) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
    return np.clip(value + rng.normal(0, 4, value.shape), 1, 254).astype(np.uint8)


def resized_jpeg(image: Pixels, share: float = 0.6, quality: int = 50) -> Pixels:
    """Store as a smaller JPEG and read back."""
    image = Image.fromarray(image)
    image = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BICUBIC)
    image.save(body := io.BytesIO(), "JPEG", quality=quality)
    return np.asarray(Image.open(body))


def cropped(image: Pixels, share: float = 0.03) -> Pixels:
    """Cut the same from each side, `share` of the height and the width in all."""
    height, width = image.shape
    top, left = round(height * share / 2), round(width * share / 2)
    return image[top : height - top, left : width - left]


def rotated(image: Pixels, degrees: float) -> Pixels:
    """Turn about the middle; what comes from outside is black."""
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC))


def brighter(image: Pixels) -> Pixels:
    """Add contrast and brightness."""
    return np.clip(image * 1.1 + 10.0, 0, 255).astype(np.uint8)


def cohort_of(patients: Sequence[str]) -> Cohort:
    """Make a cohort of rows of these patients."""
    names = sorted(set(patients))
    codes = np.array([names.index(p) for p in patients], np.int32)
    return Cohort(codes, (), (), keys=tuple(f"k{i}" for i in range(len(codes))), identities=tuple(patients))
