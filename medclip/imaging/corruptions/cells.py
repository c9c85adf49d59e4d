"""One cell of an image corrupted and the rest as it was: a saturated block of a detector, a clip, a stamp.

Reference: Gu, Tresp and Qin, Are vision transformers robust to patch perturbations? ECCV 2022 (natural corruption).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CELLS = 7
"""Cells of a side: 49 of 32 px at 224 px."""


def cell_masks(size_px: int, cells: int = CELLS) -> NDArray[np.bool_]:
    """Divide a square into cells of equal size, as far as it goes.

    Args:
        size_px: Side of the square.
        cells: Of a side.

    Returns:
        [cells², size, size], column by column; every pixel is in one of them.
    """
    cell = np.arange(size_px) * cells // size_px
    number = cell[None, :] * cells + cell[:, None]
    return number[None] == np.arange(cells * cells)[:, None, None]


def one_cell_each(
    pixels: NDArray[np.uint8], corrupted: NDArray[np.uint8], masks: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Show what the corrupted image shows, in one cell at a time.

    Args:
        pixels: The image, uint8 [S, S, C].
        corrupted: The whole of it corrupted.
        masks: From `cell_masks`.

    Returns:
        uint8 [P, S, S, C].
    """
    return np.where(masks[..., None], corrupted[None], pixels[None])
