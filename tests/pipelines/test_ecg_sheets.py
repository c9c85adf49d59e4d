"""pipelines/ecg/sheets.py: what is shown of a sheet, folds by printed number, the start on rendered sheets, figures."""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.kits.ecg_cohort import FOLDER, module_of
from tests.kits.loaded_python import Programs

CLASSES = ("normal", "abnormal", "mi", "post_mi")


def _page(number: int = 0) -> np.ndarray:
    """A sheet whose grid has white gaps between its squares, as that of scans has."""
    page = np.full((300, 400), 255, np.uint8)
    page[10:14, 20:380] = 0  # the header
    page[60:280:5, 30:380] = 246
    page[60:280, 30:380:5] = 246
    page[60:280, 120] = page[60:280, 260] = 0  # between columns of leads
    page[60, 30:380] = page[279, 30:380] = page[60:280, 30] = page[60:280, 379] = 220
    page[150, 35:375] = 10 + number
    page[288:292, 40 : 60 + 10 * (number % 4)] = 0  # the footer
    return page


def _set(folder: Path, num: int) -> Path:
    """A set of sheets: of two sheets in turn one number, classes in turn."""
    (folder / "ecg_sheet").mkdir(parents=True)
    with (folder / "ecg_sheet" / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "group", "label"])
        for number in range(num):
            Image.fromarray(_page(number % 4 * 40)).save(folder / "ecg_sheet" / f"s{number}.png")
            writer.writerow([f"s{number}.png", f"p{number // 2}", CLASSES[number % 4]])
    return folder


def test_the_grid_is_all_that_its_frame_encloses_though_white_gaps_run_through_it() -> None:
    sheet_set = module_of("sheet_set")
    assert sheet_set.frame_of(_page()) == (slice(60, 280), slice(30, 380))
    grid, border, footer = (sheet_set.shown(_page(), kind) for kind in ("grid", "border", "footer"))
    assert grid.shape == (216, 346)
    assert (grid == 10).any()
    assert not (grid == 0).all(1).any(), "nothing of the header"
    assert (border[60:280, 30:380] == 255).all(), "nothing of the ECG"
    assert (border == 0).any()
    assert (footer == 0).any()
    assert not (footer == 220).any(), "nothing of the frame"


def test_towers_are_shown_ink_on_mid_grey_without_the_grid() -> None:
    sheet_set = module_of("sheet_set")
    square = sheet_set.drawn(sheet_set.shown(_page(), "grid"), 96)
    assert square.shape == (96, 96)
    assert square.max() == 128, "paper is what towers take for 0"
    assert np.median(square) == 128, "no line of the grid is left"
    (column,) = np.nonzero(square[80] < 128)
    assert len(column) >= 2, "the lines between columns are"
    stroke = square[:, 48]
    assert stroke.min() < 30, "a stroke of one pixel does not fade where the square is small"


def test_shares_of_ink_say_how_much_is_drawn_and_nothing_of_where(tmp_path: Path) -> None:
    baselines = module_of("sheet_baselines")
    image = np.full((10, 20), 255, np.uint8)
    image[:2], image[2:5], image[5:6] = 40, 100, 180
    features = baselines.encode(baselines.INK, [image, image[::-1]], "grid", tmp_path / "ink.npy")
    assert features.tolist() == [pytest.approx([0.2, 0.5, 0.6])] * 2
    assert baselines.encode(baselines.INK, [], "grid", tmp_path / "ink.npy").shape == (2, 3), "kept"


def test_a_sheet_without_a_frame_is_refused() -> None:
    with pytest.raises(SystemExit, match="no frame"):
        module_of("sheet_set").frame_of(np.full((300, 400), 255, np.uint8))


@pytest.mark.shared
def test_the_frame_of_every_shared_sheet_is_where_it_is_printed(shared: Path) -> None:
    sheet_set = module_of("sheet_set")
    for row in sheet_set.read_set(shared / "data" / "ecg_sheet", 3):
        rows, columns = sheet_set.frame_of(sheet_set.read_sheet(row["path"]))
        assert (rows.start, rows.stop, columns.start) == (69, 373, 16)
        assert columns.stop in (535, 536)


def test_a_printed_number_is_in_one_fold_and_on_one_side_and_each_sheet_is_tested_once(tmp_path: Path) -> None:
    sheet_set = module_of("sheet_set")
    sheets = sheet_set.read_set(_set(tmp_path, 128) / "ecg_sheet", 3)
    tested: list[str] = []
    for fold in range(3):
        sides = sheet_set.divided(sheets, fold)
        of_group, classes = defaultdict(set), defaultdict(set)
        for row, side in zip(sheets, sides, strict=True):
            of_group[row["group"]].add(side)
            classes[side].add(row["label"])
        assert {len(own) for own in of_group.values()} == {1}
        assert all(classes[side] == set(CLASSES) for side in ("train", "val", "test"))
        tested += [row["file"] for row, side in zip(sheets, sides, strict=True) if side == "test"]
        assert sheet_set.shares_of(sheets, sides) == pytest.approx([0.25] * 4, abs=0.05)
    assert sorted(tested) == sorted(row["file"] for row in sheets)


@pytest.mark.parametrize("name", ["vit", "beit", "swin"])
def test_the_small_towers_are_built_by_their_names(name: str) -> None:
    import timm
    import torch

    sheet_towers = _towers()
    tower = timm.create_model(sheet_towers.SMALL[name], num_classes=4, img_size=112)
    assert tower(torch.zeros(1, 3, 112, 112)).shape == (1, 4)
    assert 5e5 < sum(p.numel() for p in tower.parameters()) < 3e6
    assert timm.is_model(sheet_towers.FULL[name])


