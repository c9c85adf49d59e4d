"""Perceptual hashes: an image that is stored again, resized, brightened or cropped a little keeps nearly all bits.

Two hashes of one discrete cosine transform (Zauner, "Implementation and benchmarking of perceptual image hash
functions", 2010): a coarse one of 63 bits that many images can be searched by, and a fine one of 255 bits that says
whether a found pair is one image. Chest films are so alike that the coarse hash alone is not enough, and gradient
hashes (dHash) are of no use on them: 748 of 263,000 pairs of different patients are within 4 of 64 bits
(nih_cxr, 727 films), against none within 4 of 63 and 45 of 255 bits here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence


SIDE_PX = 32
"""Side of the grey square that is transformed."""
COARSE_SIDE, FINE_SIDE = 8, 16
"""Lowest frequencies that are kept along each side."""
FINE_WORDS = FINE_SIDE * FINE_SIDE // 64
VARIANTS = ("as it is", "mirrored", "inverted", "mirrored and inverted")
"""Renderings of one film that differ in whole bits: left and right, black and white exchanged."""


@dataclass(frozen=True, eq=False)
class ImageHashes:
    """Hashes of N images."""

    coarse_N: NDArray[np.uint64]
    """63 bits; the bit of the mean grey value is always 0."""
    fine_NW: NDArray[np.uint64]
    """255 bits in 4 words."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.coarse_N)

    def take(self, rows: NDArray[np.intp]) -> ImageHashes:
        """Return the hashes of some images."""
        return ImageHashes(self.coarse_N[rows], self.fine_NW[rows])


def hash_images(images: Sequence[NDArray[np.uint8]]) -> ImageHashes:
    """Hash images of any size.

    An image that is not square is hashed on a black square, as
    `medclip.models.inputs.read_pixels.read_pixels` renders it, so that a file's own pixels and the model's view of
    them have the same hash.

    Args:
        images: uint8 [H, W], [H, W, 1] or [H, W, 3] each, of at least 8 x 8 pixels.

    Raises:
        MedclipError: WRONG_USE for another type or shape.

    Example:
        >>> image = np.arange(64 * 48, dtype=np.uint8).reshape(64, 48)
        >>> hashes = hash_images([image, np.repeat(np.repeat(image, 2, 0), 2, 1)])
        >>> int(fine_distance(hashes.fine_NW[0], hashes.fine_NW[1]))
        0
    """
    from scipy.fft import dctn

    small = np.zeros((len(images), SIDE_PX, SIDE_PX))
    for n, image in enumerate(images):
        small[n] = _small(image)
    spectra = np.asarray(dctn(small, axes=(1, 2), norm="ortho"))[:, :FINE_SIDE, :FINE_SIDE]
    return ImageHashes(_bits(spectra[:, :COARSE_SIDE, :COARSE_SIDE])[:, 0], _bits(spectra))


def hash_lines(hashes: ImageHashes) -> list[str]:
    """Write each hash as one line of 80 hexadecimal digits: the coarse word and then the fine ones.

    Example:
        >>> lines = hash_lines(hash_images([np.eye(16, dtype=np.uint8)]))
        >>> len(lines[0]), hash_lines(read_hash_lines(lines)) == lines
        (80, True)
    """
    words_NW = np.column_stack((hashes.coarse_N, hashes.fine_NW))
    return ["".join(f"{word:016x}" for word in words) for words in words_NW.tolist()]


def read_hash_lines(lines: Sequence[str]) -> ImageHashes:
    """Read what `hash_lines` wrote.

    Raises:
        ValueError: For a line that is none.
    """
    if any(len(line) != 16 * (1 + FINE_WORDS) or not line.isascii() for line in lines):
        raise ValueError("a line of hashes has another length")
    words_NW = np.array(
        [[int(line[16 * w : 16 * (w + 1)], 16) for w in range(1 + FINE_WORDS)] for line in lines], np.uint64
    ).reshape(-1, 1 + FINE_WORDS)
    return ImageHashes(words_NW[:, 0], words_NW[:, 1:])


