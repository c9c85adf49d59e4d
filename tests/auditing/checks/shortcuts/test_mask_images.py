from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.auditing.checks.shortcuts.masked_pairs import mask_boxes
from medclip.errors import MedclipError

RAMP = np.add.outer(3.0 * np.arange(40), 2.0 * np.arange(60))


@given(st.integers(0, 1000), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_only_the_boxes_change_and_stay_within_the_values_around_them(seed: int, kind: type) -> None:
    rng = np.random.default_rng(seed)
    shape = (30, 40) if seed % 2 else (30, 40, 3)
    image = (rng.random(shape) * 200).astype(kind)
    left, top = int(rng.integers(-5, 35)), int(rng.integers(-5, 25))
    box = (left, top, left + int(rng.integers(6, 12)), top + int(rng.integers(6, 12)))
    before = image.copy()
    filled = mask_boxes(image, [box])
    np.testing.assert_array_equal(image, before)
    assert (filled.shape, filled.dtype) == (image.shape, image.dtype)
    mask = np.zeros((30, 40), bool)
    mask[max(top, 0) : box[3], max(left, 0) : box[2]] = True
    np.testing.assert_array_equal(filled[~mask], image[~mask])
    assert filled[mask].max() <= image[~mask].max()
    assert filled[mask].min() >= image[~mask].min()


def test_a_smooth_fill_continues_a_ramp_as_it_was() -> None:
    damaged = RAMP.copy()
    damaged[10:20, 15:45] = 999
    np.testing.assert_allclose(mask_boxes(damaged, [(15, 10, 45, 20)]), RAMP, atol=1e-8)


def test_nothing_of_the_device_is_left_and_boxes_that_touch_are_filled_together() -> None:
    image = np.full((50, 50), 40, np.uint8)
    image[10:30, 20:24] = 255
    image[28:32, 20:40] = 255
    boxes = [(19, 9, 25, 31), (19, 27, 41, 33)]
    assert (mask_boxes(image, boxes) == 40).all()
    np.testing.assert_array_equal(mask_boxes(image, []), image)
    inside = mask_boxes(image, [(10, 0, 45, 40), (20, 10, 24, 14)])
    assert (inside == 40).all()


def test_boxes_that_make_no_sense_are_refused() -> None:
    image = np.zeros((10, 10))
    for box in ((5, 5, 5, 8), (20, 2, 30, 4), (8, 2, 3, 4)):
        with pytest.raises(MedclipError, match="no inside in an image of 10 × 10"):
            mask_boxes(image, [box])
    with pytest.raises(MedclipError, match="whole image"):
        mask_boxes(image, [(0, 0, 10, 10)])
    with pytest.raises(MedclipError, match="rows × columns"):
        mask_boxes(np.zeros(10), [(0, 0, 1, 1)])
