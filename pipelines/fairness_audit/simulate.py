"""Tables of MIMIC-CXR-JPG, MIMIC-IV, NIH ChestX-ray14 and NEATX drawn by code, and scores of two models for them.

Usage: python pipelines/fairness_audit/simulate.py DATA

For `run.sh --smoke` and the tests: nobody is in them. "MedCLIP" follows the findings closely, "CheXzero" hardly.
"""

from __future__ import annotations

import csv
import gzip
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Pleural Effusion", "Pneumonia", "Pneumothorax")
SCORED = ("Pneumonia", "Pleural Effusion")
NOISE = {"MedCLIP": 0.5, "CheXzero": 3.0}
"""Spread of each model's scores, in units of a fifth."""
NUM_PATIENTS = 160


def table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def mimic_tables(folder: Path, num_patients: int, *, images: bool = False) -> list[dict[str, str]]:
    """Write tables in the form of MIMIC-CXR-JPG and MIMIC-IV, one or two images a patient; return its splits."""
    rng = random.Random(1)
    splits, labels, metadata, patients, admissions = [], [], [], [], []
    for n in range(num_patients):
        subject = str(10_000_000 + n)
        patients.append({"subject_id": subject, "gender": "FM"[n % 2], "anchor_age": 20 + n % 70, "anchor_year": 2150})
        for race in ("WHITE", "UNKNOWN") if n % 3 else ("BLACK/CAPE VERDEAN",):
            admissions.append({"subject_id": subject, "hadm_id": n, "race": race})
        study = str(50_000_000 + n)
        sick = {name: rng.choice(["1.0", "0.0", "", "-1.0"]) for name in FINDINGS}
        labels.append({"subject_id": subject, "study_id": study, **sick, "No Finding": ""})
        for image in range(1 + n % 2):
            dicom = f"{n:04x}-{image}"
            split = ("test", "test", "validate", "train")[n % 4]
            splits.append({"dicom_id": dicom, "study_id": study, "subject_id": subject, "split": split})
            metadata.append(
                {
                    "dicom_id": dicom,
                    "subject_id": subject,
                    "study_id": study,
                    "ViewPosition": ("PA", "AP")[n % 2],
                    "PerformedProcedureStepDescription": "CHEST (PORTABLE AP)" if n % 2 else "CHEST (PA AND LAT)",
                    "StudyDate": "21530607",
                }
            )
            if images:
                place = folder / "files" / "p10" / f"p{subject}" / f"s{study}" / f"{dicom}.jpg"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(b"an image")
    table(folder / "mimic-cxr-2.0.0-split.csv.gz", splits)
    table(folder / "mimic-cxr-2.0.0-chexpert.csv", labels)
    table(folder / "mimic-cxr-2.0.0-metadata.csv", metadata)
    table(folder / "hosp" / "patients.csv.gz", patients)
    table(folder / "hosp" / "admissions.csv", admissions)
    return splits


def nih_tables(folder: Path, num_patients: int) -> None:
    """Write tables in the form of NIH ChestX-ray14 and of NEATX."""
    rng = random.Random(2)
    entries, tubes, tested = [], [], []
    for n in range(num_patients):
        for visit in range(1 + n % 2):
            image = f"{n + 1:08}_{visit:03}.png"
            found = rng.choice(["No Finding", "Pneumothorax", "Effusion|Pneumothorax", "Pneumonia"])
            entries.append(
                {
                    "Image Index": image,
                    "Finding Labels": found,
                    "Follow-up #": visit,
                    "Patient ID": n + 1,
                    "Patient Age": 20 + n % 60,
                    "Patient Gender": "MF"[n % 2],
                    "View Position": ("PA", "AP")[n % 2],
                    "OriginalImage[Width": 2000,
                    "Height]": 2000,
                    "OriginalImagePixelSpacing[x": 0.1,
                    "y]": 0.1,
                    "": "",
                }
            )
            if n % 2:
                tested.append(image)
            tubes.append({"image_id": image, "Drain": rng.choice([1, 0, 0, -1])})
    table(folder / "Data_Entry_2017.csv", entries)
    table(folder / "neatx.csv", tubes)
    (folder / "test_list.txt").write_text("\n".join(tested))


def scores(data: Path) -> None:
    """Write what two models say of the MIMIC images that are not of training, and of all NIH images."""
    rng = random.Random(3)

    def drawn(truth: Mapping[str, bool], noise: float) -> dict[str, float]:
        return {k: round(min(max(0.35 + 0.3 * t + rng.gauss(0, 0.2 * noise), 0), 1), 4) for k, t in truth.items()}

    with (data / "mimic" / "mimic-cxr-2.0.0-chexpert.csv").open(newline="", encoding="utf-8") as f:
        labels = {r["study_id"]: r for r in csv.DictReader(f)}
    with gzip.open(data / "mimic" / "mimic-cxr-2.0.0-split.csv.gz", "rt", newline="", encoding="utf-8") as f:
        images = [r for r in csv.DictReader(f) if r["split"] != "train"]
    with (data / "nih" / "Data_Entry_2017.csv").open(newline="", encoding="utf-8") as f:
        entries = [(r["Image Index"], r["Finding Labels"]) for r in csv.DictReader(f)]
    for name, noise in NOISE.items():
        of_mimic = [
            {
                "file": f"p10/p{r['subject_id']}/s{r['study_id']}/{r['dicom_id']}.jpg",
                **drawn({k: labels[r["study_id"]][k] == "1.0" for k in SCORED}, noise),
            }
            for r in images
        ]
        of_nih = [
            {"file": f"images/{image}", **drawn({"Pneumothorax": "Pneumothorax" in findings}, noise)}
            for image, findings in entries
        ]
        table(data / "scores" / "mimic" / f"{name}.csv", of_mimic)
        table(data / "scores" / "nih" / f"{name}.csv", of_nih)


def main(data: str) -> None:
    """Write DATA/mimic, DATA/nih and DATA/scores."""
    mimic_tables(Path(data) / "mimic", NUM_PATIENTS)
    nih_tables(Path(data) / "nih", 4 * NUM_PATIENTS)
    scores(Path(data))


if __name__ == "__main__":
    main(*sys.argv[1:])
