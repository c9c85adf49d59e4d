"""Compare an epoch that follows stored vectors with a plain one, and say what storing them costs.

Made-up films of 512 px; the same student, augmentations and batches on both sides, in turn, medians of CPU time. Ends
with 1 when an epoch with stored vectors takes more than 1.1 times the plain one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

import medclip
from medclip.shards.writing.build import Form, build_shards
from medclip.training.loop import run_recipe

MOST = 1.1


def films(folder: Path, number: int) -> Path:
    rng, rows = np.random.default_rng(0), []
    for i in range(number):
        coarse = Image.fromarray(rng.integers(0, 255, (24, 24), dtype=np.uint8))
        coarse.resize((512, 512), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        row = {"file": f"{i}.png", "patient": str(i), "modality": "xray", "split": "train"}
        rows.append(row | {"caption": f"There is an opacity of {i} mm."})
    build_shards(pd.DataFrame(rows), folder / "s", Form(key=b"k" * 32), images=folder)
    return folder / "s"


def recipe(shards: Path, size: int) -> dict[str, Any]:
    return {
        "name": "student",
        "data": {"shards": str(shards), "val_split": None, "workers": 1, "cache_mb": 0},
        "text": {"vocab_size": 600, "context_length": 24},
        "model": {"image_tower": "efficientnet_lite0", "image_weights": None, "size_px": size, "freeze_bn": True},
        "augment": {"crop_scale": (0.5, 1.0), "medical": {}},
        "train": {"epochs": 1, "batch_size": 16, "warmup_steps": 1, "threads": 1, "checkpoint_every": 10_000},
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=192)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {"plain": [], "stored": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = films(folder, given.images)
        start = time.process_time()
        result = medclip.pairs.reinforce(shards, folder / "r", teachers=["medclip-mini"], augmentations=4)
        cost = time.process_time() - start
        plain = recipe(shards, given.size)
        stored = plain | {"objective": {"contrastive": 0, "losses": {"distill": {"contrastive": 0.25}}}}
        stored["data"] = plain["data"] | {"reinforced": str(folder / "r")}
        for number in range(given.rounds + 1):
            for side, values in (("plain", plain), ("stored", stored)):
                start = time.process_time()
                run_recipe(values, out=folder / f"{side}{number}")
                if number:  # the first of each warms caches
                    seconds[side].append(time.process_time() - start)
    plain_s, stored_s = (statistics.median(seconds[side]) for side in ("plain", "stored"))
    ratio = stored_s / plain_s
    print(f"epoch of {given.images} images: plain {plain_s:.2f} s CPU, stored {stored_s:.2f} s: {ratio:.3f} times")
    print(f"storing 4 augmentations: {cost:.2f} s CPU, {cost / plain_s:.2f} plain epochs, {result.num_bytes} bytes")
    return int(ratio > MOST)


if __name__ == "__main__":
    sys.exit(main())
