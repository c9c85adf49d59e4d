"""pipelines/mv_mlm: what its recipes say, and that the measurements run at all, with women held out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medclip.training.recipe.schema import load_recipe
from medclip.training.trainer import Trainer
from tests.kits.exam_shards import make_exam_shards
from tests.kits.loaded_python import Programs
from tests.kits.mammography_cohort import FOLDER
from tests.kits.recipe_tags import untagged


@pytest.mark.parametrize("name", ["full.yaml", "heads.yaml"])
def test_each_value_of_a_recipe_says_where_it_comes_from(name: str) -> None:
    assert not untagged(FOLDER / name)


def test_the_recipes_look_at_examinations_and_never_mirror_a_breast() -> None:
    full, heads, smoke = (load_recipe(FOLDER / f"{name}.yaml") for name in ("full", "heads", "smoke"))
    for recipe in (full, heads, smoke):
        assert recipe.objective.views is not None
        assert recipe.objective.views.max == 4
        assert recipe.augment.flip == 0
    views = full.objective.views
    assert views is not None
    assert (views.image_text, views.images, views.texts, views.joint) == (1, 1, 0.5, 1)  # spec, section 6
    assert "breast_cancer_risk" in [head.task for head in heads.objective.supervised]


def test_the_full_recipe_can_begin_with_a_tower_that_normalises_batches_as_its_own_does(tmp_path: Path) -> None:
    shards = make_exam_shards(tmp_path / "shards")
    small = ["image_tower=test_efficientnet", "size_px=32", "embed_dim=16", "text_width=16", "text_heads=2"]
    changes = [f"data.shards={shards}", *(f"model.{value}" for value in small), "model.text_layers=1"]
    changes += ["text.vocab_size=300", "text.context_length=32", "train.precision=fp32", "train.batch_size=10"]
    recipe = load_recipe(FOLDER / "full.yaml", changes)
    assert recipe.train.micro_batch is not None
    Trainer(recipe, tmp_path / "run").data.close()


def test_the_smoke_run_trains_no_model_again_that_is_there_as_its_scores_are_of_that_very_pack() -> None:
    smoke = (FOLDER / "run.sh").read_text().split("table=")[0].splitlines()
    trainings = [line.strip() for line in smoke if "medclip pretrain $here" in line]
    assert len(trainings) == 2
    assert all(re.match(r'\[ -f "\$run/(pretrain|heads)/report\.html" \] \|\| medclip', line) for line in trainings)


@pytest.mark.nightly
def test_the_simulation_is_measured_in_small(programs: Programs, tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(FOLDER.parents[1]), "MEDCLIP_HOME": str(tmp_path / "home")}
    command = [programs.python, str(FOLDER / "measure.py"), str(tmp_path / "run"), "--tiny"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    table = (tmp_path / "run" / "table.md").read_text()
    for what in (
        "fused minus the better single view",
        "pretrained minus from nothing",
        "loss of known years minus oracle",
    ):
        assert what in table


def test_each_woman_of_the_shared_sets_is_tested_once_and_never_trained_on_then() -> None:
    code = (
        "import sys; from pathlib import Path; import real, measured_plan as plan\n"
        "rows = real.rows_of(Path(sys.argv[1]))\n"
        "tested = []\n"
        "for fold in range(plan.FOLDS):\n"
        "    split = {}\n"
        "    for row in real.divided(rows, fold):\n"
        "        assert split.setdefault(row['patient'], row['split']) == row['split']\n"
        "    tested += [woman for woman, name in split.items() if name == 'test']\n"
        "assert sorted(tested) == sorted({row['patient'] for row in rows})\n"
        "print(len(tested))\n"
    )
    data = Path(os.environ.get("MEDCLIP_SHARED", FOLDER.parents[2] / "shared")) / "data"
    if not (data / "cdd_cesm").is_dir():
        pytest.skip("no shared data beside the repository")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parents[1])])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(data)], env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) == 211 + 125 + 6
