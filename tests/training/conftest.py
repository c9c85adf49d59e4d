"""Shards of small made-up images, and a recipe that trains a tiny model on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medclip.settings import Settings
from medclip.shards.writing.build import build_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 patients, one made-up chest film each: with a bright disc it is labelled pneumonia. 20 train, 8 val."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(28):
        pixels = rng.integers(0, 60, (48, 40 + i), dtype=np.uint8)
        if i % 2:
            pixels[10:30, 10:30] += 150
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append(
            {
                "file": f"{i}.png",
                "patient": str(i),
                "modality": "xray",
                "view": "PA",
                "split": "train" if i < 20 else "val",
                "label:chest_xray_findings:pneumonia": str(i % 2),
                "source": "made here",
                "license": "CC0",
            }
        )
    out = tmp_path_factory.mktemp("shards") / "s"
    settings = Settings(workers=1)
    build_shards(pd.DataFrame(rows), out, max_side=64, images=folder, key=b"k" * 32, settings=settings)
    return out


@pytest.fixture
def recipe(shards: Path) -> dict[str, Any]:
    """Six steps in two epochs of three batches."""
    return {
        "name": "tiny",
        "seed": 3,
        "data": {"shards": str(shards), "workers": 2},
        "text": {"vocab_size": 600, "context_length": 24, "captions_per_sample": 1},
        "model": {
            "image_tower": "test_efficientnet", "image_weights": None, "size_px": 32, "embed_dim": 16,
            "text_width": 16, "text_heads": 2, "text_layers": 1,
        },
        "augment": {"flip": 0.5},
        "train": {"epochs": 2, "batch_size": 6, "warmup_steps": 2, "log_every": 1, "ema": 0.5, "threads": 1},
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
