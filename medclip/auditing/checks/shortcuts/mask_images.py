"""Take a device out of an image: fill marked boxes so that nothing of it is left, for a second scoring run.

The copies are scored like the originals, and `device_pairs` compares the two. The fill is no claim about what lies
behind the device. Fill boxes of the same size in images without the device, as a control: a change of the score there
is one that the fill makes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

Bools = NDArray[np.bool_]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are not inside."""


def mask_boxes(image: NDArray, boxes: Sequence[Box]) -> NDArray:
    """Fill boxes of an image from what lies around them: the border is continued inwards, without edge or bump.

    The fill is the harmonic function with the border's values.

    Args:
        image: Image [H, W] or [H, W, C], of any integer or float type.
        boxes: Left, top, right and bottom of each box; parts outside the image are ignored.

    Returns:
        A filled copy of the same type.

    Raises:
        MedclipError: WRONG_USE for an image of another shape, a box without an inside, or boxes that cover the image.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or image.dtype.kind not in "uif":
        raise MedclipError(Reason.WRONG_USE, f"an image is rows × columns (× channels), not {image.shape}.")
    mask = np.zeros(image.shape[:2], bool)
    for box in boxes:
        mask |= _inside(box, image.shape[0], image.shape[1])
    if mask.all():
        raise MedclipError(Reason.WRONG_USE, "the boxes cover the whole image; nothing is left to fill them from.")
    filled = image.astype(np.float64)
    filled[mask] = _harmonic(filled, mask)
    if image.dtype.kind != "f":
        filled = np.rint(filled)
    return filled.astype(image.dtype)


def _inside(box: Box, height: int, width: int) -> Bools:
    left, top, right, bottom = box
    mask = np.zeros((height, width), bool)
    mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    if not mask.any():
        raise MedclipError(
            Reason.WRONG_USE,
            f"the box {tuple(box)} has no inside in an image of {width} × {height} pixels.",
            hint="A box is left, top, right, bottom, in pixels.",
        )
    return mask


def _harmonic(image: NDArray[np.float64], mask: Bools) -> NDArray[np.float64]:
    """Solve Laplace's equation inside the mask: each pixel is the mean of its neighbours in the image."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    rows, columns = np.nonzero(mask)
    count = len(rows)
    degree, border = np.zeros(count), np.zeros((count, *image.shape[2:]))
    here, neighbours = [], []
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        r, c = rows + down, columns + right
        at = np.flatnonzero((r >= 0) & (r < mask.shape[0]) & (c >= 0) & (c < mask.shape[1]))
        degree[at] += 1
        r, c = r[at], c[at]
        open_ = mask[r, c]
        here.append(at[open_])
        neighbours.append(number[r[open_], c[open_]])
        border[at[~open_]] += image[r[~open_], c[~open_]]
    i = np.concatenate([np.arange(count), *here])
    j = np.concatenate([np.arange(count), *neighbours])
    value = np.concatenate([degree, -np.ones(len(i) - count)])
    return splu(coo_array((value, (i, j)), shape=(count, count)).tocsc()).solve(border)
