"""pipelines/distil: all arms see as much and differ as the plan says, and differences are paired."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medclip.models.packs.pack import load_model
from medclip.training.recipe.schema import load_recipe
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "distil"


@pytest.fixture
def stage() -> ModuleType:
    return load_stage(FOLDER, "measure")


def test_arms_see_as_much_and_differ_by_teacher_and_start_alone(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = load_model("medclip-mini")
    monkeypatch.setattr(stage.Study, "card", teacher.card)
    monkeypatch.setattr(stage.Study, "reinforced", lambda self: {"num_samples": 200})
    monkeypatch.setattr(stage.Study, "start", lambda self, kind: self.run / kind)
    for name, scale in stage.SCALES.items():
        study = stage.Study(tmp_path, name, teacher)
        recipes = {arm: load_recipe(study.recipe(arm, stage.ARMS[arm], 1)) for arm in stage.ARMS}
        for recipe in recipes.values():
            train = recipe.train
            assert (train.max_steps, train.batch_size) == (scale.steps, 64)
            assert (recipe.model.lock_text, recipe.model.freeze_blocks, recipe.seed) == (True, 5, 1)
        assert bool(recipes["distil"].data.reinforced)
        assert not recipes["warm"].data.reinforced
        assert recipes["warm"].objective == recipes["alone"].objective
        assert recipes["warm"].train == recipes["alone"].train
        assert recipes["warm"].model.start != recipes["alone"].model.start


def run_of(quality: float, seed: int, num: int = 80) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores that know the answers as well as `quality` says: of a task of three classes, and of a finding."""
    rng, patients = np.random.default_rng(seed), (np.arange(num) // 2).tolist()
    classes, positive = (np.arange(num) // 2) % 3, (np.arange(num) // 2) % 2
    sources = ["north" if i % 8 < 4 else "south" for i in range(num)]
    asked = {
        "kind": {"patients": patients, "sources": sources, "targets": classes.tolist(), "classes": 3},
        "findings:one": {"patients": patients, "sources": sources, "targets": positive.tolist(), "classes": 1},
    }
    noise, one = rng.normal(size=(num, 3)), rng.normal(size=num)
    noise[np.arange(num), classes] += quality
    return asked, {"scores": {"kind": noise.tolist(), "findings:one": (one + quality * positive)[:, None].tolist()}}


def test_a_worse_student_is_told_from_its_teacher_and_an_equal_one_is_not(stage: ModuleType) -> None:
    tables = stage.result_tables
    asked, teacher = run_of(2.0, 0)
    weights_PB = tables.draw_weights(40, 200, seed=0)

    def chief(runs: list[dict[str, Any]]) -> Any:
        return tables.averaged(list(tables.tasks_measured(asked, runs, "balanced_accuracy", weights_PB).values()))

    base, worse = chief([teacher] * 2), chief([run_of(0.2, seed)[1] for seed in (1, 2)])
    apart = tables.difference(base, worse)
    assert apart.high < 0
    assert tables.verdict(apart) == "missed"
    assert tables.verdict(tables.difference(base, base)).startswith("met")
    assert (
        tables.verdict(SimpleNamespace(value=0.0, low=-0.1)) == "met by the value, not shown: the interval crosses it"
    )


def test_pairs_of_two_sources_do_not_count_for_a_finding(stage: ModuleType) -> None:
    tables = stage.result_tables
    labels = {"patients": list(range(8)), "sources": ["a"] * 4 + ["b"] * 4, "targets": [0, 0, 0, 1, 0, 1, 1, 1]}
    scores = np.array([[0, 0, 0, 0, 1, 1, 1, 1.0]])  # the source, and nothing else
    weights_PB = tables.draw_weights(8, 50, seed=0)
    assert tables.within_sources(labels, scores, weights_PB).value == 0.5
