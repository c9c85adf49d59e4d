"""A suite with masks over planted bright squares: what is measured, kept and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import medclip
from medclip.adaptation.maps import decoders
from medclip.errors import MedclipError, Reason
from medclip.evaluation.dense import run as dense_run
from medclip.evaluation.zero_shot.suite import load_suite
from tests.kits.scoring import every_way, make_pack

SUITE = """
name: squares
title: Planted squares
groups:
  - {id: skin, title: Skin}
masks:
  - id: squares
    group: skin
    modality: dermatology
    shares: [0.1, 1]
    seeds: 2
"""
QUICK: dict[str, Any] = {"workers": 1, "num_resamples": 50}


def squares(folder: Path, number: int = 18, side: int = 64) -> Path:
    """Write images of noise with one bright square each, its mask, a damaged image and one without a mask."""
    rng = np.random.default_rng(0)
    rows = ["file,mask,patient"]
    (folder / "images").mkdir(parents=True)
    for n in range(number):
        pixels = rng.integers(40, 80, (side, side, 3), dtype=np.uint8)
        mask = np.zeros((side, side), np.bool_)
        top, left = rng.integers(0, side // 2, 2)
        mask[top : top + side // 2, left : left + side // 2] = True
        pixels[mask] = 220
        Image.fromarray(pixels).save(folder / "images" / f"{n}.png")
        Image.fromarray(mask).save(folder / "images" / f"{n}-mask.png")
        rows.append(f"images/{n}.png,images/{n}-mask.png,MRN-{n // 2}")
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    rows += ["images/broken.png,images/0-mask.png,MRN-0", "images/none.png,,MRN-1"]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    squares(folder / "squares")
    (folder / "suite.yaml").write_text(SUITE)
    return folder


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny", adapters=every_way())


@pytest.fixture(scope="module")
def measured(pack: Path, place: Path, tmp_path_factory: pytest.TempPathFactory) -> medclip.SuiteResult:
    out = tmp_path_factory.mktemp("out") / "dense"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoders, "STEPS", 40)
        return medclip.evaluate(place, model=pack, suite=place / "suite.yaml", out=out, **QUICK)


def test_each_tower_has_a_dice_with_its_interval_and_what_is_less(measured: medclip.SuiteResult) -> None:
    (one,) = measured.dense
    assert {"pack", "random", "position"} <= set(one.titles)
    assert (one.num_images, one.num_left_out, one.problems) == (19, 1, {"truncated": 1})
    assert one.num_train + one.num_test == 18
    assert one.names_patients
    for cell in one.cells:
        assert 0 <= cell.dice.value <= 1
        assert cell.dice.low is not None
        assert cell.iou.value <= cell.dice.value
        assert len(cell.of_seeds) == 2
    apart = one.apart("position", 1.0).value
    assert apart == pytest.approx(one.cell("pack", 1.0).dice.value - one.cell("position", 1.0).dice.value, abs=2e-4)
    assert measured.num_problems == 1


def test_a_bright_square_is_segmented_where_it_lies(measured: medclip.SuiteResult) -> None:
    (one,) = measured.dense
    best = max(one.cell(tower, 1.0).dice.value for tower in one.titles if tower != "position")
    assert best > one.cell("position", 1.0).dice.value


def test_the_folder_holds_figures_rows_a_page_and_no_patient(measured: medclip.SuiteResult) -> None:
    assert measured.folder is not None
    values = json.loads((measured.folder / "evaluate.json").read_text())
    assert values["dense"][0]["id"] == "squares"
    table = pq.read_table(measured.folder / "dense.parquet")
    (one,) = measured.dense
    assert len(table) == one.num_test * len(one.titles) * 2 * 2
    dices = [r["dice"] for r in table.to_pylist() if (r["tower"], r["share"]) == ("pack", 1.0)]
    assert np.mean(dices) == pytest.approx(one.cell("pack", 1.0).dice.value, abs=1e-4)
    page = (measured.folder / "report.html").read_text()
    assert "Worst" in page
    assert page.count("data:image/png") == 3
    for text in (page, json.dumps(values), str(table.to_pylist())):
        assert "MRN" not in text
        assert ".png" not in text, "rows name no file"


def test_a_second_run_measures_nothing_again(
    pack: Path, place: Path, measured: medclip.SuiteResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(dense_run, "measure_masks", refuse)
    assert measured.folder is not None
    again = medclip.evaluate(place, model=pack, suite=place / "suite.yaml", out=measured.folder, **QUICK)
    assert again.to_json() == measured.to_json()


def test_the_lines_and_rows_name_every_tower(measured: medclip.SuiteResult) -> None:
    text = "\n".join(measured.lines())
    assert "position alone" in text
    assert "less random weights" in text
    assert "all labels" in text
    assert "dice pack 1" in {row["metric"] for row in measured.to_pandas().to_dict("records")}


def test_too_few_patients_make_the_set_unusable(pack: Path, tmp_path: Path) -> None:
    squares(tmp_path / "squares", 6)
    (tmp_path / "suite.yaml").write_text(SUITE)
    with pytest.raises(MedclipError, match="images of 3 patients") as e:
        medclip.evaluate(tmp_path, model=pack, suite=tmp_path / "suite.yaml", **QUICK)
    assert e.value.reason is Reason.TABLE_INVALID


def test_a_tower_without_a_grid_is_refused_in_a_sentence(place: Path, tmp_path: Path) -> None:
    from medclip.imaging.geometry import TokenBudget

    native = make_pack(tmp_path / "native", adapters=every_way(), budget=TokenBudget(16, 16))
    with pytest.raises(MedclipError, match="grids of different sizes") as e:
        medclip.evaluate(place, model=native, suite=place / "suite.yaml", **QUICK)
    assert e.value.reason is Reason.NOT_SUPPORTED_YET


def test_the_shipped_suite_is_read_and_others_keep_their_digest() -> None:
    assert [part.id for part in load_suite("dense").masks][:2] == ["bus_bra", "breast_us"]
    suite = load_suite("unimed")
    assert "masks" not in {k for k, v in suite.model_dump(mode="json").items() if v}
