from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides import open_slide
from medclip.imaging.slides.outlines import fill, from_geojson, outlines, to_geojson
from medclip.imaging.slides.patch_grid import iter_patches, make_grid, slide_patches
from medclip.imaging.slides.tissue.find import TissueMask, TissueOptions, find_tissue, tissue_of
from tests.kits.slides import MPP, draw_section, write_giant, write_pyramid

UM = (8.0, 8.0)


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "a.tiff", draw_section(), steps=(1, 4, 16))


def field(colour=(244, 243, 244), size=(200, 240)) -> np.ndarray:
    noise = np.random.default_rng(0).integers(-3, 4, (*size, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def paint(image: np.ndarray, colour, top: int, left: int, height: int, width: int) -> np.ndarray:
    image[top : top + height, left : left + width] = field(colour, (height, width))
    return image


def test_tissue_is_found_where_it_is(slide):
    with open_slide(slide) as reader:
        found = find_tissue(reader, TissueOptions(min_hole_um2=5000))
    assert found.mpp_um == (8.0, 8.0)
    y, x = np.mgrid[: found.mask.shape[0], : found.mask.shape[1]] * 16 + 8
    section = ((y - 750) / 540) ** 2 + ((x - 798) / 570) ** 2 < 1
    hole = (y - 750) ** 2 + (x - 798) ** 2 < 195**2
    truth = section & ~hole
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.93


def test_an_empty_slide_has_no_tissue_and_a_full_one_nothing_else():
    assert tissue_of(field(), UM).fraction == 0
    assert tissue_of(field((200, 130, 180)), UM).fraction == 1


@pytest.mark.parametrize("pale", [(225, 205, 222), (232, 214, 224)])
def test_pale_stains_are_tissue(pale):
    assert tissue_of(paint(field(), pale, 50, 50, 100, 100), UM).fraction == pytest.approx(
        100 * 100 / (200 * 240), rel=0.1
    )


@pytest.mark.parametrize("ink", [(30, 60, 200), (20, 130, 60), (200, 25, 35), (25, 25, 28)])
def test_pen_marks_of_any_colour_are_not_tissue(ink):
    image = paint(paint(field(), (185, 105, 165), 20, 20, 90, 90), ink, 140, 30, 30, 180)
    found = tissue_of(image, UM)
    assert found.mask[40:90, 40:90].all()
    assert not found.mask[135:].any()
    assert found.pen_fraction > 0.05
    assert found.notes


@pytest.mark.parametrize(
    "stain", [(90, 60, 150), (70, 60, 130), (215, 120, 160), (150, 100, 60), (120, 130, 170), (190, 60, 80)]
)
def test_haematoxylin_eosin_dab_and_blood_are_not_ink(stain):
    found = tissue_of(paint(field(), stain, 50, 50, 100, 100), UM)
    assert found.pen_fraction == 0
    assert found.mask[60:140, 60:140].all()


def test_a_dark_slide_is_not_decided():
    found = tissue_of(field((18, 1, 2)), UM)
    assert found.problem
    assert not found.mask.any()


def test_specks_are_dropped_and_small_holes_filled_by_their_area():
    image = paint(field(), (185, 105, 165), 20, 20, 100, 100)
    paint(image, (185, 105, 165), 160, 160, 8, 8)
    paint(image, (244, 243, 244), 50, 50, 25, 25)
    found = tissue_of(image, UM)
    assert found.mask[62, 62]
    assert not found.mask[150:].any()


def test_masks_survive_outlines_to_the_last_pixel():
    rng = np.random.default_rng(0)
    for threshold in (0.3, 0.5, 0.7):
        mask = rng.random((40, 53)) < threshold
        polygons = outlines(mask)
        np.testing.assert_array_equal(fill([ring for polygon in polygons for ring in polygon], mask.shape), mask)
        for polygon in polygons:
            for ring in polygon:
                assert len(set(ring)) == len(ring)  # no ring touches itself


def test_a_ring_with_an_island_becomes_two_polygons_one_with_a_hole():
    mask = np.zeros((20, 20), bool)
    mask[2:18, 2:18] = True
    mask[6:14, 6:14] = False
    mask[9:11, 9:11] = True
    assert [len(polygon) for polygon in outlines(mask)] == [2, 1]
    assert outlines(mask)[1] == [[(9, 9), (11, 9), (11, 11), (9, 11)]]


def test_tissue_survives_geojson_in_pixels_as_qupath_counts(slide):
    with open_slide(slide) as reader:
        tissue = find_tissue(reader, TissueOptions(min_hole_um2=5000))
        document = json.loads(json.dumps(to_geojson(tissue, reader)))
        again = from_geojson(document, reader, 8.0)
        none = from_geojson(document, reader, 8.0, name="Tumour")
    np.testing.assert_array_equal(tissue.mask, again.mask)
    assert not none.mask.any()
    feature = document["features"][0]
    assert feature["properties"]["classification"]["name"] == "Tissue"
    assert len(feature["geometry"]["coordinates"]) == 2  # the section's outline and its hole
    corners = np.array(feature["geometry"]["coordinates"][0])
    assert corners[0].tolist() == corners[-1].tolist()
    assert corners.max(0) == pytest.approx((798 + 570, 750 + 540), abs=30)


def test_hand_drawn_polygons_become_a_mask(slide):
    square = {"type": "Polygon", "coordinates": [[[160, 160], [480, 160], [480, 320], [160, 320]]]}
    line = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}
    document = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "geometry": g, "properties": None} for g in (square, line)],
    }
    with open_slide(slide) as reader:
        found = from_geojson(document, reader, 8.0)
        assert found.mask.sum() == 20 * 10
        assert found.mask[10:20, 10:30].all()
        assert found.notes
        for bad in ({}, {"type": "Polygon", "coordinates": [[["a", "b"]]]}, {"type": "FeatureCollection"}):
            with pytest.raises(MedclipError) as caught:
                from_geojson(bad, reader)
            assert caught.value.reason is Reason.TABLE_INVALID