def variants_of(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    """Render an image as it is, mirrored, inverted and both, in the order of `VARIANTS`.

    Black margins that fill whole rows or columns stay black, so that padding is not inverted.

    Args:
        image: uint8 [H, W] or [H, W, C].
    """
    grey = image if image.ndim == 2 else image.max(axis=2)
    rows, columns = np.flatnonzero(grey.any(axis=1)), np.flatnonzero(grey.any(axis=0))
    inverted = image.copy()
    if len(rows):
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        inverted[box] = 255 - image[box]
    return image, image[:, ::-1], inverted, inverted[:, ::-1]


def coarse_distance(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Count the bits in which coarse hashes differ; the arrays broadcast."""
    return np.bitwise_count(one ^ other)


def fine_distance(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Count the bits in which fine hashes differ; the last axis holds the words, the others broadcast."""
    return np.bitwise_count(one ^ other).sum(-1, dtype=np.uint16)


def _small(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    from PIL import Image

    shape = image.shape
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or shape[2:] not in ((), (1,), (3,)) or min(shape[:2]) < 8:
        raise MedclipError(
            Reason.WRONG_USE,
            f"an image to hash is uint8 [H, W] or [H, W, 1 or 3] of 8 x 8 pixels or more, not {image.dtype} {shape}.",
        )
    pil = Image.fromarray(np.ascontiguousarray(image if shape[2:] == (3,) else image.reshape(shape[:2])))
    width, height = pil.size
    square = Image.new("L", (max(pil.size), max(pil.size)))
    square.paste(pil.convert("L"), ((square.width - width) // 2, (square.height - height) // 2))
    return np.asarray(square.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX), np.float32)


def _bits(spectra: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Set the bit of each coefficient above the image's median one; the mean grey value does not count."""
    values = spectra.reshape(len(spectra), spectra.shape[1] * spectra.shape[2])
    above = values > np.median(values[:, 1:], axis=1, keepdims=True)
    above[:, 0] = False
    return np.packbits(above, axis=1, bitorder="little").view(np.uint64)


# What an image is known again by: perceptual hashes of its variants, and a small image that copies are registered on.
#
# 2.5 kB of an image that is not kept itself.

SMALL_PX = 48
"""Side of a small image; 2.3 kB each."""
_NUM_WORDS = 1 + FINE_WORDS


@dataclass(frozen=True, eq=False)
class Look:
    """What one image looks like."""

    words_VW: NDArray[np.uint64]
    """The coarse and then the fine words of the hash of each variant."""
    small_HW: NDArray[np.uint8] | None = None

    def to_bytes(self) -> bytes:
        """Return words and small image, little end first; `from_bytes` reads them back."""
        assert self.small_HW is not None
        return self.words_VW.astype("<u8").tobytes() + self.small_HW.tobytes()


def from_bytes(data: bytes) -> Look:
    """Read what `Look.to_bytes` returned of all variants.

    Example:
        >>> look = look_of(np.eye(64, dtype=np.uint8))
        >>> bool((from_bytes(look.to_bytes()).words_VW == look.words_VW).all()), len(look.to_bytes())
        (True, 2464)
    """
    end = 8 * len(VARIANTS) * _NUM_WORDS
    words_VW = np.frombuffer(data[:end], "<u8").reshape(len(VARIANTS), _NUM_WORDS).astype(np.uint64)
    return Look(words_VW, np.frombuffer(data[end:], np.uint8).reshape(SMALL_PX, SMALL_PX))


def look_of(image: NDArray[np.uint8], num_variants: int = len(VARIANTS), *, small: bool = True) -> Look:
    """Look at one image.

    Args:
        image: uint8 [H, W] or [H, W, C].
        num_variants: Number of variants to hash: one is enough on the side that others are compared with.
        small: Whether to keep a small image, too.
    """
    return Look(_words(image, num_variants), small_image(image) if small else None)


def look_of_views(views: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> Look:
    """Look at the middle one of an image's views, as a model takes them.

    Args:
        views: uint8 [H, W, C] each.
    """
    view = views[len(views) // 2]
    return Look(_words(view), small_image(view, letterboxed=True))


def _words(image: NDArray[np.uint8], num_variants: int = len(VARIANTS)) -> NDArray[np.uint64]:
    """Return the coarse and then the fine words of each variant, [V, 1 + W]."""
    hashes = hash_images(variants_of(image)[:num_variants])
    return np.column_stack((hashes.coarse_N, hashes.fine_NW))


def small_image(image: NDArray[np.uint8], *, letterboxed: bool = False) -> NDArray[np.uint8]:
    """Shrink an image to a grey square, uint8 [48, 48]; its sides are stretched alike, which registering undoes.

    Args:
        image: uint8 [H, W] or [H, W, C].
        letterboxed: Whether it may be a model's view, padded with zeros on two opposite sides: these go.
    """
    from PIL import Image

    grey = image if image.ndim == 2 else image[:, :, 0] if image.shape[2] == 1 else None
    pil = Image.fromarray(np.ascontiguousarray(grey)) if grey is not None else Image.fromarray(image).convert("L")
    if letterboxed:
        pil = pil.crop(_box(np.asarray(pil)))
    return np.asarray(pil.resize((SMALL_PX, SMALL_PX), Image.Resampling.BOX))


def _box(grey: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what lies between two bands of zeros, on one axis only."""
    height, width = grey.shape
    bands = []
    for axis, size in ((1, height), (0, width)):
        place = np.flatnonzero(grey.any(axis=axis))
        bands.append(min(int(place[0]), size - 1 - int(place[-1])) if len(place) else 0)
    top, left = bands if not all(bands) else (0, 0)
    return left, top, width - left, height - top
