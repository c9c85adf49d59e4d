"""Images of noise with one bright square each, and their masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medclip
from tests.kits.scoring import every_way, make_pack

HEADER = "file,square,patient,modality"


def write_squares(folder: Path, number: int, side: int = 64, *, per_patient: int = 1) -> list[str]:
    """Write images N.png with masks N-mask.png, and return the rows of their table under `HEADER`."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(number):
        pixels = rng.integers(40, 80, (side, side, 3), dtype=np.uint8)
        mask = np.zeros((side, side), np.bool_)
        top, left = rng.integers(0, side // 2, 2)
        mask[top : top + side // 2, left : left + side // 2] = True
        pixels[mask] = 220
        Image.fromarray(pixels).save(folder / f"{n}.png")
        Image.fromarray(mask).save(folder / f"{n}-mask.png")
        rows.append(f"{n}.png,{n}-mask.png,MRN-{n // per_patient},dermatology")
    return rows


def write_rows(path: Path, rows: list[str]) -> Path:
    """Write a table of such rows."""
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack that was adapted to the map of such squares."""
    folder = tmp_path_factory.mktemp("packs")
    base = make_pack(folder / "tiny", adapters=every_way())
    table = write_rows(folder / "table.csv", write_squares(folder, 12))
    run = medclip.adapt(
        table, model=base, out=folder / "squares", map="mask", label="square", workers=1, overrides=["steps=60"]
    )
    assert run.folder is not None
    return run.folder
