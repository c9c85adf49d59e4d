"""The tissue finder on special stains, tinted glass, grey and dark slides, and pen marks that touch tissue."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medclip.adapters.pathology import PathologyAdapter
from medclip.imaging.slides.tissue.find import TissueOptions, tissue_of
from medclip.imaging.slides.tissue.glass import closed, distance, glass_of, levelled, opened, white_point, within
from medclip.sample import Kind
from tests.imaging.slides.tissue.test_find import UM, field, paint

GLASS = (244, 243, 244)
EOSIN, HAEMATOXYLIN = (215, 120, 160), (90, 60, 150)
SPECIAL = [(108, 138, 189), (148, 199, 168), (189, 214, 194), (88, 168, 199)]
"""Aniline blue, light green, a pale green, alcian blue."""
INKS = [(30, 60, 200), (20, 130, 60), (200, 25, 35), (25, 25, 28)]
HEIGHT, WIDTH = 300, 400


def density(colour, glass=GLASS) -> np.ndarray:
    return -np.log(np.maximum(np.array(colour, float), 1) / np.array(glass, float))


def section(first, second, share: float = 0.5, radii=(100, 120), glass=GLASS, seed: int = 0):
    """A piece of two stains in fields of about 200 µm, with the texture of tissue; and where it is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    truth = ((y - 150) / radii[0]) ** 2 + ((x - 170) / radii[1]) ** 2 < 1
    coarse = ndimage.gaussian_filter(rng.normal(size=truth.shape), 10)
    mix = ndimage.gaussian_filter((coarse > np.quantile(coarse, 1 - share)).astype(float), 1)[:, :, None]
    grain = 1 + 0.35 * ndimage.gaussian_filter(rng.normal(size=truth.shape), 1)[:, :, None] * 3.5
    stain = (density(second) * mix + density(first) * (1 - mix)) * np.clip(grain, 0.15, None)
    edge = ndimage.gaussian_filter(truth.astype(float), 0.7)[:, :, None]
    return np.array(glass) * np.exp(-stain * edge) + rng.normal(0, 1, (*truth.shape, 3)), truth


