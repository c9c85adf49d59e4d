"""Opening one study in a notebook."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.sample import Modality
from medclip.scoring.open_study import open_study
from tests.scoring.kit import write_dicom, write_png


def test_a_folder_opens_with_its_views_and_shows_itself(tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    write_dicom(tmp_path / "2.dcm", 2)
    (tmp_path / "readme.txt").write_text("hello")
    study = open_study(tmp_path)
    assert study.modality is Modality.XRAY
    assert repr(study) == "OpenedStudy(xray, 2 images)"
    assert len(study.views) == len(study.samples()) == 2
    page = study._repr_html_()
    assert page.count("<img ") == 2
    assert "MONOCHROME2" in page


def test_a_picture_opens_as_what_it_is_said_to_be(tmp_path: Path) -> None:
    path = write_png(tmp_path / "x.png", 1)
    assert open_study(path).modality is None
    assert open_study(path, "mri").modality is Modality.MRI


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(MedclipError) as caught:
        open_study(tmp_path / "empty.png")
    assert caught.value.reason is Reason.EMPTY_FILE
    with pytest.raises(MedclipError) as caught:
        open_study(tmp_path / "gone.png")
    assert caught.value.reason is Reason.MISSING_FILE
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("words\n")
    (tmp_path / "texts" / "b.txt").write_text("words\n")
    with pytest.raises(MedclipError) as caught:
        open_study(tmp_path / "texts")
    assert caught.value.reason is Reason.NOTHING_TO_DO
