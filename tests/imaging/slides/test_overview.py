from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.imaging.slides import open_slide, overview
from medclip.imaging.slides.patch_grid import make_grid
from medclip.imaging.slides.tissue.find import TissueMask, find_tissue
from tests.kits.slides import draw_section, write_pyramid


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "a.tiff", draw_section(), steps=(1, 4, 16))


def square(reader) -> TissueMask:
    """Tissue from 160 to 480 µm, both ways."""
    mask = np.zeros((94, 119), bool)
    mask[20:60, 20:60] = True
    return TissueMask(mask, (8.0, 8.0))


def test_the_outline_lies_where_the_tissue_is(slide):
    with open_slide(slide) as reader:
        plain = reader.thumbnail(2.0)
        drawn = overview(reader, square(reader), longest_px=475)
    assert drawn.shape == plain.shape == (375, 475, 3)
    changed = (drawn != plain).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == pytest.approx([80, 240, 80, 240], abs=2)
    assert not changed[90:230, 90:230].any()


def test_patches_are_shown_where_they_are_kept(slide):
    with open_slide(slide) as reader:
        tissue = square(reader)
        grid = make_grid(reader, tissue, size_px=80, mpp_um=1.0, min_coverage=0.9)
        plain, drawn = overview(reader, tissue, longest_px=475), overview(reader, tissue, grid, longest_px=475)
    assert len(grid) == 16
    rows, columns = np.nonzero((drawn != plain).any(axis=2))
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == pytest.approx([80, 240, 80, 240], abs=2)
    assert (drawn[100:140, 100:140].astype(int) - plain[100:140, 100:140])[:, :, 0].mean() < 0  # bluer: tinted


@pytest.mark.parametrize("longest", [60, 475, 100_000])
def test_it_is_about_as_large_as_asked_and_never_finer_than_the_slide(slide, longest):
    with open_slide(slide) as reader:
        tissue = find_tissue(reader)
        drawn = overview(reader, tissue, make_grid(reader, tissue), longest_px=longest)
    assert drawn.dtype == np.uint8
    assert max(drawn.shape) == pytest.approx(min(longest, 1900), rel=0.05)
