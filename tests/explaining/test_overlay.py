"""How a map is laid over its image."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medclip.explaining.explanation import Explanation, HeatMap
from medclip.explaining.overlay import HUE, _notes, _painted, _panels, draw_overlay
from medclip.imaging.geometry import placement

BLOB = np.zeros((6, 6), np.float32)
BLOB[1:4, 1:4] = 1


def painted(height: int, width: int, size: int = 64) -> np.ndarray:
    heat: Any = SimpleNamespace(grids=(BLOB,))
    unit = Explanation(1, "a", placements=(placement(height, width, size, "longest"),), labels=("",))
    seen: Any = SimpleNamespace(shown=(np.full((height, width, 1), 90, np.uint8),), sheet=None)
    return _painted(unit, seen, heat, 0, 1.0)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (51, 35), (128, 128), (700, 700)])
def test_the_line_leaves_the_map_to_be_seen_however_small_the_image(height: int, width: int) -> None:
    drawn = painted(height, width)
    assert max(drawn.shape[:2]) >= 400
    assert drawn.shape[0] * width == drawn.shape[1] * height
    assert (drawn == 255).all(axis=2).mean() < 0.04
    strong = np.abs(drawn / 255 - (0.38 * 90 / 255 + 0.62 * HUE[2])).max(axis=2) < 0.02
    assert strong.mean() > 0.03


def test_why_an_answer_is_grey_stands_below_its_score_in_the_first_row_alone() -> None:
    heats = [
        HeatMap("a", "", "a", "t", 0.0, (0.0, 1.0), (BLOB, BLOB), ("", ""), (0.0, 0.0), "m", "l", 1, caution=caution)
        for caution in ("within its source only (nih_cxr)", "")
    ]
    places = (placement(8, 8, 8, "longest"),) * 2
    unit = Explanation(1, "a", "volume", labels=("1", "2"), placements=places, maps=tuple(heats))
    seen: Any = SimpleNamespace(
        shown=(np.zeros((8, 8, 1), np.uint8),) * 2, sheet=None, overview=None, labels=unit.labels
    )
    first, second = _panels(unit, seen)
    assert first[1][0] == "a\nscore 0.00\nwithin its source only (nih_cxr)"
    assert [words for words, _, _ in (first[2], second[1])] == ["a\nscore 0.00", "score 1.00, carries most"]
    assert [is_grey for row in (first, second) for _, _, is_grey in row] == [False, True, False] * 2


def test_a_long_caution_has_its_place_above_the_image_and_a_prompt_is_no_formula() -> None:
    """The picture grows by the lines of the first row, or they would be cut off."""

    def height_px(caution: str) -> int:
        title = "a $\\frac{6$ b"
        heat = HeatMap("a", "", title, "t", 0.0, (0.0,), (BLOB,), ("",), (0.0,), "m", "l", 0, caution=caution)
        place = placement(8, 8, 8, "longest")
        unit = Explanation(1, "a", labels=("",), placements=(place,), maps=(heat,))
        shown = (np.zeros((8, 8, 1), np.uint8),)
        seen: Any = SimpleNamespace(shown=shown, sheet=None, overview=None, labels=("",))
        with Image.open(io.BytesIO(draw_overlay(unit, seen))) as drawn:
            return drawn.height

    plain = height_px("")
    assert height_px("Not learned: the model’s card has figures of this for CT and MRI images, not for X-ray") > plain


@pytest.mark.parametrize(
    ("kind", "note"),
    [("volume", "5 more images of this volume not drawn"), ("slide", "5 more tiles of this slide drawn in the slide")],
)
def test_what_is_not_drawn_is_said(kind: str, note: str) -> None:
    heat = HeatMap("a", "", "a", "t", 0.0, tuple(range(9)), (BLOB,) * 9, ("",) * 9, (0.0,) * 9, "m", "l", 8)
    unit = Explanation(1, "a", kind, labels=("",) * 9, placements=(placement(8, 8, 8, "longest"),) * 9, maps=(heat,))
    assert note in " ".join(_notes(unit, 200))


def test_images_drawn_beside_each_other_share_one_scale_of_colours() -> None:
    grids = (BLOB, BLOB / 4)
    heat = HeatMap("a", "", "a", "t", 0.0, (1.0, 0.0), grids, ("", ""), (0.0, 0.0), "m", "l", 0)
    places = (placement(8, 8, 8, "longest"),) * 2
    unit = Explanation(1, "a", "volume", labels=("1", "2"), placements=places, maps=(heat,))
    seen: Any = SimpleNamespace(
        shown=(np.full((8, 8, 1), 90, np.uint8),) * 2, sheet=None, overview=None, labels=unit.labels
    )
    (_, (_, strong, _)), (_, (_, weak, _)) = _panels(unit, seen)
    np.testing.assert_array_equal(weak, _painted(unit, seen, heat, 1, 1.0))
    assert (strong != weak).any()
