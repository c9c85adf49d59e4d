"""A modality is inferred from the image; an image in colour is never taken for one of a modality without colour."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from medclip.errors import Reason
from medclip.models.preprocess import Preprocess
from medclip.runs.chunk import ChunkWork, Item
from medclip.runs.problems import GREY
from medclip.runs.read_unit import Reading, read
from medclip.sample import Modality
from medclip.settings import Settings
from tests.imaging.test_colourfulness import dermoscopy
from tests.kits.codestreams import film
from tests.kits.files import write_image


def _reading(path: Path, pixels: np.ndarray, modality: Modality | None = None) -> Reading:
    from medclip.adapters.sources import source_of

    write_image(path, pixels)
    return read(source_of(path, Settings()), modality, Preprocess(size_px=64), Settings())


def _decided(folder: Path, reading: Reading, name: str) -> Item:
    file: Any = SimpleNamespace(facts=None)
    item = Item((file,), (file,), None, None, reading=reading, features_VD=np.ones((1, 4), np.float32))
    model = SimpleNamespace(path=folder)  # without a guard
    answers = SimpleNamespace(refuse=lambda modality, part: None)
    context: Any = SimpleNamespace(model=model, min_confidence=0.8, answers=answers)
    work = ChunkWork(cast(Any, context), 0, [item])
    work._decide(name, [(item, 0.97)])
    return item


@pytest.mark.parametrize("name", sorted(GREY))
def test_a_photograph_is_not_taken_for_a_grey_modality_however_sure_the_model_is(tmp_path: Path, name: str) -> None:
    item = _decided(tmp_path, _reading(tmp_path / "a.png", dermoscopy()), name)
    assert item.modality is None
    assert item.problem is not None
    assert item.problem.reason is Reason.MODALITY_UNCERTAIN
    assert "in colour" in item.problem.sentence


def test_it_may_be_taken_for_a_modality_in_colour(tmp_path: Path) -> None:
    item = _decided(tmp_path, _reading(tmp_path / "a.png", dermoscopy()), "dermatology")
    assert item.modality is Modality.DERMATOLOGY


@pytest.mark.parametrize("tint", [(1, 1, 1), (1, 0.9, 0.7)])
def test_a_radiograph_stored_as_rgb_and_tinted_is_inferred_as_before(tmp_path: Path, tint: tuple[float, ...]) -> None:
    pixels = (film(8)[..., None] * np.array(tint)).astype(np.uint8)
    assert _decided(tmp_path, _reading(tmp_path / "a.png", pixels), "xray").modality is Modality.XRAY


def test_colour_matters_only_where_the_modality_is_not_known(tmp_path: Path) -> None:
    assert not _reading(tmp_path / "a.png", dermoscopy(), Modality.XRAY).coloured
