"""Find the lit area of an image or loop whose frame holds text, bars and black: an ultrasound sector, an endoscope."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.pixels.decoded import MIN_SIDE
from medclip.imaging.geometry import Box
from medclip.imaging.video import brightest

GRID = 320
"""The area is looked for on a grid of about this many points along the longer side."""
KEEP = 0.3
"""Never leave less than this part of a side: so little would not be the image."""
TEXT = (96, 4)
"""Grey level above which points below the sector are text, not faint tissue, and how many there must be."""
MOVES = 8
"""A grid point moves if it changes by more than this many grey levels within a loop."""
MOVING_PART = 0.05
"""Part of a component that must move, so that a logo or a grey bar in a loop is told from the sector."""


class LitRule(NamedTuple):
    """What counts as lit, and which lit components belong to the image."""

    dark: int
    """Grey levels up to this are background."""
    opening: int
    """Strokes thinner than about twice this many grid points (text, graticules, traces) are left out."""
    share: float
    """A component counts if it has at least this part of the largest one's area; 1 keeps the largest only."""
    margin: float
    """Added on every side, as a part of the longer side."""
    depth: bool = False
    """Keep what is black below the area, unless something stands in it: deep tissue is dark, and depth is scale."""


def brightness(frames: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the brightest value and the range of change of every pixel of a coarse look at a loop.

    Args:
        frames: [F, H, W, C]; one frame for an image.

    Returns:
        Two arrays H x W: the maximum over frames and channels, and maximum minus minimum over frames.
    """
    highest = brightest(frames[0]).copy()
    lowest = highest.copy()
    for frame in frames[1:]:
        level = brightest(frame)
        np.maximum(highest, level, out=highest)
        np.minimum(lowest, level, out=lowest)
    return highest, highest - lowest


def find_lit(frames: NDArray[np.uint8], rule: LitRule) -> Box | None:
    """Find the box around the lit area.

    Conservative: it gives None unless a compact area of at least 30 % of both sides is found and something is cut.

    Args:
        frames: [F, H, W, C] uint8: one frame, or some of a loop.
        rule: Rule of what counts as lit.

    Returns:
        The box in pixels of a frame.
    """
    from scipy import ndimage

    height, width = frames.shape[1:3]
    stride = max(1, round(max(height, width) / GRID))
    level, change = brightness(frames[:, ::stride, ::stride])
    # Rows and columns beyond the edge count as lit, or opening would eat the area where it touches the edge.
    size = rule.opening
    padded = np.pad(level > rule.dark, size, mode="edge")
    square = np.ones((2 * size + 1, 2 * size + 1), bool)
    mask = ndimage.binary_opening(ndimage.binary_closing(padded, np.ones((3, 3), bool)), square)
    mask = mask[size:-size, size:-size] if size else mask
    labels, count = ndimage.label(mask)  # pyright: ignore[reportGeneralTypeIssues]
    if not count:
        return None
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    if len(frames) > 1:
        moving = np.bincount(labels.ravel(), weights=(change > MOVES).ravel(), minlength=count + 1)
        alive = moving > MOVING_PART * areas
        if areas[alive].sum() > MOVING_PART * mask.size:
            areas[~alive] = 0
    kept = np.flatnonzero((areas > 0) & (areas >= rule.share * areas.max()))
    area = np.isin(labels, kept)
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    margin = round(rule.margin * max(height, width)) + (stride - 1)
    box = Box(
        max(0, int(rows[0]) * stride - margin),
        max(0, int(columns[0]) * stride - margin),
        min(height, (int(rows[-1]) + 1) * stride + margin),
        min(width, (int(columns[-1]) + 1) * stride + margin),
    )
    if rule.depth and (level[-(-box.bottom // stride) :] > TEXT[0]).sum() < TEXT[1]:
        box = box._replace(bottom=height)
    uncropped = box == Box(0, 0, height, width)
    return (
        None
        if uncropped or min(box.height / height, box.width / width) < KEEP or min(box.height, box.width) < MIN_SIDE
        else box
    )


def coloured(pixels: NDArray[Any]) -> bool:
    """Return whether an ultrasound image shows colour flow, by its saturation.

    Thin coloured things (an ECG trace, steering lines, ticks) do not count; nor does a tint over all of the image.

    Args:
        pixels: H x W x 3 uint8.
    """
    from scipy import ndimage

    stride = max(1, round(max(pixels.shape[:2]) / (2 * GRID)))
    grid = pixels[::stride, ::stride].astype(np.int16)
    red, green, blue = (grid[:, :, channel] for channel in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    vivid = (high - np.minimum(np.minimum(red, green), blue)) > SATURATED
    if vivid.sum() > TINT * (high > SATURATED).sum():
        return False
    return float(ndimage.binary_opening(vivid, np.ones((3, 3), bool)).mean()) > FLOW


SATURATED = 60
"""Difference of the largest and smallest channel above which a pixel is coloured."""
FLOW = 0.004
"""Part of the image that must be coloured; the buttons and ticks of a machine cover less."""
TINT = 0.8
"""Where more than this part of the bright pixels is coloured, the whole image is tinted."""