def test_coverage_is_exact_for_parts_of_mask_pixels(slide):
    with open_slide(slide) as reader:
        mask = np.zeros((94, 119), bool)
        mask[:, :24] = True  # 192 µm = 1.5 patches of 128 µm
        grid = make_grid(reader, TissueMask(mask, UM), min_coverage=0.0)
    by_column = {patch.column: patch.coverage for patch in grid if patch.row == 0}
    assert [by_column[i] for i in range(3)] == pytest.approx([1, 0.5, 0])
    assert len(grid) == grid.candidates == 6 * 8


def test_overlap_and_size_are_in_pixels_of_the_wanted_scale(slide):
    with open_slide(slide) as reader:
        grid = make_grid(reader, None, size_px=128, mpp_um=1.0, overlap_px=32, min_coverage=1)
        assert grid.patch(1).left_um == 96
        pairs = dict(iter_patches(reader, grid))
        assert {pixels.shape for pixels in pairs.values()} == {(128, 128, 3)}
        a, b = pairs[grid.patch(0)], pairs[grid.patch(1)]
        assert np.abs(a[:, 96:].astype(int) - b[:, :32]).max() <= 1


def test_patches_without_overlap_make_up_the_slide(slide):
    with open_slide(slide) as reader:
        grid = make_grid(reader, None, min_coverage=0)
        whole = np.zeros((6 * 256, 8 * 256, 3), np.uint8)
        for patch, pixels in iter_patches(reader, grid):
            whole[patch.row * 256 :, patch.column * 256 :][:256, :256] = pixels
        np.testing.assert_array_equal(whole[:1500, :1900], reader.read(0, 0, 1500, 1900, MPP))


def test_chosen_patches_spread_over_all_of_the_tissue(slide):
    with open_slide(slide) as reader:
        grid = make_grid(reader, None, size_px=64, mpp_um=0.5)
    chosen = grid.spread(16)
    assert chosen == grid.spread(16)
    assert len(set(chosen)) == 16
    quarters = {(patch.top_um > 375, patch.left_um > 475) for patch in chosen}
    assert len(quarters) == 4


def test_a_slide_without_tissue_says_so(tmp_path):
    path = write_pyramid(tmp_path / "a.tiff", np.full((800, 900, 3), 244, np.uint8))
    with open_slide(path) as reader:
        assert make_grid(reader, find_tissue(reader)).status == "no patches"
    with pytest.raises(MedclipError) as caught:
        next(slide_patches(path))
    assert caught.value.reason is Reason.NO_TISSUE


GIANT = """
import resource, sys
limit = 1_500_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from medclip.imaging.slides import open_slide
from medclip.imaging.slides.patch_grid import make_grid
from medclip.imaging.slides.patch_grid import iter_patches
from medclip.imaging.slides.tissue.find import find_tissue
with open_slide(sys.argv[1]) as reader:
    assert reader.size_px == (80_000, 100_000)
    tissue = find_tissue(reader)
    full = make_grid(reader, tissue)
    assert len(full) > 120_000, len(full)
    rows = [p for p in full if p.row % 100 == 3]
    read = sum(1 for _, pixels in iter_patches(reader, full, rows) if pixels.any())
    coarse = make_grid(reader, tissue, mpp_um=8.0)
    walked = sum(1 for _, pixels in iter_patches(reader, coarse) if pixels.any())
    assert walked == len(coarse)
print(len(full), read, walked)
"""


def test_a_slide_of_100000_by_80000_pixels_is_patched_within_a_gigabyte_and_a_half(tmp_path):
    path = write_giant(tmp_path / "giant.tiff", 80_000, 100_000)
    done = subprocess.run(
        [sys.executable, "-c", GIANT, str(path)],
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin"},
        cwd=Path(__file__).parents[4],
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    full, read, walked = map(int, done.stdout.split())
    assert full > 120_000
    assert read > 1_000
    assert walked > 400


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("almost-white-1", 0, 0.01),
        ("no-tissue", 0, 0.01),
        ("no-tissue-red-pen", 0, 0.05),
        ("tissue-level0-4302-10273-4814-10785", 0.8, 1),
        ("medium-nuclei-score-level2", 0.6, 1),
        ("high-nuclei-score-level2", 0.05, 0.3),
        ("liver-level2-10907-7808-11707-8608", 0.9, 1),
    ],
)
def test_real_tiles_are_judged_as_their_names_say(shared, name, least, most):
    image = Image.open(shared / "data/field_dev/pathology/histolab-tiles" / f"{name}.png").convert("RGB")
    mpp = 8.0 if "level2" in name else 0.5
    assert least <= tissue_of(np.asarray(image), (mpp, mpp)).fraction <= most


@pytest.mark.shared
def test_red_pen_on_a_real_thumbnail_is_left_out(shared):
    image = np.asarray(Image.open(shared / "data/field_dev/pathology/histolab-thumbs/tcga-red-pen.png").convert("RGB"))
    found = tissue_of(image, (40.0, 40.0))
    assert 0.1 < found.pen_fraction < 0.3
    assert found.mask[180:330, 60:110].mean() < 0.03  # the middle of the mark
    assert found.mask[:, 350:].mean() > 0.9  # the section


@pytest.mark.shared
def test_a_fluorescence_slide_is_not_decided(shared):
    path = next((shared / "data/field_dev/wsi/ndpi").glob("*.ndpi"))
    with open_slide(path) as reader:
        found = find_tissue(reader)
    assert "dark" in found.problem
    assert not found.mask.any()
