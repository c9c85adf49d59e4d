"""EMBED: `EMBED_OpenData_metadata.csv` (one row a file) with `EMBED_OpenData_clinical.csv` (one row a finding).

Codes as in the set's `AWS_Open_Data_Clinical_Legend.csv`. Its licence forbids to release models, weights or embeddings
that were trained on any part of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.tables.mammography.mammogram_row import (
    BREAST_CANCER,
    Cells,
    MammogramRow,
    Reading,
    composition_of,
    grouped,
    images_of,
    one_of,
    side_of,
    worst_birads,
)
from medclip.files.tables.table import number_in
from medclip.text.breast_record import (
    CALCIFICATION,
    LYMPH_NODE,
    MASS,
    BreastFinding,
    BreastRecord,
    finding_kinds,
    suspicion_of,
)

COLUMNS = ("empi_anon", "acc_anon", "anon_dicom_path", "ImageLateralityFinal", "ViewPosition", "FinalImageType")
CLINICAL = ("empi_anon", "acc_anon", "numfind", "side", "asses", "massshape", "calcfind")
CLINICAL_USES = (
    *CLINICAL,
    "tissueden",
    "study_date_anon",
    "age_at_study",
    "massmargin",
    "massdens",
    "calcdistri",
    "otherfind",
    "implanfind",
    "size",
    "location",
    "depth",
    "bside",
    "path_severity",
    "procdate_anon",
)
USES = (*COLUMNS, "study_date_anon", "spot_mag", *CLINICAL_USES)
"""Of the metadata's 150 columns, half a million rows each."""
FILE = "{anon_dicom_path}"
_RISK = "label:breast_cancer_risk"
_BIRADS = {"A": 0, "N": 1, "B": 2, "P": 3, "S": 4, "M": 5, "K": 6}
_SHAPES = {"G": "", "R": "round", "O": "oval", "X": "irregular"}
_NOT_MASSES = {
    "A": ("architectural_distortion", None),
    "B": ("global_asymmetry", None),
    "F": ("focal_asymmetry", None),
    "V": ("focal_asymmetry", None),
    "S": ("asymmetry", None),
    "N": (LYMPH_NODE, False),
    "Y": (LYMPH_NODE, None),
}
"""Mass shapes that are findings of their own. A questioned distortion (Q) and a tubular structure (T) are none."""
_MARGINS = {"D": "circumscribed", "U": "obscured", "M": "microlobulated", "I": "indistinct", "S": "spiculated"}
_DENSITIES = {"+": "high density", "=": "equal density", "-": "low density", "0": "fat-containing"}
_FORMS = {
    "A": "amorphous",
    "H": "coarse heterogeneous",
    "C": "popcorn-like",
    "D": "dystrophic",
    "E": "rim",
    "F": "fine linear",
    "B": "fine linear branching",
    "I": "fine pleomorphic",
    "L": "large rod-like",
    "M": "milk of calcium",
    "J": "oil cyst",
    "K": "pleomorphic",
    "P": "punctate",
    "R": "round",
    "S": "skin",
    "O": "lucent-centred",
    "U": "suture",
    "V": "vascular",
    "Q": "coarse",
}
_BENIGN, _GENERIC = "9", "G"
_DISTRIBUTIONS = {"G": "grouped", "C": "grouped", "S": "segmental", "R": "regional", "D": "diffuse", "L": "linear"}
_OTHERS = {
    "4": ("asymmetry", None),
    "2": (LYMPH_NODE, None),
    "A": (LYMPH_NODE, True),
    "Z": (LYMPH_NODE, True),
    "V": (LYMPH_NODE, False),
    "D": ("architectural_distortion", None),
    "I": ("focal_asymmetry", None),
    "Q": ("focal_asymmetry", None),
    "Y": ("global_asymmetry", None),
    "J": ("skin_thickening", None),
    "S": ("skin_thickening", None),
    "N": ("nipple_retraction", None),
    "R": ("skin_retraction", None),
}
_PLACES = {
    "W": "upper outer",
    "X": "upper inner",
    "Y": "lower outer",
    "Z": "lower inner",
    "C": "central",
    "D": "inner",
    "I": "lower",
    "L": "outer",
    "S": "subareolar",
    "U": "upper",
    "T": "axillary tail",
    "A": "axillary tail",
    "UP": "upper",
    "LO": "lower",
    "IN": "inner",
    "OU": "outer",
}
_CLOCK = {
    12: "upper",
    1: "upper outer",
    2: "upper outer",
    3: "outer",
    4: "lower outer",
    5: "lower outer",
    6: "lower",
    7: "lower inner",
    8: "lower inner",
    9: "inner",
    10: "upper inner",
    11: "upper inner",
}
"""Of the left breast, seen from in front; the right one is its mirror image."""
_DEPTHS = {"A": "anterior", "M": "middle", "P": "posterior"}
_CANCER, _NO_CANCER = ("0", "1"), ("2", "3", "4", "5")
_PATHOLOGIES = {"0": "malignant", "1": "malignant", "4": "benign", "5": "normal"}
"""High-risk (2) and borderline lesions (3) are no cancer, and neither benign nor malignant here."""
_KINDS = {"2D": "standard", "CVIEW": "synthetic"}


