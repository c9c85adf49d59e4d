"""Made-up chest films with labels, and a fine-tuning that takes a few seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

TOWER, KEY = "test_vit", "identity.key"
FAST: Mapping[str, Any] = {
    "model.size_px": 48,
    "train.epochs": 3,
    "train.batch_size": 8,
    "train.lr": 2e-3,
    "train.threads": 1,
    "train.log_every": 1,
    "train.checkpoint_every": 2,
    "data.workers": 1,
}


def labelled_films(folder: Path, *, num_patients: int = 30) -> Path:
    """Write films with a bright disc, a bar, both or none; two of each patient, a table of them and an identity key.

    Columns: file, patient, modality, disc, bar (0, 1 or blank), and kind, which of three classes it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    for patient in range(num_patients):
        disc, bar = patient % 2, (patient // 2) % 2
        for film in range(2):
            pixels = rng.integers(0, 50, (56, 60), dtype=np.uint8)
            pixels[8:28, 8:28] += 150 * disc
            pixels[40:48, 5:55] += 150 * bar
            name = f"{patient}_{film}.png"
            Image.fromarray(pixels).save(folder / name)
            rows.append(
                {
                    "file": name,
                    "person": f"patient {patient}",
                    "modality": "xray",
                    "disc": str(disc),
                    "bar": "" if patient == 5 else str(bar),
                    "kind": ("none", "disc", "bar", "disc")[disc + 2 * bar],
                }
            )
    (folder / KEY).write_bytes(b"k" * 32)
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"
