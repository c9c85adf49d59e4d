"""Folders of finished runs, written by code: what a model said of studies that no one had to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logit

from medclip.files.tables.write import write_rows
from medclip.runs.rows import FileRow, ScoreRow

CLASSES = {"chest": ("effusion", "pneumonia"), "view": ("ap", "pa")}
"""Two findings that may both be there, and one question with one answer."""


def write_run(
    folder: Path,
    *,
    patients: range,
    seed: int = 0,
    week: str = "",
    shift: float = 0.0,
    failed: float = 0.02,
    scanner: float = 0.3,
    pack: str = "medclip-mini 1.0",
    images: int = 2,
    distance: float | None = None,
) -> Path:
    """Write the tables of a scoring run: one study of some images for each patient.

    Args:
        folder: Where.
        patients: Their numbers, which also name their studies together with the week.
        seed: Of what the model says.
        week: ISO week of all examinations; "" for none.
        shift: By how much the logit of pneumonia is higher.
        failed: Share of images that cannot be read.
        scanner: Share of studies of the second scanner.
        pack: Name and version of the model.
        images: Of each study, at most.
        distance: Mean distance to the images that the pack was measured on; None for a pack that does not know.
    """
    rng = np.random.default_rng([seed, *week.encode()])
    files, scores = [], []
    for patient in patients:
        study = f"study:{patient}-{week or seed}"
        maker = "GE" if rng.random() < scanner else "Philips"
        level = rng.normal()
        for _ in range(int(rng.integers(1, images + 1))):
            files.append(_file(len(files) + 1, study, maker, week, bool(rng.random() < failed), distance, rng))
        logits = {
            "effusion": -1.0 + level + rng.normal(),
            "pneumonia": -0.5 + shift + level + rng.normal(),
            "pa": level,
        }
        probabilities = {name: 1 / (1 + np.exp(-value)) for name, value in logits.items()}
        probabilities["ap"] = 1 - probabilities["pa"]
        for task, classes in CLASSES.items():
            kind = "multiclass" if task == "view" else "multilabel"
            for name in classes:
                scores.append(_score(study, f"patient:{patient}", task, name, kind, float(probabilities[name]), pack))
    folder.mkdir(parents=True)
    write_rows(folder / "files.parquet", FileRow, files)
    write_rows(folder / "scores.parquet", ScoreRow, scores)
    counts = {
        "files": len(files),
        "scored": sum(row.status == "scored" for row in files),
        "skipped": 0,
        "failed": sum(row.status == "failed" for row in files),
        "studies": len(patients),
    }
    name, _, version = pack.partition(" ")
    described: Mapping[str, Any] = {"model": {"name": name, "version": version, "pack": "0" * 64}, "counts": counts}
    (folder / "run.json").write_text(json.dumps(described))
    return folder


def _file(row: int, study: str, maker: str, week: str, is_failed: bool, distance: float | None, rng: Any) -> FileRow:
    headers = {"manufacturer": maker, **({"week": week} if week else {})}
    measured: dict[str, Any] = {}
    if distance is not None and not is_failed:
        measured["home_distance"] = float(distance + 0.1 * rng.normal())
    return FileRow(
        row=row,
        path=f"{study}/{row}.dcm",
        sha256=None,
        size_bytes=1,
        format="dicom",
        status="failed" if is_failed else "scored",
        reason="truncated" if is_failed else None,
        message=None,
        study=study,
        modality="xray",
        view=None if is_failed else "PA",
        headers=json.dumps({"week": week} if week else {}) if is_failed else json.dumps(headers),
        kind="image",
        unit=row,
        **measured,
    )


def _score(study: str, patient: str, task: str, name: str, kind: str, probability: float, pack: str) -> ScoreRow:
    model, _, version = pack.partition(" ")
    return ScoreRow(
        study, patient, "xray", task, name, kind, probability, float(logit(probability)), 1, model, version, "0"
    )
