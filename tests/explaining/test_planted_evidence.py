"""The benchmark of planted evidence in small: a tower that learned where to look is shown to look there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.planted_evidence import SQUARE, adapted_pack, measure, plant


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tower", "steps"), [("convolution", 100), pytest.param("transformer", 240, marks=pytest.mark.nightly)]
)
def test_maps_peak_in_the_square_that_decides_and_fall_to_chance_with_random_weights(
    tower: str, steps: int, tmp_path: Path
):
    pack = adapted_pack(tower, tmp_path, steps=steps)
    figures = measure(pack, tmp_path, images=40, draws=2)
    assert figures.accuracy >= 0.9
    assert figures.hits >= 0.95 * figures.num
    assert figures.random_hits <= 4 * figures.chance * figures.num_random


def test_only_the_direction_of_the_stripes_tells_the_classes_apart():
    rng = np.random.default_rng(0)
    by_class: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(200):
        drawn = plant(rng, striped=True)
        top, left, bottom, right = drawn.box
        square = drawn.pixels[top:bottom, left:right, 0].astype(float)
        assert square.shape == (SQUARE, SQUARE)
        by_class[drawn.label].append(square.mean())
        across, down = (np.abs(np.diff(square, axis=axis)).mean() for axis in (1, 0))
        assert (across > down) == (drawn.label == 0)
    assert abs(np.mean(by_class[0]) - np.mean(by_class[1])) < 2
