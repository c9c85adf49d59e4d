"""Tables in the columns of public ECG sets, with rows made by hand: no set's own row is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

PTBXL: Sequence[Mapping[str, object]] = (
    {
        "ecg_id": 1,
        "patient_id": "101.0",
        "age": "56.0",
        "sex": 1,
        "recording_date": "1990-01-02 03:04:05",
        "report": "sinusrhythmus linkstyp 4.46      unbestÄtigter bericht",
        "scp_codes": "{'IMI': 35.0, 'LVH': 100.0, 'SR': 0.0}",
        "strat_fold": 3,
        "filename_lr": "records100/00000/00001_lr",
        "filename_hr": "records500/00000/00001_hr",
    },
    {
        "ecg_id": 2,
        "patient_id": "102.0",
        "age": "300.0",
        "sex": 0,
        "recording_date": "1990-01-03 03:04:05",
        "report": "sinus rhythm. normal ecg. Edit: NORM 100",
        "scp_codes": "{'NORM': 80.0, 'SR': 0.0}",
        "strat_fold": 9,
        "filename_lr": "records100/00000/00002_lr",
        "filename_hr": "records500/00000/00002_hr",
    },
    {
        "ecg_id": 3,
        "patient_id": "103.0",
        "age": "",
        "sex": "",
        "recording_date": "",
        "report": "trace only requested.",
        "scp_codes": "{'AFIB': 0.0}",
        "strat_fold": 10,
        "filename_lr": "records100/00000/00003_lr",
        "filename_hr": "records500/00000/00003_hr",
    },
)
PTBXL_Z: Sequence[Mapping[str, object]] = (
    {
        "key": 11,
        "ecg_id": 11,
        "patient_id": 101,
        "strat_fold": 3,
        "superclass": "HYP|CD",
        "age": "",
        "sex": "",
        "report": "",
        "scp_codes": "",
    },
    {
        "key": 12,
        "ecg_id": 12,
        "patient_id": 104,
        "strat_fold": 9,
        "superclass": "HYP",
        "age": "70.0",
        "sex": "0.0",
        "report": "sinus rhythm. high voltages",
        "scp_codes": "{'LVH': 100.0, 'VCLVH': 0.0, 'SR': 0.0}",
    },
)
MIMIC: Sequence[Mapping[str, object]] = (
    {
        "subject_id": 10000032,
        "study_id": 40689238,
        "ecg_time": "2180-07-23 08:44:00",
        "report_0": "Sinus rhythm",
        "report_1": "Possible inferior infarct - age undetermined",
        "report_2": "Abnormal EKG",
        "report_17": "",
    },
    {
        "subject_id": 10000032,
        "study_id": 44458630,
        "ecg_time": "2180-07-23 09:54:00",
        "report_0": "Sinus rhythm.",
        "report_1": "",
        "report_2": "",
        "report_17": "",
    },
)
CPSC: Sequence[Mapping[str, object]] = (
    {"Recording": "A0001", "First_label": 5, "Second_label": "", "Third_label": ""},
    {"Recording": "A0002", "First_label": 2, "Second_label": 7, "Third_label": ""},
)
CHAPMAN: Sequence[Mapping[str, object]] = (
    {"FileName": "MUSE_1", "Rhythm": "AFIB", "Beat": "RBBB TWC ALS", "PatientAge": 85, "Gender": "MALE"},
    {"FileName": "MUSE_2", "Rhythm": "SB", "Beat": "NONE", "PatientAge": 59, "Gender": "FEMALE"},
)


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write a table as CSV."""
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