_Exam = tuple[tuple[Cells, ...], Mapping[str, str]]
"""What the clinical table states of one exam: its rows, and its outcome."""


def read(rows: Sequence[Cells], more: Sequence[Cells] | None, images: Path) -> Reading:
    """Read images with their findings, matched by exam and side: findings of both sides, or of none, are of each.

    Args:
        rows: Rows of the metadata, or of both tables merged.
        more: Rows of the clinical table; None where they are merged.
        images: Folder of the images, which is not needed.

    Raises:
        MedclipError: TABLE_INVALID where no row states a finding's columns.
    """
    del images
    clinical = rows if more is None else more
    if clinical and not {"side", "asses"} <= set(clinical[0]):
        raise MedclipError(
            Reason.TABLE_INVALID,
            "the metadata of EMBED has no findings.",
            hint="Name its clinical table, too: --findings EMBED_OpenData_clinical.csv.",
        )
    exams = _exams(clinical)
    set_aside: Counter[str] = Counter()

    def image(of_image: Sequence[Cells]) -> MammogramRow | None:
        reason = _reason(of_image)
        if reason:
            set_aside[reason] += 1
            return None
        return _image(of_image, exams)

    return Reading(
        images_of(rows, ("anon_dicom_path",), image),
        set_aside,
        ("EMBED's licence forbids to release models, weights or embeddings that were trained on any part of it.",),
    )


def _reason(rows: Sequence[Cells]) -> str:
    if number_in(one_of(rows, "spot_mag") or "0") == 1:
        return "spot or magnification view"
    kind = _plain(one_of(rows, "FinalImageType"))
    return "" if kind in _KINDS else f"image type {kind or 'unknown'}"


def _published(path: str) -> str:
    """Return where a file lies as it is published: paths of the table are those of the machine it was made on."""
    cohort = re.search(r"cohort_\d+/.*", path)
    return f"images/{cohort[0]}" if path.startswith("/") and cohort else path


