"""An image of a slide for people: what was taken for tissue, and where the patches lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.slides.patches.grid import PatchGrid
from medclip.imaging.slides.patches.polygons import outlines
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.tissue.find import TissueMask

_TISSUE = (0, 140, 70, 255)
_PATCH = (20, 60, 200, 190)
_PATCH_AREA = (20, 60, 200, 36)


def overview(
    reader: SlideReader, tissue: TissueMask, grid: PatchGrid | None = None, *, longest_px: int = 1400
) -> NDArray[np.uint8]:
    """Draw the tissue's outline (green) and the patches that are kept (blue) over the slide.

    Args:
        reader: The slide.
        tissue: Mask of what was taken for tissue.
        grid: The patches; none are drawn if None.
        longest_px: Number of rows or columns, whichever are more, about; fewer for a slide that has not so many.

    Returns:
        RGB uint8 [H, W, 3].

    Raises:
        MedclipError: NO_SCALE without a pixel size; what reading the slide raises.
    """
    from PIL import Image, ImageDraw

    wanted = max(max(reader.size_um) / longest_px, max(reader.stored_mpp()[0], max(reader.mpp_um or (0.0, 0.0))))
    rows_um, columns_um = reader.effective_mpp(wanted)
    image = Image.fromarray(reader.thumbnail(wanted))
    pen = ImageDraw.Draw(image, "RGBA")
    if grid is not None:
        height, width = (grid.size_px * mpp for mpp in grid.effective_mpp_um)
        # Frames of patches that are only dots would hide the slide.
        frame = _PATCH if min(height / rows_um, width / columns_um) >= 5 else None
        for patch in grid:
            top, left = patch.top_um / rows_um, patch.left_um / columns_um
            box = left, top, left + width / columns_um - 1, top + height / rows_um - 1
            pen.rectangle((*box[:2], max(box[0], box[2]), max(box[1], box[3])), fill=_PATCH_AREA, outline=frame)
    down, across = tissue.mpp_um[0] / rows_um, tissue.mpp_um[1] / columns_um
    for polygon in outlines(tissue.mask):
        for ring in polygon:
            pen.line([(x * across, y * down) for x, y in (*ring, ring[0])], fill=_TISSUE, width=2)
    return np.array(image)
