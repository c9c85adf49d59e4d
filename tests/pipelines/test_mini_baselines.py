"""What the rivals of medclip-mini share: results that are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.kits.stages import load_stage

KEPT = load_stage(Path(__file__).parents[2] / "pipelines" / "mini", "baselines").kept


def test_what_was_computed_of_the_same_inputs_is_not_computed_again(tmp_path: Path) -> None:
    calls = []

    def compute() -> np.ndarray:
        calls.append(1)
        return np.arange(3.0) + len(calls)

    images = np.zeros((2, 4, 4, 3), np.uint8)
    first = KEPT(tmp_path / "kept", ["cnn", 3, images], compute)
    assert (KEPT(tmp_path / "kept", ["cnn", 3, images], compute) == first).all()
    assert len(calls) == 1
    assert [path.suffix for path in (tmp_path / "kept").iterdir()] == [".npy"]


def test_one_other_pixel_another_setting_or_another_shape_is_computed_anew(tmp_path: Path) -> None:
    calls = []

    def compute() -> np.ndarray:
        calls.append(1)
        return np.zeros(1)

    images = np.zeros((2, 4, 4, 3), np.uint8)
    other = images.copy()
    other[1, 2, 3, 1] = 1
    for inputs in ((3, images), (3, other), (4, images), (3, images.reshape(4, 2, 4, 3)), (3, images.astype(np.int8))):
        KEPT(tmp_path, inputs, compute)
    assert len(calls) == 5
