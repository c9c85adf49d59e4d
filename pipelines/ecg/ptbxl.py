"""The shared parts of PTB-XL as one table: `ptbxl` in millivolts and `ptbxl_z`, whose leads are scaled one by one.

Usage: python pipelines/ecg/ptbxl.py SHARED_DATA OUT      OUT/table.csv, and OUT/z/*.hea of what stands in one archive

A patient has the same name in both, and so the same fold. Hypertrophy and voltages of ptbxl_z are not labelled.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from medclip.evaluation.zero_shot.open_set_tables import write_records
from medclip.files.tables.ecg.ecg_row import EcgRow
from medclip.files.tables.ecg.ptbxl import read, read_z

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import read_rows, write_rows  # pyright: ignore[reportMissingImports]

SETS = ("ptbxl", "ptbxl_z")


def write_table(data: Path, out: Path) -> Path:
    """Write both parts as one table, with labels, reports and folds; returns it.

    Args:
        data: Folder of the shared sets.
        out: For the table and for records that stand in an archive.
    """
    write_records(data / "ptbxl_z" / "ecg_z.npz", out / "z")
    rows = []
    for name, reader in zip(SETS, (read, read_z), strict=True):
        stated = read_rows(data / name / "labels.csv")
        for row, own in zip(reader(stated).rows, stated, strict=True):
            file = data / "ptbxl" / row.file if name == "ptbxl" else out / "z" / f"{own['key']}.hea"
            rows.append(_row(row, file.resolve(), name, own))
    return write_rows(out / "table.csv", rows)


def _row(row: EcgRow, file: Path, name: str, own: Mapping[str, str]) -> dict[str, str]:
    cells = {key: value for key, value in row.cells().items() if key not in ("file", "split", "patient")}
    report = row.report.text if row.report is not None else ""
    more = {"report": report, "fold": own["strat_fold"], "source": name, "license": "CC BY 4.0"}
    return {"file": str(file), "patient": f"ptbxl:{row.patient}"} | cells | more


if __name__ == "__main__":
    print(write_table(Path(sys.argv[1]), Path(sys.argv[2])))
