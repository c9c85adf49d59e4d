"""What is said of a whole result of `explain`."""

import numpy as np
import pytest

from medclip.explaining.explanation import Explained, Explanation, HeatMap, padding_notes


def _heat(*padding: float, top: int = 0) -> HeatMap:
    grids = tuple(np.ones((2, 2), np.float32) for _ in padding)
    empty = ("",) * len(padding)
    return HeatMap("infarction", "", "infarction", "", 1.0, (1.0,) * len(padding), grids, empty, padding, "x", "y", top)


@pytest.mark.parametrize(
    ("heat", "says"),
    [(_heat(0.74), "74 %"), (_heat(0.5), ""), (_heat(0.9, 0.1, top=1), ""), (_heat(0.1, 0.9, top=1), "90 %")],
)
def test_a_map_that_lies_mostly_on_padding_is_told_of_by_the_image_that_carries_most(heat: HeatMap, says: str) -> None:
    notes = padding_notes([Explanation(1, "a.png", maps=(_heat(0.0),)), Explanation(2, "b.png", maps=(heat,))])
    assert [says in note for note in notes] == [True] * bool(says)
    for note in notes:
        assert note.startswith("Row 2: ")
        assert "where there is no image" in note
    assert Explained((), "m", "p", notes).facts()["notes"] == list(notes), "explain.json has it"
