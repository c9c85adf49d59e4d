"""Shards of small made-up images, and a recipe that trains a tiny model on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from medclip.settings import Settings
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from medclip.training.batches.loader import Batches
from medclip.training.batches.order import Order
from medclip.training.batches.samples import Drawing
from medclip.training.batches.workers import CrewOptions

NUM_TRAIN, NUM_VAL = 20, 8


def make_shards(
    folder: Path,
    *,
    num_test: int = 0,
    columns: Callable[[int], Mapping[str, str]] | None = None,
    samples_per_shard: int = 500,
) -> Path:
    """Write shards of made-up chest films: with a bright disc they are labelled pneumonia.

    Args:
        folder: Gets images/ and s/.
        num_test: Test images beside 20 to train and 8 to validate with; two of each patient, the others have one.
        columns: Further cells of the row of an image, by its number.
        samples_per_shard: Images in a tar.

    Returns:
        folder / "s".
    """
    images = folder / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(NUM_TRAIN + NUM_VAL + num_test):
        pixels = rng.integers(0, 60, (48, 40 + i), dtype=np.uint8)
        if i % 2:
            pixels[10:30, 10:30] += 150
        Image.fromarray(pixels).save(images / f"{i}.png")
        is_test = i >= NUM_TRAIN + NUM_VAL
        rows.append(
            {
                "file": f"{i}.png",
                "patient": f"t{i // 4}.{i % 2}" if is_test else str(i),
                "modality": "xray",
                "view": "PA",
                "split": "train" if i < NUM_TRAIN else "test" if is_test else "val",
                "label:chest_xray_findings:pneumonia": str(i % 2),
                "source": "made here",
                "license": "CC0",
                **(columns(i) if columns is not None else {}),
            }
        )
    settings = Settings(workers=1)
    form = Form(max_side=64, key=b"k" * 32, samples_per_shard=samples_per_shard)
    build_shards(pd.DataFrame(rows), folder / "s", form, images=images, settings=settings)
    return folder / "s"


REPORTS = (
    "FINDINGS: Stable small effusion compared with prior. Clear apices. Cardiomegaly. IMPRESSION: Cardiomegaly.",
    "FINDINGS: No effusion. Clear apices. Cardiomegaly. Discussed with prior Dr. Who.",
    "FINDINGS: Right basal opacity. IMPRESSION: Right basal pneumonia, discussed with Dr. Who.",
    "",
)


def rewritten_shards(folder: Path, *, keep_raw: bool) -> Path:
    """Write the shards of `make_shards` with a report each, and rewrite them; returns the folder of the shards."""
    from medclip.pairs.words.reports.rewrite_steps import CaptionSteps, RewriteSteps
    from medclip.pairs.words.reports.rewriting import Rewriting, rewrite

    shards = make_shards(folder, columns=lambda i: {"report": REPORTS[i % 4]})
    steps = RewriteSteps(captions=CaptionSteps(keep_raw=keep_raw))
    rewritten = rewrite(Rewriting(shards, folder / "rewritten", steps)).shards
    assert rewritten is not None
    return rewritten


def batches_of(reader: ShardReader, **options: Any) -> Batches:
    """Make batches of a split; `options` are those of `Batches` and of the values that it takes, by their names."""
    if "worker_kind" in options:
        options["kind"] = options.pop("worker_kind")

    def taken(kind: Any) -> dict[str, Any]:
        return {field.name: options.pop(field.name) for field in fields(kind) if field.name in options}

    drawing = Drawing(**{"augment": None, "native_share": 0.3, "report_share": 0.5, **taken(Drawing)})
    order, making = Order(**taken(Order)), CrewOptions(**taken(CrewOptions))
    return Batches(reader, drawing, order=order, making=making, **options)


def tiny_recipe(shards: Path) -> dict[str, Any]:
    """Return six steps in two epochs of three batches."""
    return {
        "name": "tiny",
        "seed": 3,
        "data": {"shards": str(shards), "workers": 2},
        "text": {"vocab_size": 600, "context_length": 24, "captions_per_sample": 1},
        "model": {
            "image_tower": "test_efficientnet",
            "image_weights": None,
            "size_px": 32,
            "embed_dim": 16,
            "text_width": 16,
            "text_heads": 2,
            "text_layers": 1,
        },
        "augment": {"flip": 0.5},
        "train": {"epochs": 2, "batch_size": 6, "warmup_steps": 2, "log_every": 1, "ema": 0.5, "threads": 1},
    }


def masked_recipe(shards: Path) -> dict[str, Any]:
    """Return six steps in two epochs of a masked autoencoder: 4 patches of 16 px, of which 3 are hidden."""
    return {
        "name": "tiny-masked",
        "seed": 3,
        "data": {"shards": str(shards), "workers": 2},
        "objective": {"contrastive": 0, "masked": {"weight": 1, "ratio": 0.75, "decoder": "dec128d2"}},
        "model": {"image_tower": "test_vit", "image_weights": None, "size_px": 32},
        "augment": {"flip": 0.5},
        "train": {"epochs": 2, "batch_size": 6, "warmup_steps": 2, "log_every": 1, "ema": 0.5, "threads": 1},
    }


def hidden_loss(trainer: Any, inputs: Any, errors_B2: Any) -> Any:
    """Return what a recipe's masked loss makes of the errors of images."""
    import torch

    from medclip.training.steps.loss_terms import Step, hidden
    from medclip.training.steps.towers import TowerOutputs

    nothing = torch.zeros(len(errors_B2), 0)
    outputs = TowerOutputs(nothing, nothing, errors_B2, nothing, nothing)
    step = Step(trainer.recipe, trainer.towers.clip, trainer.world, inputs, outputs)
    settings = trainer.recipe.objective.masked
    ((weight, loss),) = hidden(step, settings, None)
    assert weight == settings.weight
    return loss
