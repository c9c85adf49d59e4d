"""Pathology: tiles as images, and whole slides as patches spread over their tissue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from medclip.adapters.base import ImageAdapter, Source, stated, value_range
from medclip.adapters.depth import to_range
from medclip.dicom.header.read import modality_code
from medclip.dicom.pixels.decoded import Decoded
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.imaging.slides.patch_grid import Patch, PatchGrid, iter_patches, make_grid, no_tissue
from medclip.imaging.slides.readers import pyramid
from medclip.imaging.slides.readers.backend import PERCENTILES
from medclip.imaging.slides.readers.open import open_slide
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.tissue.find import TissueMask, TissueOptions, find_tissue
from medclip.sample import Kind, Modality, Sample, Step, View
from medclip.settings import Settings

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66."


class PathologyAdapter(ImageAdapter):
    """A tile (PNG, JPEG, TIFF) to one RGB view as it is; a slide to RGB patches of one size and scale."""

    name = "pathology"
    modality = Modality.PATHOLOGY
    version = 1
    grey = False
    dicom_codes = frozenset({"GM"})
    """General microscopy: single images. Slides say SM."""
    kinds = frozenset({Kind.IMAGE, Kind.SLIDE})

    size_px = 256
    mpp_um = 0.5
    min_coverage = 0.5
    num_views = 64
    """Most patches of a sample, spread evenly over the tissue. `imaging.slides.patch_grid` streams all of them."""
    tissue = TissueOptions()

    def parameters_of(self, kind: Kind) -> Mapping[str, Any]:
        """Constants that shape the views."""
        if kind is not Kind.SLIDE:
            return super().parameters_of(kind)
        return {
            **super().parameters_of(kind),
            "size_px": self.size_px,
            "mpp_um": self.mpp_um,
            "native": pyramid.NATIVE,
            "resize": "box where it fits, box and lanczos elsewhere",
            "min_coverage": self.min_coverage,
            "num_views": self.num_views,
            "tissue": {name: _plain(value) for name, value in asdict(self.tissue).items()},
            "percentiles": list(PERCENTILES),
        }

    def accepts(self, source: Source) -> bool:
        """Return whether it reads a unit: single images, slide files, and DICOM slides of any number of files."""
        if source.kind is not Kind.SLIDE:
            return super().accepts(source)
        if source.first.format is Format.DICOM:
            return any(_is_slide(facts) for facts in source.facts)
        return len(source.paths) == 1 and source.first.format in (Format.SLIDE, Format.TIFF)

    def describe(self, kind: Kind) -> str:
        """Describe in one line what is read for a kind."""
        if kind is not Kind.SLIDE:
            return "1 view, H x W x 3, uint8 0-255 or float32 0-1"
        size = self.size_px
        return f"1 to {self.num_views} views, {size} x {size} x 3, uint8 0-255, at {self.mpp_um:g} µm/px"

    def read_unit(self, source: Source, settings: Settings) -> Sample:
        """Read a tile or a slide."""
        if source.kind is not Kind.SLIDE:
            return super().read_unit(source, settings)
        with self.tiles(source, settings) as (reader, tissue, grid, chosen):
            rows_mm, columns_mm = (round(value / 1000, 9) for value in grid.effective_mpp_um)
            views = tuple(
                View(pixels, (0.0, 255.0), spacing_mm=(rows_mm, columns_mm))
                for _, pixels in iter_patches(reader, grid, chosen)
            )
            steps = self._steps(reader, tissue, grid, len(views))
            provenance = self.provenance(source, steps, reader.facts.decoder, settings)
            return Sample(
                self.modality,
                views,
                provenance,
                {**stated(source.first), **_headers(reader, tissue, grid)},
                kind=Kind.SLIDE,
            )

    @contextmanager
    def tiles(
        self, source: Source, settings: Settings
    ) -> Iterator[tuple[SlideReader, TissueMask, PatchGrid, tuple[Patch, ...]]]:
        """Open a slide and choose the patches that become views.

        Raises:
            MedclipError: NO_TISSUE, and what opening raises.
        """
        with open_slide(slide_files(source), _with_scale(settings, source.mpp_um)) as reader:
            tissue = find_tissue(reader, self.tissue)
            grid = make_grid(reader, tissue, size_px=self.size_px, mpp_um=self.mpp_um, min_coverage=self.min_coverage)
            if not len(grid):
                raise no_tissue(tissue.problem, tissue.pen_fraction, grid.candidates)
            yield reader, tissue, grid, grid.spread(self.num_views)

    def render(self, decoded: Decoded, facts: FileFacts, *, cropped: bool) -> tuple[View, tuple[Step, ...]]:
        """Return a tile as it is; grey is repeated, deep images are stretched over their whole range."""
        pixels, steps = to_range(decoded, facts, (0, 100))
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
            steps += (Step("colour", "grey repeated"),)
        return View(pixels, value_range(pixels)), steps

    def _steps(self, reader: SlideReader, tissue: TissueMask, grid: PatchGrid, views: int) -> tuple[Step, ...]:
        rows, columns = grid.effective_mpp_um
        notes = [*reader.notes, *tissue.notes]
        if reader.mpp_um is not None and reader.mpp_um != reader.facts.mpp_um:
            stated = "no more than a print resolution" if reader.for_print else "no pixel size"
            notes.append(f"the slide states {stated}; {reader.mpp_um[0]:g} µm/px as the user says")
        return (
            *(Step("note", note) for note in notes),
            Step("tissue", f"{tissue.fraction:.1%} of the slide, from an overview at {tissue.mpp_um[0]:.4g} µm/px"),
            Step(
                "patches",
                f"{views} of {len(grid)} with at least {self.min_coverage:.0%} tissue, of {grid.candidates} places",
            ),
            Step("scale", f"{rows:.4g} x {columns:.4g} µm/px for {self.mpp_um:g} wanted"),
        )


def slide_files(source: Source) -> list[Path]:
    """Return the files of a unit that are the slide's: of a DICOM one, those that hold its images."""
    pairs = zip(source.paths, source.facts, strict=True)
    dicom = source.first.format is Format.DICOM
    return [path for path, facts in pairs if not dicom or _is_slide(facts)]


def _is_slide(facts: FileFacts) -> bool:
    header = facts.header
    return header is not None and modality_code(header) == "SM" and not header.sop_class.startswith(_SEGMENTATION)


def _with_scale(settings: Settings, mpp_um: float | None) -> Settings:
    """Let the table's pixel size of this slide stand before the one that was named for all."""
    if mpp_um is None:
        return settings
    return replace(settings, policy=replace(settings.policy, mpp_um=mpp_um))


def _headers(reader: SlideReader, tissue: TissueMask, grid: PatchGrid) -> dict[str, Any]:
    """Return what may be told of a slide."""
    mpp = reader.mpp_um
    assert mpp is not None  # the grid could not have been made
    return {
        **reader.properties,
        "mpp_um": [round(value, 6) for value in mpp],
        "size_px": [reader.size_px[1], reader.size_px[0]],
        "levels": [[level.width_px, level.height_px] for level in reader.levels],
        "tissue_fraction": round(tissue.fraction, 4),
        "pen_fraction": round(tissue.pen_fraction, 4),
        "num_patches": len(grid),
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
