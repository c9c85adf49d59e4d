"""Projection X-ray: CR, DX and secondary captures of them, and exported pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medclip.adapters.base import ImageAdapter, value_range
from medclip.adapters.depth import to_range
from medclip.files.dicom_header import DicomHeader
from medclip.files.inspect import FileFacts
from medclip.files.support import PROJECTION_CODES
from medclip.imaging import borders
from medclip.imaging.decoded import Decoded
from medclip.sample import Modality, Step, View

_POSITIONS: Mapping[str, str] = {
    "AP": "AP",
    "PA": "PA",
    "LL": "LATERAL",
    "RL": "LATERAL",
    "LATERAL": "LATERAL",
    "LAT": "LATERAL",
    "LLAT": "LATERAL",
    "RLAT": "LATERAL",
    "RLO": "OBLIQUE",
    "LLO": "OBLIQUE",
}


class XrayAdapter(ImageAdapter):
    """One projection X-ray file to one grey view, without its dark border.

    Pictures deeper than 8 bits outside DICOM are stretched from their 0.1 to their 99.9 percentile.
    """

    name = "xray"
    modality = Modality.XRAY
    version = 2
    grey = True
    dicom_codes = PROJECTION_CODES
    percentiles = (0.1, 99.9)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels."""
        crop = {"grid": borders.GRID, "dark": borders.DARK, "stray": borders.STRAY, "keep": borders.KEEP}
        return {**super().parameters, "percentiles": list(self.percentiles), "border": crop}

    def render(self, decoded: Decoded, facts: FileFacts) -> tuple[View, tuple[Step, ...]]:
        """Stretch deep pictures, trim dark borders, take position and side from the header."""
        pixels, steps = to_range(decoded, facts, self.percentiles)
        limits = value_range(pixels)
        pixels, box = borders.crop_dark_borders(pixels, limits)
        if box is not None:
            steps += (Step("crop border", str(box)),)
        header = facts.header or DicomHeader()
        view = View(
            pixels,
            limits,
            laterality=header.laterality if header.laterality in ("L", "R") else None,
            position=_POSITIONS.get(header.view_position),
            spacing_mm=header.spacing_mm,
            burned_in=header.burned_in,
        )
        return view, steps
