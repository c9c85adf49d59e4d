"""pipelines/fairness_audit: published tables become label tables, the whole design runs on what is there."""

from __future__ import annotations

import csv
import hashlib
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import expand

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "pipelines" / "fairness_audit"
_DRAWN = runpy.run_path(str(FOLDER / "simulate.py"))
FINDINGS, table, mimic_tables, nih_tables = (_DRAWN[n] for n in ("FINDINGS", "table", "mimic_tables", "nih_tables"))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch):
    """Load a script of the pipeline as Python runs it: with its own folder first on the path."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.delitem(sys.modules, "published_tables", raising=False)
    return lambda name: runpy.run_path(str(FOLDER / f"{name}.py"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def test_race_is_mapped_as_the_script_states(stage):
    race_of, one_race = (stage("mimic")[name] for name in ("race_of", "one_race"))
    assert race_of("WHITE - RUSSIAN") == "White"
    assert race_of("BLACK/AFRICAN AMERICAN") == "Black"
    assert race_of("ASIAN - CHINESE") == "Asian"
    assert race_of("HISPANIC/LATINO - CUBAN") == "Hispanic"
    assert race_of("AMERICAN INDIAN/ALASKA NATIVE") == "Other"
    assert not any(map(race_of, ("", "UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER")))
    assert one_race(["WHITE", "UNKNOWN", "WHITE - BRAZILIAN"]) == "White"
    assert one_race(["WHITE", "ASIAN"]) == ""


def test_the_age_is_that_at_the_image(stage):
    age_at = stage("mimic")["age_at"]
    assert age_at("52", "2180", "21830101") == "55"
    assert age_at("", "2180", "21830101") == ""


def test_mimic_tables_become_one_label_table_with_links_to_the_images(stage, tmp_path: Path, capsys):
    splits = mimic_tables(tmp_path / "mimic", 12, images=True)
    assert stage("mimic")["main"](str(tmp_path / "mimic"), str(tmp_path / "out" / "mimic.csv")) == 0
    rows = read(tmp_path / "out" / "mimic.csv")
    assert len(rows) == sum(s["split"] in ("test", "validate") for s in splits)
    assert {r["split"] for r in rows} == {"test", "val"}
    first = rows[0]
    assert first["patient"] == "10000000"
    assert (first["sex"], first["race"], first["age"], first["portable"]) == ("F", "Black", "23", "0")
    assert {r["race"] for r in rows} == {"Black", "White"}
    labels = {r["study_id"]: r for r in read(tmp_path / "mimic" / "mimic-cxr-2.0.0-chexpert.csv")}
    assert all(r[name] == labels[r["study"]][name] for r in rows for name in FINDINGS)  # -1 and blank stay
    assert all((tmp_path / "out" / "mimic" / r["file"]).read_bytes() for r in rows)
    assert "no mimic_cxr_sectioned.csv" in capsys.readouterr().out


def test_only_studies_with_a_findings_text_stay_where_reports_were_cut_up(stage, tmp_path: Path):
    mimic_tables(tmp_path, 12)
    table(
        tmp_path / "mimic_cxr_sectioned.csv",
        [
            {"study": "s50000000", "impression": "", "findings": "Clear."},
            {"study": "s50000001", "impression": "x", "findings": " "},
        ],
    )
    assert stage("mimic")["main"](str(tmp_path), str(tmp_path / "out.csv")) == 0
    assert {r["study"] for r in read(tmp_path / "out.csv")} == {"50000000"}


def test_a_table_that_is_not_there_is_named_and_one_of_another_form_is_refused(stage, tmp_path: Path, capsys):
    assert stage("mimic")["main"](str(tmp_path), str(tmp_path / "out.csv")) == 1
    assert "mimic: left out:" in capsys.readouterr().out
    assert stage("nih")["main"](str(tmp_path), str(tmp_path / "out.csv")) == 1
    assert "test_list.txt" in capsys.readouterr().out
    mimic_tables(tmp_path, 4)
    table(tmp_path / "mimic-cxr-2.0.0-chexpert.csv", [{"subject_id": "1", "study_id": "2"}])
    with pytest.raises(SystemExit, match="no column Atelectasis"):
        stage("mimic")["main"](str(tmp_path), str(tmp_path / "out.csv"))


def test_nih_tables_become_one_label_table_with_drains(stage, tmp_path: Path):
    nih_tables(tmp_path / "nih", 100)
    place = tmp_path / "nih" / "images_002" / "images" / "00000002_000.png"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"an image")
    assert stage("nih")["main"](str(tmp_path / "nih"), str(tmp_path / "out" / "nih.csv")) == 0
    rows = read(tmp_path / "out" / "nih.csv")
    assert {r["Drain"] for r in rows} == {"1", "0", ""}  # -1 is not known
    tested = {r["patient"] for r in rows if r["split"] == "test"}
    chosen = {r["patient"] for r in rows if r["split"] == "val"}
    assert len(tested) == 50
    assert chosen
    assert not tested & chosen
    entries = {r["Image Index"]: r["Finding Labels"] for r in read(tmp_path / "nih" / "Data_Entry_2017.csv")}
    assert all((r["Pneumothorax"] == "1") == ("Pneumothorax" in entries[Path(r["file"]).name]) for r in rows)
    (here,) = [r for r in rows if r["file"].startswith("images_002")]
    assert (tmp_path / "out" / "nih" / here["file"]).read_bytes() == b"an image"


def test_tubes_without_a_column_of_drains_are_refused_with_the_columns_there_are(stage, tmp_path: Path):
    nih_tables(tmp_path, 4)
    table(tmp_path / "neatx.csv", [{"image_id": "a.png", "NGT": 1}])
    with pytest.raises(SystemExit, match="it has: image_id, NGT"):
        stage("nih")["main"](str(tmp_path), str(tmp_path / "out.csv"))


def test_the_prompts_are_the_published_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDCLIP_TASKS", str(FOLDER / "tasks"))
    prompts = expand(load_task("cxr_fairness"))
    assert [p.positive for p in prompts] == [(f"Chest {name}",) for name in FINDINGS]
    assert {p.negative for p in prompts} == {("Chest No findings",)}


def test_the_published_figures_are_whole_and_their_means_follow_from_them():
    rows = read(FOLDER / "published.csv")
    models = [r["name"] for r in read(FOLDER / "models.csv")]
    assert len(rows) == len({tuple(r.values())[:6] for r in rows}) == len(models) * (6 * 2 + 2 + 10 + 6)
    assert {r["model"] for r in rows} == set(models)
    for model in models:
        for metric in ("auroc", "auprc_adjusted"):
            of_labels = {
                r["label"]: float(r["published"])
                for r in rows
                if (r["set"], r["model"], r["metric"], r["attribute"]) == ("mimic", model, metric, "all")
            }
            mean = of_labels.pop("mean of six")
            assert len(of_labels) == 6
            assert sum(of_labels.values()) / 6 == pytest.approx(mean, abs=0.011)  # all are rounded to two digits


def test_the_whole_design_runs_on_the_scores_that_are_there(tmp_path: Path):
    data, out = tmp_path / "data", tmp_path / "out"
    _DRAWN["main"](str(data))
    shutil.rmtree(data / "nih")
    run = ["bash", str(FOLDER / "run.sh"), str(data), str(out)]
    environment = os.environ | {"OPTIONS": "--num-resamples 100 --num-permutations 100"}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nih: left out:" in done.stdout
    assert "mimic: BioViL is not here: neither" in done.stdout
    rows = read(out / "summary.csv")
    assert {r["model"] for r in rows} == {"MedCLIP", "CheXzero"}
    assert {r["set"] for r in rows} == {"mimic"}
    overall = {
        r["model"]: r for r in rows if r["label"] == "Pneumonia" and r["metric"] == "auroc" and r["group"] == "all"
    }
    assert float(overall["MedCLIP"]["here"]) > float(overall["CheXzero"]["here"]) + 0.1
    assert float(overall["MedCLIP"]["low"]) < float(overall["MedCLIP"]["here"]) < float(overall["MedCLIP"]["high"])
    means = {r["note"] for r in rows if r["label"] == "mean of six" and r["group"] == "all"}
    assert means == {"4 of 6 labels have no figure here"}
    assert "| mimic | MedCLIP | Pneumonia | all | auroc | 0.74 |" in (out / "summary.md").read_text()
    assert (out / "audit" / "mimic" / "report.html").is_file()
    assert {r["model"] for r in read(out / "audit" / "mimic" / "models.csv")} == {"MedCLIP"}


def test_a_mean_over_labels_is_ours_over_the_same_labels(stage):
    mean_of = stage("summary")["mean_of"]
    place = ("M", "all", "all", "auroc")
    found = {("M", label, *place[1:]): {"value": v} for label, v in (("a", "0.5"), ("b", "0.75"), ("c", ""))}
    assert mean_of(found, "ab", *place) == {"value": "0.625"}
    assert mean_of(found, "abc", *place) == {"note": "1 of 3 labels have no figure here"}


def test_strata_of_the_drain_stand_beside_the_published_ones(stage, tmp_path: Path):
    test = {"model": "MedCLIP", "label": "Pneumothorax", "test": "Drain: positives with and without the device"}
    more = {"metric": "auroc", "low": "", "high": "", "n": "90", "n_pos": "20", "note": ""}
    strata = [{**test, **more, "stratum": s, "value": v} for s, v in (("with device", 0.9), ("without device", 0.8))]
    matched = {**strata[0], "test": f"{test['test']}, same patients", "value": 0.1}
    table(tmp_path / "audit" / "nih" / "shortcuts.csv", [*strata, matched])
    table(tmp_path / "audit" / "nih" / "metrics.csv", [dict.fromkeys(stage("summary")["PLACE"], "x") | {"value": ""}])
    assert stage("summary")["main"](str(tmp_path)) == 0
    rows = {(r["group"], r["metric"]): r for r in read(tmp_path / "summary.csv")}
    assert (rows["with device", "auroc"]["published"], rows["with device", "auroc"]["here"]) == ("0.91", "0.9")
    assert rows["without device", "auroc"]["here"] == "0.8"
    assert rows["all", "auroc"]["note"] == "no such group or label here"


def test_nothing_audited_is_a_failure(stage, tmp_path: Path, capsys):
    assert stage("summary")["main"](str(tmp_path)) == 1
    assert "nothing was audited" in capsys.readouterr().out


def test_the_shell_file_can_be_parsed_stops_at_the_first_error_and_names_files_that_exist():
    subprocess.run(["bash", "-n", str(FOLDER / "run.sh")], check=True)
    text = (FOLDER / "run.sh").read_text()
    assert "set -euo pipefail" in text
    for named in ("mimic.py", "nih.py", "shared.py", "summary.py", "models.csv", "tasks/cxr_fairness.yaml"):
        assert (FOLDER / named).is_file()


def test_without_the_shared_sets_one_sentence_says_so(tmp_path: Path):
    run = ["bash", str(FOLDER / "run.sh"), "--shared", str(tmp_path), str(tmp_path / "run")]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("has no nih_cxr/labels.csv: name the folder of the shared sets")
    assert not (tmp_path / "run").exists()


def shared_sets(root: Path) -> dict[str, str]:
    """Write the two shared sets in small, and shards' samples; give the split of each NIH file."""
    rows, splits, samples = [], {}, []
    for n in range(9):
        for visit in range(2):
            file = f"images/{n:03}_{visit}.jpg"
            content = f"image {n} {visit}".encode()
            (root / "nih_cxr" / file).parent.mkdir(parents=True, exist_ok=True)
            (root / "nih_cxr" / file).write_bytes(content)
            splits[file] = ("train", "val", "test")[n % 3]
            samples.append((hashlib.sha256(content).hexdigest(), splits[file]))
            finding = {
                name: str(n % 2) for name in runpy.run_path(str(FOLDER.parent / "mini/prepare.py"))["NIH_FINDINGS"]
            }
            rows.append(
                {"file": file, "patient_id": n, "follow_up": visit, "age": 50, "sex": "F", "view": "PA", **finding}
            )
    table(root / "nih_cxr" / "labels.csv", rows)
    common = {"age": "40", "sex": "M", "clinical_notes": ""}
    kinds = (
        ("COVID-19", "PA", "X-ray", "CC BY"),
        ("SARS", "AP", "X-ray", "CC BY"),
        ("COVID-19", "L", "X-ray", "CC BY"),
        ("todo", "PA", "X-ray", "CC BY"),
        ("COVID-19", "Axial", "CT", "CC BY"),
        ("COVID-19", "PA", "X-ray", "CC BY-NC-ND"),
    )
    table(
        root / "covid_cxr" / "labels.csv",
        [
            {"file": f"images/{i}.jpg", "group_id": i, "finding": f, "view": v, "modality": m, "license": c, **common}
            for i, (f, v, m, c) in enumerate(kinds)
        ],
    )
    for i in range(len(kinds)):
        content = f"film {i}".encode()
        place = root / "covid_cxr" / "images" / f"{i}.jpg"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
        samples.append((hashlib.sha256(content).hexdigest(), "train"))
    shards = root / "shards"
    shards.mkdir()
    digests, sides = zip(*samples, strict=True)
    pq.write_table(pa.table({"sha256": digests, "split": sides}), shards / "samples.parquet")
    return splits


