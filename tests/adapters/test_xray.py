from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medclip.adapters.xray import XrayAdapter, position
from medclip.dicom.header.read import DicomHeader
from medclip.errors import MedclipError, Reason
from tests.kits.files import ramp, write_dicom, write_image
from tests.kits.loops import read


@pytest.mark.parametrize(
    ("view", "code", "orientation", "expected"),
    [
        ("PA", "", (), ("PA", "ViewPosition")),
        ("LL", "", ("L", "F"), ("LATERAL", "ViewPosition")),
        ("RAO", "", (), ("OBLIQUE", "ViewPosition")),
        ("LEFT LATERAL", "", (), ("LATERAL", "ViewPosition")),
        ("", "AP", ("A", "F"), ("AP", "ViewCodeSequence")),
        ("", "CC", (), (None, None)),
        ("", "", ("A", "F"), ("LATERAL", "PatientOrientation")),
        ("", "", ("P", "F"), ("LATERAL", "PatientOrientation")),
        ("", "", ("L", "F"), ("FRONTAL", "PatientOrientation")),
        ("", "", ("R", "H"), ("FRONTAL", "PatientOrientation")),
        ("", "", ("F", "A"), ("LATERAL", "PatientOrientation")),
        ("", "", ("LA", "F"), ("OBLIQUE", "PatientOrientation")),
        ("", "", ("LF", "FR"), ("FRONTAL", "PatientOrientation")),
        ("", "", ("L", "P"), (None, None)),
        ("", "", ("CC",), (None, None)),
        ("SWIMMERS", "", ("X", "F"), (None, None)),
    ],
)
def test_the_view_comes_from_the_first_element_that_says_it(
    view: str, code: str, orientation: tuple[str, ...], expected: tuple[str | None, str | None]
) -> None:
    assert position(DicomHeader(view_position=view, view_code=code, patient_orientation=orientation)) == expected


@given(st.lists(st.text("LRAPHFx", max_size=3), max_size=3).map(tuple), st.text(max_size=4))
def test_any_header_gives_a_word_of_the_vocabulary_or_none(orientation: tuple[str, ...], view: str) -> None:
    found, origin = position(DicomHeader(view_position=view, patient_orientation=orientation))
    assert found in ("AP", "PA", "LATERAL", "OBLIQUE", "FRONTAL", None)
    assert (found is None) == (origin is None)


def test_the_sample_says_where_the_position_came_from(tmp_path: Path) -> None:
    sample = read(XrayAdapter(), write_dicom(tmp_path / "a", ramp(), PatientOrientation=["A", "F"]))
    assert sample.views[0].position == sample.headers["position"] == "LATERAL"
    assert sample.headers["position_from"] == "PatientOrientation"
    image = read(XrayAdapter(), write_image(tmp_path / "a.png", ramp()))
    assert (image.headers["position"], image.headers["position_from"]) == (None, None)


@pytest.mark.parametrize(
    ("scheme", "code", "expected"),
    [
        ("SRT", "R-10206", "AP"),
        ("SRT", "R-10214", "PA"),
        ("SCT", "272479007", "PA"),
        ("SCT", "399198007", "LATERAL"),
        ("SRT", "R-10236", "LATERAL"),
        ("SCT", "399135007", "OBLIQUE"),
    ],
)
def test_view_codes_of_digital_radiography_are_understood(
    tmp_path: Path, scheme: str, code: str, expected: str
) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, "a view"
    sample = read(XrayAdapter(), write_dicom(tmp_path / "a", ramp(), Modality="DX", ViewCodeSequence=[item]))
    assert (sample.views[0].position, sample.headers["position_from"]) == (expected, "ViewCodeSequence")


@pytest.mark.parametrize("code", ["XA", "RF", "US"])
def test_angiography_and_fluoroscopy_are_no_radiographs(tmp_path: Path, code: str) -> None:
    with pytest.raises(MedclipError) as caught:
        read(XrayAdapter(), write_dicom(tmp_path / "a", ramp(), Modality=code))
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET


@pytest.mark.shared
def test_a_real_header_without_view_position_tells_frontal_by_orientation(shared: Path) -> None:
    folder = shared / "data/field_dev/dicom-cxr"
    sample = read(XrayAdapter(), folder / "highdicom/dx_image.dcm")
    assert (sample.headers["position"], sample.headers["position_from"]) == ("FRONTAL", "PatientOrientation")
    assert read(XrayAdapter(), folder / "wg04-rg1/RG1_J2KI").headers["position_from"] == "ViewPosition"
