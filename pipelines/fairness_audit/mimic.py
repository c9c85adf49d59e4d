"""Stage 1, MIMIC-CXR: one label table from the tables of MIMIC-CXR-JPG 2.0.0 and MIMIC-IV.

Usage: python pipelines/fairness_audit/mimic.py FOLDER OUT/mimic.csv

FOLDER holds mimic-cxr-2.0.0-chexpert.csv, -metadata.csv and -split.csv; patients.csv and admissions.csv of MIMIC-IV;
the images under files/; and, where it was made, mimic_cxr_sectioned.csv with the sections of the reports. All may be
gzipped.

Kept are the splits test (audited) and validate (thresholds are chosen there), of the published design those with a
findings text. The reference does not release its race mapping and its filter of the test set, so these are ours:
- race: what an admission states that begins with WHITE, BLACK, ASIAN or HISPANIC; all other statements are Other; not
  stated, unknown and declined are left blank, and so are patients whose admissions contradict each other;
- age: at the image, that is `anchor_age` plus the years from `anchor_year` to the year of the (shifted) StudyDate;
- the labels as CheXpert gave them: 1, 0, -1 (uncertain) and blank, for which the audit has its policies.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import published_tables as tables

LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Pleural Effusion", "Pneumonia", "Pneumothorax")
SPLITS = {"test": "test", "validate": "val"}
RACES = ("White", "Black", "Asian", "Hispanic")
UNKNOWN = ("UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED")
PORTABLE = "PORTABLE"


def race_of(stated: str) -> str:
    """Map what an admission states to a group; "" where it says nothing."""
    text = stated.strip().upper()
    if not text or text.startswith(UNKNOWN):
        return ""
    return next((race for race in RACES if text.startswith(race.upper())), "Other")


def one_race(stated: Iterable[str]) -> str:
    """Give a patient's race from all admissions; "" where they contradict each other."""
    said = {race_of(s) for s in stated} - {""}
    return said.pop() if len(said) == 1 else ""


def age_at(anchor_age: str, anchor_year: str, study_date: str) -> str:
    """Give the age in years at the study; "" where a part is not stated."""
    if not (anchor_age.strip() and anchor_year.strip() and study_date.strip()):
        return ""
    return str(int(float(anchor_age)) + int(float(study_date)) // 10_000 - int(float(anchor_year)))


def rows(folder: Path) -> list[tables.Row]:
    """Join the published tables, image by image.

    Raises:
        Absent: A table is not there.
    """
    chosen = {
        r["dicom_id"]: r
        for r in tables.read(
            tables.find(folder, "mimic-cxr-2.0.0-split.csv"), ("dicom_id", "study_id", "subject_id", "split")
        )
        if r["split"] in SPLITS
    }
    wanted = {r["subject_id"] for r in chosen.values()}
    labels = {
        (r["subject_id"], r["study_id"]): r
        for r in tables.read(tables.find(folder, "mimic-cxr-2.0.0-chexpert.csv"), ("subject_id", "study_id", *LABELS))
        if r["subject_id"] in wanted
    }
    people = {
        r["subject_id"]: r
        for r in tables.read(tables.find(folder, "patients.csv"), ("subject_id", "gender", "anchor_age", "anchor_year"))
        if r["subject_id"] in wanted
    }
    races = _races(folder, wanted)
    described = _with_findings(folder)
    found = []
    columns = ("dicom_id", "ViewPosition", "StudyDate", "PerformedProcedureStepDescription")
    for image in tables.read(tables.find(folder, "mimic-cxr-2.0.0-metadata.csv"), columns):
        place = chosen.get(image["dicom_id"])
        if place is None or (place["subject_id"], place["study_id"]) not in labels:
            continue
        patient, study = place["subject_id"], place["study_id"]
        if described is not None and study not in described:
            continue
        person = people.get(patient, {"gender": "", "anchor_age": "", "anchor_year": ""})
        found.append(
            {
                "file": f"p{patient[:2]}/p{patient}/s{study}/{image['dicom_id']}.jpg",
                "patient": patient,
                "study": study,
                "split": SPLITS[place["split"]],
                "sex": person["gender"],
                "race": races.get(patient, ""),
                "age": age_at(person["anchor_age"], person["anchor_year"], image["StudyDate"]),
                "view": image["ViewPosition"],
                "portable": str(int(PORTABLE in image["PerformedProcedureStepDescription"].upper())),
                **{name: labels[patient, study][name] for name in LABELS},
            }
        )
    return found


def _races(folder: Path, wanted: set[str]) -> dict[str, str]:
    path = tables.find(folder, "admissions.csv")
    stated: dict[str, set[str]] = {}
    for r in tables.read(path, ("subject_id",)):
        if r["subject_id"] in wanted:
            stated.setdefault(r["subject_id"], set()).add(r.get("race") or r.get("ethnicity") or "")  # MIMIC-IV 2, 1
    return {patient: one_race(said) for patient, said in stated.items()}


def _with_findings(folder: Path) -> set[str] | None:
    """Give the studies whose report has a findings text; None, and a sentence, where nobody cut the reports up."""
    try:
        path = tables.find(folder, "mimic_cxr_sectioned.csv")
    except tables.Absent:
        print("mimic: no mimic_cxr_sectioned.csv: studies without a findings text stay in, unlike as published")
        return None
    return {r["study"].removeprefix("s") for r in tables.read(path, ("study", "findings")) if r["findings"].strip()}


def main(folder: str, out: str) -> int:
    """Write the table and link its images; 1 with a sentence where something is not there."""
    try:
        images = Path(folder) / "files"
        tables.write(rows(Path(folder)), Path(out), images if images.is_dir() else None)
    except tables.Absent as missing:
        print(f"mimic: left out: {missing}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
