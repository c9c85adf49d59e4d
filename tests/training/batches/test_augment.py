"""Changes are drawn once into plain values; applying them is exact where it can be."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medclip.imaging.geometry import letterbox
from medclip.models.inputs.preprocess import Preprocess
from medclip.training.batches.augment import (
    MEDICAL,
    Change,
    Op,
    apply_change,
    apply_op,
    change_of_plain,
    change_to_plain,
    draw_change,
    largest_px,
    names_a_side,
)
from medclip.training.recipe.augment import Augment, MedicalAugment

STILL = Change(zoom=1.0, shift=(0.0, 0.0), rotate_deg=0.0, gain=1.0, gamma=1.0, flip=False)
DRAWN = Change(
    0.9703096810418899,
    (0.6158815794729875, 0.030651122084284),
    -2.9987806787660176,
    0.8215722809526625,
    0.9433522166083947,
    True,
)
"""What the first version drew from seed 5."""


def values(change: Change) -> list[float]:
    return [*change.shift, change.zoom, change.rotate_deg, change.gain, change.gamma, change.flip]


def test_drawn_values_and_their_pixels_are_fixed_for_all_time() -> None:
    """A run that was begun with an older version goes on with the same images."""
    change = draw_change(Augment(flip=0.5), np.random.default_rng(5), may_flip=True)
    assert values(change) == pytest.approx(values(DRAWN))
    assert (change.hue, change.saturation) == (0, 1)
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 1), dtype=np.uint8)
    assert apply_change(image, change, 48)[20, 20:26, 0].tolist() == pytest.approx([125, 113, 110, 94, 45, 109], abs=1)


def test_colour_changes_leave_the_other_draws_as_they_are() -> None:
    settings = Augment(flip=0.5, hue=0.1, saturation=0.4)
    change = draw_change(settings, np.random.default_rng(5), may_flip=True)
    assert values(change) == pytest.approx(values(DRAWN))
    assert 0 < abs(change.hue) <= 0.1
    assert 0 < abs(change.saturation - 1) <= 0.4
    still = draw_change(settings, np.random.default_rng(5), may_flip=True, may_tint=False)
    assert still == replace(change, hue=0.0, saturation=1.0)


@pytest.mark.parametrize("shape", [(90, 70), (40, 61), (300, 200)])
@pytest.mark.parametrize("rotate", [0.0, 5.0])
@pytest.mark.parametrize("flip", [False, True])
def test_a_grey_image_gives_the_values_of_its_colour_form(shape: tuple[int, int], rotate: float, flip: bool) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (*shape, 1), dtype=np.uint8)
    change = Change(0.8, (0.3, -0.7), rotate, 1.1, 0.9, flip)
    colour = apply_change(np.repeat(grey, 3, axis=2), change, 48)
    assert np.array_equal(apply_change(grey, change, 48), colour)
    assert np.array_equal(apply_change(Image.fromarray(grey[:, :, 0]), change, 48), colour)
    assert colour.shape == (48, 48, 3)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    zoom=st.floats(0.3, 1),
    flip=st.booleans(),
    x=st.floats(-1, 1),
    y=st.floats(-1, 1),
    rotate=st.sampled_from([0.0, 3.0]),
)
def test_any_image_and_any_part_give_a_square(
    height: int, width: int, zoom: float, flip: bool, x: float, y: float, rotate: float
) -> None:
    image = np.full((height, width, 3), 200, np.uint8)
    out = apply_change(image, replace(STILL, zoom=zoom, shift=(x, y), flip=flip, rotate_deg=rotate), 32)
    assert out.shape == (32, 32, 3)
    assert out.dtype == np.uint8


@pytest.mark.parametrize("flip", [False, True])
def test_a_part_that_is_not_turned_lies_where_a_turned_one_would(flip: bool) -> None:
    """The two ways of resampling agree where both are exact enough: on a smooth image of about the size wanted."""
    y, x = np.mgrid[:70, :100]
    image = np.stack([x * 2, y * 3, x + y], axis=2).astype(np.uint8)
    change = Change(0.8, (0.9, -0.6), 0.0, 1.0, 1.0, flip)
    cut = apply_change(image, change, 64).astype(int)
    turned = apply_change(image, replace(change, rotate_deg=1e-9), 64).astype(int)
    inner = (cut > 0).all(2) & (turned > 0).all(2)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert inner.mean() > 0.6
    assert np.abs(cut - turned)[inner].mean() < 1.5


def test_a_large_image_is_antialiased() -> None:
    checker = (np.indices((600, 600)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None]
    for rotate in (0.0, 5.0):
        out = apply_change(checker, replace(STILL, rotate_deg=rotate), 60)[10:-10, 10:-10]
        assert np.abs(out.astype(int) - 127).max() < 20


@given(hue=st.floats(-0.5, 0.5), saturation=st.floats(0, 2), value=st.integers(0, 255))
def test_grey_stays_grey_whatever_the_hue(hue: float, saturation: float, value: int) -> None:
    image = np.full((8, 8, 3), value, np.uint8)
    assert np.array_equal(apply_change(image, replace(STILL, hue=hue, saturation=saturation), 8), image)


def test_a_third_of_the_circle_turns_red_into_green_and_no_saturation_is_grey() -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[:, :, 0] = 240
    assert np.abs(apply_change(red, replace(STILL, hue=1 / 3), 8)[0, 0].astype(int) - [0, 240, 0]).max() <= 1
    assert apply_change(red, replace(STILL, saturation=0.0), 8)[0, 0].tolist() == [80, 80, 80]


def test_the_wanted_side_covers_the_smallest_part() -> None:
    assert largest_px(Augment(crop_scale=(0.25, 1.0)), 224) == 448
    assert largest_px(Augment(crop_scale=(1.0, 1.0)), 224) == 224


@given(seed=st.integers(0, 10_000), may_flip=st.booleans())
def test_drawn_changes_stay_within_the_recipe(seed: int, may_flip: bool) -> None:
    settings = Augment(flip=0.5)
    change = draw_change(settings, np.random.default_rng(seed), may_flip=may_flip)
    assert 0.7 <= change.zoom**2 <= 1.0001
    assert abs(change.rotate_deg) <= settings.rotate_deg
    assert 0.8 <= change.gain <= 1.2
    assert may_flip or not change.flip


@pytest.mark.parametrize("shape", [(32, 32), (32, 20), (20, 32)])
def test_no_change_is_the_letterbox(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(apply_change(image, STILL, 32), letterbox(image, 32))


def test_a_flip_mirrors_and_a_turn_by_180_degrees_turns() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(apply_change(image, replace(STILL, flip=True), 32), image[:, ::-1])
    turned = apply_change(image, replace(STILL, rotate_deg=180.0), 32)
    assert np.abs(turned.astype(int) - image[::-1, ::-1]).max() <= 1


def test_a_crop_in_the_corner_shows_that_corner() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32], image[32:, 32:] = 100, 200
    corner = replace(STILL, zoom=0.5)
    assert apply_change(image, replace(corner, shift=(-1.0, -1.0)), 32)[4:-4, 4:-4].min() == 100
    assert apply_change(image, replace(corner, shift=(1.0, 1.0)), 32)[4:-4, 4:-4].min() == 200


@given(gain=st.floats(0.5, 1.5), gamma=st.floats(0.5, 2.0))
def test_black_stays_black_whatever_is_done_to_the_grey_values(gain: float, gamma: float) -> None:
    image = np.zeros((20, 20, 1), np.uint8)
    assert not apply_change(image, replace(STILL, gain=gain, gamma=gamma), 32).any()


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Opacity in the left lower lobe.", True),
        ("RIGHT breast, CC view", True),
        ("consolidation RLL", True),
        ("R CC", True),
        ("fundus photograph OD", True),
        ("dextrocardia", True),
        ("bilateral infiltrates", False),
        ("a chest x-ray without pneumonia, bright and clear", False),
        ("brain MRI", False),
    ],
)
def test_a_caption_that_names_a_side_is_recognised(text: str, side: bool) -> None:
    assert names_a_side(text) is side


STRETCHED = Augment(crop_scale=(0.5, 1.0), stretch=4 / 3, rotate_deg=0, brightness=0, contrast=0, flip=0.5)


def cut_of_torchvision(image: Image.Image, change: Change, size: int) -> np.ndarray:
    """What RandomResizedCrop makes of the first draw that fits, through torchvision's own functions."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import hflip, resized_crop

    width, height = image.size
    for share, ratio in change.parts:
        area = width * height * share
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        raise AssertionError("none fits")
    left, top = (int((s + 1) / 2 * (room + 1)) for s, room in zip(change.shift, (width - w, height - h), strict=True))
    part = resized_crop(image, top, left, h, w, [size, size], InterpolationMode.BICUBIC)
    return np.asarray(hflip(part) if change.flip else part)