def _plain(kind: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", kind.upper())


def _image(rows: Sequence[Cells], exams: Mapping[tuple[str, str], _Exam]) -> MammogramRow:
    patient, study, side = one_of(rows, "empi_anon"), one_of(rows, "acc_anon"), one_of(rows, "ImageLateralityFinal")
    of_exam, outcome = exams.get((patient, study), ((), {}))
    record, labels = _record(of_exam, side_of(side))
    record = replace(
        record,
        view=one_of(rows, "ViewPosition").upper(),
        view_kind=_KINDS[_plain(one_of(rows, "FinalImageType"))],
    )
    return MammogramRow(
        _published(one_of(rows, "anon_dicom_path")),
        patient,
        record,
        study=study,
        exam_date=_day(one_of(rows, "study_date_anon")),
        age=one_of([*rows, *of_exam], "age_at_study"),
        labels={**labels, **outcome},
        source=rows[0],
    )


def _record(rows: Sequence[Cells], side: str) -> tuple[BreastRecord, dict[str, str]]:
    of_side = [row for row in rows if row.get("side", "").strip().upper() in ("", "B", side)]
    findings = tuple(dict.fromkeys(f for row in of_side for f in _findings(row, side)))
    birads = worst_birads(_BIRADS.get(row.get("asses", "").strip().upper()) for row in of_side)
    # pathology has a side of its own, and stands in the row of the finding that led to it
    severities = [
        row["path_severity"].split(".")[0]
        for row in of_side
        if row.get("path_severity") and row.get("bside", "").strip().upper() in ("", "B", side)
    ]
    worst = min((s for s in severities if s in (*_CANCER, *_NO_CANCER)), default="")
    record = BreastRecord(
        side=side,
        composition=composition_of(one_of(rows, "tissueden")),
        birads=birads,
        findings=findings,
        absent=finding_kinds() if of_side and not findings and birads == 1 else (),
        pathology=_PATHOLOGIES.get(worst, ""),
        implant=True if any(row.get("implanfind") for row in of_side) else None,
    )
    labels = {BREAST_CANCER: "0"} if worst in _NO_CANCER else {}
    return record, labels


def _findings(row: Cells, side: str) -> list[BreastFinding]:
    quadrant, depth = _place(row.get("location", ""), side), _DEPTHS.get(row.get("depth", "").strip().upper(), "")
    findings = []
    for code in _codes(row.get("massshape", "")):
        if code in _SHAPES:
            size = number_in(row.get("size", "") or "nan")
            densities = [_DENSITIES[c] for c in _codes(row.get("massdens", "")) if c in _DENSITIES]
            findings.append(
                BreastFinding(
                    MASS,
                    quadrant,
                    depth,
                    _SHAPES[code],
                    tuple(_MARGINS[c] for c in _codes(row.get("massmargin", "")) if c in _MARGINS),
                    densities[0] if densities else "",
                    size if 0 < size <= 300 else None,
                )
            )
        elif code in _NOT_MASSES:
            kind, suspicious = _NOT_MASSES[code]
            findings.append(BreastFinding(kind, quadrant, depth, suspicious=suspicious))
    codes = _codes(row.get("calcfind", ""))
    if codes:
        forms = tuple(_FORMS[code] for code in codes if code in _FORMS)
        places = [_DISTRIBUTIONS[c] for c in _codes(row.get("calcdistri", "")) if c in _DISTRIBUTIONS]
        suspicious = suspicion_of(forms) if forms else False if _BENIGN in codes else None
        if forms or {_BENIGN, _GENERIC} & set(codes):
            findings.append(
                BreastFinding(
                    CALCIFICATION,
                    quadrant,
                    depth,
                    forms=forms,
                    suspicious=suspicious,
                    distribution=places[0] if len(places) == 1 else "",
                )
            )
    for code in _codes(row.get("otherfind", "")):
        if code in _OTHERS:
            kind, suspicious = _OTHERS[code]
            findings.append(BreastFinding(kind, suspicious=suspicious))
    return findings


def _place(code: str, side: str) -> str:
    plain = code.strip().upper()
    hour = number_in(plain) if plain else float("nan")
    if hour in _CLOCK:
        return _CLOCK[int(hour) if side != "R" else (12 - int(hour)) % 12 or 12] if side else ""
    return _PLACES.get(plain, "")


def _codes(cell: str) -> list[str]:
    return [code.strip().upper() for code in re.split(r"[,;\s]+", cell) if code.strip()]


def _exams(rows: Sequence[Cells]) -> dict[tuple[str, str], _Exam]:
    """Group the rows by exam, with what is known of the months after it."""
    by_exam = grouped(rows, ("empi_anon", "acc_anon"))
    days: dict[str, list[date]] = {}
    cancers: dict[str, list[date]] = {}
    day_of: dict[tuple[str, ...], date | None] = {}
    for (patient, study), of_exam in by_exam.items():
        day = day_of[(patient, study)] = _date(one_of(of_exam, "study_date_anon"))
        if day is None:
            continue
        days.setdefault(patient, []).append(day)
        for row in of_exam:
            if row.get("path_severity", "").split(".")[0] in _CANCER:
                cancers.setdefault(patient, []).append(_date(row.get("procdate_anon", "")) or day)
    exams = {}
    for (patient, study), of_exam in by_exam.items():
        day = day_of[(patient, study)]
        outcome = {} if day is None else _outcome(day, days[patient], cancers.get(patient, []))
        exams[(patient, study)] = (tuple(of_exam), outcome)
    return exams


def _outcome(day: date, days: Sequence[date], cancers: Sequence[date]) -> dict[str, str]:
    """Count months from an exam to the patient's first cancer, and to the last that is known of her.

    An exam after the first cancer has no such label: it is that of a patient, not of screening.
    """
    first = min(cancers, default=None)
    if first is not None and first < day:
        return {}
    last = max([*days, *cancers])
    outcome = {f"{_RISK}:followup_months": str(_months(day, last))}
    return outcome if first is None else outcome | {f"{_RISK}:event_months": str(_months(day, first))}


def _months(start: date, end: date) -> int:
    return (end.year - start.year) * 12 + end.month - start.month - (end.day < start.day)


def _date(value: str) -> date | None:
    match = re.match(r"(\d{4})-(\d\d)-(\d\d)", value)
    return date(*map(int, match.groups())) if match else None


def _day(value: str) -> str:
    day = _date(value)
    return "" if day is None else day.isoformat()
