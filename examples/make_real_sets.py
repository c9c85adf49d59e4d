"""Build the small sets of real records that notebooks ask questions of. Run once by a maintainer; they are committed.

Usage: python examples/make_real_sets.py SHARED_DATA

Only sets that may be shipped, and only patients whom the built-in models do not learn from: those whose place in the
division by patient (`medclip/shards/writing/splits.py`, seed 0) is behind the training share of 0.65. `sources.csv`
names them all, and the pipelines keep them for testing.

- `ultrasound/`: breast ultrasound of BrEaST, one image a woman, with the outcome and where the mass lies.
- `ecg/`: twelve records of PTB-XL as WFDB.
- `slides/`: a region of OpenSlide's test slide CMU-1, with its scale.
- `audit/films.csv`: what medclip-mini says of NIH films that it was not trained on. No image.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from medclip.shards.writing.splits import place

HERE = Path(__file__).parent
Row = dict[str, str]
TRAINING_SHARE, VALIDATION_SHARE = 0.65, 0.75
BREAST = "BrEaST (Pawlowska et al., Scientific Data 2024), at most 288 px, compressed again"
PTBXL = "PTB-XL (Wagner et al., Scientific Data 2020; PhysioNet), 100 Hz"
NIH = "medclip-mini's answers on NIH ChestX-ray14 (NIH Clinical Center), Wang et al., CVPR 2017"
RECORDS = (6, 45, 52, 104, 146, 160, 172, 187, 223, 331, 388, 488)
"""Normal and ill hearts of several ages, two with a wandering baseline: chosen by their labels, before any was seen."""


def held_out(patient: str) -> bool:
    """Whether no model that ships with medclip is trained on a patient."""
    return place(patient, seed=0) >= TRAINING_SHARE


def ultrasound(data: Path, out: Path) -> Iterator[Row]:
    """Write the images and their table; normal breasts are left out, for there are three."""
    rows = []
    for r in _labels(data / "breast_us"):
        patient = f"breast_us:{r['patient_id']}"
        if r["classification"] not in ("benign", "malignant") or not held_out(patient):
            continue
        file = f"{Path(r['file']).stem}.jpg"
        Image.open(data / "breast_us" / r["file"]).convert("L").save(out / file, quality=65, optimize=True)
        rows.append(
            {"file": file, "patient": f"woman {r['patient_id']}", "modality": "ultrasound"}
            | {
                "outcome": r["classification"],
                "age": r["age"],
                "birads": r["birads"],
                "verification": r["verification"],
                "box_xywh": r["bbox_xywh"],
            }
        )
        yield {"file": f"ultrasound/{file}", "source": BREAST, "licence": "CC BY 4.0", "training_patient": patient}
    _write(out / "labels.csv", rows)


def ecg(data: Path, out: Path) -> Iterator[Row]:
    """Copy the records and write their table."""
    chosen = {f"records/{number:05}_lr" for number in RECORDS}
    rows = []
    for r in _labels(data / "ptbxl"):
        if r["file"] not in chosen:
            continue
        patient = f"ptbxl:{r['patient_id']}"
        assert held_out(patient), r["file"]
        name = Path(r["file"]).name
        for suffix in (".hea", ".dat"):
            shutil.copyfile(data / "ptbxl" / f"{r['file']}{suffix}", out / f"{name}{suffix}")
            yield {"file": f"ecg/{name}{suffix}", "source": PTBXL, "licence": "CC BY 4.0", "training_patient": patient}
        kept = ("age", "sex", "superclass", "rhythm", "scp_codes", "report")
        rows.append({"file": f"{name}.hea", "patient": f"P{len(rows)}", "modality": "ecg"} | {k: r[k] for k in kept})
    _write(out / "labels.csv", rows)


def slide(data: Path, out: Path) -> Iterator[Row]:
    """Write 1,024 x 1,280 pixels of skin as a slide: JPEG tiles in a TIFF, in two sizes, with the scale."""
    import openslide
    import tifffile

    whole = openslide.OpenSlide(str(data / "field_dev/wsi/svs/CMU-1-Small-Region.svs"))
    mpp_um = float(whole.properties["openslide.mpp-x"])
    region = np.asarray(whole.read_region((780, 900), 0, (1024, 1280)).convert("RGB"))
    with tifffile.TiffWriter(out / "cmu1_region.tiff") as writer:
        for step, kind in ((1, 0), (4, 1)):
            scale = (1e4 / (mpp_um * step),) * 2
            writer.write(
                np.ascontiguousarray(region[::step, ::step]),
                tile=(256, 256),
                compression="jpeg",
                photometric="rgb",
                compressionargs={"level": 75},
                resolution=scale,
                resolutionunit="CENTIMETER",
                subfiletype=kind,
                metadata=None,
                software=False,
            )
    source = "OpenSlide test slide CMU-1-Small-Region, a region"
    yield {"file": "slides/cmu1_region.tiff", "source": source, "licence": "CC0", "training_patient": ""}


def audit(data: Path, out: Path) -> Iterator[Row]:
    """Write what medclip-mini says of the films of patients that it was not trained on, without any of their images."""
    import medclip

    films = [r for r in _labels(data / "nih_cxr") if held_out(f"nih:{r['patient_id']}")]
    embedded = medclip.embed([data / "nih_cxr" / r["file"] for r in films], modality="xray")
    run = medclip.score(embedded, task="chest_xray_findings")
    names = dict(zip(embedded.files["study"].to_pylist(), embedded.files["path"].to_pylist(), strict=True))
    answers = {Path(names[row["study"]]).name: row["probability"] for row in run.scores.to_pylist()}
    numbers: dict[str, int] = {}
    rows = []
    for number, r in enumerate(films):
        patient = numbers.setdefault(r["patient_id"], len(numbers))
        split = "val" if place(f"nih:{r['patient_id']}", seed=0) < VALIDATION_SHARE else "test"
        rows.append(
            {"film": f"film{number:03}", "patient": f"P{patient:03}", "split": split, "age": r["age"], "sex": r["sex"]}
            | {"view": r["view"], "pneumonia": r["Pneumonia"]}
            | {"medclip_mini": f"{answers[Path(r['file']).name]:.4f}"}
        )
    _write(out / "films.csv", rows)
    yield {
        "file": "audit/films.csv",
        "source": NIH,
        "training_patient": "",
        "licence": "no restriction on use; citation and acknowledgement of the NIH Clinical Center asked",
    }


SETS = {"ultrasound": ultrasound, "ecg": ecg, "slides": slide, "audit": audit}


def _labels(folder: Path) -> Iterator[Row]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as f:
        yield from csv.DictReader(f)


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(shared_data: str, *names: str) -> None:
    """Build the sets anew (all, or those named) and their lines in sources.csv."""
    table = HERE / "sources.csv"
    with table.open(newline="", encoding="utf-8") as f:
        lines = list(csv.DictReader(f))
    for name in names or SETS:
        shutil.rmtree(HERE / name, ignore_errors=True)
        (HERE / name).mkdir()
        lines = [r for r in lines if not r["file"].startswith(f"{name}/")]
        lines += SETS[name](Path(shared_data), HERE / name)
    _write(table, sorted(lines, key=lambda r: r["file"]))
    for name in names or SETS:
        files = [p for p in (HERE / name).rglob("*") if p.is_file()]
        print(f"{name}: {len(files)} files, {sum(p.stat().st_size for p in files) // 1024} KiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
