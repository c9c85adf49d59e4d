"""Readings and thumbnails."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medclip.imaging.geometry import letterbox
from medclip.runs.read_unit import THUMBNAIL_PX, thumbnail
from tests.kits.scoring import texture


@pytest.mark.parametrize(("height", "width"), [(300, 300), (300, 120), (90, 400), (5, 500)])
def test_a_thumbnail_keeps_the_aspect_and_drops_the_padding(height: int, width: int) -> None:
    image = letterbox(texture(1, height, width)[:, :, None], 224)
    body = thumbnail(image, height / width)
    found = Image.open(io.BytesIO(body))
    assert max(found.size) == THUMBNAIL_PX
    assert found.size[1] / found.size[0] == pytest.approx(height / width, rel=0.3 if height > 10 else 1)
    assert np.asarray(found).mean() > 20
    assert "exif" not in found.info


def test_a_thumbnail_of_noise_stays_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert len(thumbnail(noise, 1.0)) < 20_000
    assert len(thumbnail(letterbox(texture(3, 500, 400)[:, :, None], 224), 1.25)) < 6_000
