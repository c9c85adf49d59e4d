"""pipelines/ecg/sheets.py: what is shown of a sheet, and that grid and borders are divided alike."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "pipelines" / "ecg"


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import sheets  # pyright: ignore[reportMissingImports]

    yield sheets
    sys.modules.pop("sheets", None)  # not its towers: timm has their names once and for all


def _sheet(folder: Path, number: int) -> None:
    page = np.full((300, 400), 255, np.uint8)
    page[10:14, 20:200] = 0  # the header
    page[60:280, 30:380] = 245  # the grid
    page[150, 30:380] = 10 + number
    Image.fromarray(page).save(folder / f"s{number}.png")


def test_the_grid_is_cut_out_and_the_border_is_what_is_left(sheets, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with (data / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "group", "label"])
        for number in range(3):
            _sheet(data, number)
            writer.writerow([f"s{number}.png", f"p{number}", "mi"])
    tables = sheets.prepare(data, tmp_path / "out")
    grid = np.asarray(Image.open(tables["grid"].parent / "s1.png"))
    border = np.asarray(Image.open(tables["border"].parent / "s1.png"))
    assert grid.shape == (216, 346)
    assert (grid == 11).any()
    assert not (grid == 0).any()  # nothing of the header
    assert border.shape == (300, 400)
    assert (border == 0).any()
    assert (border[60:280, 30:380] == 255).all()  # nothing of the ECG
    assert tables["grid"].read_text() == tables["border"].read_text()
    assert "s1.png,p1,mi,ecg" in tables["grid"].read_text()


@pytest.mark.parametrize("name", ["vit", "beit", "swin"])
def test_the_small_towers_are_built_by_their_names(sheets, name: str) -> None:
    import timm
    import torch

    tower = timm.create_model(sheets.sheet_towers.SMALL[name], num_classes=4, img_size=160)
    assert tower(torch.zeros(1, 3, 160, 160)).shape == (1, 4)
    assert 5e5 < sum(p.numel() for p in tower.parameters()) < 3e6
    assert timm.is_model(sheets.sheet_towers.FULL[name])


def test_nothing_is_changed_that_changes_what_a_sheet_means(sheets) -> None:
    changes = sheets.recipe(20, 224, full=True)
    assert changes["augment.flip"] == 0
    assert changes["augment.rand_augment"] is None
    assert changes["augment.rotate_deg"] <= 3
    assert 2e-5 <= changes["train.lr"] <= 5e-5
