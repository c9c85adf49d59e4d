"""pipelines/unimed: the mix adds up, recipes are valid and say where each value is from, launch files can be read."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from medclip.evaluation.zero_shot.suite import load_suite
from medclip.shards.reading.foreign import read_packed
from medclip.training.recipe.schema import load_recipe
from tests.kits.evaluation import image
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "unimed"
TAG = re.compile(r"#\s*(paper|code|ours)\b")


def stage(name: str) -> ModuleType:
    return load_stage(FOLDER, name)


def leaves(node: yaml.Node, name: str = "") -> Iterator[tuple[str, int, int]]:
    """Give each key that holds a value, its first line and the last line of its value."""
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        place = f"{name}.{key.value}".lstrip(".")
        if isinstance(value, yaml.MappingNode):
            yield from leaves(value, place)
        else:
            yield place, key.start_mark.line, value.end_mark.line


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe_smoke.yaml"])
def test_each_value_of_a_recipe_says_where_it_comes_from(name: str) -> None:
    text = (FOLDER / name).read_text()
    lines = text.splitlines()
    bare = [place for place, start, _ in leaves(yaml.compose(text)) if not TAG.search(lines[start])]
    assert not bare
    assert len(list(leaves(yaml.compose(text)))) > 25


def test_the_recipe_is_that_of_the_paper_and_its_code() -> None:
    recipe = load_recipe(FOLDER / "recipe.yaml")
    train = recipe.train
    assert (train.epochs, train.batch_size, train.lr, train.warmup_steps) == (10, 2048, 5e-4, 2000)
    assert (train.betas, train.eps, train.weight_decay) == ((0.9, 0.98), 1e-6, 0.2)
    assert (train.schedule, train.clip_norm, train.max_bad_steps) == ("cosine", None, 0)
    assert recipe.augment.crop_scale == (0.9, 1.0)
    assert recipe.augment.flip == recipe.augment.hue == recipe.augment.rotate_deg == 0
    assert recipe.text.context_length == 256
    assert recipe.model.logit_scale == pytest.approx(1 / 0.07)
    assert len(recipe.data.shards) == 13
    assert [Path(p).name for p in recipe.data.shards] == [p.name for p in stage("prepare").read_parts()]


def measured(run: Path, seed: int, values: dict[str, float]) -> None:
    """What `medclip evaluate` leaves of a seed, as far as the summary reads it."""
    figure = {"balanced_accuracy": 0.3, "auroc": 0.5}
    sets = [
        {
            "id": name,
            "classes": ["a", "b"],
            "num_unseen": 40,
            "figures": {m: {"value": 1.0, "low": 1.0, "high": 1.0} for m in figure},
            "unseen": {m: {"value": value, "low": value - 0.1, "high": value + 0.1} for m in figure},
        }
        for name, value in values.items()
    ]
    folder = run / f"seed-{seed}" / "evaluate"
    folder.mkdir(parents=True)
    (folder / "evaluate.json").write_text(json.dumps({"sets": sets}))


def test_the_smoke_run_fails_where_the_worst_seed_is_below_the_floor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = stage("smoke_summary")
    floors = tmp_path / "floors.csv"
    floors.write_text("set,metric,floor\nchest,auroc,0.8\n")
    measured(tmp_path, 0, {"chest": 0.9})
    measured(tmp_path, 1, {"chest": 0.85})
    assert summary.main(tmp_path, floors) == 0
    assert "| chest | auroc | 40 | 0.90, 0.85 | 0.88 | 0.85 [0.75, 0.95] | 0.80 | 0.50 |" in capsys.readouterr().out
    measured(tmp_path, 2, {"chest": 0.79})
    assert summary.main(tmp_path, floors) == 1
    told = capsys.readouterr()
    assert "**below its floor**" in told.out
    assert "below the stated floor: chest" in told.err
    floors.write_text("set,metric,floor\nchest,auroc,0.8\nbrain,auroc,0.5\n")
    with pytest.raises(SystemExit, match="brain was measured with 0 of 3 seeds"):
        summary.main(tmp_path, floors)


def test_the_floors_of_the_smoke_run_are_of_sets_that_it_measures_and_above_chance() -> None:
    with (FOLDER / "floors_smoke.csv").open(newline="") as f:
        floors = {r["set"]: float(r["floor"]) for r in csv.DictReader(f)}
    sets = re.findall(r"--dataset (\S+)", (FOLDER / "run.sh").read_text())
    assert set(floors) == set(sets)
    assert all(floor > 0.6 for floor in floors.values())


def test_the_smoke_recipe_is_valid_and_keeps_the_optimiser() -> None:
    smoke, full = load_recipe(FOLDER / "recipe_smoke.yaml"), load_recipe(FOLDER / "recipe.yaml")
    for name in ("lr", "betas", "eps", "weight_decay", "clip_norm", "schedule"):
        assert getattr(smoke.train, name) == getattr(full.train, name)
    assert smoke.augment == full.augment
    assert smoke.train.device == "cpu"
    assert [Path(p).name for p in smoke.data.shards] == [
        p.name for p in stage("prepare").read_parts(FOLDER / "parts_smoke.csv")
    ]


def test_the_parts_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    prepare = stage("prepare")
    assert sum(part.pairs for part in prepare.read_parts()) == 5_282_000
    assert prepare.main(["check"]) == 0
    assert "5,282,000" in capsys.readouterr().out
    assert all(part.licence and part.access for part in prepare.read_parts())


def test_a_mix_that_lost_a_part_is_noticed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = stage("prepare")
    monkeypatch.setattr(prepare, "read_parts", lambda path: stage("prepare").read_parts()[1:])
    assert prepare.main(["check"]) == 1
    assert "4,233,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "means", "average"),
    [
        ("BiomedCLIP", [55.43, 22.87, 64.59, 43.99, 49.20, 54.50], 49.02),
        ("PMC-CLIP", [52.64, 25.84, 63.68, 66.06, 62.51, 53.56], 53.37),
        ("UniMed-CLIP ViT-B/16", [68.78, 31.23, 68.83, 85.54, 68.64, 59.96], 61.63),
    ],
)
def test_the_published_averages_follow_from_the_group_means(model: str, means: list[float], average: float) -> None:
    suite = load_suite("unimed")
    weights = [len(suite.members(g.id)) for g in suite.groups]
    assert weights == [2, 3, 2, 2, 4, 8]
    assert np.average(means, weights=weights) == pytest.approx(average, abs=0.005)
    row = f"| {model} | {' | '.join(f'{v:.2f}' for v in [*means, average])} |"
    assert row in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("name", ["run.sh", "launch/torchrun.sh", "launch/slurm.sbatch"])
def test_the_shell_files_can_be_parsed_and_stop_at_the_first_error(name: str) -> None:
    subprocess.run(["bash", "-n", str(FOLDER / name)], check=True)
    text = (FOLDER / name).read_text()
    assert "set -euo pipefail" in text
    for named in re.findall(r"pipelines/unimed/([\w./]+\.(?:py|yaml|sh|csv))", text):
        assert (FOLDER / named).exists(), named


def test_the_launch_files_ask_for_sixteen_gpus() -> None:
    torchrun = (FOLDER / "launch/torchrun.sh").read_text()
    assert "${NODES:-2}" in torchrun
    assert "${GPUS:-8}" in torchrun
    slurm = (FOLDER / "launch/slurm.sbatch").read_text()
    assert "--nodes=2" in slurm
    assert "--gpus-per-node=8" in slurm
    service, job = yaml.safe_load_all((FOLDER / "launch/kubernetes.yaml").read_text())
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def relative_paths() -> set[str]:
    """What recipe.yaml names relative to the working directory."""
    recipe = yaml.safe_load((FOLDER / "recipe.yaml").read_text())
    named = [*recipe["data"]["shards"], recipe["model"]["text_folder"]]
    return {name for name in named if not name.startswith("/")}


def test_each_relative_path_of_the_recipe_lies_under_a_mount() -> None:
    _, job = yaml.safe_load_all((FOLDER / "launch/kubernetes.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    mounts = [m["mountPath"] for m in container["volumeMounts"]]
    variables = {v["name"]: v["value"] for v in container["env"]}
    run = re.search(r"RUN=([\w./]+)", container["args"][0])
    assert run is not None
    places = {*relative_paths(), run[1], variables["HF_HOME"]}
    assert len(places) >= 15
    for place in places:
        whole = Path(container["workingDir"], place)
        assert any(whole.is_relative_to(mount) for mount in mounts), place


@pytest.mark.parametrize("name", ["launch/torchrun.sh", "launch/slurm.sbatch"])
def test_launches_start_where_the_recipes_paths_start(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert re.search(r'^cd "(\$\{SLURM_SUBMIT_DIR:-\.\}|\$\(dirname "\$0"\)/\.\./\.\./\.\.)"$', text, re.MULTILINE)
    shards = {Path(name).parent for name in relative_paths() if name.startswith("runs/")}
    assert shards == {Path("runs/unimed/shards")}
    assert "run=${RUN:-runs/unimed}" in text


@pytest.mark.parametrize(
    ("step", "requeued"),
    [("exit 0", False), ("exit 1", False), ("exit 2", False), ("exit 130", True), ("exit 143", True)],
)
def test_a_slurm_job_goes_back_into_the_queue_after_a_signal_and_not_after_an_error(
    tmp_path: Path, step: str, requeued: bool
) -> None:
    done, said = slurm(tmp_path, step)
    assert ("requeue 7" in said) is requeued
    assert done == int(step.split()[1])


def test_a_slurm_job_that_is_told_to_stop_hands_it_on_and_is_queued_again(tmp_path: Path) -> None:
    # What torchrun does: it ends with 1 after a signal.
    step = "touch stop_me; for i in $(seq 200); do [ -f stopped ] && exit 1; sleep 0.05; done"
    done, said = slurm(tmp_path, step)
    assert done == 1
    assert "--signal=TERM 7" in said
    assert "requeue 7" in said


def test_a_slurm_job_that_is_through_is_not_queued_again(tmp_path: Path) -> None:
    (tmp_path / "runs" / "unimed" / "train" / "pack").mkdir(parents=True)
    assert "requeue" not in slurm(tmp_path, "exit 143")[1]


def slurm(folder: Path, step: str) -> tuple[int, str]:
    """Run slurm.sbatch with stand-ins for Slurm; a step that makes `stop_me` gets its batch script a SIGTERM."""
    tools = folder / "bin"
    tools.mkdir()
    stands_in = {
        "python": "echo '[]'",
        "scontrol": 'echo "scontrol $*" >>said; [ "$1" != show ] || echo node1',
        "scancel": 'echo "scancel $*" >>said; touch stopped',
        "srun": step,
    }
    for name, body in stands_in.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_SUBMIT_DIR": str(folder),
    }
    environment.pop("RUN", None)
    job = subprocess.Popen(["bash", str(FOLDER / "launch/slurm.sbatch")], env=environment)
    for _ in range(400):
        if job.poll() is not None:
            break
        if (folder / "stop_me").exists():
            (folder / "stop_me").unlink()
            job.terminate()
        time.sleep(0.025)
    code = job.wait(timeout=10)
    return code, (folder / "said").read_text()


def test_the_shared_suite_is_valid() -> None:
    assert [part.id for part in load_suite(FOLDER / "suite_shared.yaml").sets] == [
        "brain_mri",
        "csdi_cataract",
        "mias_density",
        "nih_view",
        "nih_pneumonia",
    ]


def test_tars_are_indexed_tables_are_built_and_missing_parts_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, smoke = stage("prepare"), stage("smoke")
    data, out = tmp_path / "data", tmp_path / "out"
    image(data / "a.png", 1)
    rows = [
        {"file": str(data / "a.png"), "patient": "P", "modality": "xray", "license": "x", "label:chest_xray_view": "ap"}
    ]
    smoke.write_table(iter(rows), data / "nih_cxr")
    text = f"one{smoke.MARKER}two{smoke.MARKER}"
    smoke.write_tar(iter([((data / "a.png").read_bytes(), text)]), data / "csdi_fundus")
    parts = ["--parts", str(FOLDER / "parts_smoke.csv")]
    assert prepare.main(["shards", str(data), str(out), *parts]) == 0
    said = capsys.readouterr().out
    assert "brain_mri: MISSING" in said
    assert "nih_cxr: 1 sample," in said
    assert "csdi_fundus: 1 sample indexed" in said
    assert not list(out.rglob("000000.tar"))  # indexed where they lie
    with (out / "nih_cxr.captions.csv").open(newline="") as f:
        assert len(next(csv.DictReader(f))["captions"].split("\n")) >= 2
    assert prepare.main(["shards", str(data), str(out), *parts]) == 0
    assert "nih_cxr: kept" in capsys.readouterr().out
    assert prepare.main(["list", str(out), *parts]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == [str(out / "nih_cxr"), str(out / "csdi_fundus")]


def test_a_part_that_cannot_be_used_is_one_line_and_the_others_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = stage("smoke")
    data, out = tmp_path / "data", tmp_path / "out"
    image(data / "a.png", 1)
    (data / "brain_mri").mkdir()
    (data / "brain_mri" / "table.csv").write_text("file,patient,modality\na.png,P,brain\n")
    smoke.write_tar(iter([((data / "a.png").read_bytes(), "one")]), data / "csdi_fundus")
    assert stage("prepare").main(["shards", str(data), str(out), "--parts", str(FOLDER / "parts_smoke.csv")]) == 1
    said = capsys.readouterr().out.splitlines()
    (bad,) = [line for line in said if line.startswith("brain_mri: CANNOT BE USED")]
    assert "row 1: `modality` is 'brain'" in bad
    assert "csdi_fundus: 1 sample indexed, 0 left out" in said
    assert said[-1].startswith("1 of 3 parts are missing, 1 cannot be used")


def test_nothing_at_all_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stage("prepare").main(["shards", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "13 of 13 parts are missing" in capsys.readouterr().out


@pytest.mark.shared
def test_the_smoke_mix_leaves_patients_to_measure_on_and_packs_captions_as_unimed_does(
    shared: Path, tmp_path: Path
) -> None:
    smoke = stage("smoke")
    chests = list(smoke.chests(shared / "data"))
    taken = {row["patient"] for row in chests}
    with (shared / "data/nih_cxr/labels.csv").open(newline="") as f:
        known = {f"nih:{row['patient_id']}" for row in csv.DictReader(f)}
    assert 0.2 < len(taken) / len(known) < 0.6
    sizes = {part.name: part.pairs for part in stage("prepare").read_parts(FOLDER / "parts_smoke.csv")}
    assert len(chests) == sizes["nih_cxr"]
    assert len(list(smoke.brain(shared / "data"))) == sizes["brain_mri"]
    assert smoke.write_tar(smoke.packed(shared / "data"), tmp_path) == sizes["csdi_fundus"]
    with tarfile.open(tmp_path / "000000.tar") as tar:
        packed = read_packed(tar.extractfile("000000.txt").read().decode())
    assert packed.source == "all_retina_merged"
    assert len(packed.captions) == 4
