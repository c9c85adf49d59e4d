from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medclip.errors import MedclipError
from medclip.imaging.slides.nuclei import measure_nuclei
from medclip.imaging.slides.stain import HED_SC, estimate_stain, light

PX = 256


def patch(places, radius_px=6.0, ratio=1.0, haematoxylin=0.7, eosin=0.3, seed=0) -> np.ndarray:
    """Draw ellipses of haematoxylin on eosin, with a little grain."""
    y, x = np.mgrid[:PX, :PX]
    mask = np.zeros((PX, PX))
    for top, left in places:
        mask = np.maximum(mask, ((y - top) / radius_px) ** 2 + ((x - left) / (radius_px * ratio)) ** 2 <= 1)
    amounts = np.stack([haematoxylin * mask, np.where(mask > 0, 0.05, eosin)], -1)
    amounts = ndimage.gaussian_filter(amounts, (0.7, 0.7, 0))
    amounts += np.random.default_rng(seed).normal(0, 0.01, amounts.shape)
    return light(np.maximum(amounts, 0) @ HED_SC[:2])


GRID = [(top, left) for top in range(20, PX - 10, 32) for left in range(20, PX - 10, 32)]


def test_nuclei_are_counted_and_sized_in_micrometres():
    measured = measure_nuclei(patch(GRID), 0.5)
    assert measured.num_nuclei == len(GRID) == 64
    assert measured.median_um2 == pytest.approx(np.pi * 9, rel=0.15)
    assert measured.per_mm2 == pytest.approx(64 / (PX * 0.5 / 1000) ** 2, rel=0.02)
    assert measured.median_distance_um == pytest.approx(16, abs=0.3)
    assert measured.tissue_share == 1
    assert measured.area_share == pytest.approx(64 * np.pi * 36 / PX**2, rel=0.15)


def test_the_same_tissue_at_another_scale_measures_the_same():
    fine = np.asarray(Image.fromarray(patch(GRID)).resize((512, 512), Image.Resampling.BICUBIC))
    coarse, finer = measure_nuclei(patch(GRID), 0.5), measure_nuclei(fine, 0.25)
    assert finer.num_nuclei == coarse.num_nuclei
    assert finer.median_um2 == pytest.approx(coarse.median_um2, rel=0.1)
    assert finer.per_mm2 == pytest.approx(coarse.per_mm2, rel=0.02)


def test_round_and_long_nuclei_differ_in_elongation_only():
    round_, long = measure_nuclei(patch(GRID), 0.5), measure_nuclei(patch(GRID, 4.5, 2.2), 0.5)
    assert round_.median_elongation < 1.15
    assert 1.9 < long.median_elongation < 2.5
    assert min(round_.median_solidity, long.median_solidity) > 0.9


def test_two_nuclei_that_touch_are_two():
    pairs = [place for top, left in GRID[::2] for place in ((top, left), (top, left + 10))]
    assert measure_nuclei(patch(pairs), 0.5).num_nuclei == len(pairs)


def test_specks_are_no_nuclei_and_stroma_has_none():
    assert measure_nuclei(patch(GRID, radius_px=1.5), 0.5).num_nuclei == 0
    measured = measure_nuclei(patch([]), 0.5)
    assert (measured.num_nuclei, measured.per_mm2, measured.area_share) == (0, 0, 0)
    assert np.isnan(measured.median_um2)
    assert measured.eosin == pytest.approx(0.3, abs=0.03)


def test_shares_and_stain_are_of_the_tissue_and_not_of_the_glass_beside_it():
    rgb = patch(GRID, radius_px=10)
    whole = measure_nuclei(rgb, 0.5)
    assert whole.eosin == pytest.approx(0.3, abs=0.02)  # beside nuclei, which hold 0.05
    assert whole.haematoxylin > 0.55
    rgb[PX // 2 :] = 245
    half = measure_nuclei(rgb, 0.5)
    assert half.tissue_share == pytest.approx(0.5, abs=0.02)
    assert half.area_share == pytest.approx(whole.area_share, rel=0.1)
    assert half.per_mm2 == pytest.approx(whole.per_mm2, rel=0.1)


def test_glass_is_no_tissue():
    measured = measure_nuclei(np.full((PX, PX, 3), 245, np.uint8), 0.5)
    assert (measured.num_nuclei, measured.tissue_share, measured.haematoxylin, measured.eosin) == (0, 0, 0, 0)


def test_nuclei_at_the_border_are_counted_and_not_sized():
    edge = [(0, left) for left in range(20, PX - 10, 32)]
    measured = measure_nuclei(patch(edge), 0.5)
    assert measured.num_nuclei == len(edge)
    assert np.isnan(measured.median_um2)


def test_the_stain_of_the_slide_is_used_where_it_is_known():
    rgb = patch(GRID)
    stain = estimate_stain(rgb)
    assert not stain.problem
    assert measure_nuclei(rgb, 0.5, stain).num_nuclei == 64
    assert measure_nuclei(rgb, 0.5, stain).haematoxylin != measure_nuclei(rgb, 0.5).haematoxylin


def test_a_scale_that_shows_no_shapes_is_refused():
    with pytest.raises(MedclipError, match="up to 1 µm/px, and not at 2"):
        measure_nuclei(patch(GRID), 2.0)


@pytest.mark.shared
def test_real_tiles_have_numbers_of_nuclei_that_tissue_has(shared: Path):
    files = sorted((shared / "data/glas_colon/images").glob("*.jpg"))[::40]
    tiles = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    measured = [measure_nuclei(tile, 0.62) for tile in tiles]
    assert 2000 < np.median([one.per_mm2 for one in measured]) < 9000
    assert 15 < np.nanmedian([one.median_um2 for one in measured]) < 70
