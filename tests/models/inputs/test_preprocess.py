"""How pixels become the model's input: against the transforms of the libraries that checkpoints come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from open_clip.transform import image_transform
from PIL import Image
from timm.data.transforms_factory import create_transform

from medclip.errors import MedclipError, Reason
from medclip.imaging.geometry import TokenBudget
from medclip.models.inputs.preprocess import CLIP_MEAN, CLIP_STD, Preprocess, from_config

SIZES = [(97, 64), (64, 97), (301, 100), (33, 75), (50, 50), (24, 24), (10, 200)]
SIZE = 32


def blocks(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(height * width)
    coarse = rng.integers(0, 256, (-(-height // 3), -(-width // 3), channels), dtype=np.uint8)
    return coarse.repeat(3, 0).repeat(3, 1)[:height, :width]


def as_image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def normalised(preprocess: Preprocess, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    shown = preprocess.fit(pixels).astype(np.float32) / 255
    return ((shown - preprocess.mean) / preprocess.std).transpose(2, 0, 1).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["longest", "shortest", "squash"])
def test_the_tensor_is_that_of_open_clips_own_transform(
    resize: Any, interpolation: str, height: int, width: int, channels: int
) -> None:
    pixels = blocks(height, width, channels)
    transform: Any = image_transform(
        SIZE,
        is_train=False,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        resize_mode=resize,
        interpolation=interpolation,
        fill_color=9,
    )
    theirs = transform(as_image(pixels).convert("RGB"))
    ours = Preprocess(SIZE, CLIP_MEAN, CLIP_STD, interpolation, 9, resize=resize)
    np.testing.assert_allclose(normalised(ours, pixels), theirs, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
@pytest.mark.parametrize(("mode", "resize"), [("center", "shortest"), ("squash", "squash"), ("border", "longest")])
@pytest.mark.parametrize(("share", "resize_px"), [(1.0, None), (0.875, 36), (0.9, 35)])
def test_the_tensor_is_that_of_timms_own_transform(
    share: float, resize_px: int | None, mode: str, resize: Any, interpolation: str, height: int, width: int
) -> None:
    pixels = blocks(height, width, 3)
    transform: Any = create_transform(
        (3, SIZE, SIZE), interpolation=interpolation, mean=CLIP_MEAN, std=CLIP_STD, crop_pct=share, crop_mode=mode
    )
    fill: Any = tuple(round(255 * mean) for mean in CLIP_MEAN)
    ours = Preprocess(SIZE, CLIP_MEAN, CLIP_STD, interpolation, fill, resize=resize, resize_px=resize_px)
    np.testing.assert_allclose(normalised(ours, pixels), np.asarray(transform(as_image(pixels))), atol=1e-5)


sides = st.integers(1, 300)
ways = st.builds(
    Preprocess,
    st.integers(1, 64),
    resize=st.sampled_from(["longest", "shortest", "squash"]),
    resize_px=st.none() | st.integers(1, 80),
    centre=st.sampled_from(["round", "floor"]),
) | st.builds(Preprocess, budget=st.builds(TokenBudget, st.integers(2, 16), st.integers(1, 300)))


@given(sides, sides, ways, st.floats(0, 1), st.floats(0, 1))
def test_a_point_of_the_image_goes_to_the_models_input_and_back(
    height: int, width: int, preprocess: Preprocess, down: float, across: float
) -> None:
    where = preprocess.placement(height, width)
    point = height * down, width * across
    assert where.to_image(*where.to_model(*point)) == pytest.approx(point, abs=1e-6)
    top, left, bottom, right = where.seen
    assert -1e-9 <= top < bottom <= height + 1e-6
    assert -1e-9 <= left < right <= width + 1e-6
    assert 0 < where.share_seen <= 1 + 1e-9
    row, column = where.to_model((top + bottom) / 2, (left + right) / 2)
    assert where.filled.top <= row <= where.filled.bottom
    assert where.filled.left <= column <= where.filled.right
    shown = preprocess.fit(np.full((height, width, 1), 255, np.uint8))
    assert shown.shape == (where.shown_height, where.shown_width, 3)
    lit = np.zeros(shown.shape[:2], bool)
    lit[where.filled.top : where.filled.bottom, where.filled.left : where.filled.right] = True
    np.testing.assert_array_equal(shown[:, :, 0] == 255, lit)


@pytest.mark.parametrize("resize", ["longest", "shortest", "squash"])
def test_a_square_in_the_image_lies_where_the_placement_says(resize: Any) -> None:
    pixels = np.zeros((120, 200, 1), np.uint8)
    pixels[40:80, 90:130] = 255
    preprocess = Preprocess(64, resize=resize, interpolation="bilinear")
    where = preprocess.placement(120, 200)
    rows, columns = np.nonzero(preprocess.fit(pixels)[:, :, 0] > 127)
    (top, left), (bottom, right) = where.to_model(40, 90), where.to_model(80, 130)
    assert [rows.min(), rows.max() + 1, columns.min(), columns.max() + 1] == pytest.approx(
        [top, bottom, left, right], abs=1
    )


def test_a_map_on_the_models_grid_comes_back_into_the_image_and_is_unknown_where_nothing_was_seen() -> None:
    where = Preprocess(64, resize="shortest").placement(100, 200)
    grid = np.zeros((8, 8), np.float32)
    grid[2, 5] = 1
    back = where.map_to_image(grid)
    assert back.shape == (100, 200)
    assert np.isnan(back[:, :50]).all()
    assert np.isnan(back[:, 150:]).all()
    assert np.isfinite(back[:, 50:150]).all()
    row, column = np.unravel_index(np.nanargmax(back), back.shape)
    assert where.to_model(row + 0.5, column + 0.5) == pytest.approx((2.5 * 8, 5.5 * 8), abs=1)
    padded = Preprocess(64).placement(100, 200)
    assert np.isfinite(padded.map_to_image(grid)).all()
    assert padded.share_seen == 1


def test_an_image_a_thousand_times_as_long_as_wide_takes_no_memory_to_speak_of() -> None:
    pixels = blocks(4, 60_000, 1)
    shown = Preprocess(224, resize="shortest").fit(pixels)
    middle = pixels[:, 29_000:31_000]
    expected = Preprocess(224, resize="shortest").fit(middle)
    assert np.abs(shown.astype(int) - expected).max() <= 1


@given(ways)
def test_settings_survive_the_config(preprocess: Preprocess) -> None:
    vision = {"image_size": preprocess.size_px, "native_aspect": preprocess.budget is not None}
    config = {"model_cfg": {"vision_cfg": vision}, "preprocess_cfg": preprocess.to_config()}
    assert from_config(config, {}) == preprocess
    assert from_config(config, {}).digest() == preprocess.digest()


def test_the_digests_of_packs_that_are_there_already_stay() -> None:
    assert Preprocess().digest() == "90b9182b2f73cee1"
    assert Preprocess(budget=TokenBudget(16, 196)).digest() == "53ca5cb648a3eade"


def test_what_open_clips_file_leaves_out_is_as_open_clip_has_it() -> None:
    read = from_config({"model_cfg": {"vision_cfg": {"image_size": 96}}, "preprocess_cfg": {}}, {})
    assert read == Preprocess(96, CLIP_MEAN, CLIP_STD, resize="shortest")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resize_mode", "stretched"),
        ("interpolation", "random"),
        ("resize_px", 0),
        ("resize_px", "224"),
        ("fill_color", 256),
        ("fill_color", [1, 2]),
        ("grey", "luma"),
        ("centre", "up"),
        ("resampler", "opencv"),
        ("std", [0, 1, 1]),
    ],
)
def test_what_the_readers_cannot_make_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(MedclipError, match=key) as caught:
        from_config({"model_cfg": {"vision_cfg": {}}, "preprocess_cfg": {key: value}}, {})
    assert caught.value.reason is Reason.PACK_INVALID


def test_the_value_range_is_what_reaches_the_tower() -> None:
    assert Preprocess().value_range == (-1, 1)
    assert Preprocess(mean=(0, 0, 0), std=(1, 1, 1)).value_range == (0, 1)


def test_the_description_says_whether_a_cut_is_padded() -> None:
    cuts: list[tuple[Any, int]] = [("shortest", 20), ("shortest", 40), ("squash", 20), ("squash", 40), ("longest", 20)]
    described = [Preprocess(32, resize=mode, resize_px=side).describe() for mode, side in cuts]
    assert ["padded" in text for text in described] == [True, False, True, False, True]
