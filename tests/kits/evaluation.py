"""Small labelled sets and a suite over them, built by code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import medclip

SUITE = """
name: small
title: Two small sets
groups:
  - {id: eyes, title: Fundus}
  - {id: chests, title: Chest}
sets:
  - id: eyes
    group: eyes
    modality: fundus
    classes:
      - {name: clear, prompts: [clear retina, sharp vessels]}
      - {name: hazy, prompts: [hazy retina]}
  - id: chests
    group: chests
    modality: xray
    split: test
    values: {P: ill, N: healthy, X: null}
    patterns: ["chest X-ray, {c}"]
    classes:
      - {name: healthy, phrase: clear lungs}
      - {name: ill, phrase: pneumonia}
      - {name: other, phrase: something else}
"""


def image(path: Path, seed: int, *, grey: bool = False) -> Path:
    """Write a noisy PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    shape = (48, 48) if grey else (48, 48, 3)
    Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(path)
    return path


def small_data(folder: Path) -> Path:
    """Write both sets of the suite: class folders with a broken file, and a table with patients and splits."""
    for n in range(6):
        image(folder / "eyes" / ("clear" if n % 2 else "hazy") / f"{n}.png", n)
    (folder / "eyes" / "hazy" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    rows = ["file,label,patient,split"]
    for n in range(12):
        image(folder / "chests" / "images" / f"{n}.png", 100 + n, grey=True)
        rows.append(f"images/{n}.png,{'PNX'[n % 3]},MRN-{n // 4},{'train' if n == 9 else 'test'}")
    (folder / "chests" / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def evaluate_suite(model: Any, suite: Any, data: Path, **options: Any) -> medclip.SuiteResult:
    """Measure a pack as `medclip.evaluate` does."""
    return medclip.evaluate(data, model=model, suite=suite, **options)
