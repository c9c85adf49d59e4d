from __future__ import annotations

import numpy as np
import pytest

from medclip.captioning.selection.region_grid import lay_region_grid
from medclip.errors import MedclipError
from medclip.imaging.slides import open_slide
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


def corners_px(grid) -> list[tuple[float, float]]:
    return [(patch.top_um / MPP, patch.left_um / MPP) for patch in grid.patches]


def test_a_rectangle_of_four_by_three_cells_has_twelve_corners_counted_from_its_own(reader):
    grid = lay_region_grid(reader, mask((10, 30, 3 * CELL, 4 * CELL)), size_px=672, mpp_um=MPP)
    assert len(grid.patches) == 12
    assert grid.candidates == 12
    tops, lefts = zip(*corners_px(grid), strict=True)
    assert {top - 320 for top in tops} == {0, 672, 1344}
    assert {left - 960 for left in lefts} == {0, 672, 1344, 2016}
    assert all(patch.coverage == pytest.approx(1) for patch in grid.patches)


def test_a_cell_that_is_exactly_half_tissue_is_left_out_and_one_with_a_pixel_more_is_kept(reader):
    box = (0, 0, 20, 20)  # cells of 20 mask pixels: 640 px
    half = mask(box, (0, 20, 10, 20))
    grid = lay_region_grid(reader, half, size_px=640, mpp_um=MPP)
    assert (len(grid.patches), grid.candidates) == (1, 2)
    more = mask(box, (0, 20, 10, 20))
    more.mask[10, 20] = True
    assert len(lay_region_grid(reader, more, size_px=640, mpp_um=MPP).patches) == 2


def test_each_piece_of_tissue_has_an_origin_of_its_own_and_shows_nothing_of_another(reader):
    grid = lay_region_grid(reader, mask((5, 7, CELL, CELL), (60, 100, CELL, 2 * CELL)), size_px=672, mpp_um=MPP)
    assert corners_px(grid) == [(160, 224), (1920, 3200), (1920, 3872)]
    assert grid.num_regions == 2
    # An L around a block: the block lies in the L's bounding box, and is not counted for it.
    values = mask((0, 0, 3 * CELL, CELL), (2 * CELL, 0, CELL, 3 * CELL), (5, 30, CELL, CELL))
    grid = lay_region_grid(reader, values, size_px=672, mpp_um=MPP)
    assert len(set(corners_px(grid))) == len(grid.patches) == 6


def test_corners_lie_on_whole_pixels_whatever_the_scale_of_the_mask(reader):
    tissue = TissueMask(np.ones((40, 50), bool), (9.37, 9.37))
    tissue.mask[:3] = tissue.mask[:, :5] = False
    grid = lay_region_grid(reader, tissue, size_px=128, mpp_um=MPP)
    assert len(grid.patches) > 8
    assert all(np.allclose(np.round(corner), corner) for corner in corners_px(grid))


def test_a_slide_without_tissue_has_no_patch(reader):
    grid = lay_region_grid(reader, mask(), size_px=672, mpp_um=MPP)
    assert (grid.patches, grid.num_regions, grid.candidates) == ((), 0, 0)


def test_impossible_sizes_are_refused(reader):
    with pytest.raises(MedclipError, match="coverage from 0 to less than 1"):
        lay_region_grid(reader, mask(), min_coverage=1)
