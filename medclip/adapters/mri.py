"""MRI: series, enhanced objects, mosaics and NIfTI as volumes with grey slices; exported slices as images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medclip.adapters.base import ImageAdapter, Source, value_range
from medclip.adapters.ct import accepts_volume
from medclip.adapters.depth import shown_range, to_range
from medclip.dicom.pixels.decoded import Decoded, check_not_small
from medclip.files.recognise.inspect import FileFacts
from medclip.imaging.crop import dark_borders as borders
from medclip.imaging.intensity import stretch
from medclip.imaging.volume import resample as volume_grid
from medclip.imaging.volume.read import read_volume, slice_indices
from medclip.imaging.volume.resample import still_frame
from medclip.sample import Kind, Modality, Sample, Step, View
from medclip.settings import Settings

MAX_VIEWS = 16


class MriAdapter(ImageAdapter):
    """A volume and up to 16 of its slices in grey; or one exported slice to one grey view, without its dark border.

    MR intensities have no unit. A series is stretched from the 0.5 to the 99.5 percentile of its voxels above the
    background: once for all slices, so that they can be compared. Images deeper than 8 bits are stretched between
    the same percentiles of their own.

    Of a series in time the views show one frame: the first with the lowest b-value where b-values are known (the
    diffusion-weighted ones show little anatomy), else the middle one. A frame that was measured, not the mean: the mean
    blurs what moved and mixes contrasts, and the first frames of fMRI are brighter than all that follow.
    """

    name = "mri"
    modality = Modality.MRI
    version = 1
    grey = True
    kinds = frozenset({Kind.IMAGE, Kind.VOLUME})
    percentiles = (0.5, 99.5)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels of single images."""
        return {**super().parameters, "percentiles": list(self.percentiles), "border": borders.PARAMETERS}

    def parameters_of(self, kind: Kind) -> Mapping[str, Any]:
        """Constants that shape what it makes of a kind."""
        if kind is Kind.IMAGE:
            return self.parameters
        return {
            "kind": str(kind),
            **super().parameters,
            "percentiles": list(self.percentiles),
            "signal": volume_grid.SIGNAL,
            "empty": volume_grid.EMPTY,
            "max_views": MAX_VIEWS,
            "frame": "lowest b-value, else middle",
            "square_pixels": True,
        }

    def accepts(self, source: Source) -> bool:
        """Take images of one slice, MR objects, and volumes that are said to be MRI."""
        return accepts_volume(self, source, "MR")

    def describe(self, kind: Kind) -> str:
        """Describe in one line what is read for a kind."""
        if kind is Kind.IMAGE:
            return super().describe(kind)
        return (
            f"volume without unit, int16 or float32 (NIfTI: as stored) [(frame,) slice, row, column]; "
            f"1-{MAX_VIEWS} views, H x W x 1, "
            "float32 0-1"
        )

    def read_unit(self, source: Source, settings: Settings) -> Sample:
        """Read an image or a volume."""
        if source.kind is not Kind.VOLUME:
            return super().read_unit(source, settings)
        read = read_volume(source.paths, source.facts, settings)
        check_not_small(read.volume.voxels.reshape(-1, *read.volume.voxels.shape[-2:])[0])
        still, steps = still_frame(read.volume, read.headers)
        low, high, stretched = shown_range(still, settings, self.percentiles, signal_only=True)
        chosen = slice_indices(still, MAX_VIEWS)
        burned_in = source.first.header.burned_in if source.first.header is not None else None
        views: list[View] = []
        for index in chosen:
            plane, spacing = volume_grid.square_pixels(still.voxels[index], still.spacing_mm[1:])
            views.append(
                View(stretch(plane, low, high)[:, :, None], (0.0, 1.0), spacing_mm=spacing, burned_in=burned_in)
            )
        steps = (
            *read.steps,
            *steps,
            Step("slices", f"{len(chosen)} of {still.voxels.shape[0]} {still.plane}: {', '.join(map(str, chosen))}"),
            stretched,
        )
        provenance = self.provenance(source, steps, read.decoder, settings)
        return Sample(self.modality, tuple(views), provenance, read.headers, Kind.VOLUME, read.volume)

    def render(self, decoded: Decoded, facts: FileFacts, *, cropped: bool) -> tuple[View, tuple[Step, ...]]:
        """Stretch deep slices and trim dark borders."""
        pixels, steps = to_range(decoded, facts, self.percentiles)
        pixels, box = borders.crop_dark_borders(pixels, value_range(pixels)) if cropped else (pixels, None)
        if box is not None:
            steps += (Step("crop border", str(box)),)
        burned_in = facts.header.burned_in if facts.header else None
        return View(pixels, value_range(pixels), burned_in=burned_in, part=box), steps
