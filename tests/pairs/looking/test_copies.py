"""Whose images copies are said to be: of known patients alone, and only where a link is sure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.pairs.looking import copies
from medclip.pairs.looking.copies import _with_copies, find_copies
from medclip.pairs.looking.texts import look_at_texts, texts_of
from medclip.pairs.selection.image_links import Alike, Links
from medclip.progress import Silent
from tests.kits.image_piles import context_of, pile_of


def links(*rows: tuple[int, int, int, float]) -> Links:
    one, other, way, value = zip(*rows, strict=True)
    return Links(np.array(one), np.array(other), np.array(way), np.array(value, np.float64))


def test_another_patients_image_is_said_of_sure_links_between_known_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = links((0, 1, 1, 16), (2, 3, 1, 17), (4, 5, 2, 0.95), (6, 7, 0, 0), (8, 9, 0, 0))
    monkeypatch.setattr(copies, "link_inside", lambda *_: (inside, Alike(None, 1.0, {}), 1.0))
    images = [np.full((8, 8), n, np.uint8) for n in range(10)]
    patients = [*(f"P{n}" for n in range(7)), "", "P8", "P8"]  # of the seventh nobody is known
    pile = pile_of(images, patient=patients, text=[f"film {n}" for n in range(10)])
    facts = look_at_texts(pile, texts_of(pile), None, Silent())
    found = find_copies(pile, [], facts, None, None, context_of(tmp_path).settings, Silent(), 0)
    assert np.flatnonzero(found.across_patients_N).tolist() == [0, 1]
    assert np.flatnonzero(found.alike_patients_N).tolist() == [2, 3, 4, 5]
    assert found.is_linked_N.all()


def test_copies_of_what_is_in_are_in_whichever_end_of_the_link_they_are() -> None:
    chain = links((0, 1, 1, 16), (1, 2, 1, 17))
    assert _with_copies(np.array([True, False, False]), chain).tolist() == [True, True, False]
    assert _with_copies(np.array([False, False, True]), chain).tolist() == [False, True, True]
    equal = links((0, 1, 0, 0), (1, 2, 0, 0))  # copies of one image, however they are linked
    assert _with_copies(np.array([True, False, False]), equal).tolist() == [True, True, True]
