"""CT: series, enhanced objects and NIfTI as HU volumes with windowed slices; exported slices as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from medclip.adapters.base import ImageAdapter, Source, is_raster, value_range
from medclip.adapters.depth import asked_window, shown_range, to_range
from medclip.dicom.header.read import DicomHeader, modality_code
from medclip.dicom.pixels.decoded import Decoded, check_not_constant, check_not_small
from medclip.dicom.pixels.render import read_dicom
from medclip.errors import MedclipError, Reason
from medclip.files.grouping.units import is_secondary
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.imaging.crop import dark_borders as borders
from medclip.imaging.intensity import stretch
from medclip.imaging.volume import resample as volume_grid
from medclip.imaging.volume.read import VOLUMES, VolumeRead, is_radiograph, read_volume, slice_indices
from medclip.imaging.volume.resample import still_frame
from medclip.imaging.volume.volume_read import AIR_HU, HU, RELATIVE, fill
from medclip.sample import Kind, Modality, Sample, Step, View, Volume
from medclip.settings import Settings

WINDOW_HU: Mapping[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "soft_tissue": (40.0, 400.0),
    "bone": (400.0, 1800.0),
}
"""Centre and width in HU, in the order of the channels."""
MAX_VIEWS = 16
Range = tuple[float, float]
AIR_SEEN = -200.0
"""Values in HU have some below this: there is air around the body, and fat ends at -150."""


class CtAdapter(ImageAdapter):
    """A volume in HU and up to 16 of its slices, windowed for lung, soft tissue and bone in three channels.

    Args:
        sampling: Way of sampling. "slices": the channels are three windows on one slice. "2.5d": the channels are a
            slice and its two neighbours in the soft tissue window; at the ends the slice itself stands for the missing
            neighbour.
    """

    name = "ct"
    modality = Modality.CT
    version = 1
    grey = True
    kinds = frozenset({Kind.IMAGE, Kind.VOLUME})
    dicom_codes = frozenset({"CT"})
    percentiles = (0.5, 99.5)

    def __init__(self, sampling: Literal["slices", "2.5d"] = "slices") -> None:
        if sampling not in ("slices", "2.5d"):
            raise MedclipError(Reason.WRONG_USE, "CtAdapter's sampling is 'slices' or '2.5d'.")
        self.sampling = sampling

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels of single images."""
        return {**super().parameters, "percentiles": list(self.percentiles), "border": borders.PARAMETERS}

    def parameters_of(self, kind: Kind) -> Mapping[str, Any]:
        """Constants that shape what it makes of a kind."""
        if kind is Kind.IMAGE:
            return self.parameters
        shared = {"kind": str(kind), **super().parameters}
        return {
            **shared,
            "sampling": self.sampling,
            "window_hu": {name: list(window) for name, window in WINDOW_HU.items()},
            "max_views": MAX_VIEWS,
            "air_hu": AIR_HU,
            "not_hu": ["percentiles", *self.percentiles],
            "empty": [volume_grid.BODY_HU, volume_grid.EMPTY],
            "square_pixels": True,
        }

    def accepts(self, source: Source) -> bool:
        """Take images of one slice, CT objects, and volumes that are said to be CT."""
        return accepts_volume(self, source, "CT")

    def describe(self, kind: Kind) -> str:
        """Describe in one line what is read for a kind."""
        if kind is Kind.IMAGE:
            return super().describe(kind)
        what = "lung, soft tissue and bone window" if self.sampling == "slices" else "a slice and its neighbours"
        return (
            f"volume in HU, int16 or float32 (NIfTI: as stored) [slice, row, column]; "
            f"1-{MAX_VIEWS} views, H x W x 3 ({what}), "
            "float32 0-1"
        )

    def read_unit(self, source: Source, settings: Settings) -> Sample:
        """Read an image or a volume."""
        header = source.first.header
        if source.kind is not Kind.VOLUME:
            return super().read_unit(source, settings)
        if header is not None and is_radiograph(header):
            return self._radiograph(source, header, settings)
        read = _in_hu(read_volume(source.paths, source.facts, settings), source)
        volume = read.volume
        check_not_small(volume.voxels.reshape(-1, *volume.voxels.shape[-2:])[0])
        still, _ = still_frame(volume, read.headers)
        chosen = slice_indices(still, MAX_VIEWS)
        ranges, windows = self._ranges(still, settings)
        views = tuple(self._view(still, index, ranges, header) for index in chosen)
        steps = (
            *read.steps,
            Step("slices", f"{len(chosen)} of {still.voxels.shape[0]} {still.plane}: {', '.join(map(str, chosen))}"),
            windows,
        )
        provenance = self.provenance(source, steps, read.decoder, settings)
        return Sample(self.modality, views, provenance, read.headers, Kind.VOLUME, volume)

    def render(self, decoded: Decoded, facts: FileFacts, *, cropped: bool) -> tuple[View, tuple[Step, ...]]:
        """Stretch deep images and trim dark borders."""
        pixels, steps = to_range(decoded, facts, self.percentiles)
        pixels, box = borders.crop_dark_borders(pixels, value_range(pixels)) if cropped else (pixels, None)
        if box is not None:
            steps += (Step("crop border", str(box)),)
        burned_in = facts.header.burned_in if facts.header else None
        return View(pixels, value_range(pixels), burned_in=burned_in, part=box), steps

    def _ranges(self, volume: Volume, settings: Settings) -> tuple[tuple[Range, ...], Step]:
        """Describe what becomes black and white in each channel. Windows in HU would show nothing of other values."""
        unwindowed = settings.policy.pixels.window == "none"
        if volume.unit != HU or unwindowed or asked_window(settings) is not None:
            low, high, step = shown_range(volume, settings, self.percentiles, signal_only=False)
            return ((low, high),) * 3, step
        chosen = WINDOW_HU if self.sampling == "slices" else {"soft_tissue": WINDOW_HU["soft_tissue"]}
        windows = "; ".join(f"{name} centre {centre:g} width {width:g} HU" for name, (centre, width) in chosen.items())
        ranges = tuple((centre - width / 2, centre + width / 2) for centre, width in chosen.values())
        return (ranges if len(ranges) == 3 else ranges * 3), Step("window", windows)

    def _view(self, volume: Volume, index: int, ranges: Sequence[Range], header: DicomHeader | None) -> View:
        last = volume.voxels.shape[0] - 1
        slices = [index] * 3 if self.sampling == "slices" else [max(0, index - 1), index, min(last, index + 1)]
        rows, columns = volume.spacing_mm[1:]
        squared = {n: volume_grid.square_pixels(volume.voxels[n], (rows, columns)) for n in sorted(set(slices))}
        channels = [stretch(squared[n][0], low, high) for n, (low, high) in zip(slices, ranges, strict=True)]
        spacing = squared[index][1]
        return View(
            np.stack(channels, axis=2),
            (0.0, 1.0),
            spacing_mm=spacing,
            burned_in=header.burned_in if header is not None else None,
        )

    def _radiograph(self, source: Source, header: DicomHeader, settings: Settings) -> Sample:
        """Show the radiograph that plans a scan as what it is: an image without HU."""
        decoded = read_dicom(source.path, settings, header=header)
        check_not_small(decoded.pixels)
        check_not_constant(decoded.pixels)
        view, steps = self.render(decoded, source.first, cropped=settings.policy.crop == "modality")
        note = Step("note", "a radiograph that plans a CT scan (localizer), not a slice: shown as an image, not in HU")
        provenance = self.provenance(source, (note, *decoded.steps, *steps), decoded.decoder, settings)
        return Sample(self.modality, (view,), provenance, decoded.headers)


