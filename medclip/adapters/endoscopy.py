"""Endoscopy: images and loops, from DICOM, video and exported images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.loops import PHOTO_CODES, LoopAdapter, Plan
from medclip.files.recognise.inspect import FileFacts
from medclip.imaging.crop import lit_area as lit
from medclip.sample import Kind, Modality, Step

RULE = lit.LitRule(dark=28, opening=4, share=1.0, margin=0.0)


class EndoscopyAdapter(LoopAdapter):
    """One image to one RGB view, one loop to up to 16, cropped to the field of view.

    The field (round, or with cut corners) is the largest lit area; panels of text and small images beside it go.
    """

    name = "endoscopy"
    modality = Modality.ENDOSCOPY
    version = 1
    dicom_codes = frozenset({"ES"}) | PHOTO_CODES

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels."""
        return {
            **super().parameters,
            "field": {"grid": lit.GRID, "keep": lit.KEEP, "moves": [lit.MOVES, lit.MOVING_PART], **RULE._asdict()},
        }

    def describe(self, kind: Kind) -> str:
        """Describe in one line what is read for a kind."""
        if kind is Kind.CINE:
            return "up to 16 views, H x W x 3, cropped to the field of view, uint8 0-255; frames [F, H, W, 3]"
        return "1 view, H x W x 3, cropped to the field of view, uint8 0-255 or float32 0-1"

    def plan(self, frames: NDArray[np.uint8], facts: FileFacts, spacing_mm: tuple[float, float] | None) -> Plan:
        """Crop to the largest lit area."""
        box = lit.find_lit(frames, RULE)
        steps = () if box is None else (Step("crop field", f"largest lit area: {box}"),)
        return Plan(box, 3, steps=steps, headers={"crop_from": None if box is None else "lit field"})
