"""MRI slices exported as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medclip.adapters.base import ImageAdapter, value_range
from medclip.adapters.depth import to_range
from medclip.files.inspect import FileFacts
from medclip.imaging import borders
from medclip.imaging.decoded import Decoded
from medclip.sample import Modality, Step, View


class MriAdapter(ImageAdapter):
    """One slice as PNG, JPEG or TIFF to one grey view, without its dark border.

    MR intensities have no unit: slices deeper than 8 bits are stretched from their 0.5 to their 99.5 percentile.
    """

    name = "mri"
    modality = Modality.MRI
    version = 1
    grey = True
    percentiles = (0.5, 99.5)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels."""
        crop = {"grid": borders.GRID, "dark": borders.DARK, "stray": borders.STRAY, "keep": borders.KEEP}
        return {**super().parameters, "percentiles": list(self.percentiles), "border": crop}

    def render(self, decoded: Decoded, facts: FileFacts) -> tuple[View, tuple[Step, ...]]:
        """Stretch deep slices and trim dark borders."""
        pixels, steps = to_range(decoded, facts, self.percentiles)
        pixels, box = borders.crop_dark_borders(pixels, value_range(pixels))
        if box is not None:
            steps += (Step("crop border", str(box)),)
        return View(pixels, value_range(pixels)), steps
