"""Grids that are counted from each piece of tissue; those from the slide's corner are held in tests of their users."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.imaging.slides import open_slide
from medclip.imaging.slides.patch_grid import PatchGrid, make_grid
from medclip.imaging.slides.tissue.find import TissueMask
from tests.kits.slides import MPP, write_pyramid

CELL = 21
"""Thumbnail pixels to a patch of 672 px, at 32 times the scale: PathGen's own numbers."""
MASK_UM = 32 * MPP


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    image = np.full((6000, 7000, 3), 240, np.uint8)
    path = write_pyramid(tmp_path_factory.mktemp("slide") / "a.tiff", image, steps=(1,))
    with open_slide(path) as opened:
        yield opened


def mask(*boxes: tuple[int, int, int, int]) -> TissueMask:
    values = np.zeros((188, 219), bool)
    for top, left, height, width in boxes:
        values[top : top + height, left : left + width] = True
    return TissueMask(values, (MASK_UM, MASK_UM))


def by_piece(reader, tissue: TissueMask, **options) -> PatchGrid:
    return make_grid(reader, tissue, by_piece=True, **options)


def corners_px(grid) -> list[tuple[float, float]]:
    return [(patch.top_um / MPP, patch.left_um / MPP) for patch in grid]


def test_a_rectangle_of_four_by_three_cells_has_twelve_corners_counted_from_its_own(reader):
    grid = by_piece(reader, mask((10, 30, 3 * CELL, 4 * CELL)), size_px=672, mpp_um=MPP)
    assert len(grid) == 12
    assert grid.candidates == 12
    tops, lefts = zip(*corners_px(grid), strict=True)
    assert {top - 320 for top in tops} == {0, 672, 1344}
    assert {left - 960 for left in lefts} == {0, 672, 1344, 2016}
    assert all(patch.coverage == pytest.approx(1) for patch in grid)


def test_a_cell_that_is_exactly_half_tissue_is_left_out_and_one_with_a_pixel_more_is_kept(reader):
    box = (0, 0, 20, 20)  # cells of 20 mask pixels: 640 px
    half = mask(box, (0, 20, 10, 20))
    grid = by_piece(reader, half, size_px=640, mpp_um=MPP)
    assert (len(grid), grid.candidates) == (1, 2)
    more = mask(box, (0, 20, 10, 20))
    more.mask[10, 20] = True
    assert len(by_piece(reader, more, size_px=640, mpp_um=MPP)) == 2


def test_each_piece_of_tissue_has_an_origin_of_its_own_and_shows_nothing_of_another(reader):
    grid = by_piece(reader, mask((5, 7, CELL, CELL), (60, 100, CELL, 2 * CELL)), size_px=672, mpp_um=MPP)
    assert corners_px(grid) == [(160, 224), (1920, 3200), (1920, 3872)]
    assert len(grid.origins_um) == 2
    # An L around a block: the block lies in the L's bounding box, and is not counted for it.
    values = mask((0, 0, 3 * CELL, CELL), (2 * CELL, 0, CELL, 3 * CELL), (5, 30, CELL, CELL))
    grid = by_piece(reader, values, size_px=672, mpp_um=MPP)
    assert len(set(corners_px(grid))) == len(grid) == 6


def test_corners_lie_on_whole_pixels_whatever_the_scale_of_the_mask(reader):
    tissue = TissueMask(np.ones((40, 50), bool), (9.37, 9.37))
    tissue.mask[:3] = tissue.mask[:, :5] = False
    grid = by_piece(reader, tissue, size_px=128, mpp_um=MPP)
    assert len(grid) > 8
    assert all(np.allclose(np.round(corner), corner) for corner in corners_px(grid))


def test_a_slide_without_tissue_has_no_patch(reader):
    grid = by_piece(reader, mask(), size_px=672, mpp_um=MPP)
    assert (len(grid), len(grid.origins_um), grid.candidates, grid.status) == (0, 0, 0, "no patches")
    assert (grid.corners_um_N2.shape, grid.spread(4)) == ((0, 2), ())


def test_the_corners_of_all_patches_at_once_are_those_of_each_and_a_sample_has_some_of_every_large_piece(reader):
    grid = by_piece(reader, mask((3, 5, 60, 60), (90, 100, 80, 100)), size_px=128, mpp_um=MPP)
    assert grid.corners_um_N2.tolist() == [[patch.top_um, patch.left_um] for patch in grid]
    sample = grid.spread(20)
    assert len({(patch.top_um, patch.left_um) for patch in sample}) == 20
    assert {patch.top_um < 90 * MASK_UM for patch in sample} == {True, False}


def test_patches_that_share_pixels_lie_closer_and_end_in_the_piece(reader):
    box = mask((10, 30, 2 * CELL, 2 * CELL))
    apart, shared = (by_piece(reader, box, size_px=672, overlap_px=overlap, mpp_um=MPP) for overlap in (0, 336))
    assert len(apart) == 4
    assert sorted({top - 320 for top, _ in corners_px(shared)}) == [0, 336, 672]


def test_a_whole_cell_is_kept_where_all_of_it_must_be_tissue(reader):
    grid = by_piece(reader, mask((10, 30, CELL, 2 * CELL - 1)), size_px=672, mpp_um=MPP, min_coverage=1)
    assert corners_px(grid) == [(320, 960)]
