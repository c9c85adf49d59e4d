"""Tables of the form of public mammography sets, made by code: their headers are real, their rows are invented."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

Row = Mapping[str, object]


def _vindr(study: str, image: str, side: str, view: str, birads: int, density: str, found: str, split: str) -> Row:
    return {
        "study_id": study,
        "series_id": "s",
        "image_id": image,
        "laterality": side,
        "view_position": view,
        "height": "3518",
        "width": "2800",
        "breast_birads": f"BI-RADS {birads}",
        "breast_density": f"DENSITY {density}",
        "finding_categories": found,
        "finding_birads": "",
        "xmin": "",
        "ymin": "",
        "xmax": "",
        "ymax": "",
        "split": split,
    }


VINDR = (
    _vindr("e1", "i1", "L", "CC", 4, "C", "['Mass']", "training"),
    _vindr("e1", "i1", "L", "CC", 4, "C", "['Suspicious Calcification', 'Skin Thickening']", "training"),
    _vindr("e1", "i2", "R", "CC", 1, "C", "['No Finding']", "training"),
    _vindr("e2", "i3", "R", "MLO", 3, "B", "['Focal Asymmetry']", "test"),
)
RSNA = (
    {
        "site_id": 2,
        "patient_id": 10006,
        "image_id": 462822612,
        "laterality": "L",
        "view": "CC",
        "age": 61.0,
        "cancer": 0,
        "biopsy": 0,
        "invasive": 0,
        "BIRADS": "",
        "implant": 0,
        "density": "",
        "machine_id": 29,
        "difficult_negative_case": False,
    },
    {
        "site_id": 1,
        "patient_id": 10011,
        "image_id": 220375232,
        "laterality": "R",
        "view": "MLO",
        "age": 55.0,
        "cancer": 1,
        "biopsy": 1,
        "invasive": 1,
        "BIRADS": 0.0,
        "implant": 1,
        "density": "B",
        "machine_id": 49,
        "difficult_negative_case": False,
    },
)


def _cbis(patient: str, number: int, kind: str, **cells: object) -> Row:
    return {
        "patient_id": patient,
        "breast_density": 3,
        "left or right breast": "LEFT",
        "image view": "CC",
        "abnormality id": number,
        "abnormality type": kind,
        "mass shape": "",
        "mass margins": "",
        "calc type": "",
        "calc distribution": "",
        "assessment": 4,
        "pathology": "MALIGNANT",
        "subtlety": 3,
        "image file path": f"Mass-Training_{patient}_LEFT_CC/1.2/3.4/000000.dcm",
    } | cells


CBIS = (
    _cbis("P_00001", 1, "mass", **{"mass shape": "IRREGULAR-ARCHITECTURAL_DISTORTION", "mass margins": "SPICULATED"}),
    _cbis(
        "P_00001",
        2,
        "calcification",
        **{
            "calc type": "PLEOMORPHIC-AMORPHOUS",
            "calc distribution": "CLUSTERED",
            "pathology": "BENIGN",
            "assessment": 3,
        },
    ),
    _cbis(
        "P_00002",
        1,
        "mass",
        **{
            "mass shape": "LYMPH_NODE",
            "mass margins": "CIRCUMSCRIBED",
            "pathology": "BENIGN_WITHOUT_CALLBACK",
            "assessment": 2,
            "image file path": "Mass-Test_P_00002_LEFT_CC/1.2/3.4/000000.dcm",
        },
    ),
)
CBIS_PATHS = (
    {
        "img_path": "RAW_CBIS-DDSM/Calc-Training_P_01274_RIGHT_CC/08-07-2016-DDSM-1/full/1-1.dcm",
        "roi_path": "RAW_CBIS-DDSM/Calc-Training_P_01274_RIGHT_CC_1/mask/1-2.dcm",
        "label": 2,
    },
)
CESM_SHEET = tuple(
    {
        "Image_name": f"P2_R_{kind}_CC",
        "Patient_ID": 2,
        "Side": "R",
        "Type": "DM" if kind == "DM" else "CESM",
        "Age": 31,
        "View": "CC",
        "Breast density (ACR)": "c",
        "BIRADS": "3$2",
        "Findings": findings,
        "Tags": "benign",
        "Pathology Classification/ Follow up": "Benign",
        "Machine": 2,
    }
    for kind, findings in (
        ("DM", "Heterogenous oval mass with speculated margin"),
        ("CM", "No mass or non mass enhancement"),
    )
)
CESM = (
    {
        "file": "images/P1_L_CM_MLO.jpg",
        "patient_id": 1,
        "laterality": "L",
        "view": "MLO",
        "age": 46,
        "pathology": "Malignant",
        "birads": 4,
        "findings": "Heterogenous  non mass enhancement and nipple retraction",
        "tags": "suspicious",
        "machine": 1,
        "density_dm": "C",
        "birads_dm": 4,
        "findings_dm": "",
    },
)


def _embed_image(patient: int, exam: int, side: str, view: str, day: str, kind: str = "2D", spot: int = 0) -> Row:
    return {
        "empi_anon": patient,
        "acc_anon": exam,
        "study_date_anon": day,
        "FinalImageType": kind,
        "spot_mag": spot,
        "ImageLateralityFinal": side,
        "ViewPosition": view,
        "anon_dicom_path": f"/mnt/NAS2/mammo/anon_dicom/cohort_1/{patient}/{exam}/{side}{view}{kind}{spot}.dcm",
    }


def _embed_finding(patient: int, exam: int, side: str, day: str, **cells: object) -> Row:
    return (
        dict.fromkeys(
            (
                "massshape",
                "massmargin",
                "massdens",
                "calcfind",
                "calcdistri",
                "otherfind",
                "implanfind",
                "size",
                "location",
                "depth",
                "bside",
                "path_severity",
                "procdate_anon",
            ),
            "",
        )
        | {
            "empi_anon": patient,
            "acc_anon": exam,
            "numfind": 1,
            "side": side,
            "asses": "N",
            "tissueden": 2,
            "study_date_anon": day,
            "age_at_study": 55,
        }
        | cells
    )


EMBED_IMAGES = (
    _embed_image(7, 71, "L", "CC", "2015-01-10"),
    _embed_image(7, 71, "R", "CC", "2015-01-10"),
    _embed_image(7, 71, "R", "CC", "2015-01-10", kind="cview"),
    _embed_image(7, 71, "R", "MLO", "2015-01-10", kind="3D"),
    _embed_image(7, 72, "L", "CC", "2017-03-09"),
    _embed_image(7, 72, "L", "ML", "2017-03-09", spot=1),
    _embed_image(7, 73, "L", "CC", "2019-01-02"),
    _embed_image(8, 81, "L", "MLO", "2016-05-05"),
    _embed_image(8, 82, "L", "MLO", "2020-06-01"),
)
EMBED_FINDINGS = (
    _embed_finding(7, 71, "L", "2015-01-10"),
    _embed_finding(7, 71, "R", "2015-01-10", asses="B", calcfind="V", location="10"),
    _embed_finding(
        7,
        72,
        "L",
        "2017-03-09",
        asses="S",
        massshape="X",
        massmargin="S",
        massdens="+",
        size=14,
        location="10",
        depth="P",
        bside="L",
        path_severity=0,
        otherfind="N",
    ),
    _embed_finding(7, 72, "R", "2017-03-09", asses="N"),
    _embed_finding(7, 73, "L", "2019-01-02", asses="B"),
    _embed_finding(8, 81, "", "2016-05-05"),
    _embed_finding(8, 82, "B", "2020-06-01", asses="A", massshape="S", path_severity=2, bside="L"),
)
INBREAST = (
    {
        "Patient ID": "removed",
        "Patient age": "removed",
        "Laterality": "R",
        "View": "CC",
        "Acquisition date": 201001,
        "File Name": 22678622,
        "ACR": 4,
        "Bi-Rads": "4a",
    },
    {
        "Patient ID": "removed",
        "Patient age": "removed",
        "Laterality": "L",
        "View": "CC",
        "Acquisition date": 201001,
        "File Name": 22678646,
        "ACR": 4,
        "Bi-Rads": 3,
    },
)
DDSM = (
    {
        "file": "images/A.jpg",
        "exam": "0029",
        "laterality": "L",
        "view": "CC",
        "age": 66,
        "density": 3,
        "digitizer": "L",
        "study_date": "2 3 1993",
        "lesion": "MASS SHAPE OVAL MARGINS ILL_DEFINED",
        "assessment": 3,
        "subtlety": 3,
        "pathology": "BENIGN",
    },
    {
        "file": "images/B.jpg",
        "exam": "0029",
        "laterality": "R",
        "view": "CC",
        "age": 66,
        "density": 3,
        "digitizer": "L",
        "study_date": "2 3 1993",
        "lesion": "",
        "assessment": "",
        "subtlety": "",
        "pathology": "",
    },
)


def write_set(path: Path, rows: Sequence[Row], delimiter: str = ",") -> Path:
    """Write a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path
