"""Small mammography examinations in DICOM, made by code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.kits.scoring import STUDY_UID, write_dicom

VIEWS = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))


def write_mammogram(path: Path, seed: int, side: str, position: str, exam: int = 0, **tags: Any) -> Path:
    """Write a mammogram of an examination."""
    uid = f"{STUDY_UID}.5{exam}"
    own = {"ImageLaterality": side, "ViewPosition": position, "PatientID": f"W{exam}", **tags}
    return write_dicom(path, seed, modality="MG", study_uid=uid, **own)


def write_exams(root: Path) -> Path:
    """Write four examinations and a chest film: whole, two CC of a side and no MLO, one view, views not stated."""
    for n, (side, position) in enumerate(VIEWS):
        write_mammogram(root / "whole" / f"{n}.dcm", n, side, position)
    for n, (side, position) in enumerate([("L", "CC"), ("L", "CC"), ("R", "CC"), ("R", "ML")]):
        write_mammogram(root / "twice" / f"{n}.dcm", 10 + n, side, position, 1)
    write_mammogram(root / "one" / "0.dcm", 20, "R", "MLO", 2, PresentationIntentType="FOR PROCESSING")
    for n in range(2):
        write_mammogram(root / "unstated" / f"{n}.dcm", 30 + n, "", "", 3)
    write_dicom(root / "chest.dcm", 40)
    return root
