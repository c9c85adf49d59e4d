"""MIMIC-IV-ECG: `machine_measurements.csv`, one row a record with up to 18 statements of the cart; no labels."""

from __future__ import annotations

from collections.abc import Sequence

from medclip.files.tables.ecg.ecg_row import Cells, EcgReading, EcgRow, record_file, records_of, without_fraction
from medclip.text.ecg_statements import clean_report

COLUMNS = ("subject_id", "study_id", "report_0")
REPORTS = tuple(f"report_{k}" for k in range(18))
USES = ("subject_id", "study_id", *REPORTS, "ecg_time", "path")
FILE = ""


def read(rows: Sequence[Cells], min_likelihood: float = 0.0) -> EcgReading:
    """Read it. Records lie where the archive has them: files/p1000/p10000032/s40689238/40689238."""
    del min_likelihood
    return EcgReading(records_of(rows, _record))


def _record(row: Cells) -> EcgRow:
    patient, study = without_fraction(row.get("subject_id", "")), without_fraction(row.get("study_id", ""))
    place = row.get("path") or f"files/p{patient[:4]}/p{patient}/s{study}/{study}"
    return EcgRow(
        file=record_file(place),
        patient=patient,
        report=clean_report([row.get(name, "") for name in REPORTS]),
        study=f"mimic:{study}",
        exam_date=row.get("ecg_time", "").partition(" ")[0],
        source=row,
    )
