"""VinDr-Mammo: `finding_annotations.csv` (one row a finding) or `breast-level_annotations.csv` (one row an image)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.tables.cells import shown
from medclip.files.tables.mammography.mammogram_row import (
    Cells,
    MammogramRow,
    Reading,
    birads_of,
    composition_of,
    images_of,
    one_of,
    side_of,
)
from medclip.text.breast_record import CALCIFICATION, LYMPH_NODE, BreastFinding, BreastRecord, finding_kinds

COLUMNS = ("study_id", "image_id", "laterality", "view_position", "breast_birads", "breast_density")
USES = (*COLUMNS, "finding_categories", "split")
FILE = "images/{study_id}/{image_id}.dicom"
NO_FINDING = "no finding"
_NAMES = {
    "mass": "mass",
    "suspicious calcification": CALCIFICATION,
    "architectural distortion": "architectural_distortion",
    "asymmetry": "asymmetry",
    "focal asymmetry": "focal_asymmetry",
    "global asymmetry": "global_asymmetry",
    "suspicious lymph node": LYMPH_NODE,
    "nipple retraction": "nipple_retraction",
    "skin retraction": "skin_retraction",
    "skin thickening": "skin_thickening",
}


def read(rows: Sequence[Cells], more: Sequence[Cells] | None, images: Path) -> Reading:
    """Read it. The set names no patients: each of its exams is taken for one."""
    del more, images
    return Reading(
        images_of(rows, ("study_id", "image_id"), _image),
        notes=("VinDr-Mammo names no patients: each exam is taken for a patient of its own.",),
    )


def _image(rows: Sequence[Cells]) -> MammogramRow:
    stated = [name for row in rows for name in categories(row.get("finding_categories", ""))]
    kinds = list(dict.fromkeys(_NAMES[name] for name in stated if name != NO_FINDING))
    record = BreastRecord(
        side=side_of(one_of(rows, "laterality")),
        view=one_of(rows, "view_position").upper(),
        composition=composition_of(one_of(rows, "breast_density")),
        birads=birads_of(one_of(rows, "breast_birads")),
        findings=tuple(BreastFinding(k, suspicious=True if k in (CALCIFICATION, LYMPH_NODE) else None) for k in kinds),
        absent=tuple(kind for kind in finding_kinds() if kind not in kinds) if stated else (),
    )
    study = one_of(rows, "study_id")
    split = {"training": "train"}.get(one_of(rows, "split"), one_of(rows, "split"))
    return MammogramRow(FILE, study, record, study=study, split=split, source=rows[0])


def categories(cell: str) -> list[str]:
    """Read a list of findings as Python writes it: "['Mass', 'Skin Thickening']".

    Raises:
        MedclipError: TABLE_INVALID for a finding that the set does not have.
    """
    names = [name.strip().lower() for name in re.findall(r"['\"]([^'\"]+)['\"]", cell)]
    if not names and cell.strip("[] "):
        names = [name.strip().lower() for name in cell.strip("[] ").split(",")]
    for name in names:
        if name != NO_FINDING and name not in _NAMES:
            raise MedclipError(Reason.TABLE_INVALID, f"`finding_categories` has {shown(name)}, which is no finding.")
    return names
