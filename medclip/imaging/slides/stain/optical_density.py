"""From light to absorbance, and from absorbance to amounts of stains: light through two stains multiplies, this adds.

Absorbance here is to base 10, as in spectroscopy and QuPath: 1 lets a tenth of the light through. Stains are separated
by the vectors of A. Ruifrok and D. Johnston, Anal. Quant. Cytol. Histol. 23 (2001): haematoxylin, eosin and DAB. One
unit of a stain has a vector of length 1, so that amounts of two stains may be compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.slides.tissue.background import WHITE

HED_SC = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
"""Haematoxylin, eosin, DAB: how much red, green and blue each takes away. Rows have length 1 within 1 %."""
HED_SC /= np.linalg.norm(HED_SC, axis=1, keepdims=True)
HED_SC.setflags(write=False)

White = float | tuple[float, float, float]
"""Value of bare glass, for all channels or for red, green and blue."""


def absorbance(rgb: NDArray[np.uint8], white: White = WHITE) -> NDArray[np.float32]:
    """Compute the absorbance of each channel.

    Args:
        rgb: RGB uint8 [..., 3].
        white: Value of bare glass.

    Returns:
        float32 [..., 3], log10(white / value); below 0 where a pixel is brighter than the glass, 2.4 for black.

    Example:
        >>> absorbance(np.array([[245, 24, 0]], np.uint8)).astype(float).round(2).tolist()
        [[0.0, 1.01, 2.39]]
    """
    values = np.maximum(np.arange(256, dtype=np.float64), 1)
    tables = [np.log10(channel / values).astype(np.float32) for channel in channels_of(white)]
    return np.stack([table[rgb[..., c]] for c, table in enumerate(tables)], axis=-1)


def light(absorbed: NDArray[Any], white: White = WHITE) -> NDArray[np.uint8]:
    """Compute the pixels of an absorbance: the inverse of `absorbance`, rounded and clipped.

    Args:
        absorbed: [..., 3].
        white: Value of bare glass.

    Returns:
        RGB uint8 [..., 3].
    """
    values = np.asarray(channels_of(white), np.float32) * np.exp(absorbed * np.float32(-np.log(10)))
    values += np.float32(0.5)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def separate(rgb: NDArray[np.uint8], vectors_SC: NDArray[Any] = HED_SC, white: White = WHITE) -> NDArray[np.float32]:
    """Compute the amount of each stain on each pixel.

    Args:
        rgb: RGB uint8 [..., 3].
        vectors_SC: Stains x red, green, blue; two or three rows. Of two, amounts are the best in least squares.
        white: Value of bare glass.

    Returns:
        float32 [..., S] in absorbance. Small negative amounts are noise, or a colour that the stains do not make.

    Example:
        >>> pixel = light(0.5 * HED_SC[:1])
        >>> (separate(pixel).astype(float).round(1) + 0).tolist()
        [[0.5, 0.0, 0.0]]
    """
    inverse_CS = np.linalg.pinv(np.asarray(vectors_SC, np.float64)).astype(np.float32)
    return absorbance(rgb, white) @ inverse_CS


def channels_of(white: White) -> tuple[float, float, float]:
    """Return the value of bare glass in red, green and blue."""
    return white if isinstance(white, tuple) else (white, white, white)
