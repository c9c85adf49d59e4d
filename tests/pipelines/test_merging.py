"""pipelines/merging: whose images are learned and held out, which packs are compared, and a run of all stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from medclip.evaluation.shard_split import measure_split
from medclip.models.packs.pack import load_model
from medclip.shards.reading.samples import ShardReader
from medclip.statistics.metrics import classification
from medclip.statistics.resampling.resampled import Resampled
from medclip.statistics.resampling.weights import draw_weights
from medclip.training.batches.samples import Drawing
from medclip.training.recipe.schema import load_recipe
from tests.kits.loaded_python import Programs
from tests.kits.stages import load_stage

REPOSITORY = Path(__file__).parents[2]
LABELS = {
    "xray": "label:chest_xray_findings",
    "fundus": "label:fundus_cataract",
    "mri": "label:brain_mri_tumour",
    "mammography": "label:breast_density",
}
FOLDER = REPOSITORY / "pipelines" / "merging"


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("prepare", "modality_tables", "measuring", "paired", "measured_split", "shared_sets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return load_stage(FOLDER, "measure")


@pytest.mark.parametrize("name", ["start.yaml", "recipe.yaml"])
def test_the_recipes_are_valid(name: str) -> None:
    assert load_recipe(FOLDER / name).train.max_steps in (120, None)


def test_each_arm_sees_as_many_batches_of_a_modality_and_is_in_the_table(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes: dict[str, dict] = {}

    def trained(out: Path, recipe: dict) -> Path:
        recipes[out.name] = recipe
        load_recipe(recipe)
        return out

    monkeypatch.setattr(stage, "trained", trained)
    arms = stage.Arms(tmp_path, smoke=False)
    arms.joint()
    arms.continued("mammography", keep=True)
    arms.continued("mammography", keep=False)
    per_modality = {recipes[name]["train"]["max_steps"] for name in recipes if "_" in name}
    assert per_modality == {stage.STEPS}
    assert recipes["joint"]["train"]["max_steps"] == stage.STEPS * len(stage.MODALITIES)
    assert recipes["held_fundus"]["model"]["start"].endswith("held_xray")
    assert recipes["held_fundus"]["train"]["keep"] == {"method": "vr-lwf", "weight": 1.0}
    assert "keep" not in recipes["continued_fundus"]["train"]
    figure = {"value": 0.8, "low": 0.7, "high": 0.9}
    later = {"value": 0.6, "low": 0.5, "high": 0.7}
    figures = {name: dict.fromkeys(stage.MODALITIES, figure) for name in stage.packs_of(arms)}
    figures["continued"] = dict.fromkeys(stage.MODALITIES, later)
    table = stage.table_of(figures)
    assert "| continued | 0.600 (0.500 to 0.700) |" in table
    assert table.count("−0.200") == 1
    assert table.count("+0.000") == len(sys.modules["paired"].ONE_BY_ONE) - 1
    assert " up to " not in table


def areas(stage: ModuleType, quality: dict[str, float], seed: int = 3) -> dict[str, Resampled]:
    """Areas of one arm: 80 patients a modality, scores that know the answer as well as `quality` says."""
    made = {}
    for place, modality in enumerate(stage.MODALITIES):
        rng = np.random.default_rng(seed + place)
        truth = np.arange(80) % 2
        noise = rng.normal(size=80)
        scores = np.column_stack([-quality[modality] * truth - noise, quality[modality] * truth + noise])
        test = classification.HeldOut(truth, np.arange(80), 2)
        weights = draw_weights(80, 400, seed=place)
        made[modality] = classification.figures(scores[None], test, weights, ["macro_auroc"])["macro_auroc"]
    return made


def test_arms_are_compared_on_the_same_resamples_of_patients(stage: ModuleType) -> None:
    paired = sys.modules["paired"]
    good, bad = dict.fromkeys(stage.MODALITIES, 1.5), dict.fromkeys(stage.MODALITIES, 1.3)
    arms = {"continued": areas(stage, bad), "continued, VR-LwF": areas(stage, good)}
    compared = paired.differences(arms)
    assert set(compared) == {"continued, VR-LwF less continued"}, "arms that were not measured are left out"
    apart = compared["continued, VR-LwF less continued"]
    means = [np.mean([one.value for one in arm.values()]) for arm in arms.values()]
    assert apart["value"] == pytest.approx(means[1] - means[0], abs=1e-4)
    assert apart["low"] > 0, "the same patients: what they have in common takes no part in the interval"
    others = {"continued": areas(stage, bad), "continued, VR-LwF": areas(stage, good, seed=30)}
    unpaired = paired.differences(others)["continued, VR-LwF less continued"]
    assert unpaired["high"] - unpaired["low"] > 2 * (apart["high"] - apart["low"])
    assert f"| continued, VR-LwF less continued | +{apart['value']:.3f} (+" in paired.table_of(compared)


def test_backward_transfer_compares_each_modality_with_the_pack_that_had_just_learned_it(stage: ModuleType) -> None:
    paired = sys.modules["paired"]
    then, now = dict.fromkeys(stage.MODALITIES, 2.0), dict.fromkeys(stage.MODALITIES, 2.0) | {"xray": 0.0}
    arms = {"OPCM": areas(stage, now)}
    for modality in stage.MODALITIES[:-1]:
        # A modality that has not come yet is known to be worthless: it must not be what the end is compared with.
        later = stage.MODALITIES[stage.MODALITIES.index(modality) + 1 :]
        arms[f"OPCM up to {modality}"] = areas(stage, then | dict.fromkeys(later, 0.0))
    moved = paired.differences(arms)["backward transfer of OPCM"]
    lost = arms["OPCM"]["xray"].value - arms["OPCM up to xray"]["xray"].value
    assert lost < -0.3
    assert moved["value"] == pytest.approx(lost / 3, abs=1e-4)
    assert moved["high"] < 0
    del arms["OPCM up to fundus"]
    assert paired.differences(arms) == {}


@pytest.mark.shared
def test_tables_have_one_modality_each_and_those_of_the_start_name_no_finding(stage: ModuleType, shared: Path) -> None:
    tables = sys.modules["modality_tables"].tables(shared / "data", 50)
    assert set(tables) == {*stage.MODALITIES, "start"}
    for name in stage.MODALITIES:
        assert {row["modality"] for row in tables[name]} == {name}
        assert len(tables[name]) == 50
        labelled = {
            row["source"] for row in tables[name] if any(v for k, v in row.items() if k.startswith(LABELS[name]))
        }
        assert len(labelled) == 1, "over several sources an area may be that of a score of the source"
        assert any(value for row in tables[name] for key, value in row.items() if key.startswith("label:"))
    assert not [key for row in tables["start"] for key in row if key.startswith("label:")]


@pytest.mark.shared
@pytest.mark.nightly
def test_the_smoke_run_goes_through_all_stages(shared: Path, programs: Programs, tmp_path: Path) -> None:
    environment = programs.environment(os.environ) | {
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "MEDCLIP_HOME": str(tmp_path / "home"),
    }
    command = [str(FOLDER / "run.sh"), "--smoke", str(shared / "data"), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / "run" / "figures.json").read_text())
    for arm in ("joint", "soup", "greedy soup", "OPCM", "continued", "continued, VR-LwF"):
        assert all(0 <= figures[arm][name]["value"] <= 1 for name in ("xray", "fundus", "mri")), arm
    pack = tmp_path / "run" / "packs" / "joint" / "pack"
    model = load_model(pack)
    with ShardReader([tmp_path / "run" / "shards" / "mri"], "test") as reader:
        split = measure_split(model, reader, Drawing(model.preprocess, 0, None, 0.0, 0.0), num_resamples=20)
    elsewhere = split.figures["brain_mri_tumour"]["macro_auroc"]["value"]
    assert figures["joint"]["mri"]["value"] == pytest.approx(elsewhere, abs=1e-3), "what a card of the pack would say"
    compared = json.loads((tmp_path / "run" / "differences.json").read_text())
    if "OPCM less soup" in compared:  # of 60 rows a modality one may have no area
        means = [np.mean([of["value"] for of in figures[arm].values()]) for arm in ("soup", "OPCM")]
        assert compared["OPCM less soup"]["value"] == pytest.approx(means[1] - means[0], abs=2e-3)
