"""Tissue as GeoJSON that QuPath opens, and a pathologist's corrected GeoJSON as tissue.

QuPath counts in pixels of the finest resolution, x to the right and y down, from the corner of the area it shows: for
MRXS that is the scanned area's corner, not the slide's (`origin_px`). Those are the coordinates in the file. Each piece
of tissue is one Feature: a Polygon with its holes, objectType "annotation", with a classification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.patches.polygons import fill, outlines
from medclip.imaging.slides.readers.pyramid import SlideReader, whole
from medclip.imaging.slides.tissue.find import TissueMask

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
