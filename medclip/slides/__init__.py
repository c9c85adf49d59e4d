"""Stages over folders of slides, their vectors and what is learned of them; one slide is read by `imaging`.

As `medclip.slides`, whole-slide images: open one, find its tissue, lay a grid, read patches, exchange outlines.
`tissue`, `places` and `embed` do this for whole folders, and keep what they find; `open_store` reads the vectors.
`learn` makes a head for whole slides of vectors and labels, `predict` answers for slides, `export` writes them for
other programs.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = [
    "SlideFeatures",
    "StainOptions",
    "TissueOptions",
    "assess_patch",  # pyright: ignore[reportUnsupportedDunderAll]
    "embed",
    "estimate_stain",
    "export",
    "find_tissue",
    "from_geojson",  # pyright: ignore[reportUnsupportedDunderAll]
    "iter_patches",
    "learn",
    "make_grid",
    "normalise_stain",
    "open",  # pyright: ignore[reportUnsupportedDunderAll]
    "open_store",
    "overview",
    "patches",
    "places",
    "predict",  # pyright: ignore[reportUnsupportedDunderAll]
    "slide_stain",
    "tissue",
    "to_geojson",  # pyright: ignore[reportUnsupportedDunderAll]
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "SlideFeatures": "medclip.slides.slide_features:SlideFeatures",
        "StainOptions": "medclip.imaging.slides.stain:StainOptions",
        "TissueOptions": "medclip.imaging.slides.tissue.find:TissueOptions",
        "assess_patch": "medclip.imaging.slides.patch_quality:assess_patch",
        "embed": "medclip.api.slides:embed",
        "estimate_stain": "medclip.imaging.slides.stain:estimate_stain",
        "export": "medclip.api.slides:export",
        "find_tissue": "medclip.imaging.slides.tissue.find:find_tissue",
        "from_geojson": "medclip.imaging.slides.outlines:from_geojson",
        "iter_patches": "medclip.imaging.slides.patch_grid:iter_patches",
        "learn": "medclip.api.slides:learn",
        "make_grid": "medclip.imaging.slides.patch_grid:make_grid",
        "normalise_stain": "medclip.imaging.slides.stain:normalise_stain",
        "open": "medclip.imaging.slides.readers.open:open_slide",
        "open_store": "medclip.slides.slide_store:open_slide_store",
        "overview": "medclip.imaging.slides.outlines:overview",
        "patches": "medclip.imaging.slides.patch_grid:slide_patches",
        "places": "medclip.api.slides:places",
        "predict": "medclip.api.slides:predict",
        "slide_stain": "medclip.imaging.slides.stain:slide_stain",
        "tissue": "medclip.api.slides:tissue",
        "to_geojson": "medclip.imaging.slides.outlines:to_geojson",
    },
)
