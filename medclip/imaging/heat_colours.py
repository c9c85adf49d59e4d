"""The colours of heat maps: one hue whose strength grows with the map, and a line at half of the largest value.

So it is read without telling colours apart. Explanations of images and maps of slides have the same ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HUE = np.array([[0.34, 0.71, 0.91], [0.95, 0.70, 0.05], [0.78, 0.22, 0.00]])
"""From nothing over half to the largest value: sky blue, orange, vermilion; also their lightness tells them apart."""
_ALPHA = 0.62
_HALF = 0.5


def blend(image: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour an image by values of 0 to 1; NaN is hatched.

    Args:
        image: float32 [H, W, 3], 0 to 1, in grey.
        values: float32 [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    unseen = np.isnan(values)
    strength = np.nan_to_num(values).clip(0, 1)[:, :, None]
    hue = np.stack([np.interp(strength[:, :, 0], (0, 0.5, 1), HUE[:, c]) for c in range(3)], axis=2)
    alpha = _ALPHA * strength**0.6
    out = image * (1 - alpha) + hue * alpha
    out[_edge(strength[:, :, 0] >= _HALF, 3)] = 0.1
    out[_edge(strength[:, :, 0] >= _HALF, 1)] = 1.0
    if unseen.any():
        rows, columns = np.indices(unseen.shape)
        stripes = unseen & ((rows + columns) % 12 < 3)
        out[unseen] = image[unseen] * 0.5
        out[stripes] = 0.62
    return (out * 255 + 0.5).astype(np.uint8)


def _edge(inside: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation

    edge = np.zeros_like(inside)
    edge[:-1] |= inside[:-1] != inside[1:]
    edge[:, :-1] |= inside[:, :-1] != inside[:, 1:]
    return np.asarray(binary_dilation(edge, iterations=width), np.bool_)
