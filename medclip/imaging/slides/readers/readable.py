"""What can be read of a whole slide at a coarse scale, where stored tiles are damaged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.readers.pyramid import SlideReader

DAMAGED = (Reason.CORRUPT, Reason.TRUNCATED, Reason.NON_FINITE)
"""What costs the patches that need a stored tile, and not the slide."""
_PART_PX = 64


def readable_overview(reader: SlideReader, mpp_um: float) -> tuple[NDArray[np.uint8], int]:
    """Read a whole slide in small parts; those that need a damaged tile are white.

    Args:
        reader: The slide.
        mpp_um: The scale.

    Returns:
        RGB uint8 [H, W, 3], and how many parts are damaged.

    Raises:
        MedclipError: That of the last part where none can be read; what is no damage of single tiles.
    """
    rows, columns = reader.effective_mpp(mpp_um)
    height, width = (max(1, round(side / mpp)) for side, mpp in zip(reader.size_um, (rows, columns), strict=True))
    overview = np.full((height, width, 3), 255, np.uint8)
    num_parts, num_damaged = 0, 0
    last: MedclipError | None = None
    for top in range(0, height, _PART_PX):
        for left in range(0, width, _PART_PX):
            part = min(_PART_PX, height - top), min(_PART_PX, width - left)
            num_parts += 1
            try:
                overview[top : top + part[0], left : left + part[1]] = reader.read(
                    top * rows, left * columns, *part, mpp_um
                )
            except MedclipError as error:
                if error.reason not in DAMAGED:
                    raise
                num_damaged += 1
                last = error
    if last is not None and num_damaged == num_parts:
        raise last
    return overview, num_damaged
