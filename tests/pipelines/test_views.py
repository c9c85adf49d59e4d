"""pipelines/views: one recipe, one loss between the arms, and a planted difference is found paired by patients."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from medclip.training.recipe.schema import load_recipe
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "views"


@pytest.fixture
def stage() -> ModuleType:
    return load_stage(FOLDER, "measure")


def test_arms_differ_by_the_loss_alone(stage: ModuleType, tmp_path: Path) -> None:
    for name in stage.OBJECTS:
        without, with_views = (stage.recipe(name, arm, 1, tmp_path, None) for arm in (stage.WITHOUT, stage.WITH))
        assert list(load_recipe(with_views).objective.losses) == ["views"]
        assert not load_recipe(without).objective.losses
        both = [one | {"name": "", "objective": one["objective"] | {"losses": {}}} for one in (without, with_views)]
        assert both[0] == both[1]


def test_views_that_came_together_are_found_and_scores_that_did_not_change_are_not(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, tables = np.random.default_rng(0), stage.result_tables
    patient_N = np.repeat(np.arange(20), 4)
    known = {
        "patients": patient_N.tolist(),
        "laterality": ["L", "L", "R", "R"] * 20,
        "projection": ["CC", "MLO"] * 40,
        "truth": (patient_N % 2).tolist(),
        "sources": ["nih_cxr"] * 40 + ["kermany_cxr"] * 40,
    }
    for name in stage.OBJECTS:
        folder = tmp_path / name / "vectors"
        folder.mkdir(parents=True)
        (folder / "known.json").write_text(json.dumps(known), encoding="utf-8")
        breasts_ND, scores_N = rng.normal(size=(40, 8))[np.arange(80) // 2], rng.normal(size=80)
        for run in ("start", "without_0", "without_1", "with_0", "with_1"):
            vectors_ND = breasts_ND + (0.4 if run.startswith("with_") else 0.9) * rng.normal(size=(80, 8))
            vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
            np.savez(folder / f"{run}.npz", vectors=vectors_ND.astype(np.float32), scores=scores_N)
    monkeypatch.setattr(tables, "NUM_RESAMPLES", 100)
    tables.write_tables(tmp_path, [0, 1])
    changes = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["differences"]
    assert changes["breasts: spread"]["high"] < 0
    assert changes["breasts: malignancy"]["value"] == changes["sites: within nih_cxr"]["value"] == 0
    assert changes["breasts: recall"]["value"] > 0
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert all(f"{name}: {measure}" in table for name, of in tables.MEASURES.items() for measure in of)
