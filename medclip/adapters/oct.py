"""Optical coherence tomography: B-scans as images, and stacks of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.loops import PHOTO_CODES, LoopAdapter, Plan
from medclip.files.recognise.inspect import FileFacts
from medclip.imaging.crop import dark_borders as borders
from medclip.sample import Kind, Modality, Step


class OctAdapter(LoopAdapter):
    """One B-scan to one grey view, a stack of B-scans to up to 16, without black or white margins.

    The frames of a multi-frame object or video are taken as B-scans in the order stored, not as times.
    """

    name = "oct"
    modality = Modality.OCT
    version = 1
    dicom_codes = frozenset({"OPT", "OCT", "IVOCT"}) | PHOTO_CODES
    percentiles = (0.1, 99.9)
    frame_word = "B-scans"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels."""
        border = {**borders.PARAMETERS, "white": True}
        return {**super().parameters, "percentiles": list(self.percentiles), "border": border}

    def describe(self, kind: Kind) -> str:
        """Describe in one line what is read for a kind."""
        if kind is Kind.CINE:
            return "up to 16 views of the B-scans, H x W x 1, uint8 0-255; frames [B-scan, H, W, 1]"
        return "1 view, H x W x 1, margins trimmed, uint8 0-255 or float32 0-1"

    def plan(self, frames: NDArray[np.uint8], facts: FileFacts, spacing_mm: tuple[float, float] | None) -> Plan:
        """Trim margins that are black or white in every frame."""
        box = borders.find_plain_borders(frames)
        steps: tuple[Step, ...] = () if box is None else (Step("crop border", str(box)),)
        if frames.shape[3] == 3:
            steps += (Step("luma", "RGB to grey"),)
        return Plan(box, 1, spacing_mm, steps)
