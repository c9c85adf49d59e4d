from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medclip.models.open_set import OpenSet, fit_open_set, load_open_set, typical


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def cloud(rng: np.random.Generator, centre: np.ndarray, count: int) -> np.ndarray:
    return unit(centre + 0.1 * rng.normal(size=(count, len(centre))))


@pytest.fixture
def fitted() -> tuple[OpenSet, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = np.eye(12)[:2]
    train = np.concatenate([cloud(rng, a, 200), cloud(rng, b, 200)])
    names = np.array(["ct"] * 200 + ["mri"] * 200)
    held_out = np.concatenate([cloud(rng, a, 100), cloud(rng, b, 100)])
    held_names = np.array(["ct"] * 100 + ["mri"] * 100)
    return fit_open_set(train, names, held_out, held_names), cloud(rng, a, 300), cloud(rng, np.eye(12)[5], 300)


def test_new_images_of_a_modality_are_typical_of_it(fitted: tuple[OpenSet, np.ndarray, np.ndarray]) -> None:
    guard, same, _ = fitted
    assert guard.typical(same, "ct").mean() > 0.97


def test_images_unlike_anything_seen_are_not_typical_of_any_modality(
    fitted: tuple[OpenSet, np.ndarray, np.ndarray],
) -> None:
    guard, same, strange = fitted
    assert not guard.typical(strange, "ct").any()
    assert not guard.typical(strange, "mri").any()
    assert not guard.typical(same, "mri").any()


def test_a_modality_without_a_limit_is_never_refused(fitted: tuple[OpenSet, np.ndarray, np.ndarray]) -> None:
    guard, _, strange = fitted
    assert guard.typical(strange, "fundus").all()


def test_the_guard_reads_back_as_it_was_written(fitted: tuple[OpenSet, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    guard, same, strange = fitted
    guard.save(tmp_path)
    again = load_open_set(tmp_path)
    assert again is not None
    assert again.modalities == guard.modalities
    both = np.concatenate([same, strange])
    np.testing.assert_array_equal(again.distance(both, "ct"), guard.distance(both, "ct"))
    np.testing.assert_array_equal(typical(SimpleNamespace(path=tmp_path), both, "ct"), guard.typical(both, "ct"))


def test_a_pack_without_a_guard_refuses_nothing(tmp_path: Path) -> None:
    assert load_open_set(tmp_path) is None
    assert typical(SimpleNamespace(path=tmp_path), np.ones((3, 4), np.float32), "ct").all()
