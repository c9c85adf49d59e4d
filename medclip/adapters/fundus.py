"""Colour fundus photographs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medclip.adapters.base import ImageAdapter, value_range
from medclip.adapters.depth import to_range
from medclip.adapters.loops import PHOTO_CODES
from medclip.dicom.header.read import DicomHeader
from medclip.dicom.pixels.decoded import Decoded
from medclip.files.recognise.inspect import FileFacts
from medclip.imaging.crop import retina
from medclip.imaging.intensity import scale_to_uint8
from medclip.sample import Modality, Step, View


class FundusAdapter(ImageAdapter):
    """One photograph to one RGB view: the square around the lit field of view.

    Args:
        mask_outside: Whether what lies outside the field (text, flare) is set to black.
    """

    name = "fundus"
    modality = Modality.FUNDUS
    version = 2
    grey = False
    dicom_codes = frozenset({"OP"}) | PHOTO_CODES

    def __init__(self, mask_outside: bool = False) -> None:
        self._mask_outside = mask_outside

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels; photographs have 8 bits, so the percentiles for deep DICOM do not."""
        field = {
            "grid": retina.GRID,
            "dark": retina.DARK,
            "area": retina.MIN_AREA,
            "open": retina.OPEN,
            "close": retina.CLOSE,
        }
        inherited = {name: value for name, value in super().parameters.items() if name != "dicom_percentiles"}
        return {**inherited, "field": field, **({"mask_outside": True} if self._mask_outside else {})}

    def render(self, decoded: Decoded, facts: FileFacts, *, cropped: bool) -> tuple[View, tuple[Step, ...]]:
        """Crop to the square around the field of view."""
        pixels, steps = to_range(decoded, facts, (0, 100))
        limits = value_range(pixels)
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
            steps += (Step("colour", "grey repeated"),)
        rgb = scale_to_uint8(pixels, *limits)
        box = retina.find_field_of_view(rgb)
        if self._mask_outside:
            pixels = np.where(retina.field_mask(rgb)[:, :, None], pixels, limits[0]).astype(pixels.dtype)
            steps += (Step("mask", "black outside the field of view"),)
        part = None
        if box is not None and cropped:
            part = retina.square_of(box)
            pixels = retina.square_around(pixels, box)
            steps += (Step("crop field", f"square around {box}"),)
        header = facts.header or DicomHeader()
        side = header.laterality if header.laterality in ("L", "R") else None
        return View(pixels, limits, laterality=side, burned_in=header.burned_in, part=part), steps
