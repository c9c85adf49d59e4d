from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides import open_slide
from medclip.imaging.slides.outlines import from_geojson, to_geojson
from medclip.imaging.slides.patch_grid import slide_patches
from medclip.imaging.slides.tissue.find import TissueMask
from tests.kits.slides import MPP, draw_section, write_pyramid


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "a.tiff", draw_section(), steps=(1, 4, 16))


def area(ring: list[list[float]]) -> float:
    """Signed area by the corners: positive for GeoJSON's outer rings."""
    x, y = np.array(ring).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def patterns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    nested = np.zeros((94, 119), bool)
    nested[5:80, 5:110] = True
    nested[20:60, 20:50] = False
    nested[30:40, 25:40] = True
    nested[30:60, 60:100] = False
    corners = np.zeros((94, 119), bool)
    corners[0:10, 0:10] = corners[10:20, 10:20] = True
    return {"nested": nested, "noise": rng.random((94, 119)) < 0.5, "corners": corners, "full": np.ones_like(nested)}


@pytest.mark.parametrize("name", ["nested", "noise", "corners", "full"])
def test_rings_are_closed_and_turn_as_geojson_says_and_holes_come_back(slide, name):
    mask = patterns()[name]
    with open_slide(slide) as reader:
        document = json.loads(json.dumps(to_geojson(TissueMask(mask, (8.0, 8.0)), reader)))
        again = from_geojson(document, reader, 8.0)
    np.testing.assert_array_equal(again.mask, mask)
    total = 0.0
    for feature in document["features"]:
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        rings = feature["geometry"]["coordinates"]
        for ring in rings:
            assert ring[0] == ring[-1]
            assert len(ring) >= 5
        assert area(rings[0]) > 0
        assert all(area(hole) < 0 for hole in rings[1:])
        total += sum(area(ring) for ring in rings)
    assert total == pytest.approx(mask.sum() * 16 * 16)  # in pixels of the finest level


def test_features_say_what_qupath_reads(slide):
    with open_slide(slide) as reader:
        document = to_geojson(TissueMask(patterns()["nested"], (8.0, 8.0)), reader, name="Tumour")
    assert document["type"] == "FeatureCollection"
    for feature in document["features"]:
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        assert properties["classification"]["name"] == "Tumour"
        assert len(properties["classification"]["color"]) == 3
        assert all(0 <= value <= 255 for value in properties["classification"]["color"])


def test_multipolygons_with_holes_and_rings_that_turn_the_other_way_are_read(slide):
    outer = [[160, 160], [160, 960], [960, 960], [960, 160], [160, 160]]
    hole = [[320, 320], [640, 320], [640, 640], [320, 640], [320, 320]]
    other = [[1120, 160], [1280, 160], [1280, 320], [1120, 320], [1120, 160]]
    geometry = {"type": "MultiPolygon", "coordinates": [[outer, hole], [other]]}
    with open_slide(slide) as reader:
        found = from_geojson({"type": "Feature", "geometry": geometry, "properties": {}}, reader, 8.0)
    expected = np.zeros((94, 119), bool)
    expected[10:60, 10:60] = True
    expected[20:40, 20:40] = False
    expected[10:20, 70:80] = True
    np.testing.assert_array_equal(found.mask, expected)


def test_polygons_in_collections_of_geometries_are_read(slide):
    def square(left: int) -> dict:
        return {
            "type": "Polygon",
            "coordinates": [[[left, 160], [left + 160, 160], [left + 160, 320], [left, 320], [left, 160]]],
        }

    inner = {"type": "GeometryCollection", "geometries": [square(480), {"type": "Point", "coordinates": [1, 1]}]}
    outer = {"type": "GeometryCollection", "geometries": [square(160), inner]}
    with open_slide(slide) as reader:
        found = from_geojson({"type": "Feature", "geometry": outer, "properties": {}}, reader, 8.0)
        assert from_geojson(outer, reader, 8.0).mask.sum() == 200
    expected = np.zeros((94, 119), bool)
    expected[10:20, 10:20] = expected[10:20, 30:40] = True
    np.testing.assert_array_equal(found.mask, expected)
    assert found.notes  # of the point


def test_patches_are_taken_from_what_a_pathologist_drew(slide):
    square = [[512, 256], [1024, 256], [1024, 768], [512, 768], [512, 256]]
    document = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square]}, "properties": {}}
    with open_slide(slide) as reader:
        drawn = from_geojson(document, reader, 4.0)
        patches = list(slide_patches(slide, size_px=256, mpp_um=MPP, min_coverage=0.99, tissue=drawn))
        assert [(patch.top_um, patch.left_um) for patch, _ in patches] == [
            (128.0, 256.0),
            (128.0, 384.0),
            (256.0, 256.0),
            (256.0, 384.0),
        ]
        for patch, pixels in patches:
            np.testing.assert_array_equal(pixels, reader.read(patch.top_um, patch.left_um, 256, 256, MPP))


def test_the_mask_of_another_slide_is_refused(slide):
    with open_slide(slide) as reader:
        drawn = from_geojson([], reader, 8.0)
    with pytest.raises(MedclipError) as caught:
        next(slide_patches(slide, tissue=replace(drawn, mask=drawn.mask[:50])))
    assert caught.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError) as caught:
        next(slide_patches(slide, tissue=drawn))
    assert caught.value.reason is Reason.NO_TISSUE
