"""Dermatology photographs and dermoscopy."""

from __future__ import annotations

import numpy as np

from medclip.adapters.base import ImageAdapter, value_range
from medclip.adapters.depth import to_range
from medclip.files.inspect import FileFacts
from medclip.imaging.decoded import Decoded
from medclip.sample import Modality, Step, View


class DermatologyAdapter(ImageAdapter):
    """One photograph to one RGB view, as it is."""

    name = "dermatology"
    modality = Modality.DERMATOLOGY
    version = 1
    grey = False

    def render(self, decoded: Decoded, facts: FileFacts) -> tuple[View, tuple[Step, ...]]:
        """Give RGB."""
        pixels, steps = to_range(decoded, facts, (0, 100))
        limits = value_range(pixels)
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
            steps += (Step("colour", "grey repeated"),)
        return View(pixels, limits), steps
