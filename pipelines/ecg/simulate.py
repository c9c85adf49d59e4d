"""Simulated 12-lead ECGs with a known truth: no patient, no licence to ask for.

What is drawn of a patient and planted in a record is in `heart.py`, how it looks in twelve leads in `heart_signal.py`,
and what a report says of it in `heart_report.py`. A patient's records share age, sex, axis, voltages and the torso; one
patient in three is healthy. Faults of electrodes can be planted; neither reports nor labels speak of them.

Usage: python simulate.py OUT [--num 100] [--records 1] [--seed 0] [--hz 500] [--seconds 10] [--faults 0] [--noise 1]
Writes OUT/records/*.hea and *.dat (WFDB), OUT/table.csv (one row a record with reports, SCP codes and the labels of
medclip's six ECG tasks, for medclip shards build) and OUT/ptbxl_database.csv (the same in the columns of PTB-XL).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from heart import Heart, draw_heart
from heart_report import write_report
from heart_signal import LEADS, simulate_leads
from numpy.typing import NDArray

from medclip.imaging.ecg.formats.wfdb import wfdb_record
from medclip.text.ecg_statements import labels_of, statements

NUM_FOLDS = 10


def write_cohort(
    out: Path,
    num: int,
    *,
    records: int = 1,
    seed: int = 0,
    sampling_hz: float = 500.0,
    seconds: float = 10.0,
    faults: float = 0.0,
    noise: float = 1.0,
    sizes: Sequence[int] = (),
) -> Path:
    """Write records of `num` patients; returns the table. The same arguments write the same bytes.

    Args:
        out: Folder for records and tables.
        num: Patients.
        records: Of each patient.
        seed: Of the cohort.
        sampling_hz: Of the records.
        seconds: Length of the records.
        faults: Share of records with a fault of an electrode.
        noise: Factor on noise and wander; 0 for clean records.
        sizes: Patients for training and for validation, all others are for testing; empty for PTB-XL's folds: 1 to 8,
            9 and 10.
    """
    (out / "records").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for heart in hearts(num, records, seed, faults=faults, noise=noise):
        leads = simulate_leads(heart, seed, sampling_hz=sampling_hz, seconds=seconds)
        write_wfdb(out / "records" / name_of(heart), leads, sampling_hz)
        rows.append(table_row(heart, seed, split_of(heart.patient, sizes)))
    _write_csv(out / "table.csv", rows)
    _write_csv(out / "ptbxl_database.csv", [ptbxl_row(number, row) for number, row in enumerate(rows, 1)])
    return out / "table.csv"


def hearts(num: int, records: int, seed: int, *, faults: float = 0.0, noise: float = 1.0) -> Iterator[Heart]:
    """Draw the hearts of a cohort, patient by patient."""
    for patient in range(num):
        for record in range(records):
            yield draw_heart(patient, record, seed, faults=faults, noise=noise)


def name_of(heart: Heart) -> str:
    """Name a record's files."""
    return f"{heart.patient:05}_{heart.record}"


def write_wfdb(path: Path, leads: NDArray[np.float32], sampling_hz: float, names: Sequence[str] = LEADS) -> Path:
    """Write a record as WFDB, 16 bits a sample; returns its header.

    Args:
        path: Without suffix.
        leads: [L, T] in mV.
        sampling_hz: Of the record.
        names: Of the leads.
    """
    signals, header = wfdb_record(path.name, leads, sampling_hz, names)
    path.with_suffix(".dat").write_bytes(signals)
    path.with_suffix(".hea").write_text(header, encoding="utf-8")
    return path.with_suffix(".hea")


def table_row(heart: Heart, seed: int, split: str) -> dict[str, Any]:
    """Return a record's row for shards: what is known of it, its reports and its labels."""
    labels = {f"label:{t}:{c}": v for t, classes in labels_of(heart.statements).items() for c, v in classes.items()}
    return {
        "file": f"records/{name_of(heart)}.hea",
        "patient": f"simulated:{heart.patient:05}",
        "study": f"simulated:{name_of(heart)}",
        "modality": "ecg",
        "age": heart.age,
        "sex": "MF"[heart.sex],
        "report": write_report(heart, seed, "en"),
        "report_de": write_report(heart, seed, "de"),
        "scp_codes": "|".join(heart.statements),
        "fault": heart.fault,
        "strat_fold": fold_of(heart.patient),
        "split": split,
        "source": "simulated",
        "license": "CC0-1.0",
    } | labels


def ptbxl_row(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's row in the columns of PTB-XL; one report in three is English, as some of PTB-XL's are."""
    codes = {c: 0.0 if not statements()[c].diagnostic else 100.0 for c in str(row["scp_codes"]).split("|")}
    return {
        "ecg_id": number,
        "patient_id": float(int(str(row["patient"]).partition(":")[2]) + 1),
        "age": float(row["age"]),
        "sex": int(row["sex"] == "F"),
        "report": str(row["report" if number % 3 == 0 else "report_de"]).lower().rstrip("."),
        "scp_codes": str(codes),
        "strat_fold": row["strat_fold"],
        "filename_hr": str(row["file"]).removesuffix(".hea"),
    }


def fold_of(patient: int) -> int:
    """Return the patient's fold, 1 to 10."""
    return patient % NUM_FOLDS + 1


def split_of(patient: int, sizes: Sequence[int] = ()) -> str:
    """Return train, val or test, see `write_cohort`."""
    if sizes:
        return "train" if patient < sizes[0] else "val" if patient < sum(sizes[:2]) else "test"
    return {NUM_FOLDS - 1: "val", NUM_FOLDS: "test"}.get(fold_of(patient), "train")


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Write the cohort that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--records", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hz", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--noise", type=float, default=1.0)
    given = parser.parse_args()
    write_cohort(
        given.out,
        given.num,
        records=given.records,
        seed=given.seed,
        sampling_hz=given.hz,
        seconds=given.seconds,
        faults=given.faults,
        noise=given.noise,
    )
    print(f"{given.num} patients, {given.num * given.records} records: {given.out}")


if __name__ == "__main__":
    main()