def accepts_volume(adapter: ImageAdapter, source: Source, code: str) -> bool:
    """Return whether the CT and MRI adapters share a unit: images, DICOM of one modality, volume files."""
    form = source.first.format
    if source.kind not in adapter.kinds:
        return False
    if form is Format.DICOM:
        headers: Sequence[DicomHeader | None] = [facts.header for facts in source.facts]
        return all(header is not None and modality_code(header) == code for header in headers)
    if source.kind is Kind.VOLUME:
        return form in VOLUMES
    return is_raster(source)


def _in_hu(read: VolumeRead, source: Source) -> VolumeRead:
    """Name the unit of a volume that was given as CT; say so where its values cannot be HU."""
    low, high = read.headers["value_range"]
    volume = read.volume
    if source.first.format is Format.DICOM:
        header = source.first.header
        exported = header is not None and is_secondary(header) and low >= AIR_SEEN
        if volume.unit == HU and not exported:
            return read
        if exported:
            volume, why = (
                replace(volume, unit=RELATIVE),
                f"they run from {low:g} to {high:g}, and air would be near -1000",
            )
        else:
            why = "the header states no rescale to HU, or calls them something else (a map computed from CT)"
        return read._replace(volume=volume, steps=(*read.steps, Step("note", f"values are not HU: {why}")))
    if low >= AIR_SEEN:
        note = Step("note", f"values are not HU: they run from {low:g} to {high:g}, and air would be near -1000")
        return read._replace(steps=(*read.steps, note))
    voxels, filled = fill(volume.voxels, HU, low)
    return read._replace(volume=replace(volume, voxels=voxels, unit=HU), steps=(*read.steps, *filled))
