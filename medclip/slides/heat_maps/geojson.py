"""A map as GeoJSON that QuPath opens: each patch a square with its value as a measurement.

Coordinates are pixels of the finest resolution, as in `medclip.imaging.slides.patches.geojson`.
"""

from __future__ import annotations

from typing import Any

from medclip.slides.heat_maps.patch_map import PatchMap

VALUE, STRENGTH = "value", "strength"


def map_geojson(
    one: PatchMap, slide_mpp_um: tuple[float, float], origin_px: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    """Write a map as a FeatureCollection of detections.

    Args:
        one: The map.
        slide_mpp_um: Row and column µm/px of the slide's finest resolution.
        origin_px: Row and column of QuPath's origin in the slide (`SlideReader.facts.origin_px`).

    Returns:
        Plain data, ready for `json.dump`; each detection has the measurements `value` and `strength` (0 to 1).
    """
    features = []
    for value, strength, (top, left) in zip(one.values_N, one.strengths(), one.corners_um_N2, strict=True):
        rows = [round(y / slide_mpp_um[0] - origin_px[0], 2) for y in (top, top + one.patch_um[0])]
        columns = [round(x / slide_mpp_um[1] - origin_px[1], 2) for x in (left, left + one.patch_um[1])]
        corners = ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[columns[x], rows[y]] for x, y in corners]]},
                "properties": {
                    "objectType": "detection",
                    "name": one.title,
                    "measurements": {VALUE: float(value), STRENGTH: round(float(strength), 4)},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}
