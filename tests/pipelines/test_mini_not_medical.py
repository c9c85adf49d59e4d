"""What the guard of medclip-mini is shown as no medical image at all: drawn anew from a seed, of every kind alike."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mini"


@pytest.fixture(scope="module")
def stage() -> Any:
    return load_stage(FOLDER, "not_medical")


@pytest.fixture
def guard_stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return load_stage(FOLDER, "guard")


def test_every_kind_is_drawn_as_often_as_asked_and_is_of_one_family(stage: Any) -> None:
    drawn = [*stage.draw_all(2)]
    families = Counter(chain.from_iterable(stage.FAMILIES.values()))
    assert Counter(kind for kind, _, _ in drawn) == dict.fromkeys(families, 2)
    assert set(families.values()) == {1}
    for kind, _, pixels in drawn:
        assert pixels.dtype == np.uint8, kind
        assert pixels.ndim == 2 or pixels.shape[2:] == (3,), kind
        assert min(pixels.shape[:2]) >= 50, kind
    assert {pixels.ndim for _, _, pixels in drawn} == {2, 3}, "grey and in colour"


def test_a_seed_draws_the_same_image_again_and_another_seed_another(stage: Any) -> None:
    for kind, draw in stage.DRAWN.items():
        first, again, other = draw(3), draw(3), draw(4)
        np.testing.assert_array_equal(first, again, err_msg=kind)
        assert first.shape != other.shape or (first != other).any(), kind


def test_a_page_is_ink_on_paper_and_a_wheel_has_all_colours(stage: Any) -> None:
    for seed in range(4):
        page = np.asarray(stage.page(seed), float)
        assert np.median(page) > 120
        assert 0.005 < (page < 0.7 * np.median(page)).mean() < 0.5
    strongest = stage.wheel(0).argmax(axis=2)
    assert (np.bincount(strongest.ravel(), minlength=3) > 0).all()


def test_a_crop_of_a_photograph_is_none_of_another_and_some_crops_are_grey(stage: Any) -> None:
    crops = [stage.photograph(seed, "china") for seed in range(12)]
    assert {crop.ndim for crop in crops} == {2, 3}
    assert len({crop.shape for crop in crops}) > 6
    with pytest.raises(KeyError):
        stage.photograph(0, "camera")


def test_sources_whose_vectors_are_known_are_not_read_again(guard_stage: Any, tmp_path: Path) -> None:
    known = guard_stage.ALL_SOURCES - {"drawn"}
    rows = [*guard_stage.listed(tmp_path, frozenset(), tmp_path, known)]
    assert {source for _, source, *_ in rows} == {"drawn"}
    assert len(rows) == 45
    assert [*guard_stage.listed(tmp_path, frozenset(), tmp_path, guard_stage.ALL_SOURCES)] == []


def test_no_guard_is_fitted_to_the_photographs_and_screenshots_that_test_it(guard_stage: Any) -> None:
    rows = [*guard_stage._photographs_and_screenshots()]
    sources = np.array([source for _, source, *_ in rows])
    assert {path.stem for path, *_ in rows} >= {"camera", "page", "brick", "audit"}
    assert not {path.stem for path, *_ in rows} & guard_stage.MEDICAL
    false, vectors = np.zeros(len(rows), bool), np.zeros((len(rows), 4), np.float32)
    images = guard_stage.Images(sources, sources, sources, sources, false, false, vectors)
    assert not images.fits.any()
    assert images.held_out.all()