@pytest.mark.parametrize("shape", [(90, 70), (61, 80), (300, 280)])
def test_a_stretched_crop_is_that_of_torchvision_pixel_by_pixel(shape: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    for seed in range(8):
        change = draw_change(STRETCHED, np.random.default_rng(seed), may_flip=True)
        assert np.array_equal(apply_change(image, change, 48), cut_of_torchvision(image, change, 48))


def test_stretched_crops_are_drawn_as_torchvision_draws_them() -> None:
    """Sides of the parts over many draws, on an image of which a third of the draws do not fit."""
    import torch
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomResizedCrop

    image = Image.new("L", (100, 80))
    theirs, ours = [], []
    torch.manual_seed(0)
    for seed in range(800):
        _, _, height, width = RandomResizedCrop.get_params(image, [0.5, 1.0], [3 / 4, 4 / 3])
        theirs.append((width, height))
        change = draw_change(STRETCHED, np.random.default_rng(seed), may_flip=False)
        ramps = np.stack([*np.mgrid[:80, :100][::-1], np.zeros((80, 100), int)], axis=2).astype(np.uint8)
        square = apply_change(Image.fromarray(ramps), change, 200).astype(int)
        ours.append(tuple(np.ptp(square[:, :, axis]) + 1 for axis in (0, 1)))
    for side in (0, 1):
        assert ks_2samp([t[side] for t in theirs], [o[side] for o in ours]).pvalue > 0.01


def test_an_image_that_no_draw_fits_gives_the_largest_part_that_may_be() -> None:
    strip = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (20, 1)))
    change = draw_change(replace_augment(crop_scale=(0.95, 1.0)), np.random.default_rng(0), may_flip=False)
    columns = apply_change(strip, change, 64)[5, :, 0].astype(int)
    assert columns.max() - columns.min() + 1 == pytest.approx(20 * 4 / 3, abs=2)


