"""Crop, resize, letterbox, and where an image lies in a model's square."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Other libraries' ways of resizing, to the bit, without the libraries: torchvision's for 8-bit tensors, TensorFlow's.
#
# A model is shown what its authors' code made. Pillow, torchvision and TensorFlow all have a filter called bilinear;
# of the same image torchvision's differs from Pillow's by one grey level (500 x 333 px to 224 x 224: in 9 % of the
# pixels of a smooth image, in 20 % of noise; bicubic by more in 0.3 % of noise, up to 8 levels). TensorFlow's default
# smooths nothing before it makes an image smaller, so that it differs as much as an image is rough: by 0.7 levels on
# average in the smooth one, and by 25 in noise.

_WEIGHT_BITS = 15
_MOST_BITS = 22
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


def resample(
    pixels: NDArray[np.uint8], height: int, width: int, interpolation: str, resampler: str
) -> NDArray[np.uint8]:
    """Resize H x W x C uint8 pixels.

    Args:
        pixels: The image.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        interpolation: "bilinear" or "bicubic".
        resampler: "torchvision" (antialiased) or "tensorflow" (`tf.image.resize`, its default; cut to whole numbers).
    """
    if resampler == "tensorflow":
        return _as_tensorflow(pixels, height, width)
    across = _as_torchvision(pixels, width, interpolation)
    return _as_torchvision(across.swapaxes(0, 1), height, interpolation).swapaxes(0, 1)


def _as_torchvision(pixels_HWC: NDArray[np.uint8], width: int, interpolation: str) -> NDArray[np.uint8]:
    """Resize along the second axis as ATen does for uint8 with antialias=True: weights of 16 bits, whole numbers."""
    size = pixels_HWC.shape[1]
    if size == width:
        return pixels_HWC
    scale = size / width
    stretch = max(scale, 1.0)
    support = _SUPPORT[interpolation] * stretch
    weights = np.zeros((width, size))
    for number in range(width):
        centre = scale * (number + 0.5)
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), size)
        values = _filter((np.arange(first, last) - centre + 0.5) / stretch, interpolation)
        weights[number, first:last] = values / values.sum()
    bits = next((n for n in range(_MOST_BITS) if int(0.5 + weights.max() * (1 << (n + 1))) >= 1 << _WEIGHT_BITS), 22)
    whole_numbers = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights))
    sums = pixels_HWC.swapaxes(1, 2).astype(np.float64) @ whole_numbers.T  # exact: far below 2 ** 53
    return np.clip((sums.astype(np.int64) + (1 << (bits - 1))) >> bits, 0, 255).astype(np.uint8).swapaxes(1, 2)


def _filter(x: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    x = np.abs(x)
    if interpolation == "bilinear":
        return np.maximum(1 - x, 0)
    a = -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _as_tensorflow(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize as `tf.image.resize(..., "bilinear", antialias=False).numpy().astype(np.uint8)`."""
    (top, bottom, down), (left, right, across) = _ends(pixels.shape[0], height), _ends(pixels.shape[1], width)
    values = pixels.astype(np.float32)
    across = across[None, :, None]
    upper = values[top][:, left] + (values[top][:, right] - values[top][:, left]) * across
    lower = values[bottom][:, left] + (values[bottom][:, right] - values[bottom][:, left]) * across
    return (upper + (lower - upper) * down[:, None, None]).astype(np.uint8)


