"""What an image is known again by: perceptual hashes of its variants, and a small image that copies are registered on.

2.5 kB of an image that is not kept itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.perceptual_hash import FINE_WORDS, VARIANTS, hash_images, variants_of

if TYPE_CHECKING:
    from collections.abc import Sequence

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
