from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides import open_slide
from medclip.imaging.slides.patch_grid import make_grid
from medclip.imaging.slides.stain import (
    HED_SC,
    MACENKO_SC,
    METHODS,
    TARGETS,
    StainOptions,
    absorbance,
    estimate_stain,
    from_lab,
    light,
    normalise_stain,
    separate,
    slide_stain,
    to_lab,
)
from medclip.imaging.slides.tissue.find import find_tissue
from tests.kits.slides import damage_tile, draw_section, write_pyramid

OTHER = np.array([[0.62, 0.70, 0.35], [0.2, 0.9, 0.4]])


def tissue(vectors=MACENKO_SC, strength=(0.9, 0.5), size=128, seed=0, white=245.0) -> np.ndarray:
    """Pixels of two stains: most are eosin with some haematoxylin, some nuclei are the other way round."""
    rng = np.random.default_rng(seed)
    nuclei = rng.random((size, size, 1)) < 0.3
    mix = np.where(
        nuclei, rng.uniform((0.5, 0.0), (1, 0.3), (size, size, 2)), rng.uniform((0.0, 0.4), (0.1, 1), (size, size, 2))
    )
    return light(mix * strength @ np.asarray(vectors), white)


def test_absorbance_and_light_are_each_others_inverse():
    rgb = np.random.default_rng(0).integers(1, 246, (50, 50, 3)).astype(np.uint8)
    assert np.array_equal(light(absorbance(rgb)), rgb)


def test_light_through_two_stains_multiplies_and_their_absorbance_adds():
    both = separate(light(np.array([[0.4, 0.3, 0.0]]) @ HED_SC))
    assert np.allclose(both, [[0.4, 0.3, 0.0]], atol=0.02)


def test_glass_has_no_stain_whatever_colour_the_lamp_has():
    glass = np.full((4, 4, 3), (240, 232, 210), np.uint8)
    assert np.abs(separate(glass, white=(240.0, 232.0, 210.0))).max() == 0
    assert separate(glass).max() > 0.01


def test_haematoxylin_eosin_and_dab_are_told_apart_as_scikit_image_does():
    """It uses natural logarithms over log(1e-6) and clips at 0: the same but for one factor."""
    from skimage.color import rgb2hed

    rgb = np.random.default_rng(1).integers(20, 200, (40, 40, 3)).astype(np.uint8)
    unscaled = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    amounts = absorbance(rgb, 255.0) @ np.linalg.inv(unscaled) * np.log(10) / -np.log(1e-6)
    assert np.allclose(np.maximum(amounts, 0), rgb2hed(rgb), atol=1e-5)
    ours = separate(rgb, HED_SC, 255.0)
    assert min(np.corrcoef(ours[..., s].ravel(), amounts[..., s].ravel())[0, 1] for s in range(3)) > 0.999


def test_macenko_finds_the_stains_that_a_slide_was_made_of():
    vectors = np.array([[0.60, 0.70, 0.39], [0.15, 0.90, 0.41]])
    estimate = estimate_stain(tissue(vectors))
    cosines = (estimate.vectors_SC * vectors).sum(1) / np.linalg.norm(vectors, axis=1)
    assert cosines.min() > 0.995
    assert not estimate.problem


def test_macenko_agrees_with_torchstain():
    """Values of torchstain 1.4.1 (NumPy; Io 240, alpha 1, beta 0.15): its wheel has a package `tests`."""
    rgb = tissue(OTHER, white=240.0)
    estimate = estimate_stain(rgb, StainOptions(white=240.0))
    # It adds 1 to each value before the logarithm, takes strength over glass and all, and cuts decimals off.
    assert np.abs(estimate.vectors_SC - [[0.619, 0.702, 0.3523], [0.1986, 0.895, 0.3994]]).max() < 0.02
    assert np.allclose(estimate.strength_S * np.log(10), [2.0168, 1.1358], rtol=0.05)
    normalised = normalise_stain(rgb, estimate)
    assert np.abs(normalised.mean((0, 1)) - (166.66, 110.53, 144.2)).max() < 3
    every_32nd = [
        *([181, 99, 131], [117, 82, 127], [126, 96, 140], [77, 52, 100], [83, 55, 103], [180, 97, 129]),
        *([113, 79, 125], [204, 133, 159], [178, 100, 133], [192, 120, 149], [200, 143, 169], [131, 102, 146]),
        *([106, 81, 129], [104, 76, 124], [205, 151, 175], [217, 165, 185]),
    ]
    assert np.abs(normalised[::32, ::32].reshape(-1, 3).astype(int) - every_32nd).max() <= 8


