"""glas_colon: tiles of colon images as bags, eleven patients: zero-shot, mean, ABMIL and ACMIL, with wide intervals.

    python pipelines/slides/glas_colon.py ../shared/data OUT

A bag is an image with its four tiles. Beside the vectors of medclip-mini 1.2, which has never seen tissue (later ones
have seen this), the colour of the tiles alone is measured: six numbers, pooled by their mean. Eleven patients, three of
them with both grades, are no test of anything: the intervals say so, and no figure here is a claim.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import medclip
from medclip.models.prototypes.class_vectors import class_vectors
from medclip.slides.learning.labels import Bags, bags_in_memory
from medclip.slides.learning.learn import cross_validate
from medclip.slides.learning.pooling import POOLINGS
from medclip.slides.learning.predict import patch_logits, top_pooled
from medclip.slides.learning.train import SlideRecipe
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of
from medclip.text.vocabulary.find_task import made_of_values

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import in_words, measure, plain  # pyright: ignore[reportMissingImports]

FOLDS = 3


def main(data: Path, out: Path) -> None:
    """Measure both, write figures.json and table.md."""
    torch.set_num_threads(1)
    measure(out, {"glas_colon": partial(_figures, data / "glas_colon")}, _table)


def _figures(folder: Path) -> dict[str, Any]:
    model = medclip.models.load("medclip-mini")
    recipe = SlideRecipe(epochs=40, lr=1e-3)
    bags, names = _bags(folder, lambda files: model.embed_images(files, modality="pathology"))
    colours, _ = _bags(folder, _colours)
    of_colour = cross_validate(colours, replace(recipe, pooling="mean"), num_folds=FOLDS).poolings["mean"]
    compared = cross_validate(bags, recipe, poolings=POOLINGS, num_folds=FOLDS)
    task, _ = made_of_values("grade", [f"{name} colon gland tissue" for name in names], ["pathology"])
    vectors = class_vectors(model, task)
    zero = [top_pooled(patch_logits(bags.read(i), vectors, "multiclass", model.logit_scale)) for i in range(len(bags))]
    area = measured(bags.targets, np.stack(zero), bags.patients, ["auroc"])["auroc"]
    return {
        "images": len(bags),
        "patients": bags.num_patients,
        "auroc": {
            "colour alone, mean": plain(of_colour.figures["macro_auroc"]),
            "zero-shot": plain(interval_of(area)),
            **{name: plain(answer.figures["macro_auroc"]) for name, answer in compared.poolings.items()},
        },
    }


def _colours(files: Sequence[Path]) -> NDArray[np.float32]:
    """Return means and deviations of the channels of each tile, float32 [N, 6]."""
    rows = []
    for file in files:
        with Image.open(file) as image:
            rgb = np.asarray(image.convert("RGB"), np.float32) / 255
        rows.append(np.concatenate([rgb.mean((0, 1)), rgb.std((0, 1))]))
    return np.stack(rows)


def _bags(folder: Path, features_of: Callable[[list[Path]], NDArray[np.float32]]) -> tuple[Bags, tuple[str, ...]]:
    tiles: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            tiles[row["image"]].append(row)
    names = ("benign", "malignant")
    features = [features_of([folder / row["file"] for row in rows]) for rows in tiles.values()]
    targets = np.array([names.index(rows[0]["grade"]) for rows in tiles.values()])
    return bags_in_memory(features, targets, [rows[0]["patient_id"] for rows in tiles.values()], names), names


def _table(figures: Any) -> str:
    values = figures["glas_colon"]
    lines = [f"| {name} | {in_words(area)} |" for name, area in values["auroc"].items()]
    head = f"| {values['images']} images of {values['patients']} patients | AUROC malignant; chance is 0.5 |"
    return "\n".join([head, "|---|---|", *lines])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
