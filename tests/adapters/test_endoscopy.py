from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from medclip.adapters.endoscopy import RULE, EndoscopyAdapter
from medclip.errors import MedclipError, Reason
from medclip.imaging.crop import lit_area as lit
from medclip.sample import Kind, Modality
from tests.kits.files import ramp, write_dicom, write_image
from tests.kits.loops import read, write_cine

ADAPTER = EndoscopyAdapter()
ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1.1"


def _frame(*, flip: bool = False, shift: int = 0) -> np.ndarray:
    """A field with cut corners (rows 15-465, columns 230-690), a text panel and a small second image on the left."""
    rng = np.random.default_rng(shift)
    y, x = np.mgrid[:480, :720]
    field = (abs(x - 460) < 230) & (abs(y - 240) < 225) & (abs(x - 460) + abs(y - 240) < 365)
    level = np.clip(40 + 0.7 * np.hypot(x - 500 - shift, y - 240), 30, 220) + rng.normal(0, 8, (480, 720))
    colour = np.clip(level[..., None] * (1.0, 0.55, 0.45), 8, 255)
    image = Image.fromarray(np.where(field[..., None], colour, rng.integers(0, 6, (480, 720, 1))).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for line, text in enumerate(("Name: DOE", "Sex: F", "Age: 50", "11/02/2020")):
        draw.text((20, 40 + 30 * line), text, fill=(255, 255, 255), font_size=20)
    draw.rectangle((30, 340, 130, 430), fill=(120, 60, 50))
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[:, ::-1]) if flip else pixels


@pytest.mark.parametrize("flip", [False, True])
def test_the_text_panel_is_not_the_field_of_view(tmp_path: Path, flip: bool) -> None:
    pixels = _frame(flip=flip)
    sample = read(ADAPTER, write_image(tmp_path / "a.png", pixels))
    (view,) = sample.views
    assert view.pixels.shape[2] == 3
    assert abs(view.pixels.shape[0] - 450) < 8
    assert abs(view.pixels.shape[1] - 460) < 8
    assert (view.pixels[:, :, 0] > 250).mean() < 0.001  # no letter
    assert [step.name for step in sample.provenance.steps] == ["crop field"]
    assert (sample.modality, sample.headers["crop_from"]) == (Modality.ENDOSCOPY, "lit field")


def test_a_field_that_fills_the_image_stays_whole(tmp_path: Path) -> None:
    pixels = _frame()[20:460, 240:680].copy()
    pixels[:60, :60] = pixels[200, 100]
    pixels[-60:, :60] = pixels[-60:, -60:] = pixels[:60, -60:] = pixels[200, 100]
    sample = read(ADAPTER, write_image(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(sample.views[0].pixels, pixels)


def test_a_grey_image_becomes_three_channels(tmp_path: Path) -> None:
    sample = read(ADAPTER, write_image(tmp_path / "a.png", ramp(64, 64) // 2 + 90))
    assert sample.views[0].pixels.shape == (64, 64, 3)


def test_dicom_frames_are_cropped_alike(tmp_path: Path) -> None:
    frames = np.stack([_frame(shift=8 * number) for number in range(4)])
    path = write_cine(tmp_path / "a", frames, Modality="ES", SOPClassUID=ENDOSCOPIC, FrameTime="40")
    sample = read(ADAPTER, path)
    assert sample.kind is Kind.CINE
    assert sample.frames is not None
    assert len(sample.views) == 4
    assert {view.pixels.shape for view in sample.views} == {sample.frames.shape[1:]}
    assert abs(sample.frames.shape[2] - 460) < 10
    single = read(ADAPTER, write_dicom(tmp_path / "b", _frame(), Modality="ES"))
    assert abs(single.views[0].pixels.shape[1] - 460) < 8


def test_a_video_is_cropped_and_in_colour(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from tests.kits.video import write_video

    frames = np.stack([_frame(shift=8 * number) for number in range(4)])
    sample = read(ADAPTER, write_video(tmp_path / "a.mp4", frames))
    assert sample.frames is not None
    assert sample.frames.shape[3] == 3
    assert abs(sample.frames.shape[2] - 460) < 12


def test_a_radiograph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as caught:
        read(ADAPTER, write_dicom(tmp_path / "a", ramp(), Modality="RG"))
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET


@given(st.integers(16, 700), st.integers(16, 700), st.data())
def test_the_lit_area_lies_inside_and_holds_a_large_block(height: int, width: int, data: st.DataObject) -> None:
    rows = data.draw(st.integers(height * 2 // 5, height)), data.draw(st.integers(0, height))
    columns = data.draw(st.integers(width * 2 // 5, width)), data.draw(st.integers(0, width))
    top, left = min(rows[1], height - rows[0]), min(columns[1], width - columns[0])
    frames = np.zeros((1, height, width, 1), np.uint8)
    frames[0, top : top + rows[0], left : left + columns[0]] = 120
    box = lit.find_lit(frames, RULE)
    if box is not None:
        assert 0 <= box.top <= top < top + rows[0] <= box.bottom <= height
        assert 0 <= box.left <= left < left + columns[0] <= box.right <= width
