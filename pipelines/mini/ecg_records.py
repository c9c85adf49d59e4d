"""The records of PTB-XL in the table of the pack: an image model is shown cuttings of their sheet.

Both parts are one set of people. Records of `ptbxl_z`, whose leads are scaled one by one, are drawn as if the deviation
of each lead were that of most ECGs; nothing that amplitudes tell is labelled in them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "ecg"))

from ptbxl import SETS  # pyright: ignore[reportMissingImports]
from shared_sets import LICENCES, Row, read_labels

from medclip.evaluation.zero_shot.open_set_tables import write_records
from medclip.files.tables.ecg.ecg_row import EcgRow
from medclip.files.tables.ecg.ptbxl import read, read_z
from medclip.models.inputs.signal_input import STD_MV

TASKS = ("ecg_superclass", "ecg_rhythm")
"""What is learned and asked of a record: of the other tasks most classes have a handful of records."""
STRATA = ("norm", "mi", "hyp", "cd", "sttc")
"""A record is drawn as the first that is true of it."""
ARCHIVE = "z"


def record_rows(data: Path, records: Path) -> list[Row]:
    """Return a row for each record.

    Args:
        data: The folder of shared sets.
        records: Where those that stand in one archive are written, once.
    """
    archive = records / ARCHIVE
    if not archive.is_dir():
        write_records(data / "ptbxl_z" / "ecg_z.npz", archive, mv_of_unit=STD_MV)
    rows = []
    for name, reader in zip(SETS, (read, read_z), strict=True):
        stated = list(read_labels(data / name))
        for row, own in zip(reader(stated).rows, stated, strict=True):
            file = data / "ptbxl" / row.file if name == "ptbxl" else archive / f"{own['key']}.hea"
            rows.append(_row(row, file.resolve(), name))
    return rows


def _row(row: EcgRow, file: Path, name: str) -> Row:
    labels = {k: v for k, v in row.cells().items() if k.startswith("label:") and k.split(":")[1] in TASKS}
    stratum = next((c for c in STRATA if labels.get(f"label:{TASKS[0]}:{c}") == "1"), "other")
    known = {"age": row.age, "sex": row.sex, "source": name, "license": LICENCES[name], "stratum": stratum}
    return {"file": str(file), "patient": f"ptbxl:{row.patient}", "modality": "ecg"} | labels | known
