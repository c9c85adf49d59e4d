from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medclip.dicom.header.codes import TO_BE_INFERRED
from medclip.dicom.header.elements import age_in_years
from medclip.dicom.header.read import (
    DicomHeader,
    UltrasoundRegion,
    modality_code,
    modality_from_header,
    read_header,
)
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import other_modality
from medclip.sample import Modality
from tests.kits.files import element, ramp, write_dicom


def _header(path: Path, **elements: Any) -> DicomHeader:
    with write_dicom(path / "a", ramp(), **elements).open("rb") as file:
        return read_header(file)


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def test_geometry_is_read_as_plain_numbers(tmp_path: Path) -> None:
    header = _header(
        tmp_path,
        Modality="MR",
        ImagePositionPatient=[-10.5, 2, 3e1],
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
        PixelSpacing=[0.5, 0.25],
        SliceThickness="3.0",
        SpacingBetweenSlices=3.3,
        GantryDetectorTilt="-12.5",
        ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"],
        SeriesNumber=3,
        InstanceNumber="7",
        AcquisitionNumber=2,
        TemporalPositionIdentifier=4,
        EchoTime=12.5,
        EchoNumbers=2,
        DiffusionBValue=1000.0,
        ScanningSequence="SE",
        SequenceName="tse2d1",
        KVP=120,
        MagneticFieldStrength=1.5,
        RepetitionTime=2000,
    )
    assert header.image_position == (-10.5, 2.0, 30.0)
    assert header.image_orientation == (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    assert (header.spacing_mm, header.slice_thickness_mm, header.slice_spacing_mm) == ((0.5, 0.25), 3.0, 3.3)
    assert (header.gantry_tilt_deg, header.mosaic) == (-12.5, True)
    assert (header.series_number, header.instance_number, header.acquisition_number) == (3, 7, 2)
    assert (header.temporal_position, header.echo_time_ms, header.echo_number, header.b_value) == (4, 12.5, 2, 1000.0)
    assert (header.sequence, header.kvp, header.field_strength_t) == ("SE tse2d1", 120.0, 1.5)
    assert header.repetition_time_ms == 2000.0


@pytest.mark.parametrize("position", [None, [1, 2], ["1", "2", "nan"]])
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_geometry_that_is_incomplete_is_none(tmp_path: Path, position: Any) -> None:
    assert _header(tmp_path, ImagePositionPatient=position).image_position is None


def test_spacing_and_direction_of_enhanced_objects_come_from_the_shared_groups(tmp_path: Path) -> None:
    group = _item(
        PixelMeasuresSequence=[_item(PixelSpacing=[0.7, 0.8], SliceThickness=4, SpacingBetweenSlices=5)],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
    header = _header(tmp_path, SharedFunctionalGroupsSequence=[group])
    assert (header.spacing_mm, header.slice_thickness_mm, header.slice_spacing_mm) == ((0.7, 0.8), 4.0, 5.0)
    assert header.image_orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def _region(**elements: Any) -> Dataset:
    values: dict[str, Any] = {
        "RegionLocationMinX0": 10,
        "RegionLocationMinY0": 20,
        "RegionLocationMaxX1": 100,
        "RegionLocationMaxY1": 90,
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.05,
        "PhysicalDeltaY": -0.02,
    }
    return _item(**{name: value for name, value in (values | elements).items() if value is not None})


def test_ultrasound_regions_have_corners_kinds_and_millimetres(tmp_path: Path) -> None:
    header = _header(tmp_path, SequenceOfUltrasoundRegions=[_region()], UltrasoundColorDataPresent=1)
    (region,) = header.ultrasound_regions
    assert region == UltrasoundRegion(10, 20, 100, 90, 1, 1, region.spacing_mm)
    assert region.spacing_mm == pytest.approx((0.2, 0.5))
    assert header.ultrasound_colour is True


def test_a_region_in_other_units_has_no_spacing_and_an_impossible_one_is_left_out(tmp_path: Path) -> None:
    regions = [
        _region(PhysicalUnitsXDirection=4),
        _region(PhysicalDeltaX=None),
        _region(RegionLocationMaxX1=5),
        _region(RegionLocationMinX0=None),
    ]
    found = _header(tmp_path, SequenceOfUltrasoundRegions=regions).ultrasound_regions
    assert [region.spacing_mm for region in found] == [None, None]


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("034Y", 34.0),
        ("018M", 1.5),
        ("089Y", 89.0),
        ("090Y", 90.0),
        ("102Y", 90.0),
        ("1200M", 90.0),
        ("000D", 0.0),
        ("34Y", 34.0),
        ("034y", 34.0),
        ("", None),
        ("Y", None),
        ("034", None),
        ("-10Y", None),
        ("3.5Y", None),
        ("abcY", None),
        ("034X", None),
        ("\u00b2Y", None),
        ("about 40Y", None),
    ],
)
def test_an_age_is_in_years_and_capped(text: str, years: float | None) -> None:
    assert age_in_years(text) == years


