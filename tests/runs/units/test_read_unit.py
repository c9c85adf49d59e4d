"""Readings and thumbnails."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medclip.adapters.registry import get_adapter
from medclip.imaging.intensity import to_uint8
from medclip.imaging.perceptual_hash import look_of
from medclip.models.inputs.preprocess import Preprocess
from medclip.runs.units.read_unit import THUMBNAIL_PX, read, thumbnail
from medclip.sample import Modality
from medclip.settings import Settings
from tests.kits.scoring import texture


def made(pixels: NDArray[np.uint8], preprocess: Preprocess) -> bytes:
    """Make the thumbnail of a grey or RGB image as a run does."""
    return thumbnail(preprocess.fit(pixels)[:, :, :1], preprocess.placement(*pixels.shape[:2]))


@pytest.mark.parametrize(("height", "width"), [(300, 300), (300, 120), (90, 400), (5, 500)])
def test_a_thumbnail_keeps_the_aspect_and_drops_the_padding(height: int, width: int) -> None:
    body = made(texture(1, height, width)[:, :, None], Preprocess())
    thumbnail = Image.open(io.BytesIO(body))
    assert max(thumbnail.size) == THUMBNAIL_PX
    assert thumbnail.size[1] / thumbnail.size[0] == pytest.approx(height / width, rel=0.3 if height > 10 else 1)
    assert np.asarray(thumbnail).mean() > 20
    assert "exif" not in thumbnail.info


def test_a_thumbnail_of_noise_stays_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert len(made(noise, Preprocess())) < 20_000
    assert len(made(texture(3, 500, 400)[:, :, None], Preprocess())) < 6_000


def test_a_thumbnail_of_a_squashed_image_has_the_images_own_aspect_again() -> None:
    thumbnail = Image.open(io.BytesIO(made(texture(1, 300, 120)[:, :, None], Preprocess(resize="squash"))))
    assert thumbnail.size == (64, THUMBNAIL_PX)


def test_a_thumbnail_of_a_cut_image_shows_what_the_model_saw() -> None:
    pixels = np.full((100, 200, 1), 255, np.uint8)
    pixels[:, 60:140] = 40
    thumbnail = Image.open(io.BytesIO(made(pixels, Preprocess(resize="shortest"))))
    assert thumbnail.size == (THUMBNAIL_PX, THUMBNAIL_PX)
    assert np.asarray(thumbnail)[80, [2, 80, 157]] == pytest.approx([255, 40, 255], abs=8)


@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_an_image_is_known_again_by_all_of_it_where_the_model_is_shown_a_part_or_squashed(
    tmp_path: Path, resize: Any
) -> None:
    from medclip.adapters.base import source_of

    Image.fromarray(texture(3, 90, 160)).save(tmp_path / "a.png")
    source = source_of(tmp_path / "a.png", Settings())
    reading = read(source, Modality.XRAY, Preprocess(64, resize=resize), Settings(), look=True)
    uncut = read(source, Modality.XRAY, Preprocess(64), Settings(), look=True)
    sample = get_adapter(Modality.XRAY).read(source, Settings())
    assert reading.look == look_of(to_uint8(sample.views[0])).to_bytes()
    bits = np.unpackbits(np.frombuffer(reading.look, np.uint8)[:40] ^ np.frombuffer(uncut.look, np.uint8)[:40])
    assert bits.sum() < 30  # of 320: the same image
