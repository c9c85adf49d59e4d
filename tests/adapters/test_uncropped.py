"""Without the modality's crop every adapter leaves an image whole, where it lies, and its hash says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.base import source_of
from medclip.adapters.registry import get_adapter, preprocessing_of
from medclip.sample import Modality, Sample
from medclip.settings import ReadPolicy, Settings
from tests.kits.files import write_image

CROPPING = ["xray", "ct", "mri", "fundus", "mammography", "ultrasound", "endoscopy", "oct"]
HEIGHT, WIDTH = 240, 200


def framed() -> np.ndarray:
    """Make a lit disc at the right edge of a black field, with noise in it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    inside = (y - 120) ** 2 + (x - 130) ** 2 < 65**2
    return np.where(inside, rng.integers(90, 255, (HEIGHT, WIDTH)), 0).astype(np.uint8)


@pytest.mark.parametrize("name", CROPPING)
def test_the_image_is_whole_and_unturned_and_the_hash_shows_it(tmp_path: Path, name: str) -> None:
    source = source_of(write_image(tmp_path / "a.png", framed()), Settings())
    whole = replace(Settings(), policy=ReadPolicy(crop="none"))
    adapter = get_adapter(Modality(name))
    cut: Sample = adapter.read(source, Settings())
    left: Sample = adapter.read(source, whole)
    assert cut.views[0].pixels.shape[:2] != (HEIGHT, WIDTH)
    assert left.views[0].pixels.shape[:2] == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(left.views[0].pixels[:, :, 0], framed())
    assert not [step.name for step in left.provenance.steps if step.name.startswith(("crop", "flip"))]
    assert [step.name for step in cut.provenance.steps if step.name.startswith("crop")]
    assert cut.provenance.preprocessing == preprocessing_of(name)
    assert left.provenance.preprocessing == preprocessing_of(name, whole.policy) != preprocessing_of(name)
    assert left.headers.get("crop_from") is None