@given(st.text(max_size=12))
def test_no_age_string_raises_or_passes_ninety(text: str) -> None:
    years = age_in_years(text)
    assert years is None or 0 <= years <= 90


def test_weeks_and_days_are_parts_of_a_year() -> None:
    assert age_in_years("052W") == pytest.approx(1.0, abs=0.01)
    assert age_in_years("365D") == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("code", "view"), [("R-10242", "CC"), ("399162004", "CC"), ("R-10226", "MLO"), ("399368009", "MLO"), ("X-1", "")]
)
def test_a_view_is_known_by_old_and_new_codes(tmp_path: Path, code: str, view: str) -> None:
    modifier = element("CodeValue", "R-102D5")
    item = _item(CodeValue=code, ViewModifierCodeSequence=[modifier])
    header = _header(tmp_path, ViewCodeSequence=[item], BreastImplantPresent="YES")
    assert (header.view_code, header.view_modifiers, header.breast_implant) == (view, ("implant displaced",), True)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [({"FrameTime": 40}, 40.0), ({"CineRate": 25}, 40.0), ({"FrameTime": 0, "CineRate": 50}, 20.0), ({}, None)],
)
def test_the_time_of_a_frame_is_stated_or_follows_from_the_rate(
    tmp_path: Path, elements: dict[str, Any], expected: float | None
) -> None:
    assert _header(tmp_path, **elements).frame_time_ms == expected


def test_device_sex_loss_and_slide_values_are_read(tmp_path: Path) -> None:
    header = _header(
        tmp_path,
        Manufacturer="ACME",
        ManufacturerModelName="X 1",
        PatientSex="F",
        LossyImageCompression="01",
        TotalPixelMatrixColumns=5000,
        TotalPixelMatrixRows=4000,
    )
    assert (header.manufacturer, header.device_model, header.sex) == ("ACME", "X 1", "F")
    assert header.lossy
    assert (header.matrix_columns, header.matrix_rows) == (5000, 4000)


def test_a_number_of_frames_that_is_none_is_corrupt(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", ramp(), NumberOfFrames=12)
    path.write_bytes(path.read_bytes().replace(b"IS\x02\x0012", b"IS\x02\x001A"))
    with path.open("rb") as file, pytest.raises(MedclipError) as caught:
        read_header(file)
    assert caught.value.reason is Reason.CORRUPT


@pytest.mark.parametrize(
    ("code", "said"),
    [("XA", "an angiography image"), ("PT", "a PET image"), ("ZZ", "an object of another modality")]
    + [(code, None) for code in ("CT", "MR", "MG", "SM", "OPT", "XC", *sorted(TO_BE_INFERRED))],
)
def test_what_no_adapter_reads_is_named(code: str, said: str | None) -> None:
    assert other_modality(DicomHeader(modality=code)) == said


def test_the_object_class_says_what_a_device_does_not() -> None:
    header = DicomHeader(modality="OT", sop_class="1.2.840.10008.5.1.4.1.1.4")
    assert (modality_code(header), modality_from_header(header)) == ("MR", Modality.MRI)
    assert modality_from_header(DicomHeader(sop_class="1.2.840.10008.5.1.4.1.1.9.1.1")) is Modality.ECG


def test_pixels_may_be_floating_point(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a", None, Rows=2, Columns=2, FloatPixelData=np.zeros(4, np.float32).tobytes(), Modality="OT"
    )
    with path.open("rb") as file:
        header = read_header(file)
    assert (header.has_pixels, header.float_pixels) == (True, True)
