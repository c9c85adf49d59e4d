"""Whole-slide images as `medclip.slides`: open one, find its tissue, lay a grid, read patches, exchange outlines.

`tissue`, `places` and `embed` do this for whole folders, and keep what they find; `open_store` reads the vectors.
`learn` makes a head for whole slides of vectors and labels, `predict` answers for slides, `export` writes them for
other programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclip.lazy import lazy_names

if TYPE_CHECKING:
    from medclip.imaging.slides.patches.geojson import from_geojson, to_geojson
    from medclip.imaging.slides.patches.grid import make_grid
    from medclip.imaging.slides.patches.overview import overview
    from medclip.imaging.slides.patches.stream import iter_patches
    from medclip.imaging.slides.patches.stream import slide_patches as patches
    from medclip.imaging.slides.quality import assess_patch
    from medclip.imaging.slides.readers.open import open_slide as open
    from medclip.imaging.slides.stain.estimate import StainOptions, estimate_stain
    from medclip.imaging.slides.stain.normalise import normalise_stain, slide_stain
    from medclip.imaging.slides.tissue.find import TissueOptions, find_tissue
    from medclip.slides.exchange.export import export
    from medclip.slides.learning.learn import learn
    from medclip.slides.learning.predict import predict
    from medclip.slides.stages.verbs import embed, places, tissue
    from medclip.slides.store.slide_features import SlideFeatures
    from medclip.slides.store.slide_store import open_slide_store as open_store

__all__ = [
    "SlideFeatures",
    "StainOptions",
    "TissueOptions",
    "assess_patch",
    "embed",
    "estimate_stain",
    "export",
    "find_tissue",
    "from_geojson",
    "iter_patches",
    "learn",
    "make_grid",
    "normalise_stain",
    "open",
    "open_store",
    "overview",
    "patches",
    "places",
    "predict",
    "slide_stain",
    "tissue",
    "to_geojson",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "SlideFeatures": "medclip.slides.store.slide_features:SlideFeatures",
        "StainOptions": "medclip.imaging.slides.stain.estimate:StainOptions",
        "TissueOptions": "medclip.imaging.slides.tissue.find:TissueOptions",
        "assess_patch": "medclip.imaging.slides.quality:assess_patch",
        "embed": "medclip.slides.stages.verbs:embed",
        "estimate_stain": "medclip.imaging.slides.stain.estimate:estimate_stain",
        "export": "medclip.slides.exchange.export:export",
        "find_tissue": "medclip.imaging.slides.tissue.find:find_tissue",
        "from_geojson": "medclip.imaging.slides.patches.geojson:from_geojson",
        "iter_patches": "medclip.imaging.slides.patches.stream:iter_patches",
        "learn": "medclip.slides.learning.learn:learn",
        "make_grid": "medclip.imaging.slides.patches.grid:make_grid",
        "normalise_stain": "medclip.imaging.slides.stain.normalise:normalise_stain",
        "open": "medclip.imaging.slides.readers.open:open_slide",
        "open_store": "medclip.slides.store.slide_store:open_slide_store",
        "overview": "medclip.imaging.slides.patches.overview:overview",
        "patches": "medclip.imaging.slides.patches.stream:slide_patches",
        "places": "medclip.slides.stages.verbs:places",
        "predict": "medclip.slides.learning.predict:predict",
        "slide_stain": "medclip.imaging.slides.stain.normalise:slide_stain",
        "tissue": "medclip.slides.stages.verbs:tissue",
        "to_geojson": "medclip.imaging.slides.patches.geojson:to_geojson",
    },
)