def test_reinhard_agrees_with_torchstain():
    source, target = tissue(), tissue(OTHER, (0.6, 0.7), seed=1)
    options = StainOptions("reinhard", least_absorbance=-1)  # its mean is over all pixels
    estimates = [estimate_stain(rgb, options) for rgb in (source, target)]
    stained = (absorbance(source).min(axis=-1) >= 0.065)[::32, ::32].ravel()
    assert stained.mean() > 0.5
    every_32nd = [
        *([196, 66, 144], [128, 83, 145], [129, 94, 153], [100, 70, 130], [105, 70, 131], [195, 64, 143]),
        *([126, 83, 143], [197, 98, 161], [192, 69, 146], [195, 87, 155], [183, 112, 167], [129, 98, 156]),
        *([115, 87, 147], [117, 83, 144], [185, 117, 170], [187, 128, 176]),
    ]
    normalised = normalise_stain(source, *estimates)[::32, ::32].reshape(-1, 3).astype(int)
    assert np.abs(normalised - every_32nd)[stained].max() <= 2


@pytest.mark.parametrize("method", METHODS)
def test_two_stainings_of_one_tissue_become_one(method):
    weak = tissue(np.array([[0.60, 0.70, 0.39], [0.2, 0.87, 0.45]]), (0.5, 0.3))
    strong = tissue(np.array([[0.66, 0.68, 0.32], [0.12, 0.95, 0.28]]), (1.0, 0.6))
    before = np.abs(weak.astype(float) - strong).mean()
    options = StainOptions(method)
    after = [normalise_stain(rgb, estimate_stain(rgb, options)).astype(float) for rgb in (weak, strong)]
    # Fixed vectors leave hues as they are, and Reinhard's way mixes the two stains: only Macenko's takes them apart.
    assert np.abs(after[0] - after[1]).mean() < before * (0.2 if method == "macenko" else 0.75)


@pytest.mark.parametrize("method", METHODS)
def test_a_slide_that_is_its_own_target_stays_as_it_is(method):
    rgb = tissue()
    estimate = estimate_stain(rgb, StainOptions(method))
    again = normalise_stain(rgb, estimate, estimate)
    assert np.abs(again.astype(int) - rgb).max() <= 2


@pytest.mark.parametrize("method", METHODS)
def test_glass_stays_bright_and_neutral(method):
    rgb = tissue()
    rgb[:40] = 245
    again = normalise_stain(rgb, estimate_stain(rgb, StainOptions(method)))
    assert again[:40].min() >= 238
    assert np.ptp(again[:40]) <= 2


@pytest.mark.parametrize("method", METHODS)
def test_too_little_tissue_is_a_problem_and_changes_no_pixel(method):
    rgb = np.full((64, 64, 3), 244, np.uint8)
    rgb[:3, :3] = (120, 60, 140)
    estimate = estimate_stain(rgb, StainOptions(method))
    assert estimate.problem == "only 9 stained pixels, of 1000 that an estimate needs"
    assert normalise_stain(rgb, estimate) is rgb


def test_a_slide_of_one_stain_is_a_problem():
    rgb = tissue(np.array([MACENKO_SC[0], MACENKO_SC[0]]))
    assert estimate_stain(rgb).problem.startswith("one stain only")


def test_estimates_of_two_methods_are_not_mixed():
    rgb = tissue()
    with pytest.raises(MedclipError, match="the target was estimated by hed, the slide by macenko") as error:
        normalise_stain(rgb, estimate_stain(rgb), TARGETS["hed"])
    assert error.value.reason is Reason.WRONG_USE


