"""One cell of an image corrupted and the rest as it was: a saturated block of a detector, a clip, a stamp.

Reference: Gu, Tresp and Qin, Are vision transformers robust to patch perturbations? ECCV 2022 (natural corruption).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CELLS = 7
"""Cells of a side: 49 of 32 px at 224 px."""


def cell_masks(height_px: int, width_px: int, cells: int = CELLS) -> NDArray[np.bool_]:
    """Divide an image into cells of equal size, as far as it goes.

    Args:
        height_px: Height of the image in pixels.
        width_px: Width of the image in pixels.
        cells: Number of cells of a side.

    Returns:
        [cells², height, width], column by column; every pixel is in one of them.
    """
    down, across = np.arange(height_px) * cells // height_px, np.arange(width_px) * cells // width_px
    number = across[None, :] * cells + down[:, None]
    return number[None] == np.arange(cells * cells)[:, None, None]


def one_cell_each(
    pixels: NDArray[np.uint8], corrupted: NDArray[np.uint8], masks: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Show what the corrupted image shows, in one cell at a time.

    Args:
        pixels: The image, uint8 [H, W, C].
        corrupted: Image corrupted as a whole, uint8 [H, W, C].
        masks: Masks of the cells from `cell_masks`, bool [P, H, W].

    Returns:
        uint8 [P, H, W, C].
    """
    return np.where(masks[..., None], corrupted[None], pixels[None])
