from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.base import single
from medclip.adapters.mammography import MammographyAdapter
from medclip.dicom.header.read import DicomHeader
from medclip.files.grouping.mammography_exam import exam_view
from medclip.files.recognise.inspect import inspect_file
from medclip.sample import ViewType
from medclip.settings import Settings
from tests.kits.files import dataset, element, write_dicom
from tests.kits.loops import read

ADAPTER = MammographyAdapter()


def _breast(*, right: bool = False) -> np.ndarray:
    y, x = np.mgrid[:300, :240]
    pixels = np.where(((y - 150) / 130) ** 2 + (x / 150) ** 2 < 1, 1500 + 8 * x + 3 * y, 0).astype(np.uint16)
    return np.ascontiguousarray(pixels[:, ::-1]) if right else pixels


def _notes(sample) -> str:
    return " ".join(step.detail for step in sample.provenance.steps if step.name == "note")


def test_an_implant_is_a_header_and_a_step(tmp_path: Path) -> None:
    for stated, expected in (("YES", True), ("NO", False), (None, None)):
        sample = read(ADAPTER, write_dicom(tmp_path / "a", _breast(), Modality="MG", BreastImplantPresent=stated))
        assert sample.headers["implant"] is expected
        assert ("implant" in _notes(sample)) == (expected is True)


def test_an_image_for_processing_is_named_as_such(tmp_path: Path) -> None:
    raw = write_dicom(tmp_path / "a", _breast(), Modality="MG", PresentationIntentType="FOR PROCESSING")
    ready = write_dicom(tmp_path / "b", _breast(), Modality="MG", PresentationIntentType="FOR PRESENTATION")
    silent = write_dicom(tmp_path / "c", _breast(), Modality="MG")
    first, second, third = (read(ADAPTER, path) for path in (raw, ready, silent))
    assert [sample.headers["for_processing"] for sample in (first, second, third)] == [True, False, None]
    assert "for processing" in _notes(first)
    assert not _notes(second)
    np.testing.assert_array_equal(first.views[0].pixels, second.views[0].pixels)


def test_the_view_code_names_the_view_where_view_position_does_not(tmp_path: Path) -> None:
    data = dataset(_breast(), Modality="MG")
    data.ViewCodeSequence = [element("CodeValue", "R-10226")]
    data.save_as(tmp_path / "a", enforce_file_format=True)
    sample = read(ADAPTER, tmp_path / "a")
    assert sample.views[0].position == sample.headers["position"] == "MLO"
    both = DicomHeader(view_position="CC", view_code="MLO", patient_orientation=("ML",))
    assert exam_view("", both).view.position == "CC"
    assert exam_view("", DicomHeader(view_code="MLO", patient_orientation=("ML",))).view.position == "MLO"


