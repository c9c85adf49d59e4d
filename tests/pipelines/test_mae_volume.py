"""pipelines/mae_volume: simulated volumes that are axial whatever way they are stored, and what the recipes say."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from medclip.adapters.base import source_of
from medclip.adapters.registry import read_unit
from medclip.imaging.volume.voxels import voxels_of
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.training.recipe.schema import load_recipe
from tests.kits.recipe_tags import untagged
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mae_volume"


@pytest.fixture(scope="module")
def simulate() -> ModuleType:
    return load_stage(FOLDER, "simulate")


def test_a_volume_is_read_as_it_was_drawn_whatever_way_it_is_stored(
    simulate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulate.py", str(tmp_path), "--num", "6"])
    simulate.main()
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["train"] * 5 + ["val"]
    assert {row["nodule"] for row in rows} == {"yes", "no"}
    assert len(simulate.STORED) == len(rows)
    for n, row in enumerate(rows):
        voxels = voxels_of(read_unit(source_of(tmp_path / row["file"], Settings()), Modality.CT, Settings()))
        drawn, spacing, has_nodule = simulate.volume(n)
        assert (voxels.plane, voxels.unit) == ("axial", "HU")
        np.testing.assert_array_equal(voxels.values, np.maximum(drawn, -1024))
        np.testing.assert_allclose(voxels.spacing_mm, spacing, rtol=1e-6)  # type: ignore[arg-type]
        assert row["nodule"] == ("yes" if has_nodule else "no")


def test_the_same_seed_draws_the_same_volumes(simulate: ModuleType) -> None:
    np.testing.assert_array_equal(simulate.volume(3)[0], simulate.volume(3)[0])
    assert simulate.volume(3)[0].shape != simulate.volume(4)[0].shape


@pytest.mark.parametrize("name", ["full.yaml", "smoke.yaml"])
def test_each_value_of_a_recipe_says_where_it_comes_from(name: str) -> None:
    assert not untagged(FOLDER / name)


def test_the_recipes_hide_tubes_and_guess_half_of_them() -> None:
    full, smoke = (load_recipe(FOLDER / name) for name in ("full.yaml", "smoke.yaml"))
    assert full.objective == smoke.objective
    masked = full.objective.masked
    assert masked is not None
    assert (masked.decoder, masked.ratio, masked.decode_ratio, masked.normalise) == ("video", 0.8, 0.5, True)
    assert full.augment == smoke.augment
    assert full.augment.flip == 0
    assert full.train.lr == pytest.approx(1e-3 * full.train.batch_size / 256)
    assert full.model.volume is not None
    assert (full.model.volume.plane, full.model.volume.unit) == ("axial", "HU")
