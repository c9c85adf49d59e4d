"""pipelines/mae_cxr and pipelines/mae_all: who is trained on, who is held out, and what the recipes say."""

from __future__ import annotations

import csv
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from medclip.shards.writing.splits import split_of
from medclip.training.recipe.schema import load_recipe
from tests.kits.stages import load_stage

PIPELINES = Path(__file__).parents[2] / "pipelines"
ALL, CXR, MINI = (PIPELINES / name for name in ("mae_all", "mae_cxr", "mini"))
TAG = re.compile(r"#\s*(paper|code|ours)\b")
MAY_NOT = {
    *("covid_blues", "covid_ct", "text_openi", "text_roco", "field_dev", "synth_real", "endoslam_unity", "pocus_cine"),
}
NOT_YET = {"monuseg", "openstax_fig"}
"""Tiles of the slides of monuseg_he, and book figures, which are mostly drawings."""
SPLITS = {"train": 0.65, "val": 0.10, "test": 0.25}


def stage(folder: Path, name: str) -> ModuleType:
    return load_stage(folder, name)


@pytest.fixture(autouse=True)
def import_paths_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages put the folder of pipelines/mini in front; other pipelines have a stage of the same name."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("prepare", "shared_sets"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.shared
def test_the_joint_table_has_every_image_set_that_may_be_trained_on_and_no_other(shared: Path) -> None:
    joint = stage(ALL, "joint_table")
    rows = list(joint.rows(shared / "data"))
    with_images = {place.parent.name for place in (shared / "data").glob("*/labels.csv")} - {"ptbxl", "ptbxl_z"}
    texts = {name for name in with_images if name.startswith("text_")}
    assert {row["file"].split("/")[0] for row in rows} == with_images - texts - MAY_NOT - NOT_YET
    assert all(row["license"] and row["patient"] and row["source"] for row in rows)
    assert not [row for row in rows if "ND" in row["license"].replace("-", " ").split()]
    assert all((shared / "data" / row["file"]).is_file() for row in rows)


@pytest.mark.shared
def test_a_patient_that_medclip_mini_holds_out_is_held_out_of_the_pretraining_too(shared: Path) -> None:
    joint = stage(ALL, "joint_table")

    def sides(rows: list[dict[str, str]]) -> dict[str, str]:
        return {row["patient"]: row.get("split") or split_of(row["patient"], SPLITS, 0) for row in rows}

    here, mini = (sides(list(rows(shared / "data"))) for rows in (joint.rows, stage(MINI, "prepare").rows))
    assert {"nih:1301", "covid:g0468"} <= {patient for patient, side in here.items() if side == "test"}
    held_out_since = {patient for patient in here.keys() & mini.keys() if here[patient] != mini[patient]}
    assert {here[patient] for patient in held_out_since} == {"test"}
    assert all(patient.startswith("covid:") for patient in held_out_since), "sources are compared on their normal films"
    assert len(held_out_since) < 12
    assert {patient.split(":")[0] for patient in mini.keys() - here.keys()} == {"covid"}, "the CT slices of covid_cxr"


@pytest.mark.shared
def test_the_films_are_those_of_two_sets_and_nothing_but_x_rays(shared: Path) -> None:
    joint = stage(ALL, "joint_table")
    films = list(joint.rows(shared / "data", ("nih_cxr", "covid_cxr"), ("xray",)))
    assert {row["source"] for row in films} == {"nih_cxr", "covid_cxr"}
    assert {row["modality"] for row in films} == {"xray"}


