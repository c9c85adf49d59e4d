"""CPSC2018 (`REFERENCE.csv`) and Chapman-Shaoxing (`Diagnostics`): labels of a closed list, no reports, no patients.

What stands on the list and is not stated of a record is absent; what is not on the list was not looked for, and is left
unlabelled, so that no group (superclass, subclass) is known to be absent either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from medclip.errors import MedclipError, Reason
from medclip.files.tables.cells import shown
from medclip.files.tables.ecg.ecg_row import Cells, EcgReading, EcgRow, records_of, without_fraction
from medclip.text.ecg_statements import labels_of_list

CPSC_COLUMNS = ("Recording", "First_label", "Second_label", "Third_label")
CPSC_FILE = "{Recording}.mat"
CPSC = ("NORM", "AFIB", "1AVB", "CLBBB", "CRBBB", "PAC", "PVC", "STD_", "STE_")
"""The nine labels, 1 to 9. Blocks are not told complete or incomplete there; the challenges count them as complete."""
CHAPMAN_COLUMNS = ("FileName", "Rhythm", "Beat")
CHAPMAN_USES = (*CHAPMAN_COLUMNS, "PatientAge", "Gender")
CHAPMAN_FILE = "{FileName}.hea"
RHYTHMS: Mapping[str, str] = {
    "SR": "SR",
    "SB": "SBRAD",
    "ST": "STACH",
    "AFIB": "AFIB",
    "AF": "AFLT",
    "SA": "SARRH",
    "SI": "SARRH",
    "SVT": "SVTAC",
    "AT": "SVTAC",
    "AVNRT": "SVTAC",
    "AVRT": "SVTAC",
    "SAAWR": "SVARR",
}
BEATS: Mapping[str, str] = {
    "1AVB": "1AVB",
    "2AVB": "2AVB",
    "2AVB1": "2AVB",
    "2AVB2": "2AVB",
    "3AVB": "3AVB",
    "APB": "PAC",
    "PAC": "PAC",
    "VPB": "PVC",
    "PVC": "PVC",
    "AQW": "QWAVE",
    "LBBB": "CLBBB",
    "LFBBB": "LAFB",
    "RBBB": "CRBBB",
    "LVH": "LVH",
    "LVHV": "VCLVH",
    "RVH": "RVH",
    "LVQRSAL": "LVOLT",
    "LVQRSCL": "LVOLT",
    "LVQRSLL": "LVOLT",
    "PRIE": "LPR",
    "QTIE": "LNGQT",
    "RAH": "RAO/RAE",
    "LAH": "LAO/LAE",
    "STDD": "STD_",
    "STE": "STE_",
    "TWC": "TAB_",
    "TWO": "INVT",
    "WPW": "WPW",
    "VPE": "WPW",
    "IVB": "IVCD",
    "NIVB": "IVCD",
    "VB": "BIGU",
    "ABI": "BIGU",
    "VET": "TRIGU",
}
_SEX = {"MALE": "M", "FEMALE": "F", "M": "M", "F": "F"}
_NO_PATIENTS = "The table names no patients: each record is taken for a patient of its own."


def read_cpsc(rows: Sequence[Cells], min_likelihood: float = 0.0) -> EcgReading:
    """Read CPSC2018.

    Raises:
        MedclipError: TABLE_INVALID for a label that is not 1 to 9, with the row.
    """
    del min_likelihood
    return EcgReading(records_of(rows, _cpsc), (_NO_PATIENTS,))


def read_chapman(rows: Sequence[Cells], min_likelihood: float = 0.0) -> EcgReading:
    """Read Chapman-Shaoxing; abbreviations that are no statement of PTB-XL (an axis, a rotation) are passed over."""
    del min_likelihood
    return EcgReading(records_of(rows, _chapman), (_NO_PATIENTS,))


def _cpsc(row: Cells) -> EcgRow:
    codes = []
    for name in CPSC_COLUMNS[1:]:
        cell = without_fraction(row.get(name, ""))
        if cell and cell not in tuple("123456789"):
            raise MedclipError(Reason.TABLE_INVALID, f"{name} is {shown(cell)}.", hint="Labels are 1 to 9.")
        codes += [CPSC[int(cell) - 1]] if cell else []
    number = row.get("Recording", "")
    return EcgRow(CPSC_FILE, number, tuple(codes), labels_of_list(codes, CPSC), study=f"cpsc:{number}", source=row)


def _chapman(row: Cells) -> EcgRow:
    beats = re.split(r"[\s,;]+", row.get("Beat", "").upper())
    codes = [RHYTHMS.get(row.get("Rhythm", "").strip().upper(), ""), *(BEATS.get(b, "") for b in beats)]
    codes = list(dict.fromkeys(c for c in codes if c))
    listed = {*RHYTHMS.values(), *BEATS.values()}
    number = row.get("FileName", "")
    return EcgRow(
        CHAPMAN_FILE,
        number,
        tuple(codes),
        labels_of_list(codes, listed),
        study=f"chapman:{number}",
        age=without_fraction(row.get("PatientAge", "")),
        sex=_SEX.get(row.get("Gender", "").upper(), ""),
        source=row,
    )
