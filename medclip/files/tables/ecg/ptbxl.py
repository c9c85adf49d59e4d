"""PTB-XL: `ptbxl_database.csv`, one row a record; and the shared part of it that stands filtered in one archive.

Patients have the same numbers in both, so that they can be kept together. Folds 1 to 8 are for training, 9 for
validation, 10 for testing, as the set's authors recommend.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from medclip.errors import MedclipError, Reason
from medclip.files.tables.ecg.ecg_row import (
    Cells,
    EcgReading,
    EcgRow,
    first_of,
    record_file,
    records_of,
    without_fraction,
)
from medclip.text.ecg_statements import clean_report, labels_of, statements
from medclip.wording import count

COLUMNS = ("ecg_id", "patient_id", "scp_codes", "strat_fold")
USES = (*COLUMNS, "file", "filename_hr", "filename_lr", "age", "sex", "report", "recording_date")
FILE = ""
Z_COLUMNS = ("key", "ecg_id", "patient_id", "strat_fold", "superclass")
Z_USES = (*Z_COLUMNS, "scp_codes", "file", "age", "sex", "report")
Z_FILE = "records/{key}.hea"
VOLTAGES = ("LVH", "RVH", "SEHYP", "VCLVH", "HVOLT", "LVOLT", "LAO/LAE", "RAO/RAE", "HYP")
"""Statements and groups that are told by amplitudes, which a record that is scaled lead by lead has not."""
_SEX = {"0": "M", "1": "F"}
_VALIDATION, _TEST, _OLDEST = 9, 10, 89.0


def read(rows: Sequence[Cells], min_likelihood: float = 0.0) -> EcgReading:
    """Read the table of the set.

    Args:
        rows: Rows of the table.
        min_likelihood: Diagnoses below it, of 100, are taken for absent; forms and rhythms have no likelihood. With 0
            any listed statement is present, as in the benchmark of PTB-XL, those of likelihood 0 (unknown), too.

    Raises:
        MedclipError: TABLE_INVALID for statements that are no mapping of codes to likelihoods, with the row.
    """
    read_rows = records_of(rows, lambda row: _record(row, min_likelihood))
    edited = sum(bool(r.report and r.report.had_edit) for r in read_rows)
    note = f"{count(edited, 'report')} ended with labels of an editor (“Edit: ...”), which are taken out."
    return EcgReading(read_rows, (note,) if edited else ())


def read_z(rows: Sequence[Cells], min_likelihood: float = 0.0) -> EcgReading:
    """Read the table of the filtered part: where a row has no statements, its superclasses are known and no more.

    Hypertrophy and voltages are left unlabelled: each lead has been scaled by itself.
    """
    note = (
        "The leads of this part are scaled one by one: hypertrophy and voltages, which amplitudes tell, are not "
        f"labelled. Its records stand in one archive; write them as {Z_FILE} before shards are built."
    )
    return EcgReading(records_of(rows, lambda row: _scaled(row, min_likelihood)), (note,))


def codes_of(cell: str, min_likelihood: float = 0.0) -> tuple[str, ...]:
    """Read a cell of `scp_codes`, a mapping of codes to likelihoods in the form of Python.

    Raises:
        MedclipError: TABLE_INVALID for anything else.

    Example:
        >>> codes_of("{'IMI': 35.0, 'SR': 0.0}"), codes_of("{'IMI': 35.0, 'SR': 0.0}", 50)
        (('IMI', 'SR'), ('SR',))
    """
    try:
        stated = ast.literal_eval(cell) if cell.strip() else {}
        likelihoods = {str(code): float(value) for code, value in stated.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError):
        raise MedclipError(
            Reason.TABLE_INVALID,
            "scp_codes is no mapping of codes to likelihoods.",
            hint="It reads like {'NORM': 100.0, 'SR': 0.0}.",
        ) from None
    catalogue = statements()
    return tuple(
        code
        for code, value in likelihoods.items()
        if code in catalogue and (not catalogue[code].diagnostic or value >= min_likelihood)
    )


def _record(row: Cells, min_likelihood: float) -> EcgRow:
    codes = codes_of(row.get("scp_codes", ""), min_likelihood)
    return EcgRow(
        file=record_file(first_of(row, ("file", "filename_hr", "filename_lr"))),
        patient=without_fraction(row.get("patient_id", "")),
        codes=codes,
        labels=labels_of(codes),
        report=clean_report(row.get("report", "")),
        study=f"ptbxl:{without_fraction(row.get('ecg_id', ''))}",
        exam_date=row.get("recording_date", "").partition(" ")[0],
        age=_age(row.get("age", "")),
        sex=_SEX.get(without_fraction(row.get("sex", "")), ""),
        split=_split(row.get("strat_fold", "")),
        source=row,
    )


def _scaled(row: Cells, min_likelihood: float) -> EcgRow:
    record = _record(row, min_likelihood)
    labels: Mapping[str, Mapping[str, int]] = record.labels
    if not record.codes:
        groups = set(row.get("superclass", "").split("|"))
        superclasses = {code.lower(): int(code in groups) for code in ("NORM", "MI", "STTC", "CD", "HYP")}
        labels = {"ecg_superclass": superclasses}
    return EcgRow(
        file=record_file(row.get("file", "")) or Z_FILE,
        patient=record.patient,
        codes=tuple(c for c in record.codes if c not in VOLTAGES),
        labels={task: without_voltages(classes) for task, classes in labels.items()},
        report=record.report,
        study=record.study,
        age=record.age,
        sex=record.sex,
        split=record.split,
        source=row,
    )


def without_voltages(classes: Mapping[str, int]) -> dict[str, int]:
    """Leave out the classes that amplitudes tell."""
    names = {statements()[c].vocabulary.name if c in statements() else c.lower() for c in VOLTAGES}
    return {name: value for name, value in classes.items() if name not in names}


def _age(cell: str) -> str:
    """Return whole years; the set writes 300 for whoever is older than 89."""
    years = without_fraction(cell)
    return "90" if years.isdigit() and float(years) > _OLDEST else years


def _split(cell: str) -> str:
    fold = without_fraction(cell)
    if not fold.isdigit():
        return ""
    return {_VALIDATION: "val", _TEST: "test"}.get(int(fold), "train")
