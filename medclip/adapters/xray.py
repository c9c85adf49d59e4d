"""Projection X-ray: CR, DX and secondary captures of them, and exported images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from medclip.adapters.base import ImageAdapter, Source, value_range
from medclip.adapters.depth import to_range
from medclip.dicom.header.read import DicomHeader
from medclip.dicom.pixels.decoded import Decoded
from medclip.files.recognise.inspect import PROJECTION_CODES, FileFacts
from medclip.imaging.crop import dark_borders as borders
from medclip.sample import Modality, Sample, Step, View
from medclip.settings import Settings

_POSITIONS: Mapping[str, str] = {
    "AP": "AP",
    "PA": "PA",
    "FRONTAL": "FRONTAL",
    "LL": "LATERAL",
    "RL": "LATERAL",
    "LATERAL": "LATERAL",
    "LAT": "LATERAL",
    "LLAT": "LATERAL",
    "RLAT": "LATERAL",
    "L LAT": "LATERAL",
    "R LAT": "LATERAL",
    "LEFT LATERAL": "LATERAL",
    "RIGHT LATERAL": "LATERAL",
    "RLO": "OBLIQUE",
    "LLO": "OBLIQUE",
    "LAO": "OBLIQUE",
    "RAO": "OBLIQUE",
    "LPO": "OBLIQUE",
    "RPO": "OBLIQUE",
    "OBLIQUE": "OBLIQUE",
}


class XrayAdapter(ImageAdapter):
    """One projection X-ray file to one grey view, without its dark border.

    Images deeper than 8 bits outside DICOM are stretched from their 0.1 to their 99.9 percentile.
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
        return {**super().parameters, "percentiles": list(self.percentiles), "border": borders.PARAMETERS}

    def read_unit(self, source: Source, settings: Settings) -> Sample:
        """Read an image, and say where its position is known from."""
        sample = super().read_unit(source, settings)
        view, origin = position(source.first.header or DicomHeader())
        return replace(sample, headers={**sample.headers, "position": view, "position_from": origin})

    def render(self, decoded: Decoded, facts: FileFacts, *, cropped: bool) -> tuple[View, tuple[Step, ...]]:
        """Stretch deep images, trim dark borders, take position and side from the header."""
        pixels, steps = to_range(decoded, facts, self.percentiles)
        limits = value_range(pixels)
        pixels, box = borders.crop_dark_borders(pixels, limits) if cropped else (pixels, None)
        if box is not None:
            steps += (Step("crop border", str(box)),)
        header = facts.header or DicomHeader()
        view = View(
            pixels,
            limits,
            part=box,
            laterality=header.laterality if header.laterality in ("L", "R") else None,
            position=position(header)[0],
            spacing_mm=decoded.spacing_mm or header.spacing_mm,
            burned_in=header.burned_in,
        )
        return view, steps


def position(header: DicomHeader) -> tuple[str | None, str | None]:
    """Return the view and the element that says it.

    Returns:
        AP, PA, LATERAL, OBLIQUE, FRONTAL (AP or PA, which it is unknown) or None; and ViewPosition, ViewCodeSequence,
        PatientOrientation or None. A frontal image is shown the same way whichever side the tube was on, so the
        patient's orientation cannot tell AP from PA.
    """
    if header.view_position in _POSITIONS:
        return _POSITIONS[header.view_position], "ViewPosition"
    if header.view_code in _POSITIONS:
        return _POSITIONS[header.view_code], "ViewCodeSequence"
    oriented = _by_orientation(tuple(value.upper() for value in header.patient_orientation))
    return oriented, "PatientOrientation" if oriented else None


def _by_orientation(values: tuple[str, ...]) -> str | None:
    """Read the directions in which columns and rows lead, such as L and F for a frontal view."""
    if len(values) != 2 or not all(value and set(value) <= set("LRAPHF") for value in values):
        return None
    upright = [value[0] in "HF" for value in values]
    if upright[0] == upright[1]:  # no direction, or both, along the body: not a projection of the trunk
        return None
    across = values[upright.index(False)]
    sideways, through = bool(set(across) & set("LR")), bool(set(across) & set("AP"))
    if sideways and through:
        return "OBLIQUE"
    return "FRONTAL" if sideways else "LATERAL"
