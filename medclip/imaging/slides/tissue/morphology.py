"""Regions of a mask: pieces, distances, growing, closing, filling. All sizes are in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def labelled(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the pieces that are connected by sides from 1; 0 is what is not in the mask."""
    from scipy import ndimage

    regions: Any = ndimage.label(mask)
    return regions


def distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return each pixel of the mask its distance from what is not in it; infinite where there is nothing else."""
    from scipy import ndimage

    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    out = np.zeros(mask.shape, np.float32)
    box = _box(mask, 1)
    distances: Any = ndimage.distance_transform_edt(mask[box])
    out[box] = distances
    return out


def away(mask: NDArray[np.bool_], limit: float) -> NDArray[np.float32]:
    """Return each pixel its distance from the mask; infinite for what is farther than `limit`."""
    out = np.full(mask.shape, np.inf, np.float32)
    if mask.any():
        # By distances, whose cost does not depend on how far.
        box = _box(mask, int(limit) + 1)
        out[box] = distance(~mask[box])
        out[out > limit] = np.inf
    return out


def within(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Return what is in the mask or no farther from it than a radius."""
    return mask if radius < 1 else away(mask, radius) <= radius


def _box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """Return the rows and columns that hold the mask, and a margin: most pen marks lie in a part of the slide."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def closed(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Close gaps of twice a radius; the image's border does not count as background."""
    if radius < 0.5 or not mask.any():
        return mask
    margin = int(np.ceil(radius)) + 1
    grown = within(np.pad(mask, margin, mode="edge"), radius)
    shrunk: NDArray[Any] = distance(grown) > radius
    return np.asarray(shrunk[margin:-margin, margin:-margin] | mask, bool)


def opened(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Drop specks and threads thinner than twice a radius."""
    from scipy import ndimage

    if radius < 0.5 or not mask.any():
        return mask
    if radius <= 3:
        size = int(np.ceil(radius))
        y, x = np.ogrid[-size : size + 1, -size : size + 1]
        return np.asarray(ndimage.binary_opening(mask, y * y + x * x <= radius * radius), bool)
    margin = int(np.ceil(radius)) + 1
    core = distance(np.pad(mask, margin, mode="edge")) > radius
    return within(core, radius)[margin:-margin, margin:-margin] & mask


def wide(mask: NDArray[np.bool_], width: float) -> NDArray[np.bool_]:
    """Keep the pieces that are somewhere as wide as this, without their specks and threads of one pixel."""
    mask = opened(mask, 1.0)
    if not mask.any():
        return mask
    labels, count = labelled(mask)
    keep = np.zeros(count + 1, bool)
    keep[labels[mask & (distance(mask) >= width / 2)]] = True
    return np.asarray(keep[labels] & mask, bool)


def filled(mask: NDArray[np.bool_], limit: float) -> NDArray[np.bool_]:
    """Fill holes of up to `limit` pixels; larger ones are lumina or tears, and stay."""
    labels, count = labelled(~mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    fill = sizes <= limit
    fill[border] = False
    fill[0] = False
    return mask | np.asarray(fill[labels], bool)


def large(mask: NDArray[np.bool_], limit: float) -> NDArray[np.bool_]:
    """Keep the connected pieces of at least `limit` pixels."""
    labels, count = labelled(mask)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= limit
    keep[0] = False
    return np.asarray(keep[labels], bool)


def without(mask: NDArray[np.bool_], rim: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Drop the connected pieces of which more than a share lies in `rim`."""
    labels, count = labelled(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = np.bincount(labels[rim], minlength=count + 1) <= share * sizes
    keep[0] = False
    return np.asarray(keep[labels], bool)
