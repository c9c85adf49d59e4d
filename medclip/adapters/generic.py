"""A plain 8-bit rendering of any readable image or loop, from which the modality is inferred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.base import ImageAdapter, Source, is_raster, value_range
from medclip.adapters.depth import to_range
from medclip.adapters.loops import VIDEOS, LoopAdapter, Plan
from medclip.dicom.header.read import DicomHeader
from medclip.dicom.pixels.decoded import Decoded
from medclip.files.recognise.inspect import PROJECTION_CODES, FileFacts
from medclip.files.recognise.sniff import Format
from medclip.imaging.intensity import scale_to_uint8
from medclip.imaging.video import MAX_VIEWS
from medclip.sample import Kind, Sample, Step, View
from medclip.settings import Settings


class GenericAdapter(LoopAdapter):
    """One file to one uint8 view, or up to 16 of a loop, grey (C = 1) or RGB as stored; nothing is cropped.

    It reads DICOM of every modality code, each file on its own: a CT slice as the image that its window makes of it,
    an enhanced object as its frames.
    """

    name = "generic"
    modality = None
    version = 2
    grey = False
    kinds = frozenset({Kind.IMAGE, Kind.CINE, Kind.VOLUME})
    dicom_codes = PROJECTION_CODES
    """For the hash only, which is older than the reading of other codes."""
    percentiles = (0.1, 99.9)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels."""
        return {**super().parameters, "percentiles": list(self.percentiles)}

    def accepts(self, source: Source) -> bool:
        """Return whether a unit is one file that is an image or holds frames."""
        facts = source.first
        if source.kind not in self.kinds:
            return False
        if facts.format is Format.DICOM:
            return facts.header is not None and (len(source.paths) == 1 or source.kind is Kind.VOLUME)
        if source.kind is Kind.CINE:
            return facts.format in VIDEOS and len(source.paths) == 1
        return source.kind is Kind.IMAGE and is_raster(source)

    def describe(self, kind: Kind) -> str:
        """Describe in one line what is read for a kind."""
        if kind is Kind.IMAGE:
            return "1 view, H x W x 1 or 3 as stored, uint8 0-255, nothing cropped"
        views = f"up to {MAX_VIEWS} views, H x W x 1 or 3 as stored, uint8 0-255, nothing cropped"
        if kind is Kind.VOLUME:
            return f"{views}; DICOM only, each slice as its window shows it"
        return f"{views}; frames [F, H, W, C]"

    def read_unit(self, source: Source, settings: Settings) -> Sample:
        """Read an image or a loop; a DICOM file of slices counts as one or the other by its number of frames."""
        header = source.first.header
        if len(source.paths) > 1 and source.kind is Kind.VOLUME:
            return self._read_series(source, settings)
        if source.kind is Kind.VOLUME:
            source = replace(source, kind=Kind.CINE if header is not None and header.frames > 1 else Kind.IMAGE)
        if source.kind is Kind.CINE:
            return super().read_unit(source, settings)
        return ImageAdapter.read_unit(self, source, settings)

    def _read_series(self, source: Source, settings: Settings) -> Sample:
        """Read some slices of a series, evenly spaced, each as an image of its own."""
        count = len(source.paths)
        chosen = sorted({round(n * (count - 1) / (MAX_VIEWS - 1)) for n in range(MAX_VIEWS)})
        slices = [
            ImageAdapter.read_unit(self, Source(Kind.IMAGE, (source.paths[n],), (source.facts[n],)), settings)
            for n in chosen
        ]
        middle = slices[len(slices) // 2]
        steps = (Step("slices", f"{len(chosen)} of {count}, evenly spaced"), *middle.provenance.steps)
        return replace(
            middle,
            views=tuple(view for sample in slices for view in sample.views),
            provenance=self.provenance(source, steps, middle.provenance.decoder, settings),
            kind=Kind.VOLUME,
        )

    def plan(self, frames: NDArray[np.uint8], facts: FileFacts, spacing_mm: tuple[float, float] | None) -> Plan:
        """Leave frames as they are."""
        return Plan(spacing_mm=spacing_mm)

    def render(self, decoded: Decoded, facts: FileFacts, *, cropped: bool) -> tuple[View, tuple[Step, ...]]:
        """Stretch deep images and round to 8 bits."""
        pixels, steps = to_range(decoded, facts, self.percentiles)
        header = facts.header or DicomHeader()
        view = View(
            scale_to_uint8(pixels, *value_range(pixels)),
            (0.0, 255.0),
            spacing_mm=decoded.spacing_mm or header.spacing_mm,
            burned_in=header.burned_in,
        )
        return view, steps
