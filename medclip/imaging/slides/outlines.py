"""Outlines of slides: polygons in micrometres, GeoJSON in and out, and an overview that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.patch_grid import PatchGrid
from medclip.imaging.slides.readers.pyramid import SlideReader, whole
from medclip.imaging.slides.tissue.find import TissueMask

# From a mask to polygons along its pixels' edges and back, without loss.

Ring = list[tuple[int, int]]
"""Corners (x, y) in mask pixels, not repeated at the end; consecutive sides are at right angles."""
_RIGHT = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}


def outlines(mask: NDArray[np.bool_]) -> list[list[Ring]]:
    """Trace the pieces of a mask.

    Pieces are connected by sides, not by corners. No ring touches itself: where two corners of a piece meet, it is cut
    in two rings, as the standard for polygons wants.

    Args:
        mask: bool [H, W].

    Returns:
        One polygon for each piece: its outer ring, then its holes; pieces in order of their first pixel.
    """
    from scipy import ndimage

    labelled: Any = ndimage.label(mask)
    labels, count = labelled
    polygons: list[tuple[list[Ring], list[Ring]]] = [([], []) for _ in range(count)]
    for ring, label in _rings(np.asarray(labels)):
        outer, holes = polygons[label - 1]
        (outer if _area(ring) > 0 else holes).append(ring)
    return [[*outer, *holes] for outer, holes in polygons]


def fill(rings: Iterable[Sequence[tuple[float, float]]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw rings: a pixel belongs to them if its centre is inside an odd number of rings.

    Args:
        rings: Corners (x, y) in mask pixels, closed or not; parts outside the mask are cut off.
        shape: Height and width of the mask.

    Returns:
        bool [H, W].
    """
    height, width = shape
    crossings = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        points = np.asarray(ring, np.float64).reshape(-1, 2)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            low, high = (y0, y1) if y0 < y1 else (y1, y0)
            # Rows whose centre lies in [low, high).
            first, last = max(0, int(np.ceil(low - 0.5))), min(height, int(np.ceil(high - 0.5)))
            rows = np.arange(first, last)
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            columns = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
            np.add.at(crossings, (rows, columns), 1)
    return np.cumsum(crossings, axis=1)[:, :width] % 2 == 1


def _rings(labels: NDArray[np.int32]) -> Iterable[tuple[Ring, int]]:
    """Follow the sides of pixels that border on another label, the piece on the right hand."""
    ways = _sides(labels)
    while ways:
        start = next(iter(ways))
        path: Ring = []
        seen: dict[tuple[int, int], int] = {}
        point, heading, label = start, None, 0
        while True:
            if point in seen:  # a corner is met again: what lies between is a ring of its own
                at = seen[point]
                loop = path[at:]
                for corner in loop:
                    del seen[corner]
                del path[at:]
                yield _straight(loop), label
                if not path:
                    break
            seen[point] = len(path)
            path.append(point)
            choices = ways[point]
            turn = (
                choices.index(next(c for c in choices if c[0] == _RIGHT[heading]))
                if len(choices) > 1 and heading
                else 0
            )
            heading, label = choices.pop(turn)
            if not choices:
                del ways[point]
            point = (point[0] + heading[0], point[1] + heading[1])


def _sides(labels: NDArray[np.int32]) -> dict[tuple[int, int], list[tuple[tuple[int, int], int]]]:
    """List for each corner the directions in which a side starts there, with the piece's label."""
    padded = np.pad(labels, 1)
    inner = padded[1:-1, 1:-1]
    ways: dict[tuple[int, int], list[tuple[tuple[int, int], int]]] = {}
    # (neighbour, corner of the pixel where the side starts, direction): clockwise around the pixel as it is shown.
    for neighbour, (dx, dy), heading in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    ):
        ys, xs = np.nonzero((inner != neighbour) & (inner > 0))
        inside = inner[ys, xs]
        for x, y, label in zip(xs.tolist(), ys.tolist(), inside.tolist(), strict=True):
            ways.setdefault((x + dx, y + dy), []).append((heading, label))
    return ways


def _straight(loop: Ring) -> Ring:
    """Leave out corners that lie on a straight line."""
    kept = []
    for i, (x, y) in enumerate(loop):
        (px, py), (nx, ny) = loop[i - 1], loop[(i + 1) % len(loop)]
        if (x - px, y - py) != (nx - x, ny - y):
            kept.append((x, y))
    return kept