def test_a_target_with_a_problem_is_refused():
    rgb = tissue()
    bad = replace(estimate_stain(rgb), problem="only 3 stained pixels, of 1000 that an estimate needs")
    with pytest.raises(MedclipError, match="only 3 stained pixels"):
        normalise_stain(rgb, estimate_stain(rgb), bad)


def test_lab_and_back_is_the_same_pixel():
    rgb = np.random.default_rng(0).integers(0, 256, (30, 30, 3)).astype(np.uint8)
    assert np.abs(from_lab(to_lab(rgb)).astype(int) - rgb).max() <= 1


def test_a_slides_stain_is_measured_on_tissue_all_over_it(tmp_path):
    image = draw_section()
    section = image[..., 1] < 180
    image[section] = tissue(size=1500, white=245.0)[: image.shape[0], :1].repeat(image.shape[1], 1)[section]
    path = write_pyramid(tmp_path / "a.tiff", image, compression="deflate", compressionargs=None)
    with open_slide(path) as reader:
        grid = make_grid(reader, find_tissue(reader), size_px=128)
        estimate = slide_stain(reader, grid)
        again = slide_stain(reader, grid)
    assert not estimate.problem
    assert np.array_equal(estimate.vectors_SC, again.vectors_SC)
    assert (estimate.vectors_SC * MACENKO_SC).sum(1).min() > 0.99


def test_the_value_of_bare_glass_is_the_slides_own(tmp_path):
    image = np.full((1024, 1024, 3), 215, np.uint8)
    image[200:800, 200:800] = tissue(size=600, white=215.0)
    path = write_pyramid(tmp_path / "a.tiff", image, compression="deflate", compressionargs=None)
    with open_slide(path) as reader:
        estimate = slide_stain(reader, make_grid(reader, find_tissue(reader), size_px=128))
    assert np.allclose(estimate.white, 215, atol=3)


def test_a_damaged_tile_of_the_overview_does_not_keep_stains_from_being_estimated(tmp_path):
    image = np.full((2048, 2048, 3), 245, np.uint8)
    image[700:1900, 700:1900] = tissue(size=1200, white=245.0)
    path = write_pyramid(tmp_path / "a.tiff", image, compression="deflate", compressionargs=None)
    with open_slide(path) as reader:
        grid = make_grid(reader, find_tissue(reader), size_px=128)
        whole = slide_stain(reader, grid)
    damage_tile(path, 0, page=1)
    with open_slide(path) as reader:
        damaged = slide_stain(reader, grid)
    assert damaged.white == pytest.approx(whole.white, abs=1)
    assert not damaged.problem
    assert np.allclose(damaged.vectors_SC, whole.vectors_SC, atol=0.01)


@pytest.mark.shared
def test_the_targets_of_all_methods_are_one_slide_of_cc0(shared: Path):
    with open_slide(shared / "data/field_dev/wsi/svs/CMU-1-Small-Region.svs") as reader:
        grid = make_grid(reader, find_tissue(reader))
        estimate = slide_stain(reader, grid)
        pixels = np.concatenate([reader.read(p.top_um, p.left_um, 256, 256, 0.5) for p in grid.spread(16)])
    target = normalise_stain(pixels, estimate)
    for method in METHODS:
        measured, constant = estimate_stain(target, StainOptions(method, white=240.0)), TARGETS[method]
        assert np.allclose(measured.vectors_SC, constant.vectors_SC, atol=0.06)
        assert np.allclose(measured.strength_S, constant.strength_S, rtol=0.35 if method == "macenko" else 0.01)
        assert np.allclose(measured.lab_mean, constant.lab_mean, atol=0.1)
        assert np.allclose(measured.lab_sd, constant.lab_sd, atol=0.1)


def test_an_unknown_way_is_refused_with_those_that_there_are():
    with pytest.raises(MedclipError, match="called 'vahadane'"):
        estimate_stain(tissue(), StainOptions("vahadane"))  # pyright: ignore
