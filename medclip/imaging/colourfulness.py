"""Does an image show colours, or greys that a scan, a screen or a lamp has tinted?

In a tinted image colour follows brightness: all pixels of one brightness have one colour, and all brightnesses one hue.
So each pixel's chroma is compared with the mean of its brightness, and with the nearest chroma of the image's own hue:
colour bars and false colours fail the second alone. Three quarters of the pixels are nearer to the mean of their
brightness than: dermoscopy 2.3 to 33 levels (389 shared images), fundus 2.7 to 19 (137), stained tissue 1.5 to 21
(400); radiographs, CT and MRI stored as RGB at most 0.8 (one coloured rendering aside), and radiographs in four strong
tints 2.0 as JPEG of quality 75, 2.5 of quality 60. To the one hue these films are as near, or nearer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SPREAD = 2.5
"""Distance of chroma (8-bit levels) beyond which a quarter of the pixels must lie in an image with colours: marks and
text in colour cover less."""
LEAST_PX = 128
"""Longest side at which an image is looked at; a larger one is made smaller."""
_STEP = 8


def has_colours(pixels: NDArray[Any]) -> bool:
    """Return whether an image shows colours beyond one tint.

    Args:
        pixels: H x W x C uint8; one channel has none.
    """
    if pixels.shape[2] < 3:
        return False
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3]))
    image.thumbnail((LEAST_PX, LEAST_PX))
    small = np.asarray(image).astype(np.float32).reshape(-1, 3)
    luma = small @ np.array([0.299, 0.587, 0.114], np.float32)
    chroma = small[:, [0, 2]] - luma[:, None]
    return any(float(np.percentile(far, 75)) > SPREAD for far in (_from_brightness(chroma, luma), _from_hue(chroma)))


def _from_brightness(chroma: NDArray[Any], luma: NDArray[Any]) -> NDArray[Any]:
    """Return how far each pixel's chroma is from the mean of its brightness."""
    group = (luma / _STEP).astype(np.intp)
    count = np.maximum(np.bincount(group), 1)
    means = np.stack([np.bincount(group, part) / count for part in chroma.T], axis=1)
    return np.linalg.norm(chroma - means[group], axis=1)


def _from_hue(chroma: NDArray[Any]) -> NDArray[Any]:
    """Return how far each pixel's chroma is from the nearest one of the image's mean hue."""
    total = chroma.sum(axis=0)
    hue = total / max(float(np.linalg.norm(total)), 1e-6)
    return np.linalg.norm(chroma - (chroma @ hue).clip(min=0)[:, None] * hue, axis=1)
