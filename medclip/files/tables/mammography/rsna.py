"""RSNA screening mammography breast cancer detection: `train.csv`, one row an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medclip.files.tables.mammography.mammogram_row import (
    BREAST_CANCER,
    Cells,
    MammogramRow,
    Reading,
    birads_of,
    composition_of,
    flag_of,
    images_of,
    side_of,
)
from medclip.text.breast_record import BreastRecord

COLUMNS = ("site_id", "patient_id", "image_id", "laterality", "view", "cancer", "implant", "machine_id")
USES = (*COLUMNS, "age", "BIRADS", "density")
FILE = "train_images/{patient_id}/{image_id}.dcm"


def read(rows: Sequence[Cells], more: Sequence[Cells] | None, images: Path) -> Reading:
    """Read it. A breast without cancer may be normal or benign: only `breast_cancer` knows it, no finding is stated."""
    del more, images
    return Reading(images_of(rows, (), _image))


def _image(rows: Sequence[Cells]) -> MammogramRow:
    row = rows[0]
    cancer = flag_of(row.get("cancer", ""))
    record = BreastRecord(
        side=side_of(row.get("laterality", "")),
        view=row.get("view", "").upper(),
        composition=composition_of(row.get("density", "")),
        birads=birads_of(row.get("BIRADS", "")),
        pathology="malignant" if cancer else "",
        implant=flag_of(row.get("implant", "")),
    )
    patient = row.get("patient_id", "")
    labels = {} if cancer is None else {BREAST_CANCER: str(int(cancer))}
    return MammogramRow(FILE, patient, record, study=patient, age=row.get("age", ""), labels=labels, source=row)
