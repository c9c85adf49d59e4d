"""A small table of labelled images and a tiny base pack, for tests of few-shot comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medclip.adaptation.data.table import TableSource
from medclip.evaluation.few_shot import compare
from medclip.evaluation.few_shot.protocol import Design

CLASSES = ("ring", "bar", "spot", "cross")
METHODS = ["zero-shot", "ridge", "knn"]


def table(folder: Path, *, num_patients: int = 36, contrast: int = 120) -> Path:
    """Write PNGs whose bright corner tells the class, two for every third patient, and their table."""
    rng = np.random.default_rng(0)
    rows = ["file,patient,modality,shape,left,right"]
    (folder / "images").mkdir(parents=True)
    for n in range(num_patients):
        c = n % len(CLASSES)
        for again in range(2 if n % 3 == 0 else 1):
            pixels = rng.integers(0, 90, (64, 64, 3), dtype=np.uint8)
            top, left = 32 * (c // 2), 32 * (c % 2)
            pixels[top : top + 32, left : left + 32] += contrast
            name = f"images/SECRET{n}_{again}.png"
            Image.fromarray(pixels).save(folder / name)
            unknown = "" if n % 7 == 0 else str(int(c % 2 == 1))
            rows.append(f"{name},MRN-{n},mri,{CLASSES[c]},{int(c % 2 == 0)},{unknown}")
    path = folder / "labels.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def compare_methods(
    model: Any, labels: Path, label: str | Sequence[str], *, out: Path, folder: Path | None = None, **options: Any
) -> compare.Compared:
    """Compare as `medclip.compare` does, with 30 % of the patients to test on, and return the data as well."""
    source = TableSource(labels, (label,) if isinstance(label, str) else tuple(label), folder=folder)
    of_design = {field.name: options.pop(field.name) for field in fields(Design) if field.name in options}
    asked = {"test_share": 0.3, **options}
    return compare.compare_methods(model, source, Design(**of_design), out=out, **asked)
