"""Regions of an image that its table names: boxes in the pixels of the file, or masks, brought to the stored image."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import sniff
from medclip.imaging.geometry import Box
from medclip.imaging.masks import read_mask, require_same_size, sample_nearest, shown_part
from medclip.sample import View
from medclip.settings import Settings
from medclip.text.captions.record import MAX_REGIONS, Region

BOX_EXPECTED = 'four numbers "left top right bottom" in pixels of the file, each box on a line or behind a semicolon'


def boxes_in(cell: str) -> tuple[Region, ...]:
    """Read the cell of a column `regions`: left, top, right and bottom of each box, in pixels of the file.

    Raises:
        MedclipError: TABLE_INVALID for anything else, and for more boxes than a sample holds.
    """
    boxes: list[Region] = []
    for text in filter(None, (part.strip() for part in re.split(r"[;\n]", cell))):
        try:
            left, top, right, bottom = map(float, re.split(r"[,\s]+", text.strip("[]() ")))
        except ValueError:
            raise _refused("`regions` is not understood.", f"Use {BOX_EXPECTED}.") from None
        if not all(map(math.isfinite, (left, top, right, bottom))) or left >= right or top >= bottom:
            raise _refused("`regions` has a box without an area.", f"Use {BOX_EXPECTED}.")
        boxes.append((left, top, right, bottom))
    check_number(len(boxes), "regions")
    return tuple(boxes)


def check_number(num: int, column: str) -> None:
    """Refuse more regions than a sample holds. Raises TABLE_INVALID."""
    if num > MAX_REGIONS:
        raise _refused(f"`{column}` names {num} regions.", f"A sample holds {MAX_REGIONS}: keep the most important.")


def regions_of(
    views: Sequence[View], boxes: Sequence[Region], masks: Sequence[Path], settings: Settings
) -> tuple[Region, ...]:
    """Return where the regions of an image lie in what is stored of it.

    Args:
        views: Views that the adapter made of the file.
        boxes: Boxes in pixels of the file.
        masks: Files of masks, with the image's own pixels; each gives the box around what it marks, an empty one none.
        settings: Limits.

    Returns:
        x0, y0, x1, y1 of each as shares of the stored image. Regions in what the adapter cut off are left out.

    Raises:
        MedclipError: TABLE_INVALID for regions outside the image, masks of another size, and files of several images;
            NOT_SUPPORTED_YET where the adapter does not say what it cut off; what `read_mask` raises.
    """
    if len(views) != 1:
        raise _refused("the row names regions, and its file shows several images.", "Name regions of single images.")
    (view,) = views
    height, width = view.part_of or view.pixels.shape[:2]
    part = shown_part(view)
    kept = []
    for box in (*boxes, *(_around(path, view, settings) for path in masks)):
        if box is None:
            continue
        left, top, right, bottom = box
        if left < 0 or top < 0 or right > width or bottom > height:
            message = f"a region reaches beyond the image of {width} x {height} pixels (width x height)."
            raise _refused(message, "Name boxes in pixels of the file, as decoded: the corner at the upper left is 0.")
        shares = _within(box, part, view.flipped)
        if shares is not None:
            kept.append(shares)
    return tuple(kept)


def _around(path: Path, view: View, settings: Settings) -> Region | None:
    """Return the box around what a mask marks; None for an empty one."""
    if not path.is_file():
        raise MedclipError(Reason.MISSING_FILE, "a mask of the row is not there.", hint="Masks lie where images do.")
    mask_HW = read_mask(path, sniff(path), settings)
    require_same_size(view, mask_HW.shape)
    mask_HW = sample_nearest(mask_HW, view.part_of or view.pixels.shape[:2])
    rows, columns = (np.flatnonzero(mask_HW.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _within(box: Region, part: Box, flipped: Sequence[int]) -> Region | None:
    """Bring a box into the part that is shown, as shares of it; None where it lies outside."""
    spans = []
    for axis, (low, high), start, length in (
        (1, box[0::2], part.left, part.width),
        (0, box[1::2], part.top, part.height),
    ):
        span = min(max((low - start) / length, 0.0), 1.0), min(max((high - start) / length, 0.0), 1.0)
        spans.append((1 - span[1], 1 - span[0]) if axis in flipped else span)
    (x0, x1), (y0, y1) = spans
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _refused(message: str, hint: str) -> MedclipError:
    return MedclipError(Reason.TABLE_INVALID, message, hint=hint)
