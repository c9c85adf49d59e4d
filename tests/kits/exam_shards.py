"""Shards of simulated mammography examinations, and a recipe that trains a tiny multi-view model on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from medclip.settings import Settings
from medclip.shards.writing.build import Form, build_shards
from tests.kits.mammography_cohort import write_cohort

_SIDES = {"R": "right", "L": "left"}


def exam_table(folder: Path, num: int = 20) -> pd.DataFrame:
    """Write a cohort; of woman 1 the MLO of the right is missing, of woman 3 all but the CC of the left.

    Each image has a text of its own, which names its breast, and woman 5 has none.
    """
    table = pd.read_csv(write_cohort(folder, num, height=48), dtype=str, keep_default_na=False)
    number, place = table["patient"].str[-5:].astype(int), table["laterality"] + "-" + table["view"]
    table["caption"] = [
        "" if woman == 5 else f"{kind} {_SIDES[side]} breast in the {view} view. A second sentence about it."
        for woman, kind, side, view in zip(
            number, table["label:mammography_malignancy"], table["laterality"], table["view"], strict=True
        )
    ]
    return table.loc[~((number == 1) & (place == "R-MLO")) & ~((number == 3) & (place != "L-CC"))]


def make_exam_shards(folder: Path, group: Any = "exam") -> Path:
    """Write shards of 20 women: 10 to train on, 4 for validation, 6 to test."""
    table = exam_table(folder)
    settings = Settings(workers=1)
    build_shards(table, folder / "s", Form(max_side=48, key=b"k" * 32, group=group), images=folder, settings=settings)
    return folder / "s"


def exam_recipe(shards: Path) -> dict[str, Any]:
    """Return four steps in two epochs of two batches, of a ViT without drop-out or batch statistics."""
    return {
        "name": "exams",
        "seed": 3,
        "data": {"shards": str(shards), "workers": 2},
        "text": {"vocab_size": 600, "context_length": 24, "captions_per_sample": 1},
        "model": {
            "image_tower": "test_vit",
            "image_weights": None,
            "size_px": 32,
            "embed_dim": 16,
            "text_width": 16,
            "text_heads": 2,
            "text_layers": 1,
        },
        "objective": {"views": {"max": 4}},
        "train": {"epochs": 2, "batch_size": 4, "warmup_steps": 1, "log_every": 1, "ema": 0.5, "threads": 1},
    }
