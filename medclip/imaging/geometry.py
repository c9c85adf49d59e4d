"""Crop, resize and letterbox."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

T = TypeVar("T", bound=np.generic)


class Box(NamedTuple):
    """A rectangle in pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def __str__(self) -> str:
        """Return rows and columns as text."""
        return f"rows {self.top}:{self.bottom}, columns {self.left}:{self.right}"


def crop(pixels: NDArray[T], box: Box) -> NDArray[T]:
    """Cut a box out of H x W x C pixels, as a view of the same memory."""
    return pixels[box.top : box.bottom, box.left : box.right]


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize H x W x C uint8 pixels, C = 1 or 3, with PIL's antialiased bicubic filter."""
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    out = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    return out[:, :, None] if out.ndim == 2 else out


def fit(pixels: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    """Shrink H x W x C uint8 pixels so that the longer side is at most `max_side`; smaller images stay as they are."""
    height, width = pixels.shape[:2]
    if max(height, width) <= max_side:
        return pixels
    return resize(pixels, *_inside(height, width, max_side))


def letterbox(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Fit an image into a square with its aspect ratio kept, centred on black.

    Args:
        pixels: H x W x C uint8, C = 1 (repeated) or 3.
        size: Side of the square in pixels.

    Returns:
        size x size x 3 uint8.
    """
    height, width = _inside(pixels.shape[0], pixels.shape[1], size)
    small = resize(pixels, height, width) if pixels.shape[:2] != (height, width) else pixels
    top, left = (size - height) // 2, (size - width) // 2
    if (height, width) == (size, size) and small.shape[2] == 3:
        return small
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + height, left : left + width] = small
    return square


def _inside(height: int, width: int, side: int) -> tuple[int, int]:
    """Return the largest size of the same aspect that fits a square, at least one pixel each way."""
    longest = max(height, width)
    return max(1, round(height * side / longest)), max(1, round(width * side / longest))
