"""A folder is scored by a pack of maps: rows, masks in the pixels of the files, outlines in the report."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import medclip
from medclip.errors import MedclipError
from medclip.imaging.geometry import Box, Placement
from medclip.imaging.masks import Shown
from medclip.runs.ledger.ledger import Ledger
from medclip.scoring.image_maps import num_pieces, outline_png
from medclip.statistics.metrics.masks import dice_and_iou
from tests.kits.masks import squares, write_squares
from tests.kits.scoring import write_dicom

__all__ = ["squares"]
QUICK: dict[str, Any] = {"workers": 1, "modality": "dermatology"}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("MRN-77")
    write_squares(folder / "masks", 5, side=96)
    for n in range(5):
        (folder / f"MRN-{n}.png").write_bytes((folder / "masks" / f"{n}.png").read_bytes())
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return folder


@pytest.fixture(scope="module")
def run(squares: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> medclip.ScoreRun:
    images = tmp_path_factory.mktemp("in")
    for path in films.glob("*.png"):
        (images / path.name).write_bytes(path.read_bytes())
    return medclip.score(images, model=squares, task=["square"], out=tmp_path_factory.mktemp("out") / "run", **QUICK)


def test_each_image_has_a_row_and_a_mask_of_its_own_pixels(run: medclip.ScoreRun, films: Path) -> None:
    assert run.maps is not None
    rows = run.maps.to_pylist()
    assert len(rows) == 5
    for row in rows:
        mask = np.array(Image.open(run.folder / row["map"]))
        truth = np.array(Image.open(films / "masks" / f"{row['file'][4]}-mask.png"))
        assert mask.shape == truth.shape == (96, 96)
        assert dice_and_iou(mask, truth)[0] > 0.6
        assert row["area_px"] == mask.sum()
        assert row["share"] == pytest.approx(mask.mean(), abs=1e-6)
        assert (row["class"], row["task"], row["area_mm2"]) == ("square", "square", None)
        assert row["num_pieces"] == ndimage.label(mask, np.ones((3, 3)))[1]


def test_every_input_ends_in_a_row_and_what_failed_has_no_map(run: medclip.ScoreRun) -> None:
    files = {row["path"]: row["status"] for row in run.files.to_pylist()}
    assert [status for path, status in files.items() if "broken" in path] == ["failed"]
    assert sum(status == "scored" for status in files.values()) == 5
    assert run.scores.num_rows == 0  # no study has one probability


def test_names_of_maps_say_nothing_of_the_file(run: medclip.ScoreRun) -> None:
    names = [path.name for path in (run.folder / "maps").iterdir()]
    assert sorted(names) == [f"{n:06}-square.png" for n in range(1, 6)]


def test_outlines_lie_over_the_small_images_of_the_report(run: medclip.ScoreRun) -> None:
    assert run.report_path is not None
    page = run.report_path.read_text(encoding="utf-8")
    assert "Marked by the model" in page
    drawn = re.findall(r'class="outlined">.*?</div>', page, re.DOTALL)
    assert len(drawn) == 5
    small, outline = re.findall(r"base64,([^\"]+)\"", drawn[0])
    sizes = [Image.open(BytesIO(base64.b64decode(data))).size for data in (small, outline)]
    assert sizes[0][0] / sizes[0][1] == sizes[1][0] / sizes[1][1]
    assert "No scale: the file states no spacing." in page


def test_the_same_run_again_has_the_same_bytes(
    squares: Path, run: medclip.ScoreRun, films: Path, tmp_path: Path
) -> None:
    images = tmp_path / "in"
    images.mkdir()
    for path in films.glob("*.png"):
        (images / path.name).write_bytes(path.read_bytes())
    again = medclip.score(images, model=squares, task=["square"], out=tmp_path / "out", **QUICK)
    for path in sorted(run.folder.rglob("*.p*")):
        if path.suffix in (".png", ".parquet") and path.name != "files.parquet":
            assert path.read_bytes() == (again.folder / path.relative_to(run.folder)).read_bytes(), path.name


def test_a_map_goes_when_its_file_is_scored_anew_and_comes_back_once(run: medclip.ScoreRun) -> None:
    with Ledger(run.folder, create=False) as ledger:
        rows = [row for row, _, _ in ledger.map_images()]
        of_one = [row for row, _, _ in ledger.map_images(rows[0].study)]
    assert [row.row for row in rows] == sorted(row.row for row in rows)
    assert of_one == rows[:1]


def test_an_outline_that_marks_nothing_is_not_drawn() -> None:
    shown = Shown(40, 60, Box(0, 0, 40, 60), (), Placement(40, 60, 32, 32, 32, 32, 0, 0))
    assert outline_png(np.full((4, 4), -1.0, np.float32), shown) == b""
    drawn = np.array(
        Image.open(BytesIO(outline_png(np.pad(np.ones((2, 2), np.float32), 1, constant_values=-1), shown)))
    )
    assert drawn.shape[2] == 4
    assert 0 < (drawn[..., 3] > 0).mean() < 0.3
    assert not drawn[0].any()


def test_a_file_with_a_spacing_has_areas_in_square_millimetres(squares: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "skin.dcm", 3, modality="XC", PixelSpacing=[0.5, 0.25])
    run = medclip.score(tmp_path / "in", model=squares, task=["square"], out=tmp_path / "out", **QUICK)
    assert run.maps is not None
    (row,) = run.maps.to_pylist()
    with Image.open(run.folder / row["map"]) as mask:
        assert mask.size == (70, 90)
    assert row["area_mm2"] == pytest.approx(row["area_px"] * 0.125, abs=1e-3)


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    mask = np.zeros((6, 6), np.bool_)
    mask[0, 0] = mask[1, 1] = mask[5, 5] = True
    assert num_pieces(mask) == 2


def test_what_needs_one_probability_a_study_refuses_maps(run: medclip.ScoreRun, squares: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="answered with maps"):
        medclip.runs.report(run.folder, sort_by="square")
    write_squares(tmp_path / "in", 2)
    embedded = medclip.embed(tmp_path / "in", model=squares, out=tmp_path / "vectors", **QUICK)
    with pytest.raises(MedclipError, match="takes tokens of images"):
        medclip.score(embedded.folder, model=squares, task=["square"], out=tmp_path / "out")
