"""Perceptual hashes: a picture that is stored again, resized, brightened or cropped a little keeps nearly all bits.

Two hashes of one discrete cosine transform (Zauner, "Implementation and benchmarking of perceptual image hash
functions", 2010): a coarse one of 63 bits that many pictures can be searched by, and a fine one of 255 bits that says
whether a found pair is one picture. Chest films are so alike that the coarse hash alone is not enough, and gradient
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
class PictureHashes:
    """Hashes of N pictures."""

    coarse_N: NDArray[np.uint64]
    """63 bits; the bit of the mean grey value is always 0."""
    fine_NW: NDArray[np.uint64]
    """255 bits in 4 words."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.coarse_N)

    def take(self, rows: NDArray[np.intp]) -> PictureHashes:
        """Return the hashes of some pictures."""
        return PictureHashes(self.coarse_N[rows], self.fine_NW[rows])


def hash_pictures(pictures: Sequence[NDArray[np.uint8]]) -> PictureHashes:
    """Hash pictures of any size.

    A picture that is not square is hashed on a black square, as `medclip.runs.read_unit.read_pixels` gives it, so
    that a file's own pixels and the model's view of them have the same hash.

    Args:
        pictures: uint8 [H, W], [H, W, 1] or [H, W, 3] each, of at least 8 x 8 pixels.

    Raises:
        MedclipError: WRONG_USE for another type or shape.

    Example:
        >>> picture = np.arange(64 * 48, dtype=np.uint8).reshape(64, 48)
        >>> hashes = hash_pictures([picture, np.repeat(np.repeat(picture, 2, 0), 2, 1)])
        >>> int(fine_distance(hashes.fine_NW[0], hashes.fine_NW[1]))
        0
    """
    from scipy.fft import dctn

    small = np.zeros((len(pictures), SIDE_PX, SIDE_PX))
    for n, picture in enumerate(pictures):
        small[n] = _small(picture)
    spectra = np.asarray(dctn(small, axes=(1, 2), norm="ortho"))[:, :FINE_SIDE, :FINE_SIDE]
    return PictureHashes(_bits(spectra[:, :COARSE_SIDE, :COARSE_SIDE])[:, 0], _bits(spectra))


def variants_of(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    """Render a picture as it is, mirrored, inverted and both, in the order of `VARIANTS`.

    Black margins that fill whole rows or columns stay black, so that padding is not inverted.

    Args:
        picture: uint8 [H, W] or [H, W, C].
    """
    grey = picture if picture.ndim == 2 else picture.max(axis=2)
    rows, columns = np.flatnonzero(grey.any(axis=1)), np.flatnonzero(grey.any(axis=0))
    inverted = picture.copy()
    if len(rows):
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        inverted[box] = 255 - picture[box]
    return picture, picture[:, ::-1], inverted, inverted[:, ::-1]


def coarse_distance(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Count the bits in which coarse hashes differ; the arrays broadcast."""
    return np.bitwise_count(one ^ other)


def fine_distance(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Count the bits in which fine hashes differ; the last axis holds the words, the others broadcast."""
    return np.bitwise_count(one ^ other).sum(-1, dtype=np.uint16)


def _small(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    from PIL import Image

    shape = picture.shape
    if (
        picture.dtype != np.uint8
        or picture.ndim not in (2, 3)
        or shape[2:] not in ((), (1,), (3,))
        or min(shape[:2]) < 8
    ):
        raise MedclipError(
            Reason.WRONG_USE,
            f"a picture to hash is uint8 [H, W] or [H, W, 1 or 3] of 8 x 8 pixels or more, not "
            f"{picture.dtype} {shape}.",
        )
    image = Image.fromarray(np.ascontiguousarray(picture if shape[2:] == (3,) else picture.reshape(shape[:2])))
    width, height = image.size
    square = Image.new("L", (max(image.size), max(image.size)))
    square.paste(image.convert("L"), ((square.width - width) // 2, (square.height - height) // 2))
    return np.asarray(square.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX), np.float32)


def _bits(spectra: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Set the bit of each coefficient above the picture's median one; the mean grey value does not count."""
    values = spectra.reshape(len(spectra), spectra.shape[1] * spectra.shape[2])
    above = values > np.median(values[:, 1:], axis=1, keepdims=True)
    above[:, 0] = False
    return np.packbits(above, axis=1, bitorder="little").view(np.uint64)