def _towers():
    """The module itself, which timm has once and for all."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    import sheet_towers  # pyright: ignore[reportMissingImports]

    return sheet_towers


def test_nothing_is_changed_that_changes_what_a_sheet_means() -> None:
    sheets = module_of("sheets")
    for full in (False, True):
        changes = sheets.recipe(20, 224, full=full, pretrained=True)
        assert changes["augment.flip"] == 0
        assert changes["augment.rand_augment"] is None
        assert changes["augment.rotate_deg"] <= 3
        assert changes["augment.brightness"] == 0, "paper stays mid grey"
    assert 2e-5 <= sheets.recipe(20, 224, full=True, pretrained=True)["train.lr"] <= 5e-5


def test_a_given_pack_is_what_a_tower_begins_with_and_others_are_left_out(tmp_path: Path) -> None:
    sheets = module_of("sheets")
    options = argparse.Namespace(
        pack=[f"beit={tmp_path}"], starts=None, inputs=["grid", "border"], towers=["vit", "beit"], full=True
    )
    assert sheets.ways_of(options) == [("beit", "given", "grid"), ("beit", "given", "border")]
    assert sheets.start_of("beit", "given", options) == tmp_path
    assert sheets.start_of("vit", "nothing", options) == "vit_base_patch16_224"
    options.pack = []
    assert {start for _, start, _ in sheets.ways_of(options)} == {"nothing"}
    with pytest.raises(SystemExit, match="TOWER=PACK"):
        sheets.given_packs(["resnet=x"])


def test_rendered_sheets_look_like_those_of_the_set_and_name_what_is_planted(tmp_path: Path) -> None:
    start = module_of("sheet_start")
    table = start.write_sheets(tmp_path / "rendered", 4, 288, None)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {row[name] for row in rows for name in ("norm", "mi", "afib", "qwave")} == {"0", "1"}
    sheet = np.asarray(Image.open(table.parent / rows[0]["file"]))
    assert sheet.shape == (288, 288)
    assert np.median(sheet) == 128, "paper"
    assert 0.01 < (sheet < 64).mean() < 0.1, "ink"
    before = (table.parent / rows[1]["file"]).read_bytes()
    (table.parent / rows[1]["file"]).unlink()
    start.write_sheets(tmp_path / "rendered", 4, 288, None)
    assert (table.parent / rows[1]["file"]).read_bytes() == before


def test_figures_are_of_each_sheet_once_and_a_control_is_subtracted(tmp_path: Path) -> None:
    sheets = module_of("sheet_set").read_set(_set(tmp_path, 96) / "ecg_sheet", 2)
    figures = module_of("sheet_figures")
    rng = np.random.default_rng(0)
    ways: dict[str, list[Mapping[str, Sequence[float]]]] = {"vit, grid": [], "vit, border": []}
    for fold in range(2):
        own = [row for row in sheets if row["fold"] == str(fold)]
        # each fold has a scale of its own, which ranks take away
        ways["vit, grid"].append(
            {row["file"]: (np.eye(4)[CLASSES.index(row["label"])] * 3 + 50 * fold).tolist() for row in own}
        )
        ways["vit, border"].append({row["file"]: rng.normal(size=4).tolist() for row in own})
    measured = figures.figures_of(ways, sheets)
    assert measured["vit, grid"]["macro_auroc"]["value"] == 1
    assert measured["vit, grid"]["accuracy"]["value"] == 1
    assert 0.3 < measured["vit, border"]["macro_auroc"]["value"] < 0.7
    apart = measured["vit, grid"]["minus_border"]
    assert apart["value"] == pytest.approx(1 - measured["vit, border"]["macro_auroc"]["value"], abs=1e-3)
    assert apart["low"] > 0.1
    table = figures.table_of({"sheets": 96, "groups": 48, "folds": 2, "ways": measured})
    assert "| vit | grid | 1.00" in table
    assert table.startswith("96 sheets of 48 printed numbers in 2 folds.")


@pytest.mark.nightly
def test_the_measurement_runs_in_small_and_keeps_what_is_finished(programs: Programs, tmp_path: Path) -> None:
    _set(tmp_path / "data", 64)
    command = [programs.python, str(FOLDER / "sheets.py"), str(tmp_path / "run"), "--data", str(tmp_path / "data")]
    env = os.environ | {
        "PYTHONPATH": str(FOLDER.parents[1]),
        "MEDCLIP_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
    }

    def run() -> str:
        done = subprocess.run(
            [*command, "--smoke", "--starts", "nothing", "rendered", "--inputs", "grid"],
            env=env,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    first = run()
    assert "64 sheets of 32 printed numbers in 2 folds." in first
    for way in ("grey values, footer", "vit from nothing, grid", "vit from rendered, grid"):
        assert f"{way}: macro AUC" in first
    figures = json.loads((tmp_path / "run" / "figures.json").read_text())
    assert "minus_nothing" in figures["ways"]["vit from rendered, grid"]
    kept = {cell: cell.stat().st_mtime_ns for cell in (tmp_path / "run" / "cells").iterdir()}
    assert run() == first
    assert {cell: cell.stat().st_mtime_ns for cell in (tmp_path / "run" / "cells").iterdir()} == kept
