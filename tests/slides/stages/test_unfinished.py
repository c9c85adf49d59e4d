"""The vectors of a slide under way: what is complete counts after a kill, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medclip.slides.stages.unfinished import UnfinishedSlide

IDENTITY = {"slide": "a", "options": "b"}


def vectors(rows: np.ndarray) -> np.ndarray:
    return np.repeat(rows[:, None], 4, axis=1).astype(np.float32)


def add(slide: UnfinishedSlide, block: int, rows: list[int], lost: tuple[int, ...] = ()) -> None:
    at = np.array(rows)
    kept = np.delete(at, list(lost))
    slide.add(block, at, lost, vectors(kept), vectors(kept)[:, :2])


def test_blocks_that_were_saved_are_there_after_a_kill_and_those_cut_off_are_not(tmp_path: Path):
    slide = UnfinishedSlide(tmp_path / "s", IDENTITY, 6, 4, 2)
    add(slide, 0, [0, 3])
    slide.save()
    add(slide, 1, [1, 4], lost=(1,))
    slide.save()
    with (tmp_path / "s" / "done.txt").open("ab") as file:
        file.write(b"[2, [")  # the process was killed here
    again = UnfinishedSlide(tmp_path / "s", IDENTITY, 6, 4, 2)
    assert again.blocks == {0, 1}
    add(again, 2, [2, 5])
    assert again.kept.tolist() == [0, 1, 2, 3, 5]
    np.testing.assert_array_equal(again.vectors("float32"), vectors(again.kept))
    np.testing.assert_array_equal(again.measures(), vectors(again.kept)[:, :2])
    again.save()
    assert UnfinishedSlide(tmp_path / "s", IDENTITY, 6, 4, 2).blocks == {0, 1, 2}


def test_rows_of_another_slide_or_grid_do_not_count(tmp_path: Path):
    slide = UnfinishedSlide(tmp_path / "s", IDENTITY, 6, 4)
    slide.add(0, np.array([0, 1]), (), vectors(np.array([0, 1])), np.zeros((2, 0), np.float32))
    slide.save()
    assert UnfinishedSlide(tmp_path / "s", {**IDENTITY, "slide": "c"}, 6, 4).blocks == set()


def test_half_precision_is_a_rounding_of_the_same_rows(tmp_path: Path):
    slide = UnfinishedSlide(tmp_path / "s", IDENTITY, 3, 4)
    slide.add(0, np.arange(3), (), vectors(np.arange(3)) / 3, np.zeros((3, 0), np.float32))
    half = slide.vectors("float16")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, vectors(np.arange(3)) / 3, rtol=1e-3)
    slide.remove()
    assert not (tmp_path / "s").exists()
