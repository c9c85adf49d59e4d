"""An image with its mask and what a head said of it, drawn as lines."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medclip.adapters.base import source_of
from medclip.adapters.model_images import as_shown
from medclip.adapters.registry import read_unit
from medclip.imaging.geometry import fit, resize
from medclip.imaging.intensity import to_uint8
from medclip.sample import Modality
from medclip.settings import Settings

TRUE_RGB, SAID_RGB = (0, 158, 115), (230, 159, 0)
"""Green for the mask, orange for what was said; told apart by colour-blind readers (Okabe and Ito)."""
_LONGEST, _SHORTEST = 512, 320


def draw_example(
    path: Path, modality: str, truth: NDArray[np.bool_], answer: NDArray[np.bool_], settings: Settings
) -> bytes | None:
    """Draw one image, uncropped, with both outlines.

    Args:
        path: The image.
        modality: Modality whose adapter reads it, or "generic".
        truth: Mask of its own pixels.
        answer: Mask that the head gave, of the same.
        settings: Limits.

    Returns:
        A PNG; None where the header says that text is burned in.
    """
    settings = replace(settings, policy=replace(settings.policy, crop="none"))
    sample = read_unit(source_of(path, settings), modality if modality == "generic" else Modality(modality), settings)
    (view,) = sample.views
    if view.burned_in:
        return None
    pixels = fit(as_shown(sample, to_uint8(view)), _LONGEST)
    larger = -(-_SHORTEST // max(pixels.shape[:2]))
    pixels = np.array(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
    pixels = pixels.repeat(larger, axis=0).repeat(larger, axis=1)
    for mask, colour in ((truth, TRUE_RGB), (answer, SAID_RGB)):
        drawn = resize(mask[..., None] * np.uint8(255), pixels.shape[0], pixels.shape[1], "bilinear")[..., 0] > 127
        pixels[drawn & ~ndimage.binary_erosion(drawn, iterations=2)] = colour
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
