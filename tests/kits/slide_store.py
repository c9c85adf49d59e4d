"""Slide features and stores made by code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from medclip.embeddings.embedded_unit import EmbeddingPack
from medclip.slides.slide_features import SlideFeatures, write_slide_features
from medclip.slides.slide_store import RUN, SLIDES, SlideRow, features_path, write_slide_rows

PACK = EmbeddingPack("tiny", "1", "d" * 64, "i" * 16, "p" * 16)


def make_slide_features(key: str = "0123456789abcdef", num: int = 9, dim: int = 8, **changes) -> SlideFeatures:
    """Unit vectors on a grid three patches wide."""
    rng = np.random.default_rng(int(key, 16) % 2**32)
    vectors = rng.normal(size=(num, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = np.stack(np.divmod(np.arange(num), 3), axis=1) * 128.0
    values = {
        "key": key,
        "features_ND": vectors,
        "corners_um_N2": places,
        "coverage_N": np.linspace(0.5, 1, num, dtype=np.float32),
        "size_px": 256,
        "mpp_um": 0.5,
        "effective_mpp_um": (0.5, 0.5),
        "slide_size_um": (1000.0, 2000.0),
        "pack": PACK,
        "grid": "g" * 16,
        "slide_mpp_um": (0.25, 0.25),
    }
    return SlideFeatures(**(values | changes))


def write_slide_store(folder: Path, slides: Iterable[SlideFeatures], others: Iterable[SlideRow] = ()) -> Path:
    """Write a folder as `medclip slides embed` leaves it; each slide has a patient of its own."""
    rows = list(others)
    for number, features in enumerate(slides):
        write_slide_features(features_path(folder, features.key), features)
        num = len(features) + features.num_lost
        rows.append(
            SlideRow(
                features.key,
                f"slide_{number}.tiff",
                1,
                "done",
                patient=f"patient{number}",
                num_patches=num,
                num_lost=features.num_lost,
            )
        )
        pack = features.pack
    write_slide_rows(folder / SLIDES, sorted(rows, key=lambda row: row.file))
    (folder / RUN).write_text(json.dumps({"pack": pack.to_dict()}))
    return folder
