"""CBIS-DDSM: the case descriptions (one row an abnormality), or a table that has but the paths of the images.

DDSM's 4-view exams, whose overlay files say the same in one text, are read here too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.tables.mammography.mammogram_row import (
    Cells,
    MammogramRow,
    Reading,
    birads_of,
    composition_of,
    grouped,
    images_of,
    one_of,
    side_of,
    worst_birads,
    worst_pathology,
)
from medclip.text.breast_record import CALCIFICATION, LYMPH_NODE, MASS, BreastFinding, BreastRecord, suspicion_of
from medclip.wording import count

COLUMNS = ("patient_id", "abnormality_id", "abnormality_type", "assessment", "pathology", "subtlety")
PATHS = ("img_path", "roi_path", "label")
DDSM = ("file", "exam", "laterality", "view", "density", "lesion", "assessment", "pathology")
_DENSITIES = ("breast_density", "breast density", "density")
"""The published tables of masses have the first, those of calcifications the second: put into one, they have both."""
USES = (
    *COLUMNS,
    "left_or_right_breast",
    "image_view",
    *_DENSITIES,
    "mass_shape",
    "mass_margins",
    "calc_type",
    "calc_distribution",
    "image_file_path",
    "source_split",
)
DDSM_USES = (*DDSM, "study_date", "age")
FILE = "{file}"
_SHAPES = {"OVAL": "oval", "ROUND": "round", "LOBULATED": "lobulated", "IRREGULAR": "irregular"}
_NOT_MASSES = {
    "ARCHITECTURAL_DISTORTION": "architectural_distortion",
    "ASYMMETRIC_BREAST_TISSUE": "global_asymmetry",
    "FOCAL_ASYMMETRIC_DENSITY": "focal_asymmetry",
    "LYMPH_NODE": LYMPH_NODE,
}
"""Shapes of DDSM that are findings of their own in BI-RADS."""
_MARGINS = {
    "CIRCUMSCRIBED": "circumscribed",
    "OBSCURED": "obscured",
    "MICROLOBULATED": "microlobulated",
    "ILL_DEFINED": "ill-defined",
    "SPICULATED": "spiculated",
}
_FORMS = {
    "AMORPHOUS": "amorphous",
    "COARSE": "coarse",
    "DYSTROPHIC": "dystrophic",
    "EGGSHELL": "eggshell",
    "FINE_LINEAR_BRANCHING": "fine linear branching",
    "LARGE_RODLIKE": "large rod-like",
    "LUCENT_CENTER": "lucent-centred",
    "LUCENT_CENTERED": "lucent-centred",
    "MILK_OF_CALCIUM": "milk of calcium",
    "PLEOMORPHIC": "pleomorphic",
    "PUNCTATE": "punctate",
    "ROUND_AND_REGULAR": "round",
    "SKIN": "skin",
    "VASCULAR": "vascular",
}
_DISTRIBUTIONS = {
    "CLUSTERED": "grouped",
    "DIFFUSELY_SCATTERED": "diffuse",
    "LINEAR": "linear",
    "REGIONAL": "regional",
    "SEGMENTAL": "segmental",
}
_PARTS = {"Training": "train", "Test": "test"}
_PATH = re.compile(
    r"(?P<type>Mass|Calc)-(?P<split>Training|Test)_(?P<patient>P_\d+)_(?P<side>LEFT|RIGHT)_(?P<view>CC|MLO)"
)
_LESION = re.compile(r"(?P<type>MASS|CALCIFICATION)\s+(?P<rest>.*)")


def read(rows: Sequence[Cells], more: Sequence[Cells] | None, images: Path) -> Reading:
    """Read the case descriptions. All abnormalities of an image are findings of it; what else is there, nobody says."""
    del more, images
    splits = {patient: {_split(row) for row in of} for (patient,), of in grouped(rows, ("patient_id",)).items()}
    torn = {patient for patient, of in splits.items() if len(of - {""}) > 1}
    key = ("patient_id", "left_or_right_breast", "image_view")
    read_rows = images_of(rows, key, partial(_image, torn=torn))
    note = f"{count(len(torn), 'patient')} of both official parts: all images of theirs are for training."
    return Reading(read_rows, notes=(note,) if torn else ())


def _split(row: Cells) -> str:
    stated = row.get("source_split", "").lower()
    path = _PATH.search(row.get("image_file_path", ""))
    return stated or (_PARTS[path["split"]] if path else "")


def _image(rows: Sequence[Cells], torn: set[str]) -> MammogramRow:
    patient, side, view = (one_of(rows, name) for name in ("patient_id", "left_or_right_breast", "image_view"))
    type_ = "Mass" if one_of(rows, "abnormality_type").lower() == MASS else "Calc"
    split = "train" if patient in torn else _split(rows[0])
    part = {"test": "Test"}.get(_split(rows[0]), "Training")
    record = BreastRecord(
        side=side_of(side),
        view=view.upper(),
        composition=composition_of(next(filter(None, (one_of(rows, name) for name in _DENSITIES)), "")),
        birads=worst_birads(birads_of(row.get("assessment", "")) for row in rows),
        findings=tuple(dict.fromkeys(f for row in rows for f in _findings(row))),
        pathology=worst_pathology([_pathology(row.get("pathology", "")) for row in rows]),
    )
    file = one_of(rows, "image_file_path").strip() or f"{type_}-{part}_{patient}_{side}_{view}"
    return MammogramRow(file, patient, record, study=patient, split=split, source=rows[0])


def _pathology(value: str) -> str:
    return {"MALIGNANT": "malignant", "BENIGN": "benign", "BENIGN_WITHOUT_CALLBACK": "benign"}.get(value.upper(), "")


def _findings(row: Cells) -> list[BreastFinding]:
    birads = birads_of(row.get("assessment", ""))
    if row.get("abnormality_type", "").lower().startswith("calc"):
        return [_calcifications(row.get("calc_type", ""), row.get("calc_distribution", ""), birads)]
    return _masses(row.get("mass_shape", ""), row.get("mass_margins", ""))


def _masses(shapes: str, margins: str) -> list[BreastFinding]:
    named = [part for part in shapes.upper().split("-") if part and part not in ("N/A", "NA")]
    others = [BreastFinding(kind, suspicious=False if kind == LYMPH_NODE else None) for kind in _kinds(named)]
    mass_shapes = [_SHAPES[part] for part in named if part in _SHAPES]
    if others and not mass_shapes:
        return others
    shape = mass_shapes[0] if len(mass_shapes) == 1 else ""
    words = tuple(_MARGINS[part] for part in margins.upper().split("-") if part in _MARGINS)
    return [BreastFinding(MASS, shape=shape, margins=words), *others]


def _kinds(named: Sequence[str]) -> list[str]:
    return [_NOT_MASSES[part] for part in named if part in _NOT_MASSES]


def _calcifications(types: str, distributions: str, birads: int | None) -> BreastFinding:
    forms = tuple(dict.fromkeys(_FORMS[part] for part in types.upper().split("-") if part in _FORMS))
    places = [_DISTRIBUTIONS[part] for part in distributions.upper().split("-") if part in _DISTRIBUTIONS]
    suspicious = True if birads in (4, 5) else False if birads == 2 else suspicion_of(forms)
    return BreastFinding(
        CALCIFICATION, forms=forms, distribution=places[0] if len(places) == 1 else "", suspicious=suspicious
    )


def read_paths(rows: Sequence[Cells], more: Sequence[Cells] | None, images: Path) -> Reading:
    """Read a table of paths: what lesion, side and view an image has, its folder's name says.

    The numbers of its column `label` are said nowhere, and are not read.
    """
    del more, images
    note = "The numbers in `label` are explained nowhere: they were not read."
    return Reading(images_of(rows, ("img_path",), _image_of_path), notes=(note,))


def _image_of_path(rows: Sequence[Cells]) -> MammogramRow:
    path = rows[0].get("img_path", "")
    match = _PATH.search(path)
    if match is None:
        raise MedclipError(
            Reason.TABLE_INVALID,
            "`img_path` names no case of CBIS-DDSM.",
            hint="It has a folder such as Calc-Training_P_01274_RIGHT_CC.",
        )
    kind = MASS if match["type"] == "Mass" else CALCIFICATION
    record = BreastRecord(side=side_of(match["side"]), view=match["view"], findings=(BreastFinding(kind),))
    patient = match["patient"]
    return MammogramRow(path, patient, record, study=patient, split=_PARTS[match["split"]], source=rows[0])


def read_ddsm(rows: Sequence[Cells], more: Sequence[Cells] | None, images: Path) -> Reading:
    """Read 4-view exams of DDSM: the lesion in the words of the overlay file."""
    del more, images
    return Reading(images_of(rows, ("file",), _ddsm_image))


def _ddsm_image(rows: Sequence[Cells]) -> MammogramRow:
    row = rows[0]
    birads = birads_of(row.get("assessment", ""))
    findings: list[BreastFinding] = []
    match = _LESION.match(row.get("lesion", "").upper())
    if match:
        words = dict(re.findall(r"(SHAPE|MARGINS|TYPE|DISTRIBUTION)\s+(\S+)", match["rest"]))
        if match["type"] == "MASS":
            findings = _masses(words.get("SHAPE", ""), words.get("MARGINS", ""))
        else:
            findings = [_calcifications(words.get("TYPE", ""), words.get("DISTRIBUTION", ""), birads)]
    record = BreastRecord(
        side=side_of(row.get("laterality", "")),
        view=row.get("view", "").upper(),
        composition=composition_of(row.get("density", "")),
        birads=birads,
        findings=tuple(findings),
        pathology=_pathology(row.get("pathology", "")),
    )
    exam = row.get("exam", "")
    return MammogramRow(
        row.get("file", ""),
        exam,
        record,
        study=exam,
        exam_date=_day(row.get("study_date", "")),
        age=row.get("age", ""),
        source=row,
    )


def _day(value: str) -> str:
    parts = value.split()
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return ""
    day, month, year = map(int, parts)
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return ""
