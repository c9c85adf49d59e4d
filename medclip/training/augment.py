"""Augmentation of training images: chance is drawn once into plain values, then applied. No torch here."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.training.recipe import Augment

if TYPE_CHECKING:
    from numpy.random import Generator

_SIDE = re.compile(r"\b(left|right|[lr]|ll[ln]|l[lu]l|r[lmu]l|od|os|dextro\w*|levo\w*|situs)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Change:
    """What is done to one image."""

    zoom: float
    """Side of the part that is kept, relative to the image's longest side."""
    shift: tuple[float, float]
    """Where that part lies in the room that is left: (-1, -1) is the upper left corner, (1, 1) the lower right."""
    rotate_deg: float
    gain: float
    gamma: float
    flip: bool


def draw_change(settings: Augment, rng: Generator, *, may_flip: bool) -> Change:
    """Draw a change; every call takes the same number of draws."""
    u = rng.random(7)
    low, high = settings.crop_scale
    return Change(
        zoom=math.sqrt(low + (high - low) * u[0]),
        shift=(2 * u[1] - 1, 2 * u[2] - 1),
        rotate_deg=settings.rotate_deg * (2 * u[3] - 1),
        gain=1 + settings.brightness * (2 * u[4] - 1),
        gamma=math.exp(settings.contrast * (2 * u[5] - 1)),
        flip=bool(may_flip and u[6] < settings.flip),
    )


def names_a_side(text: str) -> bool:
    """Whether a caption speaks of left or right (or of a lobe or an eye by abbreviation)."""
    return _SIDE.search(text) is not None


def apply_change(image: NDArray[np.uint8], change: Change, size: int) -> NDArray[np.uint8]:
    """Crop, turn, mirror and resample in one pass, as a letterbox would place the image; then change the grey values.

    Args:
        image: uint8 H x W x 3 (or x 1).
        change: From `draw_change`.
        size: Side of the result in pixels.

    Returns:
        uint8 [size, size, 3], black around; black stays black.
    """
    from PIL import Image

    from medclip.imaging.geometry import fit

    if max(image.shape[:2]) * change.zoom > 1.5 * size:
        image = fit(image, round(1.3 * size / change.zoom))  # antialiased; the pass below is not
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    height, width = image.shape[:2]
    side = max(height, width)
    scale = side * change.zoom / size
    room = side * (1 - change.zoom) / 2
    centre_x, centre_y = width / 2 + room * change.shift[0], height / 2 + room * change.shift[1]
    turn = math.radians(change.rotate_deg)
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    mirror = -1 if change.flip else 1
    a, b, d, e = mirror * cos, -sin, mirror * sin, cos
    half = size / 2
    matrix = (a, b, centre_x - (a + b) * half, d, e, centre_y - (d + e) * half)
    turned = Image.fromarray(image).transform(
        (size, size), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=(0, 0, 0)
    )
    table = np.clip(255 * change.gain * (np.arange(256) / 255) ** change.gamma, 0, 255).round().astype(np.uint8)
    return table[np.asarray(turned)]