def drawn(image: np.ndarray, colour, width: int, start=(20, 40), end=(280, 330)):
    """Draw a transparent stroke; and say where it is."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    (y0, x0), (y1, x1) = start, end
    along = np.clip(((y - y0) * (y1 - y0) + (x - x0) * (x1 - x0)) / ((y1 - y0) ** 2 + (x1 - x0) ** 2), 0, 1)
    mark = np.hypot(y - y0 - along * (y1 - y0), x - x0 - along * (x1 - x0)) < width / 2
    edge = ndimage.gaussian_filter(mark.astype(float), 1)[:, :, None]
    return image * np.exp(-density(colour) * edge), mark


def scanned(image: np.ndarray) -> np.ndarray:
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("stain", SPECIAL)
def test_blue_and_green_stains_alone_on_a_slide_are_tissue(stain):
    image = paint(field(), stain, 50, 50, 100, 100)
    found = tissue_of(image, UM)
    assert not found.problem
    assert found.pen_fraction == 0
    assert found.mask[55:145, 55:145].all()
    assert found.fraction == pytest.approx(100 * 100 / (200 * 240), rel=0.1)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("stain", [*SPECIAL[:2], SPECIAL[3], (60, 90, 170), (50, 130, 100), (130, 150, 200)])
def test_blue_and_green_fields_among_red_ones_are_tissue(stain, share):
    image, truth = section((170, 70, 100), stain, share)
    found = tissue_of(scanned(image), UM)
    assert not found.problem
    assert found.pen_fraction < 0.002
    assert overlap(found.mask, truth) > 0.9


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("second", [HAEMATOXYLIN, (108, 138, 189)])
def test_pens_beside_tissue_are_left_out_whatever_its_stain(ink, second):
    image, truth = section(EOSIN, second)
    image, mark = drawn(image, ink, 20, (20, 350), (280, 360))
    found = tissue_of(scanned(image), UM)
    assert not (found.mask & mark).any()
    assert overlap(found.mask, truth) > 0.9


@pytest.mark.parametrize("ink", [(90, 150, 210), (90, 180, 110), (60, 140, 130)])
def test_paler_pens_beside_stained_tissue_are_left_out(ink):
    image, truth = section(EOSIN, HAEMATOXYLIN)
    image, mark = drawn(image, ink, 20, (20, 350), (280, 360))
    found = tissue_of(scanned(image), UM)
    assert not (found.mask & mark).any()
    assert overlap(found.mask, truth) > 0.9


@pytest.mark.parametrize("width", [10, 14, 24])
@pytest.mark.parametrize("ink", INKS)
def test_a_stroke_across_a_small_piece_takes_no_more_than_itself(ink, width):
    image, truth = section(EOSIN, HAEMATOXYLIN, radii=(45, 60))
    image, mark = drawn(image, ink, width)
    found = tissue_of(scanned(image), UM)
    far = truth & (distance(~mark) > 10)
    assert found.mask[far].mean() > 0.9
    assert found.mask[mark & ~truth].mean() < 0.02
    assert found.pen_fraction > 0


@pytest.mark.parametrize("ink", INKS[:2])
def test_a_stroke_that_runs_into_tissue_of_its_own_hue_leaves_the_tissue(ink):
    image, truth = section(EOSIN, (108, 138, 189), radii=(50, 110))
    image, mark = drawn(image, ink, 30, (60, 390), (130, 230))
    found = tissue_of(scanned(image), UM)
    assert found.mask[truth & (distance(~mark) > 10)].mean() > 0.9
    assert found.mask[mark & ~truth].mean() < 0.05


@pytest.mark.parametrize("first", [EOSIN, HAEMATOXYLIN, (225, 170, 190)])
@pytest.mark.parametrize("second", [(40, 110, 170), (88, 168, 199), (90, 190, 150)])
def test_a_small_biopsy_with_one_blue_or_green_end_is_tissue_as_a_whole(first, second):
    image, truth = section(first, second, radii=(60, 40), seed=3)
    assert overlap(tissue_of(scanned(image), UM).mask, truth) > 0.9


@pytest.mark.parametrize("ink", [(90, 150, 210), (90, 180, 110)])
def test_a_pale_stroke_alone_is_not_decided(ink):
    image, _ = drawn(np.full((HEIGHT, WIDTH, 3), 244.0), ink, 14)
    found = tissue_of(scanned(image), UM)
    assert "pen or a stain" in found.problem
    assert not found.mask.any()


@pytest.mark.parametrize("glass", [(246, 236, 215), (240, 225, 195), (230, 236, 246), (225, 232, 222), (200, 200, 200)])
def test_tinted_glass_is_no_tissue(glass):
    assert tissue_of(field(glass), UM).fraction == 0
    image, truth = section(EOSIN, HAEMATOXYLIN, glass=glass)
    found = tissue_of(scanned(image), UM)
    assert overlap(found.mask, truth) > 0.9


def test_the_glass_is_made_neutral_and_pale_tissue_is_not_taken_for_it():
    image = field((246, 236, 215))
    white = white_point(image, glass_of(image))
    assert white == pytest.approx((246, 236, 215), abs=1)
    assert np.abs(levelled(image, white).astype(float) - 245).max() < 6
    assert white_point(field((225, 205, 222)), glass_of(field((225, 205, 222)))) is None


def test_what_was_not_scanned_says_nothing_of_the_glass():
    image = field((246, 236, 215))
    image[:, :180] = 255
    assert white_point(image, glass_of(image)) == pytest.approx((246, 236, 215), abs=1)


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_a_slide_with_a_dark_background_says_so_however_much_of_it_is_bright(grey, share):
    rng = np.random.default_rng(0)
    image = rng.exponential(5, (HEIGHT, WIDTH, 3))
    rows = round(HEIGHT * share)
    light = np.clip(140 + 70 * ndimage.gaussian_filter(rng.normal(size=(rows, WIDTH)), 1.5) * 4, 0, 255)
    image[:rows, :, 2] += light
    if grey:
        image = np.repeat(image[:, :, 2:], 3, axis=2)
    found = tissue_of(scanned(image), UM)
    assert "dark background" in found.problem
    assert not found.mask.any()


def test_white_where_nothing_was_scanned_does_not_make_a_dark_slide_bright():
    image = np.random.default_rng(0).exponential(5, (HEIGHT, WIDTH, 3))
    image[:, :150] = 255
    assert "dark background" in tissue_of(scanned(image), UM).problem


@pytest.mark.parametrize("tint", [(1, 1, 1), (0.99, 1, 0.985)])
def test_tissue_on_a_grey_slide_is_found_by_its_darkness(tint):
    image, truth = section(EOSIN, HAEMATOXYLIN)
    grey = image @ np.array([0.299, 0.587, 0.114])
    image, mark = drawn(np.repeat(grey[:, :, None], 3, axis=2) * np.array(tint), INKS[3], 20, (20, 350), (280, 360))
    found = tissue_of(scanned(image), UM)
    assert overlap(found.mask, truth) > 0.85
    assert not (found.mask & mark).any()
    assert any("no colour" in note for note in found.notes)


def test_the_edge_of_a_cover_slip_on_an_empty_slide_is_no_tissue():
    image = field(GLASS, (HEIGHT, WIDTH)).astype(float)
    image *= (1 - 0.2 * np.exp(-(((np.arange(WIDTH) - 300) / 5.0) ** 2)))[None, :, None]
    assert tissue_of(scanned(image), UM).fraction == 0


@pytest.mark.shared
def test_pens_of_three_colours_around_a_real_section_are_left_out(shared):
    path = shared / "data/field_dev/pathology/histolab-thumbs/diagnostic-slide-thumb-rgb.png"
    image = np.asarray(Image.open(path).convert("RGB"))
    found = tissue_of(image, (40.0, 40.0))
    red, green = (image[:, :, i].astype(int) for i in range(2))
    teal = opened((green > red + 30) & (green > 60), 2)
    assert teal.sum() > 5000
    assert found.mask[teal].mean() < 0.1
    assert found.mask[260:330, 150:210].mean() > 0.6  # the section, with rings of black ink


def test_the_constants_of_glass_and_ink_are_part_of_the_preprocessing():
    class Other(PathologyAdapter):
        tissue = TissueOptions(ink_doubt=0.5)

    assert PathologyAdapter().preprocessing_of(Kind.SLIDE) != Other().preprocessing_of(Kind.SLIDE)
    assert "saturation" in str(PathologyAdapter().parameters_of(Kind.SLIDE)["tissue"])


def test_regions_in_a_corner_are_grown_and_closed_as_anywhere():
    mask = np.zeros((40, 50), bool)
    mask[:6, :6] = mask[:6, 9:14] = True
    y, x = np.mgrid[:40, :50]
    expected = ndimage.distance_transform_edt(~mask) <= 3.5
    np.testing.assert_array_equal(within(mask, 3.5), expected)
    assert closed(mask, 2)[:4, :14].all()
    assert not opened((y == 20) | (x == 30), 2).any()
    np.testing.assert_allclose(distance(mask), ndimage.distance_transform_edt(mask), rtol=1e-6)


@pytest.fixture(scope="module")
def real_density(shared):
    """Optical density of a real section of H&E, without its colours, at 0.5 µm/px."""
    from medclip.imaging.slides import open_slide

    with open_slide(shared / "data/field_dev/wsi/svs/CMU-1-Small-Region.svs") as reader:
        image = reader.thumbnail(0.499).astype(np.float32)
    image = image[: image.shape[0] // 16 * 16, : image.shape[1] // 16 * 16]
    return np.maximum(-np.log(np.maximum(image, 1) / 245), 0).mean(axis=2)


@pytest.mark.shared
@pytest.mark.parametrize("vector", [(0.12, 0.90, 0.80), (0.2, 0.9, 0.9), (0.1, 0.8, 0.65), (0.1, 0.9, 0.75)])
@pytest.mark.parametrize("times", [1.5, 3, 5])
def test_a_real_section_in_a_red_stain_is_tissue(real_density, vector, times):
    """Sirius red, AEC, Congo red and oil red O: full of small holes, so that its hue only seems a thin, long line."""
    red = 245 * np.exp(-real_density[..., None] * times * np.array(vector, np.float32))
    rows, columns = red.shape[0] // 16, red.shape[1] // 16
    found = tissue_of(red.reshape(rows, 16, columns, 16, 3).mean((1, 3)).astype(np.uint8), (8.0, 8.0))
    assert not found.problem
    assert found.fraction > 0.3  # 0.39 in H&E
