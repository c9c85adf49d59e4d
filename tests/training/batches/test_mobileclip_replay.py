"""What MobileCLIP's own code stored is replayed as its reference does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.models.inputs.preprocess import CLIP_MEAN, CLIP_STD
from medclip.training.batches.mobileclip_replay import change_of_params, replay


@pytest.mark.parametrize("number", range(6))
def test_a_stored_augmentation_gives_the_pixels_of_the_reference(number: int, golden: Path) -> None:
    with np.load(golden / "mobileclip_aug_replay.npz") as g:
        image = Image.fromarray(g["image_uint8_hwc"])
        change = change_of_params(json.loads(g["compressed_params_json"].tolist()[number]))
        values = (replay(image, change, 32) / 255 - CLIP_MEAN) / CLIP_STD
        np.testing.assert_allclose(values.transpose(2, 0, 1), g["replayed"][number], atol=1e-5)


def test_a_flip_is_read_and_another_form_refused() -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    np.testing.assert_array_equal(replay(image, change_of_params([True]), 2), np.asarray(image)[:, ::-1])
    for wrong in ([[1, 2, 3]], ["x"], [[[14, 0.0]]]):
        with pytest.raises(ValueError, match=r"another form|not known"):
            change_of_params(wrong)
