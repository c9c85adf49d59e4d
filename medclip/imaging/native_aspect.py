"""Images at their own aspect ratio, within a budget of patches: no tokens are spent on black bars.

References: Dehghani et al., Patch n' Pack: NaViT, a vision transformer for any aspect ratio and resolution, NeurIPS
2023; Tschannen et al., SigLIP 2, 2025 (its NaFlex form, one image a row with its padding masked, is the one here).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.geometry import resize


@dataclass(frozen=True)
class TokenBudget:
    """How large an image of any shape is shown to a vision transformer.

    An image is resized to whole patches, not padded: each side is off by at most half a patch against its own aspect
    ratio (an image more slender than the grid allows gets one patch across). So every token shows image.
    """

    patch_px: int
    """Side of a patch."""
    max_tokens: int
    """Most patches of an image."""

    def __str__(self) -> str:
        """Return both numbers in words."""
        return f"{self.max_tokens} patches of {self.patch_px} px"

    def holds(self, height: int, width: int) -> bool:
        """Whether an image of this size is whole patches within the budget."""
        return height % self.patch_px == width % self.patch_px == 0 < self.num_patches(height, width) <= self.max_tokens

    def num_patches(self, height: int, width: int) -> int:
        """Count the whole patches of an image of this size in pixels."""
        return (height // self.patch_px) * (width // self.patch_px)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of patches: the largest that the budget allows at this aspect ratio.

        Of all sizes s · (height, width) with sides rounded to whole patches, the one of the largest s that fits.

        Args:
            height: Height of the image, in any unit.
            width: Width of the image, in the same unit.

        Example:
            >>> TokenBudget(16, 196).grid(1000, 1000), TokenBudget(16, 196).grid(3000, 1000)
            ((14, 14), (24, 8))
        """
        rows = columns = 1
        while True:  # from one rounding to the next as the image grows, in whole numbers
            down, across = (2 * rows + 1) * width, (2 * columns + 1) * height
            taller, wider = rows + (down <= across), columns + (across <= down)
            if taller * wider > self.max_tokens:
                return rows, columns
            rows, columns = taller, wider

    def size_px(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width that an image of this shape is brought to, in pixels: multiples of the patch."""
        rows, columns = self.grid(height, width)
        return rows * self.patch_px, columns * self.patch_px

    def fit(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize an image into the budget, with the antialiased bicubic filter of `letterbox`.

        Args:
            pixels: H x W x C uint8, C = 1 (repeated) or 3.

        Returns:
            uint8 [rows * patch_px, columns * patch_px, 3].
        """
        size = self.size_px(*pixels.shape[:2])
        fitted = resize(pixels, *size) if pixels.shape[:2] != size else pixels
        return np.repeat(fitted, 3, axis=2) if fitted.shape[2] == 1 else fitted

    @property
    def packed_shape(self) -> tuple[int, int]:
        """Shape of an image from `pack`."""
        return 1 + self.max_tokens, self.patch_px**2 * 3

    def pack(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut an image into patches; images of any shape become arrays of one shape.

        Args:
            image: uint8 [rows * patch_px, columns * patch_px, 3], within the budget.

        Returns:
            uint8 [1 + max_tokens, patch_px² * 3]: rows and columns as two little-endian uint16, alone in the first
            line; then the patches, row by row; zeros after the last.
        """
        side = self.patch_px
        rows, columns = image.shape[0] // side, image.shape[1] // side
        packed = np.zeros(self.packed_shape, np.uint8)
        packed[0, :4] = np.array([rows, columns], "<u2").view(np.uint8)
        pieces = packed[1 : 1 + rows * columns].reshape(rows, columns, side, side, 3)
        pieces[:] = image.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
        return packed

    def unpack(self, packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Put an image together again that `pack` cut; uint8 [rows * patch_px, columns * patch_px, 3]."""
        rows, columns = packed[0, :4].view("<u2").tolist()
        pieces = packed[1 : 1 + rows * columns].reshape(rows, columns, self.patch_px, self.patch_px, 3)
        return pieces.swapaxes(1, 2).reshape(rows * self.patch_px, columns * self.patch_px, 3)