def test_a_table_names_side_and_view_of_an_image_without_a_header(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray((_breast() // 20).astype(np.uint8)).save(tmp_path / "1.png")
    source = single(tmp_path / "1.png", inspect_file(tmp_path / "1.png", Settings()))
    sample = ADAPTER.read(replace(source, stated_view=ViewType("R", "CC MAG", "low_energy")), Settings())
    view = sample.views[0]
    assert (view.laterality, view.position, view.exam_kind) == ("R", "CC", "low_energy")
    assert (sample.headers["view_modifiers"], sample.headers["exam_kind"]) == (("magnification",), "low_energy")
    plain = ADAPTER.read(source, Settings()).views[0]
    assert (plain.laterality, plain.position, plain.exam_kind) == (None, None, None)
    np.testing.assert_array_equal(plain.pixels, view.pixels)


def test_sides_that_contradict_leave_the_side_unknown_and_say_so(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "0_R_CC.dcm", _breast(), Modality="MG", ImageLaterality="L", ViewPosition="CC")
    sample = read(ADAPTER, path)
    assert (sample.views[0].laterality, sample.views[0].position) == (None, "CC")
    assert sample.headers["sides_contradict"] is True
    assert "different sides" in _notes(sample)
    named = read(ADAPTER, write_dicom(tmp_path / "0_L_CC.dcm", _breast(), Modality="MG", ImageLaterality="L"))
    assert (named.views[0].laterality, named.headers["sides_contradict"]) == ("L", None)


def test_the_kind_of_a_contrast_enhanced_image_is_that_of_its_header(tmp_path: Path) -> None:
    kinds = {"LOW_ENERGY": "low_energy", "RECOMBINED": "subtracted", "GENERATED_2D": "synthetic", "NONE": None}
    for word, kind in kinds.items():
        tags = {"Modality": "MG", "ImageType": ["DERIVED", "PRIMARY", "", word]}
        assert read(ADAPTER, write_dicom(tmp_path / word, _breast(), **tags)).views[0].exam_kind == kind


def test_monochrome1_and_the_right_side_come_out_like_the_left(tmp_path: Path) -> None:
    left = read(ADAPTER, write_dicom(tmp_path / "a", _breast(), Modality="MG", ImageLaterality="L"))
    negative = _breast(right=True).max() - _breast(right=True)
    right = read(
        ADAPTER,
        write_dicom(
            tmp_path / "b", negative, Modality="MG", ImageLaterality="R", PhotometricInterpretation="MONOCHROME1"
        ),
    )
    assert (left.views[0].laterality, right.views[0].laterality) == ("L", "R")
    assert left.views[0].pixels.shape == right.views[0].pixels.shape
    assert np.abs(left.views[0].pixels - right.views[0].pixels).max() < 0.01


def test_spacing_is_the_headers(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", _breast(), Modality="MG", ImagerPixelSpacing=[0.07, 0.07])
    assert read(ADAPTER, path).views[0].spacing_mm == pytest.approx((0.07, 0.07))


def test_a_bright_background_of_raw_values_stops_nothing(tmp_path: Path) -> None:
    raw = 16000 - _breast()
    sample = read(ADAPTER, write_dicom(tmp_path / "a", raw, Modality="MG", PresentationIntentType="FOR PROCESSING"))
    assert np.isfinite(sample.views[0].pixels).all()


@pytest.mark.shared
def test_real_views_are_found(shared: Path) -> None:
    for path in sorted((shared / "data/mammo_4view").rglob("*.dcm")):
        sample = read(ADAPTER, path)
        assert sample.headers["position"] in ("CC", "MLO")
        assert sample.headers["implant"] is None


@pytest.mark.parametrize("stored_as", ["MONOCHROME1", "MONOCHROME2"])
def test_a_white_background_is_turned_black_whatever_the_header_says(stored_as: str, tmp_path: Path) -> None:
    right = read(ADAPTER, write_dicom(tmp_path / "a", _breast(), Modality="MG"))
    negative = _breast().max() - _breast() if stored_as == "MONOCHROME2" else _breast()
    path = write_dicom(tmp_path / "b", negative, Modality="MG", PhotometricInterpretation=stored_as)
    wrong = read(ADAPTER, path)
    assert "invert" in [step.name for step in wrong.provenance.steps]
    assert "invert" not in [step.name for step in right.provenance.steps]
    np.testing.assert_allclose(right.views[0].pixels, wrong.views[0].pixels, atol=0.01)


@pytest.mark.parametrize(
    ("view", "side", "orientation", "turned"),
    [
        ("CC", "L", ("A", "R"), False),
        ("CC", "L", ("P", "L"), True),
        ("CC", "R", ("P", "L"), False),
        ("CC", "R", ("P", "R"), True),
        ("CC", "", ("A", "R"), False),
        ("MLO", "L", ("A", "FR"), False),
        ("MLO", "L", ("A", "HL"), True),
        ("ML", "R", ("P", "F"), False),
        ("MLO", "L", ("MLO",), False),
    ],
)
def test_a_breast_that_stands_on_its_head_is_turned(
    view: str, side: str, orientation: tuple[str, ...], turned: bool, tmp_path: Path
) -> None:
    wall_right = orientation[0] == "P"
    tags = {"Modality": "MG", "ViewPosition": view, "ImageLaterality": side, "PatientOrientation": list(orientation)}
    pixels = _breast(right=wall_right)
    sample = read(
        ADAPTER, write_dicom(tmp_path / "a", np.ascontiguousarray(pixels[::-1] if turned else pixels), **tags)
    )
    upright = read(ADAPTER, write_dicom(tmp_path / "b", _breast(), Modality="MG"))
    assert ("it stood on its head" in str(sample.provenance.steps)) == turned
    np.testing.assert_array_equal(sample.views[0].pixels, upright.views[0].pixels)


def test_a_mirrored_image_is_known_by_the_tissue_that_contradicts_its_header(tmp_path: Path) -> None:
    for orientation, mirrored in ((["A", "R"], False), (["P", "L"], True), (None, False)):
        path = write_dicom(tmp_path / "a", _breast(), Modality="MG", ViewPosition="CC", PatientOrientation=orientation)
        assert ("mirrored" in _notes(read(ADAPTER, path))) == mirrored
