from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transform import CenterCropOrPad
from PIL import Image

from medclip.imaging.crop.breast import find_breast
from medclip.imaging.crop.dark_borders import crop_dark_borders
from medclip.imaging.crop.retina import find_field_of_view, square_around
from medclip.imaging.geometry import Box, crop, fit, letterbox, resize
from medclip.imaging.intensity import percentiles, scale_to_uint8, stretch, to_uint8
from medclip.sample import View
from tests.kits.files import ramp


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 3]), st.integers(1, 40))
def test_a_letterbox_is_square_rgb_with_the_image_in_the_middle(h: int, w: int, c: int, size: int) -> None:
    out = letterbox(np.full((h, w, c), 200, np.uint8), size)
    assert out.shape == (size, size, 3)
    assert out.dtype == np.uint8
    lit = out[:, :, 0] > 0
    rows, columns = lit.any(axis=1).sum(), lit.any(axis=0).sum()
    assert max(rows, columns) == size
    assert abs(rows * w - columns * h) <= max(h, w)
    assert abs(int(lit[::-1].argmax(axis=0).max()) - int(lit.argmax(axis=0).max())) <= 1


def test_a_letterbox_resizes_as_pillow_does() -> None:
    pixels = ramp(90, 60)
    small = Image.fromarray(pixels).resize((20, 30), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(letterbox(pixels[:, :, None], 30)[:, 5:25, 0], np.asarray(small))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "size"), [(3, 6, 6), (6, 3, 6), (5, 12, 12), (30, 17, 16), (8, 40, 31)])
def test_a_letterbox_has_the_odd_row_or_column_below_or_on_the_right_as_open_clip_pads(
    height: int, width: int, size: int, channels: int
) -> None:
    rng = np.random.default_rng(height * width)
    pixels = rng.integers(1, 256, (height, width, channels), dtype=np.uint8)
    inner = (round(height * size / max(height, width)), round(width * size / max(height, width)))
    assert (size - min(inner)) % 2 == 1
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).resize(inner[::-1], Image.Resampling.BICUBIC)
    rows, columns = ((size - side) // 2 for side in inner)
    expected = np.zeros((size, size, 3), np.uint8)
    expected[rows : rows + inner[0], columns : columns + inner[1]] = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(letterbox(pixels, size), expected)
    np.testing.assert_array_equal(expected, np.asarray(CenterCropOrPad(size)(image.convert("RGB"))))


def test_fit_shrinks_and_never_enlarges() -> None:
    assert fit(ramp(100, 50)[:, :, None], 40).shape == (40, 20, 1)
    pixels = ramp(10, 20)[:, :, None]
    assert fit(pixels, 40) is pixels


def test_a_crop_is_a_view_of_the_same_memory() -> None:
    pixels = ramp()[:, :, None]
    assert np.shares_memory(crop(pixels, Box(1, 2, 5, 9)), pixels)
    assert crop(pixels, Box(1, 2, 5, 9)).shape == (4, 7, 1)


def test_resizing_takes_flipped_views() -> None:
    pixels = ramp()[:, ::-1, None]
    assert resize(pixels, 8, 8).shape == (8, 8, 1)


def test_eight_bits_are_passed_on_without_a_copy() -> None:
    pixels = ramp()[:, :, None]
    assert to_uint8(View(pixels, (0, 255))) is pixels


def test_scaling_rounds_clips_and_makes_nan_black() -> None:
    values = np.array([-1, 0, 0.5, 1, 2, np.nan], np.float32)
    np.testing.assert_array_equal(scale_to_uint8(values, 0, 1), [0, 0, 128, 255, 255, 0])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_stretching_is_the_same_by_table_and_by_arithmetic(dtype: type) -> None:
    values = np.arange(0, 4096, 5).astype(dtype)
    np.testing.assert_allclose(stretch(values, 100, 3000), np.clip((values - 100.0) / 2900, 0, 1), atol=1e-6)


def test_percentiles_of_all_or_nothing_are_exact() -> None:
    pixels = np.zeros((3000, 3000), np.uint16)
    pixels[1, 1] = 7
    assert percentiles(pixels, 0, 100) == (0, 7)
    assert percentiles(pixels, 0, 99.9) == (0, 0)


def test_a_dark_frame_is_cut_off_and_a_letter_in_it_kept() -> None:
    pixels = np.zeros((200, 300, 1), np.uint8)
    pixels[20:180, 40:260] = 100
    inner, box = crop_dark_borders(pixels, (0, 255))
    assert box == Box(20, 40, 180, 260)
    assert inner.shape == (160, 220, 1)
    pixels[5:15, 5:15] = 255
    assert crop_dark_borders(pixels, (0, 255))[1] == Box(5, 5, 180, 260)


def test_what_would_leave_too_little_is_not_cut() -> None:
    pixels = np.zeros((100, 100, 1), np.float32)
    pixels[40:60, 40:60] = 1
    assert crop_dark_borders(pixels, (0, 1))[1] is None
    assert crop_dark_borders(np.zeros((9, 9, 1), np.uint8), (0, 255))[1] is None
    assert crop_dark_borders(np.full((9, 9, 1), 99, np.uint8), (0, 255))[1] is None


def _breast(height: int = 400, width: int = 300) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (height * 0.4)) ** 2 + (x / (width * 0.6)) ** 2 < 1
    return np.where(inside, 180, 3).astype(np.uint8)[:, :, None]


def test_a_breast_is_found_beside_a_marker_and_its_wall_is_named() -> None:
    pixels = _breast()
    pixels[10:30, 260:290] = 255
    found = find_breast(pixels, (0, 255))
    assert found is not None
    assert found.chest_wall == "left"
    assert found.box.left == 0
    assert 170 < found.box.right < 200
    mirrored = find_breast(pixels[:, ::-1], (0, 255))
    assert mirrored is not None
    assert mirrored.chest_wall == "right"


def test_no_breast_is_found_where_there_is_none() -> None:
    pixels = np.zeros((200, 200, 1), np.float32)
    assert find_breast(pixels, (0, 1)) is None
    pixels[50:60, 50:60] = 1
    assert find_breast(pixels, (0, 1)) is None


def test_the_field_of_view_becomes_a_square() -> None:
    y, x = np.mgrid[:200, :300]
    disc = ((y - 100) ** 2 + (x - 150) ** 2 < 90**2)[:, :, None] * np.array([200, 80, 20])
    pixels = disc.astype(np.uint8)
    box = find_field_of_view(pixels)
    assert box is not None
    assert abs(box.height - 180) <= 6
    assert abs(box.width - 180) <= 6
    square = square_around(pixels, box)
    assert square.shape[0] == square.shape[1]
    assert np.shares_memory(square, pixels)


def test_a_field_that_was_cut_off_is_padded_with_black() -> None:
    pixels = np.full((100, 300, 3), 0, np.uint8)
    pixels[:, 50:250] = 120
    box = find_field_of_view(pixels)
    assert box is not None
    square = square_around(pixels, box)
    assert square.shape == (box.width, box.width, 3)
    assert (square[0] == 0).all()
    assert find_field_of_view(np.zeros((50, 50, 3), np.uint8)) is None
    assert find_field_of_view(np.full((50, 50, 3), 99, np.uint8)) is None
