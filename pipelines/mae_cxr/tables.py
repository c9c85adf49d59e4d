"""Stage 1 of the full recipe: the label files of public chest X-ray sets become tables for `medclip shards build`.

Usage: python pipelines/mae_cxr/tables.py nih      FOLDER OUT.csv   NIH ChestX-ray14
       python pipelines/mae_cxr/tables.py chexpert FOLDER OUT.csv   CheXpert (or CheXpert-small), frontal views
       python pipelines/mae_cxr/tables.py mimic    FOLDER OUT.csv   MIMIC-CXR-JPG, AP and PA

FOLDER is the set as it is published. Images that are not on disk are left out and counted. Only training patients are
listed: those of the official test lists are never seen, also not without their labels.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

Row = dict[str, str]
COLUMNS: tuple[str, ...] = ("file", "patient", "modality", "split", "view", "age", "sex", "source", "license")
VAL_ONE_IN = 200
"""Patients of which the validation loss is computed; no more than it takes to see the curve."""


def nih(folder: Path) -> Iterator[Row]:
    """Yield the images of train_val_list.txt; those of test_list.txt are left out.

    The reference trains on 75,312 of its 86,524 images, a division of its own; here a checksum of the patient decides.
    """
    listed = set((folder / "train_val_list.txt").read_text(encoding="utf-8").split())
    paths = {path.name: path for path in folder.glob("images*/**/*.png")}
    for r in _read(folder, "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"):
        name = r["Image Index"]
        if name in listed:
            patient, sex = r["Patient ID"], r.get("Patient Gender") or r.get("Patient Sex") or ""
            known = {"view": r["View Position"], "age": r["Patient Age"], "sex": sex}
            path = paths.get(name, folder / "images" / name)
            yield _row(path, f"nih:{patient}", "nih_chestxray14", "NIH Clinical Center, citation asked", known)


def chexpert(folder: Path) -> Iterator[Row]:
    """Yield the frontal views of train.csv; valid.csv and the test set are left out."""
    for r in _read(folder, "train.csv"):
        if r["Frontal/Lateral"] == "Frontal":
            inside = Path(*Path(r["Path"]).parts[1:])  # behind CheXpert-v1.0-small/ or whatever it is called
            sex = {"Male": "M", "Female": "F"}.get(r["Sex"], "")
            known = {"view": r["AP/PA"] if r["AP/PA"] in ("AP", "PA") else "", "age": r["Age"], "sex": sex}
            patient = f"chexpert:{inside.parts[1]}"
            yield _row(folder / inside, patient, "chexpert", "Stanford research use agreement", known)


def mimic(folder: Path) -> Iterator[Row]:
    """Yield AP and PA views of the official training split."""
    training = {r["dicom_id"] for r in _read(folder, "mimic-cxr-2.0.0-split.csv") if r["split"] == "train"}
    for r in _read(folder, "mimic-cxr-2.0.0-metadata.csv"):
        if r["dicom_id"] in training and r["ViewPosition"] in ("AP", "PA"):
            patient = r["subject_id"]
            path = folder / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s{r['study_id']}" / f"{r['dicom_id']}.jpg"
            known = {"view": r["ViewPosition"]}
            yield _row(path, f"mimic:{patient}", "mimic_cxr", "PhysioNet credentialed use", known)


SETS = {"nih": nih, "chexpert": chexpert, "mimic": mimic}


def _row(path: Path, patient: str, source: str, license: str, known: Row) -> Row:
    split = "train" if crc32(patient.encode()) % VAL_ONE_IN else "val"
    fixed = {"file": str(path), "patient": patient, "modality": "xray", "split": split}
    return fixed | {"source": source, "license": license} | known


def _read(folder: Path, *names: str) -> Iterator[Row]:
    """Yield the rows of a table that may be gzipped and may have one of several names."""
    paths = [path for name in names for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if not paths:
        raise SystemExit(f"{folder} has no {' and no '.join(names)} (it may be gzipped).")
    opened = gzip.open if paths[0].suffix == ".gz" else open
    with opened(paths[0], "rt", newline="", encoding="utf-8") as f:
        yield from csv.DictReader(f)


def main(name: str, folder: str, out: str) -> int:
    """Write a table; 1 where none of its images is there."""
    num_missing, written = 0, 0
    with open(out, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS, restval="")
        writer.writeheader()
        for row in SETS[name](Path(folder).resolve()):
            if Path(row["file"]).is_file():
                writer.writerow(row)
                written += 1
            else:
                num_missing += 1
    print(f"{name}: {written:,} images written to {out}; {num_missing:,} that are listed are not on disk")
    return int(not written)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in SETS:
        raise SystemExit(__doc__)
    sys.exit(main(*sys.argv[1:]))
