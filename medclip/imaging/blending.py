"""Poisson blending: a part of one image put into another without a seam, and a part of an image filled from around it.

Inside the part the gradients are those of the donor, and at its edge the values those of the image it comes into (Perez
et al., "Poisson image editing", SIGGRAPH 2003). scikit-image, an extra of slides, has no such blend, and OpenCV is no
dependency, so the sparse system is solved here by scipy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MARGIN = 2
"""Pixels around a part that are blended with it."""


def blended(donor: NDArray[np.uint8], target: NDArray[np.uint8], part_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Blend a part of one image into another of the same size, at the same place.

    Args:
        donor: uint8 [H, W, C].
        target: uint8 [H, W, C].
        part_HW: Mask of the part; it is widened by two pixels, and never reaches the edge of the image.
    """
    from scipy import ndimage
    from scipy.sparse import csc_array
    from scipy.sparse.linalg import splu

    inside_HW = ndimage.binary_dilation(part_HW, iterations=_MARGIN)
    inside_HW[[0, -1], :] = False
    inside_HW[:, [0, -1]] = False
    number_HW = np.full(inside_HW.shape, -1)
    y_N, x_N = np.nonzero(inside_HW)
    num = len(y_N)
    if not num:
        return target.copy()
    number_HW[y_N, x_N] = np.arange(num)
    d, t = donor.astype(np.float64), target.astype(np.float64)
    right_NC = np.zeros((num, d.shape[2]))
    rows, columns = [np.arange(num)], [np.arange(num)]
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        right_NC += d[y_N, x_N] - d[y_N + dy, x_N + dx]
        beside_N = number_HW[y_N + dy, x_N + dx]
        edge_N = beside_N < 0
        right_NC[edge_N] += t[y_N + dy, x_N + dx][edge_N]
        rows.append(np.flatnonzero(~edge_N))
        columns.append(beside_N[~edge_N])
    values = np.concatenate([np.full(num, 4.0), *(np.full(len(r), -1.0) for r in rows[1:])])
    system = csc_array((values, (np.concatenate(rows), np.concatenate(columns))), shape=(num, num))
    pixels = target.copy()
    pixels[y_N, x_N] = np.rint(np.clip(splu(system).solve(right_NC), 0, 255)).astype(np.uint8)
    return pixels


def filled(image: NDArray[np.uint8], part_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill a part of an image smoothly from the pixels around it, as a blend of nothing.

    Args:
        image: uint8 [H, W, C].
        part_HW: Mask of the part.
    """
    return blended(np.zeros_like(image), image, part_HW)
