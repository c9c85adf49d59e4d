"""Opening one study in a notebook."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.make_phantoms import ct_series, ecg_record, mr_volume, ultrasound_cine
from medclip.adapters.base import Source
from medclip.api.open_study import open_study
from medclip.dicom.header.read import DicomHeader
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.inspecting.opened_study import facts_of
from medclip.sample import Kind, Modality, Provenance, Sample
from tests.kits.scoring import write_dicom, write_png


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


def test_a_image_opens_as_what_it_is_said_to_be(tmp_path: Path) -> None:
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


def _cut(path: Path, cut: int) -> Path:
    """Write an image without its last bytes, which only decoding finds."""
    body = write_png(path, 3).read_bytes()
    path.write_bytes(body[:-cut])
    return path


def test_one_broken_file_does_not_hide_the_others(tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / f"{number}.png", number)
    broken = _cut(tmp_path / "broken.png", cut=400)
    study = open_study(tmp_path, "xray")
    assert (len(study.units), study.problems) == (4, ())
    assert len(study.samples()) == len(study.views) == 3
    assert [(path, problem.reason) for path, problem in study.failed] == [(broken, Reason.TRUNCATED)]
    assert repr(study) == "OpenedStudy(xray, 4 images, 1 problem)"
    page = study._repr_html_()
    assert page.count("<img ") == 3
    assert "Not readable" in page
    assert "broken" not in page


def test_a_study_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "a.png", 1)
    _cut(tmp_path / "b.png", cut=400)
    study = open_study(tmp_path, "xray")
    first = study.samples()
    monkeypatch.setattr("medclip.inspecting.opened_study.ReadingPool", None)
    assert study.samples()[0] is first[0]
    assert len(study.problems) == 1


def test_where_nothing_can_be_read_the_first_error_is_raised_and_the_page_says_it(tmp_path: Path) -> None:
    path = _cut(tmp_path / "a.png", cut=400)
    study = open_study(path, "xray")
    for _ in range(2):
        with pytest.raises(MedclipError) as caught:
            study.samples()
        assert (caught.value.reason, caught.value.where) == (Reason.TRUNCATED, str(path))
    page = study._repr_html_()
    assert "Not readable" in page
    assert "<table>" not in page


def test_a_page_that_cannot_be_made_shows_the_study_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise RuntimeError

    write_png(tmp_path / "a.png", 1)
    study = open_study(tmp_path, "xray")
    monkeypatch.setattr("medclip.inspecting.opened_study._row", fails)
    assert "cannot be shown" in study._repr_html_()
    monkeypatch.setattr("medclip.inspecting.opened_study.study_html", fails)
    assert study._repr_html_() == "<pre>OpenedStudy(xray, 1 image)</pre>"


def _film(path: Path, seed: int, side: str, view: str, intent: str = "FOR PRESENTATION", **tags: str) -> Path:
    values = {"ImageLaterality": side, "ViewPosition": view, "PresentationIntentType": intent, **tags}
    return write_dicom(path, seed, modality="MG", **values)


def test_a_mammography_study_says_which_views_are_missing(tmp_path: Path) -> None:
    for seed, (side, view) in enumerate((("L", "CC"), ("L", "MLO"), ("R", "CC"))):
        _film(tmp_path / f"{seed}", seed, side, view)
    _film(tmp_path / "raw", 7, "R", "CC", "FOR PROCESSING")
    study = open_study(tmp_path)
    assert study.exam is not None
    assert study.exam.missing == ("R-MLO",)
    page = study._repr_html_()
    assert "Mammography views: right CC, left CC, left MLO." in page
    assert "Missing: right MLO." in page
    assert "1 for processing left out" in page
    assert page.count("<img ") == 3
    assert (len(study.units), study.problems) == (3, ())


def test_there_is_no_exam_of_other_images_or_of_two_studies(tmp_path: Path) -> None:
    write_dicom(tmp_path / "x" / "a", 1)
    assert open_study(tmp_path / "x").exam is None
    _film(tmp_path / "m" / "a", 1, "L", "CC")
    _film(tmp_path / "m" / "b", 2, "L", "CC", StudyInstanceUID="1.2.3")
    assert open_study(tmp_path / "m").exam is None


def test_a_mammogram_for_processing_opens_where_it_is_the_only_file(tmp_path: Path) -> None:
    study = open_study(_film(tmp_path / "a", 1, "L", "CC", "FOR PROCESSING"))
    assert len(study.samples()) == 1
    assert study.exam is not None
    assert "for processing only" in study._repr_html_()


def test_views_of_several_patients_in_one_folder_are_one_examination_by_folder(tmp_path: Path) -> None:
    for seed, (side, view) in enumerate((("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))):
        _film(tmp_path / f"{seed}", seed, side, view, PatientID=f"P{seed}", StudyInstanceUID=f"1.2.{seed + 1}")
    assert open_study(tmp_path).exam is None
    study = open_study(tmp_path, group_by="folder")
    assert study.exam is not None
    assert study.exam.missing == ()
    assert "The mammography examination is complete." in study._repr_html_()
    with pytest.raises(MedclipError) as caught:
        open_study(tmp_path, group_by="moon")
    assert caught.value.reason is Reason.WRONG_USE


def test_units_of_several_modalities_are_said_to_be_that(tmp_path: Path) -> None:
    write_dicom(tmp_path / "x", 1)
    _film(tmp_path / "m", 2, "L", "CC", StudyInstanceUID="1.2.3")
    assert repr(open_study(tmp_path)) == "OpenedStudy(several modalities, 2 images)"
    assert repr(open_study(write_png(tmp_path / "p.png", 1))) == "OpenedStudy(modality unknown, 1 image)"


def test_burned_in_text_is_told_of_volumes_and_loops(tmp_path: Path) -> None:
    ct_series(tmp_path / "ct", num_slices=3, size=48, BurnedInAnnotation="YES")
    ultrasound_cine(tmp_path / "us.dcm", num_frames=3)
    said = "the header says that text is burned into the pixels: look before you share"
    assert said in open_study(tmp_path / "ct")._repr_html_()
    assert "look before you share" in open_study(tmp_path / "us.dcm")._repr_html_()


@pytest.mark.parametrize("kind", list(Kind))
def test_what_a_header_says_of_text_in_the_pixels_is_told_of_every_kind(kind: Kind) -> None:
    made = Provenance("0", "dicom", "x", "x")
    for said, warned in ((True, True), (False, False), (None, False)):
        facts = tuple(FileFacts("0", Format.DICOM, DicomHeader(burned_in=burned)) for burned in (None, said))
        source = Source(kind, (Path("a"), Path("b")), facts)
        sample = Sample(None, (), made, {"size_px": (9, 9), "mpp_um": (1.0, 1.0)}, kind)
        assert any("burned into the pixels" in line for line in facts_of(source, sample)) is warned


def _images(page: str) -> list[Image.Image]:
    bodies = [part.partition('"')[0] for part in page.split("data:image/png;base64,")[1:]]
    return [Image.open(io.BytesIO(base64.b64decode(body))) for body in bodies]


def test_an_ecg_has_no_bars_and_a_ct_no_colours(tmp_path: Path) -> None:
    (sheet,) = _images(open_study(ecg_record(tmp_path / "ecg"))._repr_html_())
    assert sheet.width > sheet.height
    assert np.asarray(sheet).min(axis=2).mean(axis=1).min() > 100  # no black row
    page = open_study(ct_series(tmp_path / "ct", num_slices=3, size=48))._repr_html_()
    assert "channels: lung, soft tissue, bone" in page
    assert "the images show the soft tissue channel" in page
    for image in _images(page):
        assert np.ptp(np.asarray(image.convert("RGB")).astype(int), axis=2).max() == 0


def test_a_volume_that_does_not_say_whether_it_is_ct_or_mri_asks_for_the_modality(tmp_path: Path) -> None:
    study = open_study(mr_volume(tmp_path / "b.nii", size=24))
    with pytest.raises(MedclipError) as caught:
        study.samples()
    assert "does not say whether it is CT or MRI" in str(caught.value)
    assert "--modality ct or --modality mri, in Python modality='ct'" in str(caught.value)
    assert len(open_study(tmp_path / "b.nii", "mri").samples()) == 1


def test_a_lone_file_that_is_no_image_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words\n")
    with pytest.raises(MedclipError) as caught:
        open_study(tmp_path / "notes.txt")
    assert caught.value.reason is Reason.NOT_AN_IMAGE
