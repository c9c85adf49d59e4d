"""A policy that makes batches is a row: recipes name it at once, and what it does not take is refused by the row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import medclip
from medclip.errors import MedclipError
from medclip.training.batches.order import SAMPLING, Epoch, Sampling
from tests.kits.training import make_shards, tiny_recipe


def test_a_row_that_is_added_makes_the_batches_of_a_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[tuple[int, int, int]] = []

    def draw_as_stored(epoch: Epoch) -> NDArray[np.int32]:
        drawn.append((epoch.number, epoch.steps, epoch.batch_size))
        return epoch.batches(np.arange(len(epoch.columns), dtype=np.int32))

    recipe = tiny_recipe(make_shards(tmp_path / "data"))
    recipe["train"] |= {"max_steps": 2}
    recipe["data"] |= {"policy": "as_stored"}
    with pytest.raises(MedclipError, match="must be shard_mixed, proportional, per_modality or balanced"):
        medclip.pretrain(recipe, out=tmp_path / "run")
    monkeypatch.setitem(SAMPLING, "as_stored", Sampling(draw_as_stored))  # type: ignore[arg-type]
    medclip.pretrain(recipe, out=tmp_path / "run")
    assert drawn
    assert drawn[0][0] == 0
    assert drawn[0][2] == recipe["train"]["batch_size"]
    for key, value, named in (
        ("weights", {"a": 2.0}, "weights mean nothing with as_stored"),
        ("together", 2, "does nothing with policy: as_stored; say policy: balanced"),
    ):
        changed = recipe | {"data": recipe["data"] | {key: value}}
        with pytest.raises(MedclipError, match=named):
            medclip.pretrain(changed, out=tmp_path / "other")
