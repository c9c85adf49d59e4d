from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.adapters.fundus import FundusAdapter
from medclip.imaging.crop import retina
from medclip.sample import Kind
from tests.kits.files import write_dicom, write_image
from tests.kits.loops import read


def _eye(height: int = 300, width: int = 400, radius: int = 120, *, label: bool = True) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    disc = (y - height // 2) ** 2 + (x - width // 2) ** 2 < radius**2
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[disc] = (180, 90, 40)
    pixels[height // 2 - 15 : height // 2 + 15, width // 2 - 15 : width // 2 + 15] = 6  # a dark macula is no hole
    if label:
        pixels[8:24, 8:40] = 255
    return pixels


def test_the_mask_is_the_disc_with_its_holes_and_without_the_label() -> None:
    y, x = np.mgrid[:300, :400]
    mask = retina.field_mask(_eye())
    distance = np.hypot(y - 150, x - 200)
    assert mask[distance < 118].all()
    assert not mask[distance > 124].any()


def test_a_photograph_without_a_field_is_all_field() -> None:
    assert retina.field_mask(np.full((64, 64, 3), 90, np.uint8)).all()
    assert retina.field_mask(np.zeros((64, 64, 3), np.uint8)).all()


@given(st.integers(20, 700), st.integers(20, 700), st.integers(1, 3))
def test_the_mask_has_the_images_size(height: int, width: int, channels: int) -> None:
    pixels = np.zeros((height, width, channels), np.uint8)
    pixels[height // 4 : -(height // 4), width // 4 : -(width // 4)] = 100
    mask = retina.field_mask(pixels)
    assert mask.shape == (height, width)
    assert mask[height // 2, width // 2]


def test_the_square_is_centred_on_the_field_whatever_stands_beside_it(tmp_path: Path) -> None:
    eye = _eye(label=False)
    alone = read(FundusAdapter(), write_image(tmp_path / "a.png", eye)).views[0].pixels
    eye[4:40, 4:70] = 255
    beside = read(FundusAdapter(), write_image(tmp_path / "b.png", eye)).views[0].pixels
    np.testing.assert_array_equal(alone, beside)
    assert abs(alone.shape[0] - 240) <= 4
    middle = np.argwhere(alone.max(axis=2) > 15).mean(axis=0)
    assert np.abs(middle - alone.shape[0] / 2).max() < 2


def test_masking_is_a_choice_with_its_own_hash(tmp_path: Path) -> None:
    eye = _eye()
    eye[34:46, 84:100] = 255  # a label in a corner of the square, beside the field
    path = write_image(tmp_path / "a.png", eye)
    plain, masked = FundusAdapter(), FundusAdapter(mask_outside=True)
    assert plain.preprocessing != masked.preprocessing
    assert (read(plain, path).views[0].pixels == 255).any()
    assert not (read(masked, path).views[0].pixels == 255).any()
    assert [step.name for step in read(masked, path).provenance.steps] == ["mask", "crop field"]


def test_an_ophthalmic_photograph_in_dicom_gives_the_pixels_of_its_png(tmp_path: Path) -> None:
    adapter = FundusAdapter()
    path = write_dicom(tmp_path / "a", _eye(), Modality="OP", ImageLaterality="L", BurnedInAnnotation="NO")
    sample = read(adapter, path)
    image = read(adapter, write_image(tmp_path / "a.png", _eye()))
    np.testing.assert_array_equal(sample.views[0].pixels, image.views[0].pixels)
    assert (sample.views[0].laterality, sample.views[0].burned_in) == ("L", False)
    assert sample.provenance.preprocessing == image.provenance.preprocessing == adapter.preprocessing_of(Kind.IMAGE)


@pytest.mark.shared
def test_real_photographs_lose_their_label_and_nothing_of_the_eye(shared: Path) -> None:
    files = sorted((shared / "data/csdi_fundus").rglob("*.jpg"))[::20]
    assert files
    for path in files:
        view = read(FundusAdapter(mask_outside=True), path).views[0].pixels
        assert 0.3 < (view.max(axis=2) > 15).mean() < 0.85, path.name
