"""Masks go to a PACS as DICOM segmentations of the images' own rows and columns, and come back by another reader."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

import medclip
from tests.kits.masks import squares
from tests.kits.scoring import write_dicom, write_png

__all__ = ["squares"]
QUICK: dict[str, Any] = {"workers": 1, "task": ["square"], "modality": "dermatology"}


@pytest.fixture(scope="module")
def run(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> medclip.ScoreRun:
    folder = tmp_path_factory.mktemp("in")
    write_dicom(folder / "one.dcm", 3, modality="XC", PixelSpacing=[0.5, 0.25])
    write_dicom(folder / "two.dcm", 4, modality="XC", study_uid="1.2.3.4.7")
    write_png(folder / "plain.png", 5)
    return medclip.score(
        folder, model=squares, out=tmp_path_factory.mktemp("out") / "run", export=["seg", "sr"], **QUICK
    )


def written(run: medclip.ScoreRun, form: str) -> list[Path]:
    assert run.exported is not None
    return sorted((Path(run.exported["folder"]) / form).glob("*.dcm"))


def test_each_dicom_study_has_a_segmentation_with_the_mask_that_lies_in_maps(run: medclip.ScoreRun) -> None:
    assert run.maps is not None
    masks = {row["study"]: np.array(Image.open(run.folder / row["map"])) for row in run.maps.to_pylist()}
    files = written(run, "seg")
    assert len(files) == 2
    for path in files:
        read = pydicom.dcmread(path)
        (segment,) = read.SegmentSequence
        assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("Square", "AUTOMATIC")
        assert (read.Rows, read.Columns) == masks[path.stem].shape
        assert np.array_equal(read.pixel_array.squeeze().astype(bool), masks[path.stem])


def test_a_map_is_no_answer_for_a_structured_report_and_a_plain_image_has_no_header(run: medclip.ScoreRun) -> None:
    assert run.exported is not None
    assert run.exported["written"] == {"seg": 2, "sr": 0}
    assert run.exported["without"]["seg"] == {"no DICOM header": 1}
    assert run.exported["without"]["sr"] == {"no DICOM header": 1, "no answer but maps": 2}


def test_the_standard_is_kept(run: medclip.ScoreRun) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    for path in written(run, "seg"):
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
        assert "Error" not in said


def test_a_finished_run_is_exported_later_with_the_same_masks(run: medclip.ScoreRun, tmp_path: Path) -> None:
    for name in ("first", "again"):
        assert medclip.runs.export(run.folder, as_="seg", to=tmp_path / name).written == {"seg": 2}
    for path in sorted((tmp_path / "first" / "seg").iterdir()):
        again = pydicom.dcmread(tmp_path / "again" / "seg" / path.name)
        assert np.array_equal(pydicom.dcmread(path).pixel_array, again.pixel_array)


def test_images_of_several_sizes_have_no_segmentation_and_say_why(squares: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "one.dcm", 3, modality="XC")
    larger = pydicom.dcmread(write_dicom(tmp_path / "in" / "two.dcm", 4, modality="XC"))
    pixels = np.pad(larger.pixel_array, ((0, 10), (0, 0)), constant_values=7)
    larger.Rows, larger.PixelData = len(pixels), pixels.tobytes()
    larger.save_as(tmp_path / "in" / "two.dcm")
    run = medclip.score(tmp_path / "in", model=squares, out=tmp_path / "out", export=["seg"], **QUICK)
    assert run.exported is not None
    (why,) = run.exported["without"]["seg"]
    assert "several sizes" in why
