"""The shared parts of PTB-XL as one table: `ptbxl` in millivolts and `ptbxl_z`, whose leads are scaled one by one.

Usage: python pipelines/ecg/ptbxl.py SHARED_DATA OUT      OUT/table.csv, and OUT/z/*.hea of what stands in one archive

A patient has the same name in both, and so the same fold. Hypertrophy and voltages of ptbxl_z are not labelled.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from simulate import write_wfdb

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
    write_archive(data / "ptbxl_z" / "ecg_z.npz", out / "z")
    rows = []
    for name, reader in zip(SETS, (read, read_z), strict=True):
        stated = read_rows(data / name / "labels.csv")
        for row, own in zip(reader(stated).rows, stated, strict=True):
            file = data / "ptbxl" / row.file if name == "ptbxl" else out / "z" / f"{own['key']}.hea"
            rows.append(_row(row, file.resolve(), name, own))
    return write_rows(out / "table.csv", rows)


def write_archive(archive: Path, out: Path, mv_of_unit: float = 1.0) -> None:
    """Write the records of the archive as WFDB, of which a unit is called 1 mV where nothing else is said."""
    stored = np.load(archive)
    out.mkdir(parents=True, exist_ok=True)
    names = [str(name) for name in stored["leads"]]
    hz, scale, signals = float(stored["fs"]), float(stored["scale"]), stored["signal"]
    for number, signal in zip(stored["ecg_id"].tolist(), signals, strict=True):
        write_wfdb(out / str(number), (signal.T * (scale * mv_of_unit)).astype(np.float32), hz, names)


def _row(row: EcgRow, file: Path, name: str, own: Mapping[str, str]) -> dict[str, str]:
    cells = {key: value for key, value in row.cells().items() if key not in ("file", "split", "patient")}
    report = row.report.text if row.report is not None else ""
    more = {"report": report, "fold": own["strat_fold"], "source": name, "license": "CC BY 4.0"}
    return {"file": str(file), "patient": f"ptbxl:{row.patient}"} | cells | more


if __name__ == "__main__":
    print(write_table(Path(sys.argv[1]), Path(sys.argv[2])))
