"""CDD-CESM: contrast-enhanced mammography with the radiologist's own words, low-energy and subtracted images.

In the form of the archive's sheet (saved as CSV), or of a table with one row a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from medclip.files.tables.mammography.mammogram_row import (
    Cells,
    MammogramRow,
    Reading,
    birads_of,
    composition_of,
    images_of,
    side_of,
)
from medclip.text.breast_record import CALCIFICATION, MASS, BreastFinding, BreastRecord, suspicion_of

COLUMNS = ("file", "patient_id", "laterality", "view", "pathology", "birads", "findings", "tags", "machine")
SHEET = ("Image_name", "Patient_ID", "Side", "Type", "View", "BIRADS", "Findings", "Tags")
USES = (*COLUMNS, "age", "density_dm")
FILE = "{file}"
_PATHOLOGY = "Pathology Classification/ Follow up"
_DENSITY = "Breast density (ACR)"
SHEET_USES = (*SHEET, "Age", _PATHOLOGY, _DENSITY)
_FOLDERS = {"subtracted": "Subtracted images of CDD-CESM", "low_energy": "Low energy images of CDD-CESM"}
_BLANK = "_"
"""What the sheet writes where it states nothing, such as the density of a subtracted image."""
_NO_MASS = re.compile(r"\bno mass\b", re.I)
_MASS = re.compile(r"(?<!non )(?<!non-)(?<!no )\bmass(?:es)?\b", re.I)
_CALCIFICATION = re.compile(r"(?<!no )\b(?:m\w+)?calcif")
_FORMS = {
    "vascular": "vascular",
    "pop corn": "popcorn-like",
    "popcorn": "popcorn-like",
    "pleomorphic": "pleomorphic",
    "amorphous": "amorphous",
}
_KINDS = {
    "architectural_distortion": re.compile(r"(?<!no )\barchitectural distortion"),
    "asymmetry": re.compile(r"(?<!no )(?<!focal )(?<!global )\basymm?et\w+"),
    "focal_asymmetry": re.compile(r"(?<!no )\bfocal asymm?et\w+"),
    "global_asymmetry": re.compile(r"(?<!no )\bglobal asymm?et\w+"),
}
_WORDS = {"speculated": "spiculated", "ill defined": "ill-defined"}
"""Spellings of the set."""


def read(rows: Sequence[Cells], more: Sequence[Cells] | None, images: Path) -> Reading:
    """Read one row a file: the kind of image stands in its name (`_CM_` subtracted, `_DM_` low energy)."""
    del more, images
    return Reading(images_of(rows, ("file",), _image_of_file))


def read_sheet(rows: Sequence[Cells], more: Sequence[Cells] | None, images: Path) -> Reading:
    """Read the archive's sheet."""
    del more, images
    return Reading(images_of(rows, ("Image_name",), _image_of_sheet))


def _image_of_file(rows: Sequence[Cells]) -> MammogramRow:
    return _image(rows[0], rows[0].get("file", ""), rows[0].get("density_dm", ""), rows[0])


def _image_of_sheet(rows: Sequence[Cells]) -> MammogramRow:
    row = {column: "" if cell.strip() == _BLANK else cell for column, cell in rows[0].items()}
    name = row.get("Image_name", "").strip()
    kind = "subtracted" if "_CM" in name.upper() else "low_energy"
    same = {
        "patient_id": row.get("Patient_ID", ""),
        "laterality": row.get("Side", ""),
        "view": row.get("View", ""),
        "age": row.get("Age", ""),
        "birads": row.get("BIRADS", "").replace("$", ";"),
        "findings": row.get("Findings", "").replace("$", "; "),
        "pathology": row.get(_PATHOLOGY, ""),
    }
    file = f"{_FOLDERS[kind]}/{name}{'' if name.lower().endswith('.jpg') else '.jpg'}"
    return _image(same, file, row.get(_DENSITY, ""), rows[0])


def _image(row: Cells, file: str, density: str, source: Cells) -> MammogramRow:
    kind = "subtracted" if "_CM" in PurePosixPath(file).name.upper() else "low_energy"
    text = " ".join(row.get("findings", "").split())
    composition = composition_of(density)
    record = BreastRecord(
        side=side_of(row.get("laterality", "")),
        view=row.get("view", "").upper(),
        view_kind=kind,
        composition=composition if kind == "low_energy" else "",  # a subtracted image does not show it
        birads=birads_of(row.get("birads", "")),
        findings=tuple(_findings(text)),
        absent=(MASS,) if _NO_MASS.search(text) and not _findings(text) else (),
        pathology={"normal": "normal", "benign": "benign", "malignant": "malignant"}.get(
            row.get("pathology", "").lower(), ""
        ),
    )
    patient = row.get("patient_id", "")
    labels = {"label:breast_composition": composition} if composition else {}
    return MammogramRow(
        file, patient, record, study=patient, age=row.get("age", ""), report=_ended(text), labels=labels, source=source
    )


def _ended(text: str) -> str:
    return text if not text or text.endswith(".") else f"{text}."


def _findings(text: str) -> list[BreastFinding]:
    """Read findings out of the radiologist's words; of several masses what they look like is not told apart."""
    lowered = text.lower()
    for wrong, right in _WORDS.items():
        lowered = lowered.replace(wrong, right)
    findings = []
    masses = _MASS.findall(lowered)
    if masses and not _NO_MASS.search(lowered):
        alone = len(masses) == 1 and masses[0] == "mass"
        shape = next((s for s in ("irregular", "oval", "round") if alone and re.search(rf"\b{s} mass", lowered)), "")
        margins = [m for m in ("circumscribed", "spiculated", "ill-defined") if alone and m in lowered]
        findings.append(BreastFinding(MASS, shape=shape, margins=tuple(margins)))
    findings += [f for part in re.split(r"[;.]", lowered) for f in _calcifications(part)]
    findings += [BreastFinding(kind) for kind, words in _KINDS.items() if words.search(lowered)]
    findings += [BreastFinding(f"{part}_retraction") for part in ("nipple", "skin") if f"{part} retraction" in lowered]
    return findings


def _calcifications(part: str) -> list[BreastFinding]:
    """Read the calcifications of a part of the text; large ones are benign, of others it depends on their form."""
    if not _CALCIFICATION.search(part):
        return []
    forms = tuple(form for word, form in _FORMS.items() if word in part)
    suspicious = suspicion_of(forms) if forms else False if "benign" in part or "macrocalc" in part else None
    return [BreastFinding(CALCIFICATION, forms=forms, suspicious=suspicious)]
