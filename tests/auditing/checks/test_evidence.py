"""Images, embeddings and training lists beside the scores."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.auditing.input.options import ReadOptions
from medclip.auditing.options import ImageChecks, MeasureOptions
from medclip.auditing.run import run_audit
from medclip.errors import MedclipError
from medclip.settings import Settings
from tests.kits.adapt_tables import make_pack, make_table
from tests.kits.audit_input import write_scored

QUICK = MeasureOptions(num_resamples=100, permutations=100)
SETTINGS = Settings(workers=1)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A folder of images with a table of scores, truths and groups."""
    folder = tmp_path_factory.mktemp("study")
    with make_table(folder, patients=24, files=2).open() as stream:
        rows = list(csv.DictReader(stream))
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "file": [r["file"] for r in rows],
            "patient": [r["patient"] for r in rows],
            "visit": [str(i % 2) for i in range(len(rows))],
            "sex": ["FM"[i // 2 % 2] for i in range(len(rows))],
            "hazy": [int(r["file"].startswith("hazy")) for r in rows],
            "hazy_score": rng.random(len(rows)),
        }
    )
    return folder, frame


def checks(found) -> dict[str, dict]:
    return {row["check"]: row for row in found.leakage}


def test_a_training_file_in_the_audit_set_is_red_and_found_by_its_bytes(study, tmp_path: Path):
    folder, frame = study
    pack = make_pack(tmp_path / "pack")
    clean = replace(QUICK, image_checks=ImageChecks(model=pack, images=folder, study="visit"))
    found = run_audit(frame, by=["sex"], options=clean, settings=SETTINGS).result
    assert not found.leaks
    digest = hashlib.sha256((folder / frame.file[0]).read_bytes()).hexdigest()
    listed = pa.table({"sha256": [digest]})
    pq.write_table(listed, tmp_path / "training.parquet")
    seen = replace(QUICK, image_checks=replace(clean.image_checks, training=(tmp_path / "training.parquet",)))
    found = run_audit(frame, by=["sex"], options=seen, settings=SETTINGS).result
    assert found.leaks
    assert [r["found"] for r in found.leakage if r["severity"] == "red"] == [1]
    named = [(r["file"], r["other"]) for r in found.leaked_rows if r["how"] == "the same bytes"]
    assert (frame.file[0], digest) in named


def test_embeddings_are_probed_shown_and_searched_for_patients(study, tmp_path: Path):
    folder, frame = study
    pack = make_pack(tmp_path / "pack")
    options = replace(QUICK, image_checks=ImageChecks(model=pack, images=folder, study="visit", attacker=True))
    found = run_audit(frame, by=["sex"], options=options, settings=SETTINGS).result
    assert {r["what"] for r in found.embeddings} >= {"probe", "centroid", "reident"}
    assert {"mAP, re-ranked", "CMC@1, re-ranked"} <= {r["name"] for r in found.embeddings}
    assert {r["group"] for r in found.projection} == {"F", "M"}
    text = found.to_json()
    assert not any(name in text for name in (*frame.file[:4], frame.patient[0]))


def test_vectors_made_elsewhere_do_as_well(study, tmp_path: Path):
    _, frame = study
    vectors = np.eye(2, 8)[(frame.sex == "M").to_numpy().astype(int)] + 0.01
    np.savez(tmp_path / "v.npz", keys=frame.file.to_numpy(str), vectors=vectors)
    options = replace(QUICK, image_checks=ImageChecks(embeddings=tmp_path / "v.npz", sites=("sex",)))
    found = run_audit(frame, by=["sex"], options=options, reading=ReadOptions(key="file")).result
    (told,) = [r for r in found.embeddings if r["what"] == "probe" and r["name"] == "logistic: macro AUROC"]
    assert told["value"] == 1.0
    assert any(r["what"] == "drift" for r in found.embeddings)


def test_what_was_not_looked_at_is_said(study):
    found = run_audit(study[1], by=["sex"], options=QUICK).result
    assert not found.leaks
    told = checks(found)
    assert any("Not tested" in row["sentence"] for row in told.values())


def test_images_of_an_unknown_modality_are_refused(study, tmp_path: Path):
    folder, frame = study
    pack = make_pack(tmp_path / "pack", modalities=("xray", "mri"))
    options = replace(QUICK, image_checks=ImageChecks(model=pack, images=folder))
    with pytest.raises(MedclipError, match="which modality"):
        run_audit(frame, by=["sex"], options=options, settings=SETTINGS)


def test_hashes_that_medclip_score_wrote_find_training_files_without_reading_an_image(tmp_path: Path):
    names = [f"p{i}.png" for i in range(40)]
    rng = np.random.default_rng(0)
    scores = {f"s{i}": {"t:hazy": float(s)} for i, s in enumerate(rng.random(40))}
    folder = write_scored(tmp_path / "out", {f"s{i}": [n] for i, n in enumerate(names)}, scores, "multilabel")
    files = pq.read_table(folder / "files.parquet")
    digests = [hashlib.sha256(n.encode()).hexdigest() for n in names]
    burned = ['{"burned_in": true}' if i == 3 else '{"burned_in": false}' for i in range(40)]
    files = files.drop(["headers"]).append_column("headers", pa.array(burned))
    pq.write_table(files.append_column("sha256", pa.array(digests)), folder / "files.parquet")
    labels = pd.DataFrame({"file": names, "patient": names, "sex": list("FM") * 20, "hazy": [0, 0, 1, 1] * 10})
    pq.write_table(pa.table({"sha256": digests[:2]}), tmp_path / "training.parquet")
    options = replace(QUICK, image_checks=ImageChecks(training=(tmp_path / "training.parquet",)))
    found = run_audit(folder, labels, by=["sex"], options=options).result
    assert [r["found"] for r in found.leakage if r["severity"] == "red"] == [2]
    assert checks(found)["text burned into the pixels"]["found"] == 1
