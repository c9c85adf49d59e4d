"""Where the regions of an image lie once it was changed, and changes that keep them: no crop cuts off what words name.

Chance is drawn before, as for any image (`medclip.training.batches.augment`); what cut a region away is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from medclip.text.captions.record import Region
from medclip.training.batches.augment import MOVING, Change, part_of_stretched

_LEAST = 0.7
"""Share of each region that a crop of the whole image must keep."""


def keeping(
    change: Change, regions: Sequence[Region], image: tuple[int, int], extent: tuple[float, float] | None
) -> Change:
    """Return a change without what moves parts after the crop, and without the crop where it cuts a region off.

    Args:
        change: Change that was drawn.
        regions: Regions as shares of the stored image.
        image: Width and height of the stored image in pixels.
        extent: Height and width of what the model's square shows, as `apply_change` takes it.
    """
    still = replace(change, ops=tuple(op for op in change.ops if op.name not in MOVING))
    if all(_is_kept(region, still, image, extent) for region in regions):
        return still
    return replace(still, zoom=1.0, shift=(0.0, 0.0), rotate_deg=0.0, parts=())


def place_regions(
    regions: Sequence[Region], change: Change, image: tuple[int, int], extent: tuple[float, float] | None
) -> tuple[Region, ...]:
    """Return where regions lie in the changed square, as shares of it; what lies outside is left out.

    A region of a turned image is the upright box around it. Arguments as of `keeping`.
    """
    placed = (_clipped(_placed(region, change, image, extent)) for region in regions)
    return tuple(region for region in placed if _area(region) > 0)


def _is_kept(region: Region, change: Change, image: tuple[int, int], extent: tuple[float, float] | None) -> bool:
    box = _placed(region, change, image, extent)
    return _area(_clipped(box)) >= _LEAST * _area(box)


def _placed(region: Region, change: Change, image: tuple[int, int], extent: tuple[float, float] | None) -> Region:
    width, height = image
    corners = [(x * width, y * height) for x in region[0::2] for y in region[1::2]]
    if change.parts:
        left, top, part_width, part_height = part_of_stretched(image, change)
        shares = [((x - left) / part_width, (y - top) / part_height) for x, y in corners]
    else:
        across, down = (max(image), max(image)) if extent is None else (extent[1], extent[0])
        turn = math.radians(change.rotate_deg)
        cos, sin = math.cos(turn), math.sin(turn)
        middle_x = width / 2 + across * (1 - change.zoom) / 2 * change.shift[0]
        middle_y = height / 2 + down * (1 - change.zoom) / 2 * change.shift[1]
        # The inverse of the matrix that `apply_change` resamples with, without its mirror.
        away = [(x - middle_x, y - middle_y) for x, y in corners]
        turned = [(cos * x + sin * y, cos * y - sin * x) for x, y in away]
        shares = [(0.5 + x / (across * change.zoom), 0.5 + y / (down * change.zoom)) for x, y in turned]
    if change.flip:
        shares = [(1 - x, y) for x, y in shares]
    xs, ys = zip(*shares, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _clipped(box: Region) -> Region:
    x0, y0, x1, y1 = (min(max(side, 0.0), 1.0) for side in box)
    return x0, y0, x1, y1


def _area(box: Region) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
