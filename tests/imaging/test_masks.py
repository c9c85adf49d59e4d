"""A square drawn on an image lands where the model sees it, and what is said there comes back to the image's pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medclip.adapters.base import source_of
from medclip.adapters.registry import read_unit
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format
from medclip.imaging.geometry import Box, placement
from medclip.imaging.masks import OUTSIDE, Shown, read_mask, shown_of
from medclip.models.inputs.preprocess import Preprocess
from medclip.sample import Modality
from medclip.settings import Settings


def shown(height: int, width: int, mode: str, part: Box | None = None, flipped: tuple[int, ...] = ()) -> Shown:
    part = part or Box(0, 0, height, width)
    return Shown(height, width, part, flipped, placement(part.height, part.width, 64, mode))  # type: ignore[arg-type]


def square(height: int, width: int, box: Box) -> np.ndarray:
    mask = np.zeros((height, width), np.bool_)
    mask[box.top : box.bottom, box.left : box.right] = True
    return mask


def test_a_letterboxed_mask_lies_between_the_padding() -> None:
    labels = shown(64, 128, "longest").to_model(square(64, 128, Box(32, 0, 64, 64)))
    assert (labels[:16] == OUTSIDE).all()
    assert (labels[48:] == OUTSIDE).all()
    assert (labels[32:48, :32] == 1).all()
    assert labels[16:48].sum() == 16 * 32


def test_a_mask_of_what_is_cut_off_is_not_learned() -> None:
    labels = shown(64, 128, "shortest").to_model(square(64, 128, Box(0, 0, 64, 40)))
    assert (labels[:, :8] == 1).all()
    assert labels.sum() == 64 * 8


def test_a_mask_follows_the_crop_and_the_mirror_of_its_adapter() -> None:
    one = shown(100, 200, "longest", Box(20, 40, 84, 104), (1,))
    labels = one.to_model(square(100, 200, Box(20, 40, 36, 56)))
    assert (labels[:16, 48:] == 1).all()
    assert labels.sum() == 16 * 16


def test_a_part_beyond_the_image_is_padding() -> None:
    one = shown(64, 32, "longest", Box(0, -16, 64, 48))
    labels = one.to_model(np.ones((64, 32), np.bool_))
    assert (labels[:, 16:48] == 1).all()
    assert (labels[:, :16] == OUTSIDE).all()
    assert np.isfinite(one.to_image(np.ones((4, 4)))).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(40, 200),
    st.integers(40, 200),
    st.sampled_from(["longest", "shortest", "squash"]),
    st.sampled_from([(), (0,), (1,), (0, 1)]),
    st.data(),
)
def test_a_square_comes_back_to_where_it_was_drawn(
    height: int, width: int, mode: str, flipped: tuple[int, ...], data: st.DataObject
) -> None:
    top, left = data.draw(st.integers(0, height // 4)), data.draw(st.integers(0, width // 4))
    part = Box(
        top, left, data.draw(st.integers(3 * height // 4, height)), data.draw(st.integers(3 * width // 4, width))
    )
    one = shown(height, width, mode, part, flipped)
    mask = square(height, width, Box(height // 3, width // 3, 2 * height // 3, 2 * width // 3))
    labels = one.to_model(mask)
    back = one.to_image((labels == 1).astype(np.float32) - 0.5)
    seen = np.isfinite(back)
    wrong = (np.nan_to_num(back) > 0) != mask
    assert (wrong & seen).mean() < 0.06
    assert (~seen[part.top : part.bottom, part.left : part.right]).sum() == 0 or mode == "shortest"


def test_an_adapter_says_what_it_cut_out_so_that_the_mask_stays_on_its_tissue(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[30:180, 60:280] = rng.integers(90, 200, (150, 220, 1))
    pixels[60:100, 100:150] = 255
    Image.fromarray(pixels).save(tmp_path / "scope.png")
    preprocess = Preprocess(64)
    for modality in (Modality.ENDOSCOPY, Modality.ULTRASOUND, Modality.FUNDUS, Modality.XRAY, Modality.DERMATOLOGY):
        sample = read_unit(source_of(tmp_path / "scope.png", Settings()), modality, Settings())
        (view,) = sample.views
        one = shown_of(view, (200, 300), preprocess.placement(*view.pixels.shape[:2]))
        labels = one.to_model(square(200, 300, Box(60, 100, 100, 150)))
        image = preprocess.to_array(view).min(axis=2)
        assert image[labels == 1].mean() > 240, modality
        assert image[labels == 0].mean() < 160, modality


def test_a_mask_of_another_size_is_refused_though_the_image_is_cropped(tmp_path: Path) -> None:
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[30:180, 60:280] = np.random.default_rng(0).integers(90, 200, (150, 220, 1))
    Image.fromarray(pixels).save(tmp_path / "scope.png")
    sample = read_unit(source_of(tmp_path / "scope.png", Settings()), Modality.ENDOSCOPY, Settings())
    with pytest.raises(MedclipError, match="100 x 150 pixels, and its image 200 x 300") as e:
        shown_of(sample.views[0], (100, 150), placement(150, 220, 64, "longest"))
    assert e.value.reason is Reason.TABLE_INVALID


def test_masks_are_read_from_one_bit_from_bytes_and_from_numbers_of_instances(tmp_path: Path) -> None:
    mask = square(40, 50, Box(10, 10, 30, 40))
    Image.fromarray(mask).save(tmp_path / "bits.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "bytes.png")
    Image.fromarray(mask.astype(np.uint16) * np.uint16(700)).save(tmp_path / "instances.png")
    for name in ("bits", "bytes", "instances"):
        assert (read_mask(tmp_path / f"{name}.png", Format.PNG, Settings()) == mask).all(), name
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "blurred.jpg", quality=60)
    assert (read_mask(tmp_path / "blurred.jpg", Format.JPEG, Settings()) == mask).mean() > 0.99


def test_pixels_that_were_made_square_go_back_to_those_of_the_file() -> None:
    """A file of 30 x 40 pixels, each twice as high as wide, is decoded to 60 x 40."""
    at_model = placement(60, 40, 64, "pad")
    squared = Shown(60, 40, Box(0, 0, 60, 40), (), at_model, stored=(30, 40))
    mask = np.zeros((30, 40), np.bool_)
    mask[5:15, 10:30] = True
    labels = squared.to_model(mask)
    assert squared.size == (30, 40)
    shown = (labels == 1).sum() / (labels != OUTSIDE).sum()
    assert shown == pytest.approx(mask.mean(), abs=0.02)
    back = squared.to_mask(np.where(labels == 1, 1.0, -1.0).astype(np.float32))
    assert back.shape == mask.shape
    assert (back != mask).sum() <= 40  # at most a pixel along the edge
