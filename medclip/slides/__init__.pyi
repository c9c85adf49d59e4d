"""What type checkers see of `medclip.slides`: every public name as what it is; see `medclip/runs/__init__.pyi`."""

from medclip.api.slides import embed, export, learn, places, predict, tissue
from medclip.imaging.slides.outlines import from_geojson, overview, to_geojson
from medclip.imaging.slides.patch_grid import iter_patches, make_grid
from medclip.imaging.slides.patch_grid import slide_patches as patches
from medclip.imaging.slides.patch_quality import assess_patch
from medclip.imaging.slides.readers.open import open_slide as open
from medclip.imaging.slides.stain import StainOptions, estimate_stain, normalise_stain, slide_stain
from medclip.imaging.slides.tissue.find import TissueOptions, find_tissue
from medclip.slides.slide_features import SlideFeatures
from medclip.slides.slide_store import open_slide_store as open_store

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