def _ends(size: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the two neighbours of each new line, and how far it lies from the first to the second."""
    place = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(size / target) - np.float32(0.5)
    first = np.floor(place)
    lower = np.maximum(first, 0).astype(np.intp)
    upper = np.minimum(np.ceil(place), size - 1).astype(np.intp)
    return lower, upper, (place - first).astype(np.float32)


T = TypeVar("T", bound=np.generic)

Resize = Literal["longest", "shortest", "squash", "native"]
"""How an image is brought to a model's square: longer side to it and padded, shorter side to it and cut at the centre,
both sides to it whatever the aspect ratio, or at its own aspect ratio within a budget of patches."""
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters by name; all but the first are antialiased."""
MOST_PIXELS = 2**24
"""Of an image resized whole, before its centre is cut out; of more slender ones only the part that stays is resized."""


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


@dataclass(frozen=True)
class Placement:
    """Where an image lies in what a model is shown of it.

    Coordinates are rows and columns in pixels, counted from the upper left corner of the first pixel: the centre of the
    first pixel is (0.5, 0.5), and an image ends at (height, width).
    """

    height: int
    """Of the image, in pixels."""
    width: int
    shown_height: int
    """Of the model's input, in pixels: of a square both are its side."""
    shown_width: int
    resized_height: int
    """Of the image after resizing, before it was cut or padded."""
    resized_width: int
    top: int
    """Where the resized image begins in the model's input: above 0 after padding, below 0 after cutting."""
    left: int

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the model's input for each pixel of the image, down and across."""
        return self.resized_height / self.height, self.resized_width / self.width

    @property
    def filled(self) -> Box:
        """The part of the model's input that shows image; around it is padding."""
        return Box(
            max(self.top, 0),
            max(self.left, 0),
            min(self.top + self.resized_height, self.shown_height),
            min(self.left + self.resized_width, self.shown_width),
        )

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """Top, left, bottom and right of the part of the image that the model was shown, in pixels of the image."""
        box = self.filled
        return *self.to_image(box.top, box.left), *self.to_image(box.bottom, box.right)

    @property
    def share_seen(self) -> float:
        """Share of the image's area that the model was shown."""
        top, left, bottom, right = self.seen
        return (bottom - top) * (right - left) / (self.height * self.width)

    def to_model(self, row: float, column: float) -> tuple[float, float]:
        """Bring a point of the image into the model's input; outside of it where the point was cut off."""
        down, across = self.scale
        return row * down + self.top, column * across + self.left

    def to_image(self, row: float, column: float) -> tuple[float, float]:
        """Bring a point of the model's input into the image; outside of it where the point lies in the padding."""
        down, across = self.scale
        return (row - self.top) / down, (column - self.left) / across

    def map_to_image(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bring a map on the model's grid into the image's own coordinates.

        Args:
            values: [rows, columns], evenly spread over the whole of the model's input, as patches of a transformer.

        Returns:
            float32 [height, width]: bilinear between the centres of the cells, NaN where the model saw nothing.
        """
        rows = _weights(self.height, self.scale[0], self.top, self.shown_height, values.shape[0])
        columns = _weights(self.width, self.scale[1], self.left, self.shown_width, values.shape[1])
        return (rows @ values.astype(np.float32) @ columns.T).astype(np.float32)


def _weights(size: int, scale: float, start: int, size_shown: int, cells: int) -> NDArray[np.float32]:
    """Return [size, cells]: how much each cell of a grid counts at each pixel; NaN for pixels that were cut off."""
    position = (np.arange(size) + 0.5) * scale + start
    weights = np.zeros((size, cells), np.float32)
    place = np.clip(position / size_shown * cells - 0.5, 0, cells - 1)
    lower = np.minimum(place.astype(int), max(cells - 2, 0))
    pixels = np.arange(size)
    weights[pixels, lower] = 1 - (place - lower)
    if cells > 1:
        weights[pixels, lower + 1] = place - lower
    weights[(position < 0) | (position > size_shown)] = np.nan
    return weights


def crop(pixels: NDArray[T], box: Box) -> NDArray[T]:
    """Cut a box out of H x W x C pixels, as a view of the same memory."""
    return pixels[box.top : box.bottom, box.left : box.right]


def resize(
    pixels: NDArray[np.uint8],
    height: int,
    width: int,
    interpolation: str = "bicubic",
    box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    """Resize H x W x C uint8 pixels, C = 1 or 3, with one of Pillow's antialiased filters.

    Args:
        pixels: The image.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        interpolation: Key of `INTERPOLATIONS`.
        box: Left, top, right and bottom of the part of the image that becomes the result; all of it where None.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    out = np.asarray(image.resize((width, height), INTERPOLATIONS[interpolation], box))
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
    height, width = pixels.shape[:2]
    return place(pixels, placement(height, width, size, "longest"))


def placement(
    height: int,
    width: int,
    size: int,
    mode: Resize,
    resize_px: int | None = None,
    centre: Literal["round", "floor"] = "round",
) -> Placement:
    """Return where an image comes to lie in a square.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        size: Side of the square.
        mode: Way in which the image is resized; "native" has no square.
        resize_px: Side that the image is resized to before its centre is cut out or padded; the square's where None.
        centre: Rounding of half a pixel where an odd number of rows or columns is cut off: to even, as torchvision,
            open_clip and timm do, or down, as transformers does.
    """
    side = size if resize_px is None else resize_px
    rows = columns = side
    if mode == "longest":
        rows, columns = _inside(height, width, side)
    elif mode == "shortest":  # torchvision cuts what lies behind the decimal point
        short = min(height, width)
        rows, columns = side * height // short, side * width // short
    top, left = _offset(size, rows, centre), _offset(size, columns, centre)
    return Placement(height, width, size, size, rows, columns, top, left)


def _offset(size: int, length: int, centre: str) -> int:
    if length <= size:
        return (size - length) // 2
    return -(round((length - size) / 2) if centre == "round" else (length - size) // 2)


def place(
    pixels: NDArray[np.uint8],
    where: Placement,
    interpolation: str = "bicubic",
    fill: int | Sequence[int] = 0,
    resampler: str = "pillow",
) -> NDArray[np.uint8]:
    """Resize an image and cut or pad it to what a model is shown.

    Args:
        pixels: H x W x C uint8, C = 1 (repeated) or 3.
        where: Place of the image in what the model is shown.
        interpolation: Key of `INTERPOLATIONS`.
        fill: Grey value, or a value for each channel, of the padding.
        resampler: Library whose arithmetic resizes: "pillow", or one of `medclip.imaging.geometry`.

    Returns:
        shown_height x shown_width x 3 uint8.
    """
    filled = where.filled
    part = Box(*(filled[n] - (where.top, where.left)[n % 2] for n in range(4)))
    size = where.resized_height, where.resized_width
    if pixels.shape[:2] == size:
        small = crop(pixels, part)
    elif math.prod(size) <= MOST_PIXELS:
        small = crop(
            resize(pixels, *size, interpolation)
            if resampler == "pillow"
            else resample(pixels, *size, interpolation, resampler),
            part,
        )
    else:  # of an image a thousand times as long as wide
        top, left, bottom, right = where.seen
        small = resize(pixels, part.height, part.width, interpolation, (left, top, right, bottom))
    size_shown = where.shown_height, where.shown_width
    if small.shape == (*size_shown, 3):
        return small if small.base is None else np.ascontiguousarray(small)
    square = np.empty((*size_shown, 3), np.uint8)
    square[:] = fill
    square[filled.top : filled.bottom, filled.left : filled.right] = small
    return square


def _inside(height: int, width: int, side: int) -> tuple[int, int]:
    """Return the largest size of the same aspect that fits a square, at least one pixel each way."""
    longest = max(height, width)
    return max(1, round(height * side / longest)), max(1, round(width * side / longest))


# Images at their own aspect ratio, within a budget of patches: no tokens are spent on black bars.
#
# References: Dehghani et al., Patch n' Pack: NaViT, a vision transformer for any aspect ratio and resolution, NeurIPS
# 2023; Tschannen et al., SigLIP 2, 2025 (its NaFlex form, one image a row with its padding masked, is the one here).


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
        """Join the patches of an image that `pack` cut; uint8 [rows * patch_px, columns * patch_px, 3]."""
        rows, columns = packed[0, :4].view("<u2").tolist()
        pieces = packed[1 : 1 + rows * columns].reshape(rows, columns, self.patch_px, self.patch_px, 3)
        return pieces.swapaxes(1, 2).reshape(rows * self.patch_px, columns * self.patch_px, 3)
