"""Tables of images to make shards of."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

KEY = b"k" * 32
NUM_PATIENTS = 30


def write(path, rows, delimiter=","):
    columns = list(dict.fromkeys(k for r in rows for k in r))
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, columns, restval="", delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_films(folder: Path) -> Path:
    """Write 30 patients with two chest X-rays each, a fundus photograph, one file twice, and four rows that fail."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(NUM_PATIENTS):
        for j in range(2):
            name = f"x{i}_{j}.png"
            Image.fromarray(rng.integers(0, 255, (320 + i, 300), dtype=np.uint8)).save(folder / name)
            rows.append(
                {
                    "file": name,
                    "patient": f"Doe^Jane^{i}",
                    "modality": "xray",
                    "view": "PA",
                    "label:chest_xray_findings:pneumonia": str(i % 2),
                    "source": "made here",
                    "license": "CC0",
                }
            )
    rows.append(rows[0] | {"adapter": "generic", "view": "", "label:chest_xray_findings:pneumonia": ""})
    eye = np.zeros((200, 200, 3), np.uint8)
    inside = np.hypot(*(np.mgrid[:200, :200] - 100)) < 90
    eye[inside] = rng.integers(60, 200, (int(inside.sum()), 3), dtype=np.uint8)
    Image.fromarray(eye).save(folder / "eye.png")
    rows.append({"file": "eye.png", "patient": "eye", "modality": "fundus", "caption": "The disc is well seen."})
    (folder / "copy.png").write_bytes((folder / "x0_0.png").read_bytes())
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "x1_0.png").read_bytes()[:500])
    (folder / "note.png").write_text("not an image")
    for name in ("copy.png", "empty.png", "cut.png", "note.png", "gone.png"):
        rows.append({"file": name, "patient": "Doe^Jane^0", "modality": "xray"})
    return write(folder / "table.csv", rows)
