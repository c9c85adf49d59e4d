"""pipelines/datacomp: what arms are trained on, that all see as much, how differences are paired, and a smoke run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from medclip.training.recipe.schema import load_recipe
from tests.kits.loaded_python import Programs
from tests.kits.stages import load_stage

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "pipelines" / "datacomp"


@pytest.fixture
def stage() -> ModuleType:
    return load_stage(FOLDER, "measure")


def test_every_arm_sees_as_many_samples_whatever_it_keeps(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.Study, "rewritten", lambda self: self.run / "rewritten")
    monkeypatch.setattr(stage.Study, "selection", lambda self, name, arm, seed: None)
    for scale in stage.SCALES:
        recipes = {name: stage.Study(tmp_path, scale).recipe(name, arm, 1) for name, arm in stage.EVERY_ARM.items()}
        seen = {recipe["train"]["max_steps"] * recipe["train"]["batch_size"] for recipe in recipes.values()}
        assert seen == {stage.SCALES[scale].seen}, scale
        for recipe in recipes.values():
            load_recipe(recipe)
        changed = {name for name, recipe in recipes.items() if recipe["objective"].get("losses")}
        assert changed == {"rewritten", *stage.LOSS_ARMS}
        of_arms = [recipe | {"name": "", "objective": "", "data": ""} for recipe in recipes.values()]
        assert all(one == of_arms[0] for one in of_arms), "one recipe"


def asked_and_runs(quality: float, seed: int, num: int = 60) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two runs of an arm whose scores know the answer as well as `quality` says; unrelated words know nothing."""
    patients = (np.arange(num) // 2).tolist()
    rng = np.random.default_rng(seed)
    asked = {"retrieval": {"set": patients}, "tasks": {}}
    runs: list[dict[str, Any]] = []
    for _ in range(2):
        ranks = rng.integers(1, 12, (2, num)) - (rng.random((2, num)) < quality / 4) * 5
        ways = dict(zip(("text_to_image", "image_to_text"), np.maximum(ranks, 1).tolist(), strict=True))
        runs.append({"ranks": {"set": ways}, "scores": {}, "seen": 64, "shares": {}})
    for task in ("body_region", "fundus_cataract", "mammography_malignancy"):
        targets = (np.arange(num) // 2) % 2
        asked["tasks"][task] = {"patients": patients, "targets": targets.tolist(), "classes": 2}
        for run in runs:
            noise = rng.normal(size=num)
            own = np.column_stack([-noise - quality * targets, noise + quality * targets])
            run["scores"][task] = {"own": own.tolist(), "unrelated": rng.normal(size=(3, num, 2)).tolist()}
    return asked, runs


def test_an_arm_that_knows_more_is_told_from_one_that_is_like_none(stage: ModuleType) -> None:
    tables = stage.result_tables
    tables.NUM_RESAMPLES = 200
    asked, none = asked_and_runs(0.5, 0)
    figures = {
        name: tables.figures_of(asked, runs)[0]
        for name, runs in {"none": none, "basic": none, "score": asked_and_runs(3.0, 0)[1]}.items()
    }
    differences = tables.compared(figures)
    assert set(differences) == {"basic", "score"}
    for measure in ("r1", "r5", "zero_shot", "word_control"):
        assert differences["basic"][measure].value == 0
        assert differences["score"][measure].value > 0
    for measure in ("zero_shot", "word_control"):
        assert differences["score"][measure].low > 0
    p_values = tables.adjusted(differences)
    assert len(p_values) == 8, "all comparisons are one family"
    assert all(p_values[name, m] >= differences[name][m].p for name, m in p_values)


def test_a_class_of_two_patients_takes_no_part(stage: ModuleType) -> None:
    tables = stage.result_tables
    tables.NUM_RESAMPLES = 50
    asked, runs = asked_and_runs(1.0, 2)
    task = asked["tasks"]["body_region"]
    task["classes"] = 3
    task["targets"][0] = task["targets"][2] = 2
    for run in runs:
        scores = run["scores"]["body_region"]
        scores["own"] = np.pad(np.array(scores["own"]), ((0, 0), (0, 1)), constant_values=9.0).tolist()
        scores["unrelated"] = np.pad(np.array(scores["unrelated"]), ((0, 0), (0, 0), (0, 1))).tolist()
    own, _ = tables.areas(asked, runs, "body_region", 0)
    assert np.isfinite(own.bootstrap)
    assert own.value > 0.6


def test_a_task_with_too_few_patients_is_named_and_the_others_are_measured(
    stage: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = stage.result_tables
    tables.NUM_RESAMPLES = 50
    asked, runs = asked_and_runs(1.0, 3)
    asked["tasks"]["fundus_cataract"]["targets"] = [0] * 60
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    (tmp_path / "results").mkdir()
    for name in ("none", "score"):
        for seed, run in enumerate(runs):
            shares = {"all": {"all": [3, 4]}}
            result = run | {"arm": name, "seed": seed, "shares": shares}
            (tmp_path / "results" / f"{name}_{seed}.json").write_text(json.dumps(result))
    tables.write_tables(tmp_path)
    printed = capsys.readouterr().out
    assert "two classes with 3 test patients are lacking: fundus_cataract." in printed
    assert "fundus_cataract, own words" not in printed
    assert "body_region, own words" in printed
    for task in asked["tasks"].values():
        task["targets"] = [0] * 60
    assert set(tables.figures_of(asked, runs)[0]) == {"r1", "r5"}


def test_seeds_that_an_arm_lacks_are_in_no_table(stage: ModuleType, tmp_path: Path) -> None:
    for name, seed in (("none", 0), ("none", 1), ("score", 1)):
        path = tmp_path / "results" / f"{name}_{seed}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"arm": name, "seed": seed}))
    results, seeds = stage.result_tables.read_results(tmp_path)
    assert (set(results), seeds) == ({"none", "score"}, (1,))
    (tmp_path / "results" / "score_1.json").unlink()
    (tmp_path / "results" / "none_0.json").unlink()
    (tmp_path / "results" / "none_1.json").unlink()
    with pytest.raises(SystemExit, match="no seed is there"):
        stage.result_tables.read_results(tmp_path)


@pytest.mark.shared
def test_the_pile_holds_what_has_words_and_book_figures_are_trained_on_alone(stage: ModuleType, shared: Path) -> None:
    rows = list(sys.modules["pile_table"].rows(shared / "data"))
    assert {row["source"] for row in rows} == {"medpix2", "vqa_rad", "csdi_fundus", "cdd_cesm", "openstax_fig"}
    assert all(row["captions"] for row in rows)
    assert {row["split"] for row in rows if row["source"] == "openstax_fig"} == {"train"}


@pytest.mark.shared
@pytest.mark.nightly
def test_the_smoke_run_goes_through_all_stages(shared: Path, programs: Programs, tmp_path: Path) -> None:
    environment = programs.environment(os.environ) | {
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "MEDCLIP_HOME": str(tmp_path / "home"),
    }
    run = tmp_path / "run"
    arms = ["--arms", "none", "balance", "rewritten", "--seeds", "0"]
    command = [str(FOLDER / "run.sh"), "--smoke", str(shared / "data"), str(run), *arms]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((run / "smoke" / "figures.json").read_text())
    assert set(figures["differences"]) == {"balance", "rewritten"}
    assert figures["seen"] == 2048
    result = json.loads((run / "smoke" / "results" / "balance_0.json").read_text())
    kept, number = result["shares"]["all"]["all"]
    assert 0 < kept < number
