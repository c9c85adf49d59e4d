"""Whole-slide images as `medclip.slides`: open one, find its tissue, lay a grid, read patches, exchange outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclip.lazy import lazy_names

if TYPE_CHECKING:
    from medclip.imaging.slides.patches.geojson import from_geojson, to_geojson
    from medclip.imaging.slides.patches.grid import make_grid
    from medclip.imaging.slides.patches.overview import overview
    from medclip.imaging.slides.patches.stream import iter_patches
    from medclip.imaging.slides.patches.stream import slide_patches as patches
    from medclip.imaging.slides.readers.open import open_slide as open
    from medclip.imaging.slides.tissue.find import TissueOptions, find_tissue

__all__ = [
    "TissueOptions",
    "find_tissue",
    "from_geojson",
    "iter_patches",
    "make_grid",
    "open",
    "overview",
    "patches",
    "to_geojson",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "TissueOptions": "medclip.imaging.slides.tissue.find:TissueOptions",
        "find_tissue": "medclip.imaging.slides.tissue.find:find_tissue",
        "from_geojson": "medclip.imaging.slides.patches.geojson:from_geojson",
        "iter_patches": "medclip.imaging.slides.patches.stream:iter_patches",
        "make_grid": "medclip.imaging.slides.patches.grid:make_grid",
        "open": "medclip.imaging.slides.readers.open:open_slide",
        "overview": "medclip.imaging.slides.patches.overview:overview",
        "patches": "medclip.imaging.slides.patches.stream:slide_patches",
        "to_geojson": "medclip.imaging.slides.patches.geojson:to_geojson",
    },
)