def _area(ring: Ring) -> float:
    """Twice the signed area: positive for rings that run clockwise as shown (outer ones)."""
    points = np.asarray(ring, np.int64)
    x, y = points[:, 0], points[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


# Tissue as GeoJSON that QuPath opens, and a pathologist's corrected GeoJSON as tissue.
#
# QuPath counts in pixels of the finest resolution, x to the right and y down, from the corner of the area it shows:
# for MRXS that is the scanned area's corner, not the slide's (`origin_px`). Those are the coordinates in the file.
# Each piece of tissue is one Feature: a Polygon with its holes, objectType "annotation", with a classification.

TISSUE = "Tissue"
_COLOUR = [0, 160, 80]


def to_geojson(tissue: TissueMask, reader: SlideReader, name: str = TISSUE) -> dict[str, Any]:
    """Outline a mask.

    Args:
        tissue: The mask.
        reader: Reader of the slide.
        name: Classification of the pieces, as QuPath shows it.

    Returns:
        A FeatureCollection, ready for `json.dump`.
    """
    rows, columns, origin_y, origin_x = _geometry(tissue, reader)
    features = []
    for number, polygon in enumerate(outlines(tissue.mask), start=1):
        rings = [
            [[round(x * columns - origin_x, 2), round(y * rows - origin_y, 2)] for x, y in (*ring, ring[0])]
            for ring in polygon
        ]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": rings},
                "properties": {
                    "objectType": "annotation",
                    "name": f"{name} {number}",
                    "classification": {"name": name, "color": _COLOUR},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def from_geojson(
    document: Mapping[str, Any], reader: SlideReader, mpp_um: float = 8.0, name: str | None = None
) -> TissueMask:
    """Draw a GeoJSON document as a mask.

    Args:
        document: A FeatureCollection, a Feature, or a list of Features; Polygons and MultiPolygons count, alone or in
            a GeometryCollection; other geometries are left out.
        reader: The slide it belongs to.
        mpp_um: Scale of the mask in µm/px.
        name: Classification that features are taken of; all if None.

    Returns:
        The mask: the union of the features.

    Raises:
        MedclipError: TABLE_INVALID if it is no GeoJSON of polygons.
    """
    height, width = reader.size_um
    shape = whole(height / mpp_um), whole(width / mpp_um)
    empty = TissueMask(np.zeros(shape, bool), (mpp_um, mpp_um))
    rows, columns, origin_y, origin_x = _geometry(empty, reader)
    mask = empty.mask
    notes: tuple[str, ...] = ()
    try:
        for feature in _features(document):
            if name is not None and _classification(feature) != name:
                continue
            polygons, all_used = _polygons(feature.get("geometry") or {})
            notes = notes if all_used else ("geometries other than polygons left out",)
            for polygon in polygons:
                scaled = [
                    [((float(p[0]) + origin_x) / columns, (float(p[1]) + origin_y) / rows) for p in ring]
                    for ring in polygon
                ]
                if not all(np.isfinite(ring).all() for ring in scaled):
                    raise ValueError("not a number")
                mask |= fill(scaled, shape)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError):
        raise MedclipError(
            Reason.TABLE_INVALID, "the GeoJSON does not hold features with polygons in pixel coordinates."
        ) from None
    return TissueMask(mask, empty.mpp_um, notes=notes)


def _features(document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    kind = document["type"]
    if kind == "FeatureCollection":
        return list(document["features"])
    if kind == "Feature":
        return [document]
    return [{"type": "Feature", "geometry": document, "properties": {}}]


def _polygons(geometry: Any) -> tuple[list[Any], bool]:
    """List the polygons of a geometry, those in collections too, and say whether nothing else is in it."""
    waiting, polygons, all_used = [geometry], [], True
    while waiting:
        member = waiting.pop(0)
        kind = member.get("type")
        if kind == "GeometryCollection":
            waiting = [*member["geometries"], *waiting]
        elif kind == "Polygon":
            polygons.append(member["coordinates"])
        elif kind == "MultiPolygon":
            polygons.extend(member["coordinates"])
        else:
            all_used = False
    return polygons, all_used


def _classification(feature: Any) -> str | None:
    classification = (feature.get("properties") or {}).get("classification") or {}
    return classification.get("name") if isinstance(classification, dict) else str(classification)


def _geometry(tissue: TissueMask, reader: SlideReader) -> tuple[float, float, int, int]:
    """Return full-resolution pixels to a mask pixel (rows, columns), and the origin of QuPath's coordinates."""
    mpp = reader.mpp_um
    if mpp is None:
        raise MedclipError(Reason.NO_SCALE, "the slide does not say how large its pixels are.")
    return tissue.mpp_um[0] / mpp[0], tissue.mpp_um[1] / mpp[1], *reader.facts.origin_px


# An image of a slide for people: what was taken for tissue, and where the patches lie.

_TISSUE = (0, 140, 70, 255)
_PATCH = (20, 60, 200, 190)
_PATCH_AREA = (20, 60, 200, 36)


def overview(
    reader: SlideReader, tissue: TissueMask, grid: PatchGrid | None = None, *, longest_px: int = 1400
) -> NDArray[np.uint8]:
    """Draw the tissue's outline (green) and the patches that are kept (blue) over the slide.

    Args:
        reader: The slide.
        tissue: Mask of what was taken for tissue.
        grid: The patches; none are drawn if None.
        longest_px: Number of rows or columns, whichever are more, about; fewer for a slide that has not so many.

    Returns:
        RGB uint8 [H, W, 3].

    Raises:
        MedclipError: NO_SCALE without a pixel size; what reading the slide raises.
    """
    from PIL import Image, ImageDraw

    wanted = max(max(reader.size_um) / longest_px, max(reader.stored_mpp()[0], max(reader.mpp_um or (0.0, 0.0))))
    rows_um, columns_um = reader.effective_mpp(wanted)
    image = Image.fromarray(reader.thumbnail(wanted))
    pen = ImageDraw.Draw(image, "RGBA")
    if grid is not None:
        height, width = (grid.size_px * mpp for mpp in grid.effective_mpp_um)
        # Frames of patches that are only dots would hide the slide.
        frame = _PATCH if min(height / rows_um, width / columns_um) >= 5 else None
        for patch in grid:
            top, left = patch.top_um / rows_um, patch.left_um / columns_um
            box = left, top, left + width / columns_um - 1, top + height / rows_um - 1
            pen.rectangle((*box[:2], max(box[0], box[2]), max(box[1], box[3])), fill=_PATCH_AREA, outline=frame)
    down, across = tissue.mpp_um[0] / rows_um, tissue.mpp_um[1] / columns_um
    for polygon in outlines(tissue.mask):
        for ring in polygon:
            pen.line([(x * across, y * down) for x, y in (*ring, ring[0])], fill=_TISSUE, width=2)
    return np.array(image)
