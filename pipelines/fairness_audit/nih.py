"""Stage 1, NIH ChestX-ray14 with the tube annotations of NEATX: one label table.

Usage: python pipelines/fairness_audit/nih.py FOLDER OUT/nih.csv

FOLDER holds Data_Entry_2017.csv (or _v2020), test_list.txt, the images in images*/ (as published, in twelve folders, or
in one), and neatx.csv: annotations of tubes with an image name and a column of chest drains (1, 0, -1 for not known).

All of the official test list is audited. Thresholds are chosen on one in twenty of the other patients, by a checksum of
their number. An image that NEATX does not have has no known drain: it counts among the negatives, and in no stratum.
Pneumothorax is an element of the list of findings, never a part of another finding's name.
"""

from __future__ import annotations

import sys
from pathlib import Path
from zlib import crc32

import published_tables as tables

LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Effusion", "Pneumonia", "Pneumothorax")
NAMES = {"Effusion": "Pleural Effusion"}
"""What the set calls otherwise than MIMIC-CXR and the task file do."""
COLUMNS = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender")
COLUMNS += ("View Position",)
IMAGE_COLUMNS = ("Image Index", "image_index", "image_id", "image", "filename", "file", "name")
DRAIN_COLUMNS = ("Drain", "drain", "Chest_drain_tube", "chest_drain_tube", "chest_drain", "Chest drain")
CHOOSE_ONE_IN = 20


def is_chosen(patient: str) -> bool:
    """Say whether a patient outside of the test list is one to choose thresholds on."""
    return crc32(patient.encode()) % CHOOSE_ONE_IN == 0


def drains(folder: Path) -> dict[str, str]:
    """Read which images have a chest drain: "1", "0", or "" where NEATX does not know."""
    path = tables.find(folder, "neatx.csv")
    found = list(tables.read(path, ()))
    columns = list(found[0]) if found else []
    image = next((c for c in IMAGE_COLUMNS if c in columns), None)
    drain = next((c for c in DRAIN_COLUMNS if c in columns), None)
    if image is None or drain is None:
        raise SystemExit(
            f"{path.name}: no column of images ({', '.join(IMAGE_COLUMNS)}) or of drains ({', '.join(DRAIN_COLUMNS)}); "
            f"it has: {', '.join(columns) or 'none'}"
        )
    said = {"1": "1", "1.0": "1", "0": "0", "0.0": "0"}
    return {_stem(r[image]): said.get(r[drain].strip(), "") for r in found}


def rows(folder: Path) -> list[tables.Row]:
    """Give the images of the test list, and those of the patients that thresholds are chosen on.

    Raises:
        Absent: A table is not there.
    """
    tested = set(tables.find(folder, "test_list.txt").read_text(encoding="utf-8").split())
    of_image = drains(folder)
    places = {path.name: path.relative_to(folder) for path in folder.glob("images*/**/*.png")}
    entries = tables.find(folder, "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
    columns = (
        "Image Index",
        "Finding Labels",
        "Follow-up #",
        "Patient ID",
        "Patient Age",
        "Patient Gender",
        "View Position",
    )
    read = list(tables.read(entries, columns))
    whose = {r["Patient ID"] for r in read if r["Image Index"] in tested}
    found = []
    for r in read:
        name, patient = r["Image Index"], r["Patient ID"]
        if name not in tested and (patient in whose or not is_chosen(patient)):
            continue
        findings = {f.strip() for f in r["Finding Labels"].split("|")}
        found.append(
            {
                "file": str(places.get(name, Path("images") / name)),
                "patient": patient,
                "study": r["Follow-up #"],
                "split": "test" if name in tested else "val",
                "sex": r["Patient Gender"],
                "age": r["Patient Age"],
                "view": r["View Position"],
                "Drain": of_image.get(_stem(name), ""),
                **{NAMES.get(label, label): str(int(label in findings)) for label in LABELS},
            }
        )
    return found


def _stem(name: str) -> str:
    return Path(name.strip()).stem


def main(folder: str, out: str) -> int:
    """Write the table and link its images; 1 with a sentence where something is not there."""
    try:
        place = Path(folder)
        tables.write(rows(place), Path(out), place if any(place.glob("images*")) else None)
    except tables.Absent as missing:
        print(f"nih: left out: {missing}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
