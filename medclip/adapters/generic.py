"""A plain 8-bit rendering of any readable image, from which the modality is inferred."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medclip.adapters.base import ImageAdapter, value_range
from medclip.adapters.depth import to_range
from medclip.files.dicom_header import DicomHeader
from medclip.files.inspect import FileFacts
from medclip.files.support import PROJECTION_CODES
from medclip.imaging.decoded import Decoded
from medclip.imaging.intensity import scale_to_uint8
from medclip.sample import Step, View


class GenericAdapter(ImageAdapter):
    """One file to one uint8 view, grey (C = 1) or RGB as stored; nothing is cropped."""

    name = "generic"
    modality = None
    version = 2
    grey = False
    dicom_codes = PROJECTION_CODES
    percentiles = (0.1, 99.9)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels."""
        return {**super().parameters, "percentiles": list(self.percentiles)}

    def render(self, decoded: Decoded, facts: FileFacts) -> tuple[View, tuple[Step, ...]]:
        """Stretch deep pictures and round to 8 bits."""
        pixels, steps = to_range(decoded, facts, self.percentiles)
        header = facts.header or DicomHeader()
        view = View(
            scale_to_uint8(pixels, *value_range(pixels)),
            (0.0, 255.0),
            spacing_mm=header.spacing_mm,
            burned_in=header.burned_in,
        )
        return view, steps