def replace_augment(**values: object) -> Augment:
    return Augment.model_validate(STRETCHED.model_dump() | values)


def test_a_stretched_crop_leaves_the_other_draws_as_they_are() -> None:
    plain = draw_change(replace_augment(stretch=1.0), np.random.default_rng(5), may_flip=True)
    assert plain.parts == ()
    assert values(draw_change(STRETCHED, np.random.default_rng(5), may_flip=True)) == values(plain)


@pytest.mark.parametrize("rotate", [0.0, 1e-6])
@pytest.mark.parametrize(("height", "width"), [(90, 160), (200, 75), (64, 64)])
@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(32, resize="shortest"),
        Preprocess(32, resize="shortest", resize_px=40),
        Preprocess(32, resize="squash"),
        Preprocess(32, resize="squash", resize_px=36),
        Preprocess(32, resize_px=24),
    ],
)
def test_a_still_image_is_drawn_as_the_model_is_shown_it(
    preprocess: Preprocess, height: int, width: int, rotate: float
) -> None:
    y, x = np.mgrid[0:height, 0:width]
    pixels = (127 + 80 * np.sin(y / 9) + 40 * np.cos(x / 7)).astype(np.uint8)[:, :, None]
    drawn = apply_change(pixels, replace(STILL, rotate_deg=rotate), 32, preprocess.extent(height, width))
    gap = np.abs(drawn.astype(int) - preprocess.fit(pixels))[2:-2, 2:-2]
    assert np.median(gap) <= 6
    assert np.abs(drawn.astype(int) - Preprocess(32).fit(pixels)).mean() > 8 or height == width


def test_a_change_is_replayed_to_the_bit_from_its_json() -> None:
    settings = Augment(crop_scale=(0.5, 1.0), medical=MedicalAugment(share=1.0))
    image = np.random.default_rng(1).integers(1, 255, (50, 60, 3), dtype=np.uint8)
    for seed in range(8):
        change = draw_change(settings, np.random.default_rng(seed), may_flip=True)
        again = change_of_plain(json.loads(json.dumps(change_to_plain(change))))
        assert again == change
        assert [op.name for op in change.ops] == list(MEDICAL)
        np.testing.assert_array_equal(apply_change(image, change, 32), apply_change(image, again, 32))


@pytest.mark.parametrize(("name", "value"), [("level", 0.1), ("bias_field", 0.3), ("noise", 0.05), ("blur", 0.02)])
def test_a_medical_change_moves_pixels_little_leaves_black_and_is_the_same_in_grey(name: str, value: float) -> None:
    grey = np.random.default_rng(2).integers(40, 200, (64, 64), dtype=np.uint8)
    grey[:20] = 0
    out = np.asarray(apply_op(Image.fromarray(grey), Op(name, value, seed=5)))
    assert (out[:10] == 0).all()
    moved = np.abs(out[24:].astype(float) - grey[24:]).mean()
    assert 1 < moved < 60
    colour = np.asarray(apply_op(Image.fromarray(np.repeat(grey[:, :, None], 3, 2)), Op(name, value, seed=5)))
    np.testing.assert_array_equal(colour, np.repeat(out[:, :, None], 3, 2))


def test_noise_is_the_same_at_another_size() -> None:
    small, large = (
        np.asarray(apply_op(Image.fromarray(np.full((side, side), 128, np.uint8)), Op("noise", 0.05, seed=3)))
        for side in (64, 128)
    )
    np.testing.assert_array_equal(small, large[::2, ::2])
