"""Draw a small labelled collection of chest films: `python examples/make_films.py FOLDER`.

No patient is in it. 160 patients have one or two films each, half of the patients with haze over the lungs; the haze is
fainter in women, so an audit by sex has a true gap to find. The README and the home page of the docs use it.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 160
NUM_PATIENTS = 160
COLUMNS = ("file", "patient", "split", "modality", "sex", "age", "haze")


def film(rng: np.random.Generator, haze: float) -> Image.Image:
    """Draw one film: two dark lungs on grey, `haze` from 0 (clear) to 1 (white)."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    top, apart, height = rng.integers(70, 90), rng.integers(34, 42), rng.integers(2000, 3000)
    lungs = np.exp(-((np.abs(x - SIDE / 2) - apart) ** 2 / 500 + (y - top) ** 2 / height))
    pixels = 190 - 150 * (1 - haze) * lungs + rng.normal(0, 9, (SIDE, SIDE))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def make_films(folder: Path, num_patients: int = NUM_PATIENTS, seed: int = 0) -> Path:
    """Draw the films and write `labels.csv` beside them; return the table."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(COLUMNS)
        for patient in range(num_patients):
            sex, hazy = "FM"[patient // 2 % 2], bool(patient % 2)
            split = "train" if patient < num_patients // 4 else "test"
            age = rng.integers(25, 80)
            for number in range(rng.integers(1, 3)):
                mean = (0.30 if sex == "F" else 0.45) if hazy else 0.15
                name = f"{patient:03}_{number}.png"
                film(rng, float(np.clip(rng.normal(mean, 0.1), 0, 1))).save(folder / name)
                answer = "hazy" if hazy else "clear"
                rows.writerow([name, f"P{patient:03}", split, "xray", sex, age, answer])
    return table


if __name__ == "__main__":
    print(make_films(Path(sys.argv[1] if len(sys.argv) > 1 else "films")))
