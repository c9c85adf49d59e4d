"""What storage takes away: coarse pixels and lossy JPEG.

Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixelate(pixels: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Shrink to a share of the sides and enlarge again, each small pixel a block."""
    image = Image.fromarray(pixels)
    small = image.resize((max(1, int(image.width * share)), max(1, int(image.height * share))), Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BOX))


def jpeg_compression(pixels: NDArray[np.uint8], quality: float) -> NDArray[np.uint8]:
    """Store as JPEG of a quality from 1 to 100 and read again."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=int(quality))
    return np.asarray(Image.open(stream).convert("RGB"))
