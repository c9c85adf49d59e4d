"""A store of slides with planted witnesses and its table of labels, made by code."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from tests.kits.slide_bags import planted
from tests.kits.slide_store import make_slide_features, write_slide_store

KEYS = "0123456789abcdef"


def write_cohort(folder: Path, num: int = 10, *, dim: int = 16, others=(), **changes) -> tuple[Path, Path]:
    """Write a store and labels.csv: slides of patients of their own, every second one positive."""
    bags, _ = planted(num, patches=30, rate=0.3, strength=6.0, slides_each=1)
    slides = []
    for i in range(num):
        vectors = np.zeros((30, dim), np.float32)
        vectors[:, :16] = bags.read(i)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        places = np.stack(np.divmod(np.arange(30), 6), axis=1) * 128.0
        slides.append(
            make_slide_features(
                f"{i:016x}",
                num=30,
                features_ND=vectors,
                corners_um_N2=places,
                slide_size_um=(750.0, 950.0),
                coverage_N=np.ones(30, np.float32),
                **changes,
            )
        )
    store = write_slide_store(folder / "store", slides, others)
    table = folder / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", "patient", "grade", "event_months", "followup_months"])
        for i in range(num):
            positive = bool(bags.targets[i])
            times = (10, 60) if positive else ("", 60)
            writer.writerow([f"slide_{i}.tiff", f"Planted Name {i}", "high" if positive else "low", *times])
    return store, table
