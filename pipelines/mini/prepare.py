"""Stage 1: one table over the public sets that medclip-mini learns from.

Usage: python pipelines/mini/prepare.py SHARED_DATA OUT.csv

Each image stands in the table for its modality's adapter, with everything that is known of it. A third of them (and all
of the scarce modalities) stand there once more for the generic rendering, which carries the modality only and teaches
the model to tell modalities apart when a file has no header. Rows whose licence forbids derivatives are left out.
Images that ship in examples/ are held out for testing.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

NIH_FINDINGS = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Effusion": "effusion",
    "Emphysema": "emphysema",
    "Fibrosis": "fibrosis",
    "Hernia": "hernia",
    "Infiltration": "infiltration",
    "Mass": "mass",
    "Nodule": "nodule",
    "Pleural_Thickening": "pleural_thickening",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}
COVID_VIEWS = {"PA": "pa", "AP": "ap", "AP Supine": "ap", "L": "lateral"}
OTHER_PNEUMONIA = {
    "Pneumocystis",
    "SARS",
    "Streptococcus",
    "Mycoplasma Bacterial Pneumonia",
    "Klebsiella",
    "Varicella",
    "Pneumonia",
    "Lipoid",
    "Influenza",
    "Legionella",
}
TUMOURS = {
    "glioma tumor": "glioma",
    "meningioma tumor": "meningioma",
    "pituitary tumor": "pituitary",
    "no tumor": "no_tumour",
}
CATARACT_AT = 5.0
"""Expert score (0-10) from which a fundus photograph counts as showing a cataract."""

GENERIC_ONE_IN = 3
"""Share of images that also stand as a generic rendering: telling modalities apart is easy, and steps are dear."""
SCARCE = {"ct", "fundus"}
"""Modalities with so few images that all of them do."""

Row = dict[str, str]


def nih(data: Path) -> Iterator[Row]:
    """Chest X-rays with 14 text-mined findings. Left and right of the lung are not in the labels."""
    for r in _read(data / "nih_cxr"):
        yield {
            "file": f"nih_cxr/{r['file']}",
            "patient": f"nih:{r['patient_id']}",
            "modality": "xray",
            "view": r["view"],
            "age": r["age"],
            "sex": r["sex"],
            "source": "nih_cxr",
            "license": "NIH Clinical Center, citation asked",
            "label:chest_xray_view": r["view"].lower(),
            **{f"label:chest_xray_findings:{ours}": r[theirs] for theirs, ours in NIH_FINDINGS.items()},
            "label:chest_xray_findings:covid_19": "0",  # all taken before 2018
        }


def covid(data: Path) -> Iterator[Row]:
    """Published COVID-19 and other pneumonia cases, X-rays and CT slices, with clinical notes."""
    for r in _read(data / "covid_cxr"):
        if "ND" in r["license"].replace("-", " ").split():
            continue
        row = {
            "file": f"covid_cxr/{r['file']}",
            "patient": f"covid:{r['group_id']}",
            "modality": "ct" if r["modality"] == "CT" else "xray",
            "age": r["age"],
            "sex": r["sex"],
            "source": "covid_cxr",
            "license": r["license"].strip() or "none stated",
            "caption": r["clinical_notes"],
        }
        if row["modality"] == "xray":
            view = COVID_VIEWS.get(r["view"], "")
            row |= {"view": view.upper(), "label:chest_xray_view": view}
            finding = r["finding"]
            if "COVID-19" in finding:
                row |= {"label:chest_xray_findings:covid_19": "1", "label:chest_xray_findings:pneumonia": "1"}
            elif finding in OTHER_PNEUMONIA:
                row |= {"label:chest_xray_findings:covid_19": "0", "label:chest_xray_findings:pneumonia": "1"}
            elif finding == "No Finding":
                row |= {"label:chest_xray_findings:covid_19": "0", "label:chest_xray_findings:pneumonia": "0"}
        yield row


def fundus(data: Path) -> Iterator[Row]:
    """Colour fundus photographs with an expert's description. Eyes of one person are not linked at the source."""
    for r in _read(data / "csdi_fundus"):
        yield {
            "file": f"csdi_fundus/{r['file']}",
            "patient": f"csdi:{r['image_id']}",
            "modality": "fundus",
            "source": "csdi_fundus",
            "license": "CC BY-NC 4.0",
            "caption": r["text_en"],
            "label:fundus_cataract:cataract": str(int(float(r["score"]) >= CATARACT_AT)),
        }


def mias(data: Path) -> Iterator[Row]:
    """Film mammograms, MLO. The side is left out: the adapter turns every breast the same way."""
    for r in _read(data / "mini_mias"):
        yield {
            "file": f"mini_mias/{r['file']}",
            "patient": f"mias:{r['patient_id']}",
            "modality": "mammography",
            "view": r["view"],
            "sex": "F",
            "source": "mini_mias",
            "license": "MIAS: research purposes only",
            "label:breast_density": r["density"].replace("-", "_"),
        }


def four_view(data: Path) -> Iterator[Row]:
    """The CBIS-DDSM exam, which is an example study; no density is given.

    The sample exams of NYU (8 images) come from AGPL-3.0 repositories, which do not say what that means for weights.
    """
    for r in _read(data / "mammo_4view"):
        if r["source"].startswith("CBIS"):
            yield {
                "file": f"mammo_4view/{r['file']}",
                "patient": f"mammo4:{r['case']}",
                "modality": "mammography",
                "view": r["view"],
                "sex": "F",
                "split": "test",
                "source": "cbis_ddsm",
                "license": "CC BY 3.0",
            }


def brain(data: Path) -> Iterator[Row]:
    """Brain MRI slices. No patient ids at the source: near-duplicate groups stand in for them."""
    for r in _read(data / "brain_mri"):
        yield {
            "file": f"brain_mri/{r['file']}",
            "patient": f"brain:{r['dup_group']}",
            "modality": "mri",
            "source": "brain_mri",
            "license": "none stated",
            "label:brain_mri_tumour": TUMOURS[r["label"]],
        }


def rows(data: Path) -> Iterator[Row]:
    """Every row of the table: each image for its adapter (where there is one), some for the generic rendering too."""
    held_out = examples_held_out()
    for part in (nih, covid, fundus, mias, four_view, brain):
        for row in part(data):
            if row["patient"] in held_out:
                row["split"] = "test"
            if row["modality"] != "ct":  # no CT adapter yet: CT slices teach the modality only
                yield row
            if row["modality"] not in SCARCE and crc32(row["file"].encode()) % GENERIC_ONE_IN:
                continue
            yield {k: row[k] for k in ("file", "patient", "modality", "source", "license")} | {
                "adapter": "generic",
                "split": row.get("split", ""),
            }


def examples_held_out() -> set[str]:
    """Patients whose images ship in examples/."""
    table = Path(__file__).parents[2] / "examples" / "sources.csv"
    with table.open(newline="", encoding="utf-8") as f:
        return {r["training_patient"] for r in csv.DictReader(f) if r["training_patient"]}


def _read(folder: Path) -> Iterator[Row]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as f:
        yield from csv.DictReader(f)


def main(data: str, out: str) -> None:
    """Write the table; paths in it are absolute so that it can lie anywhere."""
    root = Path(data).resolve()
    table = [row | {"file": str(root / row["file"])} for row in rows(root)]
    columns = list(dict.fromkeys(k for row in table for k in row))
    with open(out, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, columns, restval="")
        writer.writeheader()
        writer.writerows(table)
    print(f"{len(table)} rows of {len({r['file'] for r in table})} images written to {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
