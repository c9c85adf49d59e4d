"""pipelines/ecg: recipes, PTB-XL's folds, and that the measurements run at all, with patients and labels held out."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medclip.shards.reading.samples import ShardReader
from medclip.training.recipe.schema import load_recipe
from tests.kits.ecg_cohort import FOLDER, write_cohort
from tests.kits.loaded_python import Programs
from tests.kits.recipe_tags import untagged

SHARED = Path(os.environ.get("MEDCLIP_SHARED", FOLDER.parents[2] / "shared")) / "data"
needs_shared = pytest.mark.skipif(not (SHARED / "ptbxl_z").is_dir(), reason="no shared data beside the repository")


def run(*command: object, home: Path, python: str = sys.executable) -> str:
    """Run Python in the pipeline's folder; return what it prints."""
    folders = os.pathsep.join([str(FOLDER), str(FOLDER.parent), str(FOLDER.parents[1])])
    env = os.environ | {"PYTHONPATH": folders, "MEDCLIP_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    arguments = [python, *map(str, command)]
    done = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", ["masked.yaml", "contrastive.yaml", "protocol.yaml"])
def test_each_value_of_a_recipe_says_where_it_comes_from(name: str) -> None:
    assert not untagged(FOLDER / name)


def test_the_recipes_go_from_hidden_tokens_over_reports_to_the_six_levels() -> None:
    masked, contrastive, protocol = (load_recipe(FOLDER / f"{n}.yaml") for n in ("masked", "contrastive", "protocol"))
    assert masked.objective.masked is not None
    assert masked.objective.contrastive == 0
    assert (contrastive.objective.temperature, contrastive.objective.contrastive) == (0.07, 2)  # spec, 3.5
    unimodal = contrastive.objective.unimodal
    assert unimodal is not None
    assert (unimodal.weight, unimodal.dropout) == (2, 0.1)
    levels = {f"ecg_{name}" for name in ("superclass", "subclass", "diagnostic", "form", "rhythm", "all")}
    assert {head.task for head in protocol.objective.supervised} == levels
    assert protocol.train.export == "best"
    assert protocol.data.test_split is None


def test_the_smoke_run_trains_no_model_again_that_is_there() -> None:
    trainings = [line.strip() for line in (FOLDER / "run.sh").read_text().splitlines() if "medclip pretrain" in line]
    assert len(trainings) == 2
    assert all(re.match(r'\[ -f "\$run/(masked|contrastive)/report\.html" \] \|\| medclip', line) for line in trainings)


def test_labelled_patients_are_drawn_whole_and_classes_are_asked_in_both_languages(tmp_path: Path) -> None:
    run("-c", _DRAWS, home=tmp_path)


_DRAWS = """
import numpy as np
from pathlib import Path
from few_labels import FewLabels
from records import macro_area, sentences_of
import measured_plan as plan

rows = [{"patient": f"p{n // 2}", "file": str(n)} for n in range(200)]
few = FewLabels(Path("x"), rows, Path(), Path(), b"", plan.LEVELS, {}, {}, plan.STEPS, 8, plan.RATES)
tenth, half = few.drawn(0.1, 3), few.drawn(0.5, 3)
assert few.num_patients(0.1) == 10 and len(tenth) == 20
files = {row["file"] for row in tenth}
assert files < {row["file"] for row in half}
assert files != {row["file"] for row in few.drawn(0.1, 4)}

norm, mi, *_ = sentences_of("ecg_superclass")
assert "Hinterwandinfarkt" in mi and "myocardial infarction" in mi
assert "Hinterwandinfarkt" not in norm
assert "Vorhofflimmern" in sentences_of("ecg_rhythm")[1]
assert "Hinterwandinfarkt" in sentences_of("ecg_all")[5]

truth = np.tile([[1.0, np.nan], [0.0, 0.0]], (8, 1))
scores = np.repeat(truth[None, :, :1], 2, axis=2)
area, num = macro_area(scores, truth, [str(n) for n in range(16)], 50)
assert num == 1 and area.value == 1.0
nothing, num = macro_area(np.zeros((1, 16, 2)), np.zeros((16, 2)), [str(n) for n in range(16)], 50)
assert nothing is None and num == 0
"""


@needs_shared
def test_each_patient_of_the_shared_parts_is_tested_once_and_is_in_one_split(tmp_path: Path) -> None:
    printed = run("-c", _FOLDS, SHARED, tmp_path, home=tmp_path)
    assert printed.split() == ["598", "1"]


_FOLDS = """
import sys
from pathlib import Path
import measured_plan as plan, real
from protocol import split_of
from ptbxl import write_table
from measuring import read_rows

rows = read_rows(write_table(Path(sys.argv[1]), Path(sys.argv[2])))
tested = []
for number in range(len(plan.DIVISIONS)):
    split = {}
    for row in real.divided(rows, number):
        assert split.setdefault(row["patient"], row["split"]) == row["split"]
    assert set(split.values()) == {"train", "val", "test"}
    tested += [patient for patient, name in split.items() if name == "test"]
patients = {row["patient"] for row in rows}
assert sorted(tested) == sorted(patients)
by_set = [{row["patient"] for row in rows if row["source"] == name} for name in ("ptbxl", "ptbxl_z")]
assert all(row["label:ecg_superclass:hyp"] == "" for row in rows if row["source"] == "ptbxl_z")
assert [split_of(fold) for fold in (1, 8, 9, 10)] == ["train", "train", "val", "test"]
print(len(patients), len(by_set[0] & by_set[1]))
"""


@pytest.mark.nightly
def test_the_simulation_is_measured_in_small_and_reads_no_label_before(programs: Programs, tmp_path: Path) -> None:
    table = run(FOLDER / "measure.py", tmp_path / "run", "--tiny", home=tmp_path / "home", python=programs.python)
    assert "| Diagnostic superclass | 5 | 4 |" in table
    assert "none: words" in table
    with ShardReader(tmp_path / "run" / "reports", "train") as reader:
        told = [reader.record(i)[0] for i in range(len(reader))]
    assert all(record.texts and not record.labels for record in told)
    again = run(FOLDER / "measure.py", tmp_path / "run", "--tiny", home=tmp_path / "home", python=programs.python)
    assert again.endswith(table[table.index("| macro AUC") :])


@pytest.mark.nightly
@needs_shared
def test_the_shared_parts_are_measured_in_small_and_reads_no_label_before(programs: Programs, tmp_path: Path) -> None:
    table = run(FOLDER / "real.py", SHARED, tmp_path / "run", "--tiny", home=tmp_path / "home", python=programs.python)
    for way in ("scratch, fine-tuned", "masked, fine-tuned", "contrastive, fine-tuned", "lens, probe", "lens, words"):
        assert way in table
    for name in ("reports-0", "unlabelled-0"):
        with ShardReader(tmp_path / "run" / name, "train") as reader:
            assert not any(reader.record(i)[0].labels for i in range(len(reader)))


@pytest.mark.slow
def test_the_protocol_runs_on_a_table_in_the_columns_of_ptbxl(programs: Programs, tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "cohort", 80, sampling_hz=100).parent
    table = run(
        FOLDER / "protocol.py",
        cohort / "ptbxl_database.csv",
        tmp_path / "run",
        "--tiny",
        home=tmp_path / "home",
        python=programs.python,
    )
    assert table.count("| ") > 20
    assert "| ECG statements | 71 (" in table
    with (tmp_path / "run" / "labels.csv").open(newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert [splits.count(name) for name in ("train", "val", "test")] == [64, 8, 8]
