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

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

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