def test_the_shared_tables_keep_the_division_of_the_shards_and_no_val_patient_gives_a_shot(stage, tmp_path: Path):
    splits = shared_sets(tmp_path)
    stage("shared")["main"](str(tmp_path), str(tmp_path / "shards"), str(tmp_path / "out"))
    rows = read(tmp_path / "out" / "nih.csv")
    assert {r["file"]: r["split"] for r in rows} == splits
    assert {r["patient"] for r in rows} == {f"nih:{n}" for n in range(9)}  # as medclip-mini's training names them
    shots = read(tmp_path / "out" / "shots.csv")
    assert {r["split"] for r in shots} == {"train", "test"}
    assert all(splits[r["file"]] == r["split"] for r in shots)
    assert [(r["file"], r["COVID-19"], r["split"]) for r in read(tmp_path / "out" / "covid.csv")] == [
        ("images/0.jpg", "1", "train"),
        ("images/1.jpg", "0", "train"),
    ]


def test_a_division_that_tears_a_patient_apart_is_refused(stage):
    check = stage("shared")["check"]
    whole = [{"patient": str(n), "split": s} for n, s in enumerate(("train", "val", "test"))]
    check(whole)
    with pytest.raises(SystemExit, match="1 patients are in more than one split"):
        check([*whole, {"patient": "0", "split": "test"}])
    with pytest.raises(SystemExit, match="no split test"):
        check(whole[:2])
