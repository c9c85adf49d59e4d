"""A record becomes a sheet of paper, with a map, and nothing of its header is on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medclip
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.sheet.layouts import SheetMap
from tests.kits.ecg import PATIENT, heart, write_wfdb


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return write_wfdb(tmp_path, heart(5000))


def test_a_sheet_has_the_size_of_paper_and_its_map_beside_it(record: Path, tmp_path: Path) -> None:
    sheet = medclip.ecg.render(record, tmp_path / "x.png", dpi=100, map_out=tmp_path / "x.json")
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (1100, 850)
        assert image.info["dpi"] == pytest.approx((100, 100), abs=0.1)
    assert SheetMap.from_json((tmp_path / "x.json").read_text()) == sheet.map
    assert (sheet.missing_leads, sheet.num_found, sheet.duration_s) == ((), 1, 10.0)


def test_equal_records_give_equal_bytes_that_name_nobody(record: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        medclip.ecg.render(record, tmp_path / name, dpi=60, photograph=True, seed=3)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert PATIENT.encode() not in (tmp_path / "a.png").read_bytes()


def test_the_wander_of_the_baseline_stays_unless_it_is_to_be_taken_out(tmp_path: Path) -> None:
    slow = {lead: line + np.linspace(-0.6, 0.6, 5000) for lead, line in heart(5000).items()}
    record = write_wfdb(tmp_path, slow)
    heights = []
    for name, filtered in (("a.png", False), ("b.png", True)):
        sheet = medclip.ecg.render(record, tmp_path / name, layout="12x1", dpi=60, filtered=filtered)
        with Image.open(tmp_path / name) as image:
            pixels = np.asarray(image)
        box = sheet.map.box_of("V6")
        middles = []
        for seconds in (0.9, 9.1):
            column = pixels[int(box.zero_px) - 25 : int(box.zero_px) + 25, int(box.left_px + seconds * 59)].max(1)
            middles.append(float(np.argmin(column)))
        heights.append(middles[0] - middles[1])
    assert heights[0] > 15
    assert abs(heights[1]) < 6


def test_an_image_is_no_record_and_its_remedy_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (300, 300)).save(tmp_path / "sheet.png")
    with pytest.raises(MedclipError, match="ecg digitise") as refused:
        medclip.ecg.render(tmp_path / "sheet.png", tmp_path / "x.png")
    assert refused.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"layout": "3x5"}, "layout"),
        ({"grid": "violet"}, "grid"),
        ({"dpi": 20}, "dpi"),
        ({"start_s": 12.0}, "lasts 10 s"),
        ({"number": 2}, "number 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(
    record: Path, tmp_path: Path, wrong: dict[str, object], words: str
) -> None:
    with pytest.raises(MedclipError, match=words):
        medclip.ecg.render(record, tmp_path / "x.png", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "x.png").exists()


def test_neither_the_sheet_nor_the_map_replaces_a_file_of_the_record(record: Path, tmp_path: Path) -> None:
    before = record.with_suffix(".dat").read_bytes()
    other = record.with_suffix(".png")
    for fields in (
        {"out": other, "map_out": record.with_suffix(".dat")},
        {"out": record},
        {"out": other, "map_out": record},
    ):
        with pytest.raises(MedclipError, match="ends in"):
            medclip.ecg.render(record, **fields, overwrite=True)  # type: ignore[arg-type]
    assert record.with_suffix(".dat").read_bytes() == before


def test_a_sheet_that_is_there_stays_without_overwrite(record: Path, tmp_path: Path) -> None:
    medclip.ecg.render(record, tmp_path / "x.png", dpi=60)
    with pytest.raises(MedclipError) as refused:
        medclip.ecg.render(record, tmp_path / "x.png", dpi=60)
    assert refused.value.reason is Reason.OUTPUT_IN_USE
    json.dumps(medclip.ecg.render(record, tmp_path / "x.png", dpi=60, overwrite=True).map.to_json())
