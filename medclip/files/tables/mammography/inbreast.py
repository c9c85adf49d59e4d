"""INbreast: `INbreast.csv`, one row an image. Its column of patients is blanked; the names of its files have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from medclip.files.tables.mammography.mammogram_row import (
    Cells,
    MammogramRow,
    Reading,
    birads_of,
    composition_of,
    images_of,
    side_of,
)
from medclip.text.breast_record import BreastRecord
from medclip.wording import count

COLUMNS = ("Laterality", "View", "Acquisition date", "File Name", "ACR", "Bi-Rads")
USES = COLUMNS
FILE = "{File Name}.dcm"


def read(rows: Sequence[Cells], more: Sequence[Cells] | None, images: Path) -> Reading:
    """Read it. Files are looked for in the folder of images: 22678622_61b13c59bcba149d_MG_R_CC_ANON.dcm, whose second
    part is the patient. A row without such a file is left without a patient, and shards are not built of it.
    """
    del more
    named: dict[str, str] = {}
    for path in sorted(images.rglob("*.dcm")) if images.is_dir() else ():
        number, _, rest = path.stem.partition("_")
        if rest:
            named.setdefault(number, path.relative_to(images).as_posix())
    read_rows = images_of(rows, ("File Name",), partial(_image, named=named))
    missing = sum(not row.patient for row in read_rows)
    note = (
        f"{count(missing, 'row')} without a patient: the table has none, and no file of the set's own name was found "
        "in the folder of images (--images)."
    )
    return Reading(read_rows, notes=(note,) if missing else ())


def _image(rows: Sequence[Cells], named: Mapping[str, str]) -> MammogramRow:
    row = rows[0]
    file = named.get(row.get("File Name", ""), "")
    patient = Path(file).stem.split("_")[1] if file else ""
    record = BreastRecord(
        side=side_of(row.get("Laterality", "")),
        view=row.get("View", "").upper(),
        composition=composition_of(row.get("ACR", "")),
        birads=birads_of(row.get("Bi-Rads", "")),
    )
    month = row.get("Acquisition date", "")
    return MammogramRow(
        file or FILE, patient, record, study=f"{patient}:{month}" if patient else "", exam_date=month, source=row
    )
