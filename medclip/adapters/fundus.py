"""Colour fundus photographs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medclip.adapters.base import ImageAdapter, value_range
from medclip.adapters.depth import to_range
from medclip.files.inspect import FileFacts
from medclip.imaging import retina
from medclip.imaging.decoded import Decoded
from medclip.imaging.intensity import scale_to_uint8
from medclip.sample import Modality, Step, View


class FundusAdapter(ImageAdapter):
    """One photograph to one RGB view: the square around the lit field of view."""

    name = "fundus"
    modality = Modality.FUNDUS
    version = 1
    grey = False

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels."""
        field = {"grid": retina.GRID, "dark": retina.DARK, "area": retina.MIN_AREA, "stray": retina.STRAY}
        return {**super().parameters, "field": field}

    def render(self, decoded: Decoded, facts: FileFacts) -> tuple[View, tuple[Step, ...]]:
        """Crop to the square around the field of view."""
        pixels, steps = to_range(decoded, facts, (0, 100))
        limits = value_range(pixels)
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
            steps += (Step("colour", "grey repeated"),)
        box = retina.find_field_of_view(scale_to_uint8(pixels, *limits))
        if box is not None:
            pixels = retina.square_around(pixels, box)
            steps += (Step("crop field", f"square around {box}"),)
        return View(pixels, limits), steps
