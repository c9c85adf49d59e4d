"""pipelines/clip_svd: the protocol as recorded, tables on the base's own division, and both harmonic means."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from medclip.evaluation.few_shot.protocol import parse_variant
from tests.kits.stages import load_stage

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "pipelines" / "clip_svd"


def stage(name: str) -> ModuleType:
    return load_stage(FOLDER, name)


def suite(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def test_the_protocol_has_ten_sets_with_classes_that_become_tasks():
    sets = suite("biomedical")["sets"]
    assert len(sets) == 10
    assert [len(s["classes"]) for s in sets] == [4, 3, 8, 4, 4, 5, 8, 5, 4, 4]
    for part in sets:
        task = stage("measure").task_of(part, part["template"])
        assert [c.title for c in task.classes] == part["classes"]
        assert task.templates == (part["template"],)
    assert [s["id"] for s in sets if "base_to_novel" not in s] == ["BUSI"]


def test_rates_and_epochs_become_options_of_clip_svd():
    measure, protocol = stage("measure"), suite("biomedical")
    kidney = next(s for s in protocol["sets"] if s["id"] == "CTKidney")
    few = parse_variant(measure.svd_options(kidney, protocol["svd"], "few_shot"))
    assert few.options["lr"] == 0.001
    assert few.options["steps"] == 200 * 2  # 64 shots in batches of 32
    assert few.options["layers"] == "all"
    assert (
        parse_variant(measure.svd_options(kidney, protocol["svd"], "base_to_novel")).options["layers"] == "top+middle"
    )


def test_for_novel_classes_only_methods_with_an_answer_are_asked():
    chosen = stage("measure").chosen_methods(
        ["ridge", "zero-shot", "svd", "coop"], "svd:lr=1.0", quick=False, novel=True
    )
    assert set(chosen) == {"zero-shot", "svd:lr=1.0", "coop"}
    quick = stage("measure").chosen_methods(None, "svd", quick=True, novel=False)
    assert "svd" not in quick
    assert "ridge" in quick


def test_class_folders_become_a_table_and_absent_sets_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("benign_tumor", "malignant tumor", "normal scan"):
        (tmp_path / "BUSI" / name).mkdir(parents=True)
        (tmp_path / "BUSI" / name / "1.png").write_bytes(b"x")
    found = dict(stage("measure").jobs(suite("biomedical"), tmp_path, [], False))
    assert set(found) == {"BUSI"}
    assert found["BUSI"]["patient"] == "file"
    rows = list(csv.DictReader((tmp_path / "BUSI" / "labels.csv").read_text().splitlines()))
    assert {r["label"] for r in rows} == {"benign tumor", "malignant tumor", "normal scan"}
    assert "BTMRI: not here" in capsys.readouterr().err


def figure(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def sides(base: dict[str, Any], novel: dict[str, Any], hm: dict[str, Any] | None = None) -> dict[str, Any]:
    b, n = base["value"], novel["value"]
    return {"base": base, "novel": novel, "hm_of_means": hm or figure(2 * b * n / (b + n))}


def test_harmonic_means_by_both_definitions():
    both = stage("summary").both_harmonic_means
    one = both([sides(figure(0.8264), figure(0.7431))])
    assert one["hm_of_means"]["value"] == pytest.approx(0.7825, abs=1e-4)
    assert one["mean_of_hms"] == one["hm_of_means"]
    found = both([sides(figure(0.9), figure(0.3)), sides(figure(0.5), figure(0.7))])
    assert found["hm_of_means"]["value"] == pytest.approx(2 * 0.7 * 0.5 / 1.2, abs=1e-4)
    assert found["mean_of_hms"]["value"] == pytest.approx((0.45 + 0.7 / 1.2) / 2, abs=1e-4)
    assert found["mean_of_hms"]["value"] < found["hm_of_means"]["value"]
    assert found["hm_of_means"]["low"] is None


def test_both_harmonic_means_have_intervals():
    part = sides(figure(0.8, 0.7, 0.85), figure(0.8, 0.7, 0.85), figure(0.8, 0.72, 0.84))
    one = stage("summary").both_harmonic_means([part])
    assert (one["hm_of_means"]["low"], one["hm_of_means"]["high"]) == (0.72, 0.84)  # as on the set's page
    two = stage("summary").both_harmonic_means([part, part])
    assert two["mean_of_hms"]["low"] == pytest.approx(0.8 - 0.08 / 2**0.5, abs=1e-4)
    # base and novel count half each here, and are taken to err together
    assert two["hm_of_means"]["low"] == pytest.approx(0.8 - 0.1 / 2**0.5, abs=1e-4)
    assert two["hm_of_means"]["high"] == pytest.approx(0.8 + 0.05 / 2**0.5, abs=1e-4)


def test_the_interval_of_a_mean_is_lopsided_as_the_sets_are_stays_inside_and_is_missing_where_any_is():
    mean_of = stage("summary").mean_of
    found = mean_of([figure(0.5, 0.3, 0.6), figure(0.7, 0.5, 0.8)])
    assert found["value"] == 0.6
    assert found["low"] == pytest.approx(0.6 - 0.2 / 2**0.5, abs=1e-4)
    assert found["high"] == pytest.approx(0.6 + 0.1 / 2**0.5, abs=1e-4)
    wide = mean_of([figure(0.9, 0.0, 1.9)])
    assert (wide["low"], wide["high"]) == (0.0, 1.0)
    assert mean_of([figure(0.5, -1.5, 0.6)], (-1.0, 1.0))["low"] == -1.0
    lacking = mean_of([figure(0.5, 0.3, 0.6), figure(0.5)])
    assert (lacking["value"], lacking["low"], lacking["high"]) == (0.5, None, None)


def result(value: float, primary: str = "balanced_accuracy", novel: bool = False) -> dict[str, Any]:
    around = figure(value, value - 0.1, value + 0.1)
    cells = [{"method": "svd:lr=0.1", "metric": m, **around} for m in dict.fromkeys((primary, "macro_auroc"))]
    side = {"method": "svd", **sides(around, around, around)}
    return {
        "primary": primary,
        "cells": [c | {"shots": k} for c in cells for k in (4, None)],
        "differences": [c | {"shots": None, "reference": "zero-shot"} for c in cells],
        "novel_classes": ["x"] if novel else [],
        "novel": [
            side | {"metric": m} | (sides(figure(0.0), figure(1.0), figure(0.0)) if m == "accuracy" else {})
            for m in ("accuracy", primary)
        ]
        if novel
        else [],
    }


def test_means_over_sets_have_narrower_intervals_and_need_every_set():
    summary = stage("summary")
    found = summary.summarise({"a": result(0.5), "b": result(0.7), "c-novel": result(0.6, novel=True)})
    of_metric = found["metrics"]["balanced_accuracy"]
    mean = of_metric["means"]["svd"]["mean"]
    assert mean["value"] == 0.6
    assert mean["high"] - mean["value"] == pytest.approx(0.1 / 2**0.5, abs=1e-4)
    assert of_metric["paired"]["zero-shot"]["svd"]["num_sets"] == 2
    text = "\n".join(summary.lines(found))
    assert "| svd | 0.600 (0.529 to 0.671) |" in text
    lacking = result(0.7) | {"cells": []}
    assert summary.summarise({"a": result(0.5), "b": lacking})["metrics"]["balanced_accuracy"]["means"] == {}


def test_the_harmonic_means_over_sets_are_by_the_metric_of_the_page():
    found = stage("summary").summarise({"c-novel": result(0.6, novel=True)})
    assert found["base_to_novel"]["svd"]["hm_of_means"]["value"] == pytest.approx(0.6)
    text = "\n".join(stage("summary").lines(found))
    assert "classes: balanced accuracy of c-novel" in text
    assert "| method | base | novel | hm_of_means | mean_of_hms |" in text


def test_a_mean_is_of_one_metric_and_sets_that_share_images_are_left_out():
    results = {"a": result(0.5), "b": result(0.9, "macro_auroc"), "b_again": result(0.1, "macro_auroc")}
    found = stage("summary").summarise(results, {"b_again": "the same images as b", "absent": "not here"})
    assert found["left_out"] == {"b_again": "the same images as b"}
    assert found["metrics"]["balanced_accuracy"]["sets"] == ["a"]
    assert found["metrics"]["macro_auroc"]["sets"] == ["a", "b"]
    assert found["metrics"]["balanced_accuracy"]["means"]["svd"]["mean"]["value"] == 0.5
    assert found["metrics"]["macro_auroc"]["means"]["svd"]["mean"]["value"] == 0.7
    text = "\n".join(stage("summary").lines(found))
    assert "Not in the means: b_again (the same images as b)." in text
    assert "AUROC, mean over a, b" in text


def test_the_suite_says_which_shared_sets_no_mean_is_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("nih_pneumonia", "nih_findings"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "compare.json").write_text(json.dumps(result(0.7, "macro_auroc")))
    stage("summary").main(str(tmp_path), str(FOLDER / "shared.yaml"))
    assert "Not in the means: nih_findings (the same images as nih_pneumonia)." in capsys.readouterr().out
    assert json.loads((tmp_path / "summary.json").read_text())["sets"] == {"nih_pneumonia": "macro_auroc"}


def test_a_set_may_have_methods_shots_and_initialisations_of_its_own(tmp_path: Path):
    (tmp_path / "brain_mri.csv").write_text("")
    asked = dict(stage("measure").jobs(suite("shared"), tmp_path, [], False))
    assert (asked["brain_mri"]["inits"], asked["brain_mri"]["shots"]) == (1, [1, 2, 4, 8, 16])
    assert asked["brain_mri"]["methods"] is None
    inits = asked["brain_mri_inits"]
    assert (inits["inits"], inits["shots"], inits["base_to_novel"]) == (3, [16], False)
    assert "svd" in inits["methods"]
    allowed = stage("measure").allowed
    assert allowed(["full", "svd:lr=0.1"], inits["methods"]) == ["svd:lr=0.1"]
    assert allowed(None, inits["methods"]) == inits["methods"]
    assert allowed(["full"], None) == ["full"]


def test_only_patients_of_the_bases_test_split_are_tested_on(tmp_path: Path):
    prepare = stage("prepare")
    rows, splits = [], {}
    for n, side in enumerate(("train", "val", "test")):
        (tmp_path / f"{n}.png").write_bytes(bytes([n]))
        splits[hashlib.sha256(bytes([n])).hexdigest()] = side
        plain = {"file": str(tmp_path / f"{n}.png"), "patient": f"p{n}", "modality": "mri", "source": "brain_mri"}
        rows.append(plain | {"label:brain_mri_tumour": "glioma"})
    found = prepare.table_of(rows, "brain_mri", splits)
    assert [r["split"] for r in found] == ["train", "train", "test"]
    rows[0]["patient"] = "p2"
    with pytest.raises(SystemExit, match="both sides"):
        prepare.table_of(rows, "brain_mri", splits)


def test_the_division_is_read_from_the_shards(tmp_path: Path):
    pq.write_table(pa.table({"sha256": ["a", "b"], "split": ["test", "train"]}), tmp_path / "samples.parquet")
    assert stage("prepare").splits_of(tmp_path) == {"a": "test", "b": "train"}


def test_the_table_of_the_base_has_no_label(tmp_path: Path):
    rows = "file,patient,modality,view,caption,label:brain_mri_tumour\n1.png,p,mri,,glioma,glioma\n"
    (tmp_path / "in.csv").write_text(rows)
    stage("base_table").main(str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    assert "glioma" not in (tmp_path / "out.csv").read_text()


@pytest.mark.shared
def test_the_shared_tables_hold_the_labels_that_the_suite_names(shared: Path):
    prepare = stage("prepare")
    rows = [r | {"file": str(shared / "data" / r["file"])} for r in prepare._mini().rows(shared / "data")]
    splits = {hashlib.sha256(Path(r["file"]).read_bytes()).hexdigest(): "train" for r in rows}
    for part in suite("shared")["sets"]:
        found = prepare.table_of(rows, part["table"].removesuffix(".csv"), splits)
        columns = {c for r in found for c in r}
        assert any(c.startswith(part["label"][0]) for c in columns)


def test_the_script_says_what_it_wants():
    done = subprocess.run(
        ["bash", str(FOLDER / "run.sh")], capture_output=True, text=True, check=False, env=os.environ, cwd=REPOSITORY
    )
    assert done.returncode != 0
    assert "name the folder that holds the sets" in done.stderr
