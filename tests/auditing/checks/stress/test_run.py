"""The stress test of a whole audit, with a tiny pack."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import medclip
from medclip.auditing.disclosure import Policy
from medclip.auditing.options import ImageChecks, MeasureOptions, Stress
from medclip.auditing.result import AuditResult
from medclip.auditing.run import run_audit
from medclip.errors import MedclipError
from medclip.settings import Settings
from tests.kits import scoring
from tests.kits.adapt_tables import make_pack, make_table
from tests.kits.embeddings import embed_files

SETTINGS = Settings(workers=1)
TASKS = {"chest_xray_findings": {"classes": ["pneumonia"]}, "modality": {"classes": ["xray", "mri"]}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, MeasureOptions]:
    """Images, their label table, and what is asked: no scores."""
    folder = tmp_path_factory.mktemp("study")
    with make_table(folder, patients=14, files=1).open() as stream:
        rows = list(csv.DictReader(stream))
    frame = pd.DataFrame(
        {
            "file": [r["file"] for r in rows],
            "patient": [r["patient"] for r in rows],
            "view": ["AP" if i % 2 else "PA" for i in range(len(rows))],
            "pneumonia": [int(r["file"].startswith("hazy")) for r in rows],
        }
    )
    options = MeasureOptions(
        num_resamples=100,
        permutations=100,
        small_cells=Policy(5, 5, 5, 5),
        image_checks=ImageChecks(model=make_pack(folder.parent / "pack", tasks=TASKS), images=folder),
        task="chest_xray_findings",
        stress=Stress(corruptions=("contrast_down", "shot_noise")),
    )
    return folder, frame, options


@pytest.fixture(scope="module")
def stressed(study) -> AuditResult:
    """The audit of a label table alone."""
    _, frame, options = study
    return run_audit(frame, by=["view"], options=options, settings=SETTINGS).result


def test_a_label_table_alone_is_scored_audited_and_stressed(stressed: AuditResult):
    assert stressed.model_names == ("pack",)
    assert {r["metric"] for r in stressed.metrics} >= {"auroc", "tpr"}
    forms = {(r["kind"], r["name"], r["grade"]) for r in stressed.stress if r["group"] == "PA"}
    assert {("clean", "clean", None), ("corruption", "contrast_down", 5), ("mean", "all corruptions", None)} <= forms
    assert {name for kind, name, _ in forms if kind == "prompts"} == {"view", "device", "quality", "sex", "age"}
    shuffled = [r for r in stressed.stress if r["kind"] == "shuffle" and r["metric"] == "auroc" and r["group"] == "all"]
    assert [r["strength"] for r in shuffled] == ["2 x 2", "4 x 4", "8 x 8"]
    ways = {r["strength"] for r in stressed.stress if r["kind"] == "prompts"}
    assert ways == {"inferred", "inferred without classes", "from the table"}
    assert {r["score"] for r in stressed.stress_ood} == {"max_logit", "distance"}


def test_the_scores_of_the_audit_are_those_of_the_pack(study, stressed: AuditResult):
    assert not any("CAUTION: the scores of" in note for note in stressed.notes)
    _, frame, options = study
    strange = frame.assign(pneumonia_score=np.random.default_rng(0).random(len(frame)))
    found = run_audit(strange, by=["view"], options=replace(options, task=None), settings=SETTINGS).result
    assert any("CAUTION: the scores of pneumonia" in note for note in found.notes)
    assert {r["metric"] for r in found.stress} == {"auroc", "brier", "calibration_in_the_large"}


def test_run_again_with_more_processes_the_bytes_are_the_same(study, stressed: AuditResult):
    _, frame, options = study
    again = run_audit(frame, by=["view"], options=options, settings=Settings(workers=2)).result
    assert again.to_json() == stressed.to_json()


def test_nothing_names_a_file_or_a_patient(study, stressed: AuditResult):
    _, frame, _ = study
    text = stressed.to_json()
    assert not any(name in text for name in (*frame.file, *frame.patient))


def test_files_that_cannot_be_read_are_counted(study):
    _, frame, options = study
    options = replace(options, stress=None)
    broken = frame.copy()
    broken.loc[0, "file"] = "not_there.png"
    found = run_audit(broken, by=["view"], options=options, settings=SETTINGS).result
    assert any("1 image could not be scored" in note for note in found.notes)


@pytest.mark.parametrize("unused", [{"corruption": "blur"}, {"num_stress_images": 40}, {"context_temperature": 3}])
def test_options_of_the_stress_test_are_refused_without_it(unused: dict[str, Any]) -> None:
    name = f"--{next(iter(unused)).replace('_', '-')}"
    with pytest.raises(MedclipError, match=f"{name} would do nothing. Add --stress"):
        medclip.audit("scores.csv", **unused)


def test_what_cannot_be_stressed_is_refused(study):
    _, frame, options = study
    other = frame.rename(columns={"pneumonia": "gout"}).assign(gout_score=0.5)
    with pytest.raises(MedclipError, match="no label of this audit"):
        run_audit(other, options=replace(options, task=None), settings=SETTINGS)
    with pytest.raises(MedclipError, match="no corruption 'saturate'"):
        run_audit(frame, options=replace(options, stress=Stress(("saturate",))), settings=SETTINGS)


def test_an_audit_from_embeddings_has_the_figures_of_one_from_files(study, tmp_path: Path, monkeypatch) -> None:
    folder, frame, options = study
    images = options.image_checks
    frame = frame.assign(file=[*frame.file[:-1], "not_there.png"])
    of_files = run_audit(frame, by=["view"], options=replace(options, stress=None), settings=SETTINGS).result
    store = embed_files(tmp_path / "e", images.model, folder)
    monkeypatch.setattr(
        "medclip.models.encoding.unit_reader.UnitReader.read", lambda *_, **__: pytest.fail("an image was read")
    )
    stored = replace(options, stress=None, image_checks=replace(images, images=store))
    of_store = run_audit(frame, by=["view"], options=stored, settings=SETTINGS).result
    assert of_store.to_json() == of_files.to_json()
    assert any("near" in row["check"] and row["tested"] for row in of_store.leakage)


def test_what_needs_images_is_refused_where_there_are_embeddings(study, tmp_path: Path) -> None:
    folder, frame, options = study
    images = options.image_checks
    store = embed_files(tmp_path / "e", images.model, folder)
    stored = replace(images, images=store)
    with pytest.raises(MedclipError, match="the stress test shows the model other images, and a folder of embeddings"):
        run_audit(frame, options=replace(options, image_checks=stored), settings=SETTINGS)
    with pytest.raises(MedclipError, match=r"for the pack that computed them, and none is named. Name it with --model"):
        medclip.audit(frame, embeddings=store, modality="xray", settings=SETTINGS)
    other = replace(stored, model=scoring.make_pack(tmp_path / "other"))
    with pytest.raises(MedclipError, match="these embeddings are of another pack"):
        run_audit(frame, options=replace(options, stress=None, image_checks=other), settings=SETTINGS)
    with pytest.raises(MedclipError, match=r"this one holds embeddings\. Name it with --embeddings"):
        medclip.audit(frame, images=store, model=images.model, settings=SETTINGS)
