"""Dermatology photographs and dermoscopy."""

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
from medclip.sample import Modality, Step, View


class DermatologyAdapter(ImageAdapter):
    """One photograph to one RGB view, as it is.

    External-camera photographs (XC) and objects that do not say may be anything: they are read where a person or a
    table says that they are dermatology.
    """

    name = "dermatology"
    modality = Modality.DERMATOLOGY
    version = 1
    grey = False
    dicom_codes = frozenset({"DMS"}) | PHOTO_CODES

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels; photographs have 8 bits, so the percentiles for deep DICOM do not."""
        return {name: value for name, value in super().parameters.items() if name != "dicom_percentiles"}

    def render(self, decoded: Decoded, facts: FileFacts, *, cropped: bool) -> tuple[View, tuple[Step, ...]]:
        """Return RGB."""
        pixels, steps = to_range(decoded, facts, (0, 100))
        limits = value_range(pixels)
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
            steps += (Step("colour", "grey repeated"),)
        header = facts.header or DicomHeader()
        return View(pixels, limits, burned_in=header.burned_in), steps