@pytest.mark.shared
def test_the_table_is_written_and_a_set_that_is_not_there_is_named(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joint = stage(ALL, "joint_table")
    joint.main([str(shared / "data"), str(tmp_path / "t.csv"), "--sets", "breast_us"])
    with (tmp_path / "t.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{len(rows)} images of {len(rows)} patients")
    assert set(rows[0]) == set(joint.COLUMNS)
    assert "caption" not in rows[0]
    with pytest.raises(SystemExit):
        joint.main([str(shared / "data"), str(tmp_path / "t.csv"), "--sets", "breast_us,nih"])
    assert "no set is called nih" in capsys.readouterr().err


def test_nih_films_of_the_official_test_list_are_never_listed(tmp_path: Path) -> None:
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    write(tmp_path / "Data_Entry_2017.csv", header, "a.png,No Finding,0,1,50,M,PA", "b.png,Mass,0,2,60,F,AP")
    write(tmp_path / "train_val_list.txt", "a.png")
    write(tmp_path / "test_list.txt", "b.png")
    write(tmp_path / "images_001" / "images" / "a.png", "")
    (row,) = stage(CXR, "tables").nih(tmp_path)
    assert (Path(row["file"]).name, row["patient"], row["view"], row["sex"]) == ("a.png", "nih:1", "PA", "M")
    assert "images_001" in row["file"]


def test_of_chexpert_frontal_views_are_listed_with_the_patient_of_their_path(tmp_path: Path) -> None:
    write(
        tmp_path / "train.csv",
        "Path,Sex,Age,Frontal/Lateral,AP/PA",
        "CheXpert-v1.0-small/train/patient00007/study1/view1_frontal.jpg,Female,68,Frontal,AP",
        "CheXpert-v1.0-small/train/patient00007/study1/view2_lateral.jpg,Female,68,Lateral,",
    )
    (row,) = stage(CXR, "tables").chexpert(tmp_path)
    assert row["file"] == str(tmp_path / "train/patient00007/study1/view1_frontal.jpg")
    assert (row["patient"], row["sex"], row["view"]) == ("chexpert:patient00007", "F", "AP")


def test_of_mimic_frontal_views_of_the_training_split_are_listed(tmp_path: Path) -> None:
    write(
        tmp_path / "mimic-cxr-2.0.0-split.csv", "dicom_id,study_id,subject_id,split", "d1,5,1234,train", "d2,6,99,test"
    )
    write(
        tmp_path / "mimic-cxr-2.0.0-metadata.csv",
        "dicom_id,subject_id,study_id,ViewPosition",
        "d1,1234,5,AP",
        "d2,99,6,AP",
        "d3,1234,5,LATERAL",
    )
    (row,) = stage(CXR, "tables").mimic(tmp_path)
    assert row["file"] == str(tmp_path / "files/p12/p1234/s5/d1.jpg")


def test_films_that_are_not_on_disk_are_counted_and_a_set_without_any_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = stage(CXR, "tables")
    write(
        tmp_path / "train.csv",
        "Path,Sex,Age,Frontal/Lateral,AP/PA",
        "C/train/patient1/study1/view1_frontal.jpg,Female,68,Frontal,AP",
        "C/train/patient2/study1/view1_frontal.jpg,Male,60,Frontal,PA",
    )
    assert tables.main("chexpert", str(tmp_path), str(tmp_path / "out.csv")) == 1
    write(tmp_path / "train/patient1/study1/view1_frontal.jpg", "")
    assert tables.main("chexpert", str(tmp_path), str(tmp_path / "out.csv")) == 0
    assert "1 images written" in capsys.readouterr().out
    with (tmp_path / "out.csv").open(newline="") as f:
        assert [row["patient"] for row in csv.DictReader(f)] == ["chexpert:patient1"]


@pytest.mark.parametrize("name", ["full.yaml", "smoke.yaml"])
def test_each_value_of_a_recipe_for_films_says_where_it_comes_from(name: str) -> None:
    text = (CXR / name).read_text()
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    lines = text.splitlines()

    def bare(node: yaml.MappingNode, place: str = "") -> list[str]:
        keys = []
        for key, value in node.value:
            if isinstance(value, yaml.MappingNode):
                keys += bare(value, f"{place}{key.value}.")
            elif not TAG.search(lines[key.start_mark.line]):
                keys.append(f"{place}{key.value}")
        return keys

    assert not bare(root)


def test_the_full_recipe_for_films_has_the_published_values() -> None:
    recipe = load_recipe(CXR / "full.yaml")
    t, masked = recipe.train, recipe.objective.masked
    assert masked is not None
    assert (masked.ratio, masked.decoder, masked.normalise) == (0.9, "dec512d2", False)
    assert (t.epochs, t.batch_size, t.lr, t.betas, t.weight_decay) == (800, 2048, 1.2e-3, (0.9, 0.95), 0.05)
    assert t.lr == pytest.approx(1.5e-4 * t.batch_size / 256)
    assert t.warmup_steps == 40 * (266_340 // t.batch_size)
    assert recipe.augment.crop_scale == (0.5, 1.0)
    assert (recipe.augment.rotate_deg, recipe.augment.brightness, recipe.augment.contrast) == (0, 0, 0)


@pytest.mark.parametrize("name", ["mae_cxr/smoke", "mae_all/smoke", "mae_all/full"])
def test_the_small_recipes_hide_and_crop_as_the_full_one_does(name: str) -> None:
    full, recipe = (load_recipe(PIPELINES / f"{n}.yaml") for n in ("mae_cxr/full", name))
    here, there = recipe.objective.masked, full.objective.masked
    assert here is not None
    assert there is not None
    assert not recipe.needs_words
    assert (here.ratio, here.normalise, here.weight) == (there.ratio, there.normalise, there.weight)
    assert recipe.augment == full.augment
    assert (recipe.train.betas, recipe.train.weight_decay) == (full.train.betas, full.train.weight_decay)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The plan of the comparison, importable by its siblings under its own name."""
    monkeypatch.syspath_prepend(str(ALL))
    for name in ("joint_table", "comparison_plan", "comparison_table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("comparison_plan")
    monkeypatch.setitem(sys.modules, "comparison_plan", module)  # taken out again after the test
    return module


def test_every_run_of_the_comparison_has_a_name_of_its_own_and_a_rival(plan: ModuleType) -> None:
    cells = list(plan.cells())
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.share for cell in cells if cell.arm.longer} == {1.0}
    asked = {(c.how, c.question.set, c.share, c.arm.name, c.seed) for c in cells}
    for how, name, share, arm, seed in asked:
        if arm.startswith("mae_"):
            assert (how, name, share, "random", seed) in asked
            assert ("finetune", name, share, "cnn", seed) in asked
    steps = {(c.arm.name, c.share): c.steps for c in cells if c.how == "finetune"}
    assert steps["cnn", 1.0] == round(steps["random", 1.0] / plan.CNN_COST)
    assert steps["mae_all", 1.0] == steps["random", 1.0] == steps["random_longer", 1.0] / plan.LONGER


@pytest.mark.shared
def test_the_comparison_tests_on_patients_that_pretraining_never_sees(plan: ModuleType, shared: Path) -> None:
    joint = sys.modules["joint_table"]
    sides = {row["patient"]: row["split"] or split_of(row["patient"], SPLITS, 0) for row in joint.rows(shared / "data")}
    for question in plan.QUESTIONS:
        table = plan.labelled(question, shared / "data")
        assert {row.label for row in table} == set(question.classes)
        assert all(sides[row.patient] == row.split for row in table)
        assert {row.label for row in table if row.split == "test"} == set(question.classes)


@pytest.mark.shared
def test_a_tenth_of_the_labels_is_a_tenth_of_the_training_patients_of_each_class(
    plan: ModuleType, shared: Path
) -> None:
    table = plan.labelled(plan.QUESTIONS[0], shared / "data")
    few, others = (plan.learned_from(table, 0.1, seed) for seed in (0, 1))
    assert plan.learned_from(table, 0.1, 0) == few
    assert plan.learned_from(table, 1.0, 0) == table

    def patients(rows: list, split: str) -> set[str]:
        return {row.patient for row in rows if row.split == split}

    assert patients(few, "train") != patients(others, "train")
    assert 0.1 <= len(patients(few, "train")) / len(patients(table, "train")) < 0.12
    assert [row for row in few if row.split != "train"] == [row for row in table if row.split != "train"]


@pytest.mark.shared
def test_the_table_has_paired_differences_of_the_arms_whose_seeds_are_all_there(
    plan: ModuleType, shared: Path, tmp_path: Path
) -> None:
    table = importlib.import_module("comparison_table")
    question = plan.QUESTIONS[0]
    truth = np.array(
        [row.label == "pneumonia" for row in plan.labelled(question, shared / "data") if row.split == "test"]
    )
    rng = np.random.default_rng(0)
    for cell in plan.cells():
        if (cell.how, cell.question, cell.share) == ("probe", question, 0.1) and cell.arm.name in ("random", "mae_all"):
            score = truth * (2.0 if cell.arm.name == "mae_all" else 0.3) + rng.normal(size=len(truth))
            answer = {"cpu_s": 1.0, "num_train": 9, "logits": np.stack([-score, score], 1).tolist()}
            plan.store(tmp_path, cell, answer)
    measured = table.measure(shared / "data", tmp_path)
    assert [m["arm"] for m in measured] == ["random", "mae_all", "mae_all"]
    difference = measured[2]
    assert difference["minus"] == "random"
    assert difference["value"] == pytest.approx(measured[1]["value"] - measured[0]["value"])
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    lines = table.table_of(measured).splitlines()
    assert lines[2].startswith("| X-ray: pneumonia | linear probe | 10% | ViT, from nothing | 0.")
    assert "| ViT, MAE on all sets | ViT, from nothing | +0." in lines[-1]
    (tmp_path / "cells" / "probe-nih_cxr-mae_all-10-2.json").unlink()
    assert [m["arm"] for m in table.measure(shared / "data", tmp_path)] == ["random"]


def test_what_is_measured_is_pretrained_as_the_recipes_do_at_a_ratio_that_leaves_something_to_see(
    plan: ModuleType,
) -> None:
    recipe, full = (load_recipe(ALL / f"{name}.yaml") for name in ("measured", "full"))
    masked = recipe.objective.masked
    assert masked is not None
    assert (recipe.augment, recipe.train.betas) == (full.augment, full.train.betas)
    assert int((recipe.model.size_px // 16) ** 2 * (1 - masked.ratio)) == 12
    assert recipe.model.size_px == plan.SIZE_PX


def test_a_pretraining_that_was_stopped_is_not_taken_for_a_finished_one(
    plan: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medclip
    from medclip.training.result import PretrainResult

    compare = stage(ALL, "compare")
    stopped = PretrainResult(tmp_path, 3, 10, None, {})
    monkeypatch.setattr(medclip, "pretrain", lambda *_, **__: stopped)
    with pytest.raises(SystemExit, match="stopped"):
        compare.pretrain(compare.Place(tmp_path, tmp_path), "all", "all", {})
    assert not (tmp_path / "pretrain" / "all.json").exists()
