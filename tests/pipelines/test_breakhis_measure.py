"""pipelines/breakhis/measure.py: what is trained, how rows are compared, and that all of it runs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.text.vocabulary.find_task import find_task
from medclip.training.recipe.schema import load_recipe
from tests.kits.breakhis import FOLDER, module_of
from tests.kits.loaded_python import Programs
from tests.kits.recipe_tags import untagged

measure, towers, tree, protocols, figures, plan = (
    module_of(n) for n in ("measure", "towers", "tree", "protocols", "figures", "measured_plan")
)


def division(tmp_path: Path, **options: Any) -> Any:
    """Return a division of 6 benign and 3 malignant patients with unequal numbers of images, and shards as if built."""
    images = []
    for n in range(9):
        subtype = tree.SUBTYPES[n % 2 if n < 6 else 4]
        images += [tree.BreakHisImage(f"{n}/{k}.png", f"S{n}", subtype, 40) for k in range(1 + n)]
    side = np.array(["val" if i.patient in ("S0", "S8") else "test" if i.patient == "S5" else "train" for i in images])
    one = towers.Division("40-0", tuple(images), side, tmp_path, tmp_path, **options)
    place = tmp_path / "shards" / "40-0"
    place.mkdir(parents=True)
    (place / "index.json").write_text("{}")
    return one


def test_each_value_of_the_recipe_says_where_it_comes_from() -> None:
    assert not untagged(FOLDER / "tower.yaml")


def test_the_tasks_have_the_classes_of_the_table_in_their_order() -> None:
    for task, path in towers.TASKS.items():
        assert tuple(c.name for c in find_task(path).classes) == towers.CLASSES[task]


def test_patients_are_drawn_equally_often_and_classes_too(tmp_path: Path) -> None:
    one = division(tmp_path)
    weights, sources = one.weights("malignancy"), one.sources()
    drawn = dict.fromkeys(weights, 0.0)
    for i in one.rows("train"):
        drawn[sources[i]] += weights[sources[i]]
    benign, malignant = ([drawn[f"p{n:03d}"] for n in numbers] for numbers in ((1, 2, 3, 4), (6, 7)))
    assert benign == pytest.approx([benign[0]] * 4)
    assert malignant == pytest.approx([malignant[0]] * 2)
    assert sum(benign) == pytest.approx(sum(malignant))
    assert set(drawn) == {"p001", "p002", "p003", "p004", "p006", "p007"}


def test_the_recipe_learns_the_classes_that_are_in_training_from_where_it_is_told(tmp_path: Path) -> None:
    one = division(tmp_path, overrides={"train": {"epochs": 3}})
    recipe = load_recipe(towers.recipe_of(one, "resnet50", "subtype", seed=5))
    (head,) = recipe.objective.supervised
    assert head.classes == ("adenosis", "fibroadenoma", "ductal_carcinoma")
    assert head.smoothing == plan.SMOOTHING
    assert (recipe.model.image_tower, recipe.model.image_weights) == ("resnet50", None)
    assert (recipe.train.lr, recipe.train.epochs, recipe.seed) == (plan.LR_SCRATCH, 3, 5)
    assert recipe.data.policy == "proportional"
    assert recipe.data.test_split is None


def test_the_usual_names_are_towers_of_timm_and_of_their_kind() -> None:
    assert {towers.kind_of(name) for name in plan.CNNS} == {"cnn"}
    assert {towers.kind_of(name) for name in plan.TRANSFORMERS} == {"transformer"}


def way(name: str, kind: str, right: float, val_rate: float, at: int = 40) -> Any:
    """Return a way that is right for a share of the images of 20 patients."""
    rng = np.random.default_rng(int(right * 100))
    truth_N = np.repeat(np.arange(20) % 2, 5)
    hits = rng.random(100) < right
    p_N = np.where(hits == (truth_N == 1), 0.9, 0.1)
    patients = tuple(f"P{n}" for n in np.repeat(np.arange(20), 5))
    tested = figures.Tested(patients, truth_N, np.log(np.stack([1 - p_N, p_N], axis=1)), np.zeros(100))
    return measure.Way(name, kind, "malignancy", "40", tested, np.full(100, at), val_rate)


def job(tmp_path: Path) -> Any:
    return measure.Plan(tmp_path, tmp_path, protocols.PROTOCOLS["patient_cv"], num_resamples=50)


def test_all_are_compared_with_the_cnn_that_validation_patients_chose_and_not_the_test(tmp_path: Path) -> None:
    ways = [way("a", "cnn", 0.95, 0.7), way("b", "cnn", 0.6, 0.9), way("c", "transformer", 0.8, 0.5)]
    rows = measure.rows_of_table(job(tmp_path), ways)
    assert "less_best_cnn" not in rows[1]
    apart = {row["way"]: row["less_best_cnn"]["prr"] for row in rows if "less_best_cnn" in row}
    assert {name: one["of"] for name, one in apart.items()} == {"a": "b", "c": "b"}
    prr = {row["way"]: row["figures"]["prr"]["value"] for row in rows}
    assert apart["c"]["value"] == pytest.approx(prr["c"] - prr["b"], abs=2e-4)


def test_a_way_of_all_magnifications_has_a_row_at_each_and_one_over_all(tmp_path: Path) -> None:
    one = way("a", "cnn", 0.9, 0.9)
    mixed = measure.Way(
        one.name, one.kind, one.task, "all", one.tested, np.array(tree.MAGNIFICATIONS)[np.arange(100) % 4], 0.9
    )
    b = way("b", "cnn", 0.8, 0.8)
    of_40 = mixed.magnification_N == 40
    b = measure.Way(b.name, b.kind, b.task, "40", b.tested.of(of_40), mixed.magnification_N[of_40], b.val_rate)
    rows = measure.rows_of_table(job(tmp_path), [mixed, b])
    assert [row["magnification"] for row in rows] == ["40", "100", "200", "400", "all", "40"]
    assert [row["images"] for row in rows] == [25, 25, 25, 25, 100, 25]
    table = measure.table_of(job(tmp_path), rows, [tree.BreakHisImage("a", "S1", "adenosis", 40)])
    assert "## malignancy, 400×" in table
    assert "95.15 %. Its split, its task (two classes or eight) and its magnification are not told" in table
    assert "WARNING" not in table


def test_a_table_of_random_images_carries_the_warning(tmp_path: Path) -> None:
    leaky = measure.Plan(tmp_path, tmp_path, protocols.PROTOCOLS["image_random"], num_resamples=20)
    rows = measure.rows_of_table(leaky, [way("a", "cnn", 0.9, 0.9)])
    assert protocols.LEAKAGE in measure.table_of(leaky, rows, [tree.BreakHisImage("a", "S1", "adenosis", 40)])


def test_thresholds_are_locked_on_the_validation_patients_of_each_division(tmp_path: Path) -> None:
    one = division(tmp_path)
    val, test = (np.zeros((len(one.rows(side)), 2)) for side in ("val", "test"))
    val[:, 1] = [0.5 if one.images[i].malignancy == "malignant" else -3 for i in one.rows("val")]
    tested, rate = measure.answers_of(one, "malignancy", val, test)
    assert tested.locked_N is not None
    assert tested.locked_N.tolist() == [0.5] * len(one.rows("test"))
    assert rate == 1.0


def test_the_baseline_answers_with_the_commonest_class_of_the_training_images(tmp_path: Path) -> None:
    one = division(tmp_path)
    ways = {way.task: way for way in measure.baseline_ways(job(tmp_path), [one], "40")}
    for task, chosen in (("malignancy", "malignant"), ("subtype", "ductal_carcinoma")):
        own = [getattr(one.images[i], task) for i in one.rows("train")]
        assert max(set(own), key=own.count) == chosen
        answered = ways[task].tested.scores_NC.argmax(axis=1)
        assert set(answered.tolist()) == {towers.CLASSES[task].index(chosen)}
    assert ways["malignancy"].tested.truth_N.tolist() == [0] * 6


@pytest.mark.nightly
def test_the_smoke_run_measures_towers_probes_and_descriptors_and_keeps_its_answers(
    programs: Programs, tmp_path: Path
) -> None:
    env = os.environ | {"MEDCLIP_HOME": str(tmp_path / "home"), "PYTHONPATH": str(FOLDER.parents[1])}
    env = programs.environment(env)
    command = ["bash", str(FOLDER / "run.sh"), "--smoke", str(tmp_path / "run")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("test_resnet", "test_vit", "colour, 1-NN", "LBP, GLCM, Gabor, logistic, standardised"):
        assert f"| {name} |" in done.stdout
    facts = json.loads((tmp_path / "run" / "measured" / "figures.json").read_text())
    assert facts["protocol"] == "patient_5fold_7030"
    assert "## malignancy, 40×" in done.stdout
    assert "## subtype, 40×" in done.stdout
    # Subtypes of a side are drawn alike: of four benign and four malignant ones a quarter is right by chance.
    [blind] = [row for row in facts["rows"] if (row["task"], row["way"]) == ("subtype", "the commonest class")]
    assert blind["figures"]["balanced_accuracy"]["value"] == pytest.approx(1 / blind["classes"], abs=0.1)
    [of_colour] = [row for row in facts["rows"] if (row["task"], row["way"]) == ("subtype", "colour, LDA")]
    assert of_colour["figures"]["balanced_accuracy"]["value"] < 0.5
    row = next(row for row in facts["rows"] if row["way"] == "test_vit")
    assert set(row["figures"]) >= {*figures.RATES, "ece"} - {"sensitivity", "specificity"}
    assert row["less_best_cnn"]["prr"]["of"] == "test_resnet"
    assert row["of_divisions"]["prr"]["sd"] >= 0
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=True)
    assert "malignancy\n" not in again.stdout.partition("|")[0]  # nothing was trained again
    assert again.stdout[again.stdout.index("| magnification") :] == done.stdout[done.stdout.index("| magnification") :]
