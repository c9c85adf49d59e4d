"""Stream the patches of a slide: one at a time, each stored tile decoded once, in bounded memory.

Patches come row by row, so that neighbours find the tiles they share still decoded. What is held is the patch itself
and the reader's cache (`settings.slide_cache_bytes`); two rows of stored tiles of a 100,000 px wide slide are 154 MB.
Where they do not fit, tiles at the seam of two rows of patches are decoded twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.patches.grid import Patch, PatchGrid, make_grid
from medclip.imaging.slides.readers.open import open_slide
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.tissue.find import TissueMask, TissueOptions, find_tissue
from medclip.settings import Settings
from medclip.wording import count


def iter_patches(
    reader: SlideReader, grid: PatchGrid, patches: Sequence[Patch] | None = None
) -> Iterator[tuple[Patch, NDArray[np.uint8]]]:
    """Read the patches of a grid.

    Args:
        reader: The slide.
        grid: Grid of the slide's patches.
        patches: Patches that are read, in this order; all of the grid, row by row, if None. Give each process a run of
            rows.

    Yields:
        Each patch with its pixels: RGB uint8 [size_px, size_px, 3], an array of its own.

    Raises:
        MedclipError: For the first patch whose stored pixels are damaged.
    """
    size, mpp = grid.size_px, grid.mpp_um
    for patch in grid if patches is None else patches:
        yield patch, reader.read(patch.top_um, patch.left_um, size, size, mpp)


def slide_patches(
    paths: Path | str | Sequence[Path | str],
    settings: Settings | None = None,
    *,
    size_px: int = 256,
    mpp_um: float = 0.5,
    overlap_px: int = 0,
    min_coverage: float = 0.5,
    tissue: TissueOptions | TissueMask | None = None,
) -> Iterator[tuple[Patch, NDArray[np.uint8]]]:
    """Open a slide, find its tissue and read every patch on it.

    Args:
        paths: One file, or all files of a DICOM slide.
        settings: Limits, and the µm/px of slides that do not say.
        size_px: Rows and columns of a patch.
        mpp_um: Scale of a patch in µm/px.
        overlap_px: Rows and columns that neighbours share.
        min_coverage: Least share of a patch that is tissue.
        tissue: Mask of the tissue (`geojson.from_geojson` reads a pathologist's outlines), or constants of the finder.

    Yields:
        Each patch with its pixels: RGB uint8 [size_px, size_px, 3].

    Raises:
        MedclipError: NO_TISSUE if there is nothing to read, with what the tissue finder says; WRONG_USE for the mask of
            another slide; what opening and reading raise.

    Example:
        >>> import tempfile
        >>> from examples.make_phantoms import slide
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     patches = slide_patches(slide(Path(folder) / "slide.tiff"))
        ...     patch, pixels = next(patches)
        >>> pixels.shape, round(patch.coverage, 1)
        ((256, 256, 3), 0.9)
    """
    with open_slide(paths, settings) as reader:
        mask = _checked(tissue, reader) if isinstance(tissue, TissueMask) else find_tissue(reader, tissue)
        grid = make_grid(reader, mask, size_px=size_px, mpp_um=mpp_um, overlap_px=overlap_px, min_coverage=min_coverage)
        if not len(grid):
            raise no_tissue(mask.problem, mask.pen_fraction, grid.candidates)
        yield from iter_patches(reader, grid)


def _checked(tissue: TissueMask, reader: SlideReader) -> TissueMask:
    """Refuse a mask that does not cover the slide: it was drawn on another one."""
    sides = zip(tissue.mask.shape, tissue.mpp_um, reader.size_um, strict=True)
    if any(abs(pixels * mpp - side) > 2 * mpp for pixels, mpp, side in sides):
        raise MedclipError(
            Reason.WRONG_USE, "the tissue mask is not as large as the slide; it was made of another slide."
        )
    return tissue


def no_tissue(problem: str, pen_fraction: float, candidates: int) -> MedclipError:
    """Make the error for a slide without a single patch."""
    pen = f"pen marks on {pen_fraction:.0%} of it" if pen_fraction > 0.01 else ""
    places = f"none of {count(candidates, 'place')}" if candidates else ""
    remark = f" ({', '.join(filter(None, (places, pen)))})" if places or pen else ""
    return MedclipError(
        Reason.NO_TISSUE,
        problem or f"no tissue was found on the slide{remark}.",
        hint="Draw the tissue (GeoJSON) or choose patches yourself if there is some.",
    )
