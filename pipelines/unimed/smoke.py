"""A small mix in the forms of the full one, made of the shared data: two tables with labels, one folder of tars.

Usage: python pipelines/unimed/smoke.py SHARED_DATA OUT

Every n-th patient goes into training (a hash of the patient decides), so that others are left to measure on.
"""

from __future__ import annotations

import csv
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

TUMOURS = {
    "glioma tumor": "glioma",
    "meningioma tumor": "meningioma",
    "pituitary tumor": "pituitary",
    "no tumor": "no_tumour",
}
LENS = {
    "cataract": ("fundus photograph with a cataract", "hazy retina behind a cloudy lens", "cataract blurs this fundus"),
    "clear": ("fundus photograph without cataract", "sharp retina, clear lens", "no cataract on this fundus"),
}
MARKER = "_all_retina_merged_"

Row = dict[str, str]


def brain(data: Path) -> Iterator[Row]:
    """Three in eight slices, with the label of the tumour."""
    for r in _read(data / "brain_mri"):
        if _drawn(r["dup_group"], 3):
            yield {
                "file": str(data / "brain_mri" / r["file"]),
                "patient": f"brain:{r['dup_group']}",
                "modality": "mri",
                "source": "brain_mri",
                "license": "none stated",
                "label:brain_mri_tumour": TUMOURS[r["label"]],
            }


def chests(data: Path) -> Iterator[Row]:
    """Three in eight patients, with projection and pneumonia."""
    for r in _read(data / "nih_cxr"):
        if _drawn(r["patient_id"], 3):
            yield {
                "file": str(data / "nih_cxr" / r["file"]),
                "patient": f"nih:{r['patient_id']}",
                "modality": "xray",
                "source": "nih_cxr",
                "license": "NIH Clinical Center, citation asked",
                "label:chest_xray_view": r["view"].lower(),
                "label:chest_xray_findings:pneumonia": r["Pneumonia"],
            }


def packed(data: Path) -> Iterator[tuple[bytes, str]]:
    """Six in eight fundus photographs with their captions in UniMed's packed form."""
    for r in _read(data / "csdi_fundus"):
        if _drawn(r["image_id"], 6):
            ours = LENS["cataract" if float(r["score"]) >= 5 else "clear"]
            said = [*ours, " ".join(r["text_en"].split())]
            yield (data / "csdi_fundus" / r["file"]).read_bytes(), "".join(f"{text}{MARKER}" for text in said)


def write_table(rows: Iterator[Row], folder: Path) -> int:
    """Write table.csv."""
    kept = list(rows)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)
    return len(kept)


def write_tar(samples: Iterator[tuple[bytes, str]], folder: Path) -> int:
    """Write 000000.tar in UniMed's form."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    with tarfile.open(folder / "000000.tar", "w") as tar:
        for number, (image, text) in enumerate(samples, 1):
            for suffix, content in (("jpg", image), ("txt", text.encode())):
                info = tarfile.TarInfo(f"{number - 1:06d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return number


def _drawn(patient: str, of_eight: int) -> bool:
    return crc32(patient.encode()) % 8 < of_eight


def _read(folder: Path) -> Iterator[Row]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as f:
        yield from csv.DictReader(f)


def main(data: str, out: str) -> None:
    """Write the three parts."""
    root, target = Path(data).resolve(), Path(out)
    print(f"brain_mri: {write_table(brain(root), target / 'brain_mri')} rows")
    print(f"nih_cxr: {write_table(chests(root), target / 'nih_cxr')} rows")
    print(f"csdi_fundus: {write_tar(packed(root), target / 'csdi_fundus')} samples")


if __name__ == "__main__":
    main(*sys.argv[1:])
