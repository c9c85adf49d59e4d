from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medclip.imaging.slides import open_slide
from medclip.imaging.slides.patch_grid import make_grid
from medclip.imaging.slides.patch_quality import FLAGS, assess_patch
from medclip.imaging.slides.stain import MACENKO_SC, light
from medclip.imaging.slides.tissue.find import find_tissue


def cells(size: int = 256, seed: int = 0, sharp_px: float = 0.5) -> np.ndarray:
    """Sharp nuclei with texture on eosin, as a scanner of 0.5 µm/px sees them."""
    rng = np.random.default_rng(seed)
    grain = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), sharp_px)
    nuclei = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), 4) > 0.06
    amounts = np.stack([np.where(nuclei, 0.6, 0.05), np.where(nuclei, 0.15, 0.35)], -1)
    amounts *= 1 + 0.25 * grain[..., None]
    return light(np.maximum(amounts, 0) @ MACENKO_SC)


def smooth(rgb: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(rgb.astype(np.float32), (sigma, sigma, 0)).round().astype(np.uint8)


def test_a_good_patch_has_no_flag():
    quality = assess_patch(cells(), 0.5)
    assert quality.flags == ()
    assert quality.stained_share > 0.9
    assert quality.pen_share == quality.dark_share == quality.dense_share == 0


def test_glass_is_blank_and_never_called_blurred():
    quality = assess_patch(np.full((256, 256, 3), 243, np.uint8), 0.5)
    assert quality.flags == ("blank",)
    assert np.isnan(quality.sharpness)


def test_a_patch_out_of_focus_is_blurred():
    assert assess_patch(smooth(cells(), 2), 0.5).flags == ("blurred",)


def test_sharpness_falls_with_every_step_of_blur():
    steps = [assess_patch(smooth(cells(), sigma), 0.5).sharpness for sigma in (0.3, 0.7, 1.0, 1.5, 2.0)]
    assert steps == sorted(steps, reverse=True)


def test_sharpness_does_not_depend_on_how_strong_the_stain_is():
    rgb = cells()
    pale = (245 - (245 - rgb.astype(float)) * 0.4).round().astype(np.uint8)
    assert assess_patch(pale, 0.5).sharpness == pytest.approx(assess_patch(rgb, 0.5).sharpness, rel=0.1)


def test_a_finer_scan_of_the_same_tissue_is_as_sharp():
    """At 0.25 µm/px optics leave no detail in the last pixel: that is no blur."""
    fine = smooth(np.asarray(Image.fromarray(cells()).resize((512, 512), Image.Resampling.BICUBIC)), 1.5)
    assert "blurred" not in assess_patch(fine, 0.25).flags
    assert "blurred" in assess_patch(fine, 0.5).flags


@pytest.mark.parametrize("colour", [(40, 140, 70), (30, 60, 190), (200, 40, 45)])
def test_ink_of_any_pen_is_flagged(colour):
    rgb = cells()
    rgb[:80] = np.clip(np.array(colour) + np.random.default_rng(0).normal(0, 2, (80, 256, 3)), 0, 255).astype(np.uint8)
    quality = assess_patch(rgb, 0.5)
    assert "pen" in quality.flags
    assert quality.pen_share == pytest.approx(80 / 256, abs=0.06)


def test_a_black_rim_is_dark_and_no_pen():
    rgb = cells()
    rgb[:40] = 25
    assert "dark" in assess_patch(rgb, 0.5).flags
    assert "pen" not in assess_patch(rgb, 0.5).flags


def test_tissue_on_tissue_is_a_fold():
    rgb = cells()
    twice = light(np.where(np.arange(256)[:, None, None] < 100, 4.5, 1.0) * -np.log10(np.maximum(rgb, 1) / 245))
    assert "fold" in assess_patch(twice, 0.5).flags
    assert "fold" not in assess_patch(rgb, 0.5).flags


def doubled(rgb: np.ndarray) -> np.ndarray:
    """The same patch in twice as many rows and columns."""
    return rgb.repeat(2, 0).repeat(2, 1)


def test_ink_with_grain_is_ink_at_any_scale():
    grain = np.random.default_rng(0).normal(0, 14, (256, 256, 1))
    rgb = np.clip(np.array([40, 140, 70]) + grain, 0, 255).astype(np.uint8)
    assert assess_patch(rgb, 0.5).pen_share > 0.9
    assert assess_patch(doubled(rgb), 0.25).pen_share == pytest.approx(assess_patch(rgb, 0.5).pen_share, abs=0.02)


def test_stripes_that_are_dense_over_less_than_a_nucleus_are_no_fold_at_any_scale():
    stripes = np.where(np.arange(256)[:, None, None] % 16 < 8, 1.6, 0.05) * np.ones((1, 256, 3))
    rgb = (245 * 10.0**-stripes).round().astype(np.uint8)
    assert assess_patch(rgb, 0.5).dense_share < 0.05
    assert assess_patch(doubled(rgb), 0.25).dense_share < 0.05


def test_a_blue_lamp_is_no_pen():
    rng = np.random.default_rng(0)
    glass = np.clip(np.array([120, 170, 250]) + rng.normal(0, 1, (256, 256, 3)), 0, 255).astype(np.uint8)
    assert assess_patch(glass, 0.5).pen_share > 0.9
    assert assess_patch(glass, 0.5, white=(120.0, 170.0, 250.0)).flags == ("blank",)


def test_a_tinted_lamp_is_neither_tissue_nor_ink():
    glass = np.full((256, 256, 3), (236, 230, 205), np.uint8)
    assert assess_patch(glass, 0.5, white=(236.0, 230.0, 205.0)).flags == ("blank",)
    assert assess_patch(glass, 0.5).stained_share == 1


def test_a_patch_of_few_pixels_or_of_a_coarse_scale_is_measured_as_well():
    assert assess_patch(cells(16), 0.5).stained_share > 0.9
    assert set(assess_patch(cells(), 4.0).flags) <= set(FLAGS)


@pytest.mark.shared
def test_real_patches_have_no_flag_and_are_blurred_once_they_are(shared: Path):
    with open_slide(shared / "data/field_dev/wsi/svs/CMU-1-Small-Region.svs") as reader:
        grid = make_grid(reader, find_tissue(reader))
        patches = [reader.read(p.top_um, p.left_um, 256, 256, 0.5) for p in grid]
    assert not [quality.flags for quality in (assess_patch(rgb, 0.5) for rgb in patches) if quality.flags]
    assert all("blurred" in assess_patch(smooth(rgb, 1.5), 0.5).flags for rgb in patches)
