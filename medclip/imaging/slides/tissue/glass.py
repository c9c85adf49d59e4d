"""The bare glass of a slide: what colour its white has, and whether the background is bright at all.

Lamps and glass are tinted along the way from yellow to blue, so their green lies between red and blue; the palest eosin
and haematoxylin let least green through. That, evenness and brightness tell glass from pale tissue.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WHITE = 245.0
"""What each channel of the glass becomes."""
_LEAST, _TINT, _GREEN, _STEP = 150, 60, 6, 8
"""Least channel, most chroma, how far green may lie below the others, and most difference of neighbours."""
_SHARE = 0.01
_SAMPLE = 200_000
"""Pixels that are enough to say what colour the glass has."""


def low_high(rgb: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and largest of red, green and blue; several times as fast as `min` along the last axis."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)


def brightness(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean of red, green and blue."""
    return (rgb[..., 0].astype(np.float32) + rgb[..., 1] + rgb[..., 2]) / np.float32(3)


def glass_of(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find what may be bare glass: bright, of a lamp's tint, and no edge.

    Args:
        rgb: RGB uint8 [H, W, 3].

    Returns:
        bool [H, W].
    """
    red, green, blue = (rgb[:, :, i].astype(np.int16) for i in range(3))
    low, high = low_high(rgb)
    glass = (low >= _LEAST) & (high - low <= _TINT) & (green >= np.minimum(red, blue) - _GREEN)
    glass[1:] &= np.abs(np.diff(green, axis=0)) <= _STEP
    glass[:, 1:] &= np.abs(np.diff(green, axis=1)) <= _STEP
    return glass


def white_point(rgb: NDArray[np.uint8], glass: NDArray[np.bool_]) -> tuple[float, float, float] | None:
    """Estimate the colour of the glass: the commonest of the brightest.

    Args:
        rgb: RGB uint8 [H, W, 3].
        glass: Mask of what may be glass, bool [H, W].

    Returns:
        Red, green, blue; None if less than a hundredth of the slide is glass.
    """
    step = max(1, int((glass.size / _SAMPLE) ** 0.5))
    rgb, glass = rgb[::step, ::step], glass[::step, ::step]
    colours = rgb[glass]
    # Where nothing was scanned, readers give 255: it says nothing of the lamp.
    scanned = colours[low_high(colours)[0] < 255]
    least = _SHARE * glass.size
    colours = scanned if len(scanned) >= least else colours
    if len(colours) < least:
        return None
    mean = brightness(colours)
    top = np.sort(mean)[-int(least) - 1 :][0] if len(mean) > least else mean.min()
    near = mean >= top - 20  # shading makes one glass a little darker here and there; tissue is darker than that
    counts = np.bincount(mean[near].astype(np.int64), minlength=256)
    mode = int(np.convolve(counts, np.ones(5), "same").argmax())
    red, green, blue = np.median(colours[np.abs(mean - mode) <= 4], axis=0)
    return float(red), float(green), float(blue)


def levelled(rgb: NDArray[np.uint8], white: tuple[float, float, float] | None) -> NDArray[np.uint8]:
    """Scale the channels so that the glass is neutral and equally bright on every slide; as it is without glass."""
    if white is None:
        return rgb
    values = np.arange(256, dtype=np.float64)
    tables = [np.minimum(values * WHITE / channel + 0.5, 255).astype(np.uint8) for channel in white]
    return np.stack([tables[i][rgb[:, :, i]] for i in range(3)], axis=2)


def is_dark(rgb: NDArray[np.uint8], glass: NDArray[np.bool_], dark: float) -> bool:
    """Return whether the background is dark, as in fluorescence, however much of the slide is bright.

    A slide with a bright background has more glass than dark ink and shadows.
    """
    share = float((low_high(rgb)[1] < dark).mean())
    if share <= 0.15:
        return False
    # Readers give 255 where nothing was scanned, on dark slides too.
    scanned = float((glass & (low_high(rgb)[0] < 255)).mean())
    return float(glass.mean()) < share / 2 or (share > 0.3 and scanned < share / 10)


# Regions of a mask: pieces, distances, growing, closing, filling. All sizes are in pixels.


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
