"""Regions move as the pixels do, and no change of an image with regions cuts one off."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.models.inputs.preprocess import Preprocess
from medclip.training.batches.augment import Change, Op, apply_change, draw_change, part_of_stretched
from medclip.training.batches.regions import keeping, place_regions
from medclip.training.recipe.augment import Augment

HEIGHT, WIDTH, SIZE = 120, 160, 64
STILL = Change(zoom=1.0, shift=(0.0, 0.0), rotate_deg=0.0, gain=1.0, gamma=1.0, flip=False)


@pytest.mark.parametrize("resize", ["longest", "shortest", "squash"])
@pytest.mark.parametrize(
    "change",
    [
        STILL,
        Change(0.8, (0.5, -0.4), 0.0, 1.0, 1.0, True),
        Change(0.9, (-0.6, 0.3), 12.0, 1.0, 1.0, False),
        Change(0.9, (0.2, 0.9), -8.0, 1.0, 1.0, True),
        replace(STILL, stretch=4 / 3, parts=((0.5, 1.2),), shift=(0.4, -0.7), flip=True),
    ],
    ids=["still", "mirrored", "turned", "turned and mirrored", "stretched"],
)
def test_a_region_lies_where_its_pixels_do(change: Change, resize: str) -> None:
    image = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    image[40:70, 60:100] = 255
    region = (60 / WIDTH, 40 / HEIGHT, 100 / WIDTH, 70 / HEIGHT)
    extent = Preprocess(size_px=SIZE, resize=resize).extent(HEIGHT, WIDTH)  # type: ignore[arg-type]
    rows, columns, _ = np.nonzero(apply_change(image, change, SIZE, extent) > 127)
    (placed,) = place_regions([region], change, (WIDTH, HEIGHT), extent)
    lit = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert placed == pytest.approx([side / SIZE for side in lit], abs=2.1 / SIZE)


@given(
    seed=st.integers(0, 1 << 30),
    box=st.tuples(*[st.floats(0, 0.9)] * 2, *[st.floats(0.02, 1)] * 2),
    stretch=st.sampled_from([1.0, 4 / 3]),
)
def test_what_words_name_stays_in_the_image(seed: int, box: tuple[float, ...], stretch: float) -> None:
    region = (box[0], box[1], min(1.0, box[0] + box[2]), min(1.0, box[1] + box[3]))
    settings = Augment(crop_scale=(0.3, 1.0), stretch=stretch, flip=0.5, rotate_deg=0)
    drawn = draw_change(settings, np.random.default_rng(seed), may_flip=True)
    kept = keeping(drawn, [region], (WIDTH, HEIGHT), None)
    (placed,) = place_regions([region], kept, (WIDTH, HEIGHT), None)
    cut_px = math.prod(part_of_stretched((WIDTH, HEIGHT), kept)[2:]) if kept.parts else (WIDTH * kept.zoom) ** 2
    assert area(placed) * cut_px >= 0.69 * area(region) * WIDTH * HEIGHT
    assert kept.flip == drawn.flip


def area(box: tuple[float, ...]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def test_a_crop_that_cuts_a_region_off_is_taken_back_and_others_stay() -> None:
    away = Change(0.5, (1.0, 1.0), 0.0, 1.0, 1.0, False, ops=(Op("shear_x", 0.3), Op("contrast", 1.2)))
    corner, middle = (0.0, 0.0, 0.2, 0.2), (0.6, 0.6, 0.8, 0.8)
    taken_back = keeping(away, [corner], (100, 100), None)
    assert (taken_back.zoom, taken_back.shift, [op.name for op in taken_back.ops]) == (1.0, (0.0, 0.0), ["contrast"])
    assert keeping(away, [middle], (100, 100), None) == replace(away, ops=away.ops[1:])
    assert place_regions([corner], away, (100, 100), None) == ()
