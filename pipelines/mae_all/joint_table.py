"""Stage 1: one table over every shared image set that weights may be trained on, without labels and without texts.

Usage: python pipelines/mae_all/joint_table.py SHARED_DATA OUT.csv [--sets nih_cxr,covid_cxr] [--modalities xray]

What a set is called, who its patient is and what may be used is written once: the six sets of medclip-mini come from
pipelines/mini/prepare.py, the others stand below. Patients have the names that they have there, so a patient whom
medclip-mini holds out is held out here, too: `medclip shards build` divides by the name alone.

Left out: covid_blues (no derivatives), covid_ct (copyrights of publishers), rows of covid_cxr without derivatives, the
images of vqa_rad that are in medpix2 too, and ptbxl, ptbxl_z and the texts, which are no images.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))

import prepare as mini

Row = dict[str, str]
COLUMNS: tuple[str, ...] = (
    "file", "patient", "modality", "adapter", "split", "view", "laterality", "age", "sex", "mpp_um",
    "source", "license",
)  # fmt: skip
"""Labels and free texts are left out: nothing here learns from words, and what is not copied cannot leak."""
GLAS_MPP_UM = "0.62"


def glas(data: Path) -> Iterator[Row]:
    """Tiles of H&E-stained colon, of eleven patients."""
    for r in read_labels(data / "glas_colon"):
        yield _row("glas_colon", r["file"], f"glas:{r['patient_id']}", "pathology", mpp_um=GLAS_MPP_UM)


def ecg_sheets(data: Path) -> Iterator[Row]:
    """Printed ECG sheets, as plain images: the ECG adapter reads signals."""
    for r in read_labels(data / "ecg_sheet"):
        yield _row("ecg_sheet", r["file"], f"ecg_sheet:{r['group']}", "ecg", adapter="generic")


def contrast_mammograms(data: Path) -> Iterator[Row]:
    """Subtracted views of contrast-enhanced mammography."""
    for r in read_labels(data / "cdd_cesm"):
        side = {"view": r["view"], "laterality": r["laterality"], "age": r["age"], "sex": "F"}
        yield _row("cdd_cesm", r["file"], f"cdd_cesm:{r['patient_id']}", "mammography", **side)


def film_exams(data: Path) -> Iterator[Row]:
    """Screen-film mammography exams with four views."""
    for r in read_labels(data / "ddsm_4view"):
        side = {"view": r["view"], "laterality": r["laterality"], "age": r["age"], "sex": "F"}
        yield _row("ddsm_4view", r["file"], f"ddsm_4view:{r['exam']}", "mammography", **side)


def skin(data: Path) -> Iterator[Row]:
    """Dermoscopy."""
    for r in read_labels(data / "isic2017"):
        yield _row("isic2017", r["file"], f"isic2017:{r['group']}", "dermatology", age=r["age"], sex=r["sex"])


def breast_lesions(data: Path) -> Iterator[Row]:
    """Breast ultrasound, one or two views of a lesion."""
    for r in read_labels(data / "bus_bra"):
        side = r["laterality"] if r["laterality"] in ("left", "right") else ""
        yield _row("bus_bra", r["file"], f"bus_bra:{r['patient_id']}", "ultrasound", laterality=side, sex="F")


def breast_masses(data: Path) -> Iterator[Row]:
    """Breast ultrasound, one image of a woman."""
    for r in read_labels(data / "breast_us"):
        yield _row("breast_us", r["file"], f"breast_us:{r['patient_id']}", "ultrasound", age=r["age"], sex="F")


def teaching_files(data: Path) -> Iterator[Row]:
    """CT and MR images of teaching files; photographs among them are left out."""
    for r in read_labels(data / "medpix2"):
        if r["plane"] != "Photograph":
            modality = {"CT": "ct", "MR": "mri"}[r["modality"]]
            yield _row("medpix2", r["file"], f"medpix2:{r['group']}", modality, age=r["age"], sex=r["sex"])


def questioned(data: Path) -> Iterator[Row]:
    """Radiology images of VQA-RAD: which modality each is, is not stated."""
    for r in read_labels(data / "vqa_rad"):
        if r["also_in_medpix2"] == "0":
            yield _row("vqa_rad", r["file"], f"vqa_rad:{r['group']}", "", adapter="generic")


SETS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "nih_cxr": mini.nih,
    "covid_cxr": mini.covid,
    "csdi_fundus": mini.fundus,
    "mini_mias": mini.mias,
    "mammo_4view": mini.four_view,
    "brain_mri": mini.brain,
    "glas_colon": glas,
    "ecg_sheet": ecg_sheets,
    "cdd_cesm": contrast_mammograms,
    "ddsm_4view": film_exams,
    "isic2017": skin,
    "bus_bra": breast_lesions,
    "breast_us": breast_masses,
    "medpix2": teaching_files,
    "vqa_rad": questioned,
}
LICENCES = {
    "glas_colon": "GlaS: research only, non-commercial, citation asked",
    "ecg_sheet": "none stated",
    "cdd_cesm": "CDD-CESM, believed CC BY 4.0 (not verified)",
    "ddsm_4view": "none stated (DDSM)",
    "isic2017": "ISIC 2017, believed CC-0 (not verified)",
    "bus_bra": "BUS-BRA: academic and research use, citation asked",
    "breast_us": "CC BY 4.0",
    "medpix2": "none stated",
    "vqa_rad": "CC0 1.0",
}
"""Those of the other sets are in pipelines/mini/prepare.py."""


def rows(data: Path, sets: tuple[str, ...] = tuple(SETS), modalities: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield every row of the table; patients whose images ship in examples/ are in the test split.

    Args:
        data: The folder of shared sets.
        sets: Names in `SETS`.
        modalities: Only these; all where empty.
    """
    held_out = mini.examples_held_out()
    for name in sets:
        for row in SETS[name](data):
            if row["patient"] in held_out:
                row["split"] = "test"
            if not modalities or row["modality"] in modalities:
                yield {column: row.get(column, "") for column in COLUMNS}


def read_labels(folder: Path) -> Iterator[Row]:
    """Yield the rows of a set's labels.csv."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as f:
        yield from csv.DictReader(f)


def _row(source: str, file: str, patient: str, modality: str, **known: str) -> Row:
    fixed = {"file": f"{source}/{file}", "patient": patient, "modality": modality}
    stated = {name: "" if value == "unknown" else value for name, value in known.items()}
    return fixed | {"source": source, "license": LICENCES[source]} | stated


def main(arguments: list[str]) -> None:
    """Write the table; paths in it are absolute so that it can lie anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--modalities", default="")
    args = parser.parse_args(arguments)
    wanted = tuple(args.sets.split(","))
    if unknown := sorted(set(wanted) - set(SETS)):
        parser.error(f"no set is called {', '.join(unknown)}; sets are {', '.join(SETS)}")
    root = args.data.resolve()
    table = list(rows(root, wanted, tuple(filter(None, args.modalities.split(",")))))
    with args.out.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows(row | {"file": str(root / row["file"])} for row in table)
    for source, number in Counter(row["source"] for row in table).items():
        patients = len({row["patient"] for row in table if row["source"] == source})
        print(f"{source:18} {number:>6,} images of {patients:,} patients")
    print(f"{len(table):,} images of {len({row['patient'] for row in table}):,} patients written to {args.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
