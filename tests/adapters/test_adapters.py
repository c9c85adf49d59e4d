from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip import lazy
from medclip.adapters import registry
from medclip.adapters.base import Adapter, preprocessing_hash, single
from medclip.adapters.mammography import MammographyAdapter
from medclip.adapters.registry import ADAPTERS, get_adapter, modality_from_header, read_unit
from medclip.dicom.header.read import DicomHeader
from medclip.errors import MedclipError, Reason, Status
from medclip.files.grouping.mammography_exam import exam_view
from medclip.files.recognise.inspect import inspect_file
from medclip.imaging.intensity import to_uint8
from medclip.sample import Modality, Sample
from medclip.settings import Settings
from tests.kits.ecg import heart, write_wfdb
from tests.kits.files import huge_png, ramp, write_dicom, write_image

SETTINGS = Settings()


def _read(path: Path, modality: Modality | None) -> Sample:
    return read_unit(single(path, inspect_file(path, SETTINGS)), modality, SETTINGS)


def _reason(path: Path, modality: Modality | None) -> Reason:
    with pytest.raises(MedclipError) as caught:
        _read(path, modality)
    assert caught.value.where == str(path)
    return caught.value.reason


def _scene() -> np.ndarray:
    """A disc off the middle with a gradient, a marker and a dark frame: something for every crop to find."""
    y, x = np.mgrid[:240, :320]
    disc = (y - 120) ** 2 + (x - 30) ** 2 < 100**2
    grey = np.where(disc, 60 + x // 2 + y // 8, 0).astype(np.uint8)
    grey[20:30, 250:280] = 255
    return grey


# Digest of the 8-bit pixels and the preprocessing hash. When a change alters pixels, raise the adapter's version (or
# IMAGING_VERSION): that changes the hash, so that packs made before refuse to run with other pixels. Then put the new
# pair here.
GOLDEN: dict[str, tuple[str, str]] = {
    "xray": ("c2769518db1aed80", "741cf7f94fecbe95"),
    "mammography": ("19b0ca3a3b8f1068", "a08d89795a0b008c"),
    "mri": ("bc337053be3c99be", "39aec570c1dfe13f"),
    "fundus": ("f3f54219122bfaf8", "9e1e3474336d1c26"),
    "dermatology": ("737c0d5ae578ff85", "653b987196bc1cf6"),
    "generic": ("20aa335b6de244cf", "7626602f357dac6e"),
    "ultrasound": ("3ec9f11feebab557", "b7ad69d1135e6733"),
    "endoscopy": ("f9a9991accf8f2ca", "4ef21cf494b32824"),
    "oct": ("c2769518db1aed80", "529764817cda4665"),
    "ct": ("bc337053be3c99be", "8e5f9bf89fd33244"),
    "pathology": ("737c0d5ae578ff85", "0ad9944c44a3c52b"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_pixels_change_only_together_with_the_preprocessing_hash(tmp_path: Path, name: str) -> None:
    scene = _scene()
    digest = hashlib.sha256()
    modality = None if name == "generic" else Modality(name)
    for file, pixels in (
        ("grey.png", scene),
        ("deep.png", scene.astype(np.uint16) * 16),
        ("colour.png", np.stack([scene, scene // 2, scene // 4], axis=2)),
    ):
        view = _read(write_image(tmp_path / file, pixels), modality).views[0]
        digest.update(repr(view.pixels.shape).encode() + to_uint8(view).tobytes())
    assert (digest.hexdigest()[:16], get_adapter(name).preprocessing) == GOLDEN[name]


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_keeps_the_protocol(name: str) -> None:
    adapter = get_adapter(name)
    assert isinstance(adapter, Adapter)
    assert adapter.name == name
    assert adapter.modality == (None if name == "generic" else name)
    assert adapter.kinds
    for kind in adapter.kinds:
        parameters = adapter.parameters_of(kind)
        json.dumps(dict(parameters))
        assert adapter.preprocessing_of(kind) == preprocessing_hash(adapter.name, adapter.version, parameters)
        assert adapter.describe(kind)
    assert len({adapter.preprocessing_of(kind) for kind in adapter.kinds}) == len(adapter.kinds)


def test_the_hash_depends_on_name_version_and_parameters() -> None:
    assert len({preprocessing_hash(n, v, p) for n in "ab" for v in (1, 2) for p in ({"x": 1}, {"x": 2})}) == 8


def test_what_an_adapter_does_not_read_is_not_supported_yet(tmp_path: Path) -> None:
    assert _reason(write_wfdb(tmp_path, heart()), Modality.XRAY) is Reason.NOT_SUPPORTED_YET
    with pytest.raises(MedclipError) as caught:
        get_adapter("sonar")
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET


def test_every_modality_has_an_adapter() -> None:
    for modality in Modality:
        assert get_adapter(modality).modality is modality


def test_another_package_may_bring_an_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_entries", lambda _: {"capsule": "medclip.adapters.dermatology:DermatologyAdapter"})
    assert get_adapter("capsule").name == "dermatology"
    assert "capsule" in registry.adapter_names()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("CR", Modality.XRAY),
        ("DX", Modality.XRAY),
        ("MG", Modality.MAMMOGRAPHY),
        ("CT", Modality.CT),
        ("SM", Modality.PATHOLOGY),
        ("RG", None),
        ("OT", None),
        ("", None),
        ("XA", None),
    ],
)
def test_the_header_names_the_modality(code: str, expected: Modality | None) -> None:
    assert modality_from_header(DicomHeader(modality=code)) is expected


def test_an_xray_is_grey_cropped_and_carries_its_view(tmp_path: Path) -> None:
    pixels = np.zeros((100, 120), np.uint8)
    pixels[10:90, 20:110] = ramp(80, 90) // 2 + 60
    path = write_dicom(
        tmp_path / "a", pixels, ViewPosition="LL", ImageLaterality="R", BurnedInAnnotation="NO", PixelSpacing=[0.2, 0.2]
    )
    sample = _read(path, Modality.XRAY)
    (view,) = sample.views
    assert view.pixels.shape == (80, 90, 1)
    assert (view.position, view.laterality, view.burned_in, view.spacing_mm) == ("LATERAL", "R", False, (0.2, 0.2))
    assert [step.name for step in sample.provenance.steps] == ["decode", "window", "crop border"]
    assert sample.provenance.adapter == "xray"
    assert len(sample.provenance.sha256) == 64


def test_a_monochrome1_twin_comes_out_inverted(tmp_path: Path) -> None:
    plain = _read(write_dicom(tmp_path / "a", ramp()), Modality.XRAY).views[0].pixels
    twin = _read(write_dicom(tmp_path / "b", ramp(), PhotometricInterpretation="MONOCHROME1"), Modality.XRAY)
    np.testing.assert_array_equal(twin.views[0].pixels, 255 - plain)


def test_a_mammogram_is_cropped_with_its_chest_wall_on_the_left(tmp_path: Path) -> None:
    scene = _scene().astype(np.uint16) * 16
    left = _read(write_image(tmp_path / "l.png", scene), Modality.MAMMOGRAPHY)
    right = _read(write_image(tmp_path / "r.png", np.ascontiguousarray(scene[:, ::-1])), Modality.MAMMOGRAPHY)
    assert left.views[0].pixels.shape[1] < 200
    assert "flip" not in [step.name for step in left.provenance.steps]
    assert "flip" in [step.name for step in right.provenance.steps]
    np.testing.assert_array_equal(left.views[0].pixels, right.views[0].pixels)


def test_the_header_decides_where_the_tissue_does_not() -> None:
    flat = np.full((64, 64, 1), 90, np.uint8)
    flat[:8] = 0

    def flipped(**values: Any) -> bool:
        from medclip.adapters.mammography import _chest_wall
        from medclip.imaging.crop.breast import find_breast

        header = dataclasses.replace(DicomHeader(), **values)
        return _chest_wall(find_breast(flat, (0, 255)), header)[0] == "right"

    assert flipped(patient_orientation=("P", "F"))
    assert not flipped(patient_orientation=("A", "F"), laterality="R")
    assert flipped(laterality="R")
    assert not flipped(laterality="L")
    assert not flipped()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (DicomHeader(view_position="MLO"), "MLO"),
        (DicomHeader(patient_orientation=("CC",)), "CC"),
        (DicomHeader(view_position="RCC"), "CC"),
        (DicomHeader(patient_orientation=("A", "F")), None),
    ],
)
def test_the_view_of_a_mammogram_is_found_where_it_was_written(header: DicomHeader, expected: str | None) -> None:
    assert (exam_view("", header).view.position or None) == expected


def test_a_monochrome1_mammogram_has_a_black_background(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", 255 - _scene(), Modality="MG", PhotometricInterpretation="MONOCHROME1")
    (view,) = _read(path, Modality.MAMMOGRAPHY).views
    assert view.pixels[0, -1, 0] == 0
    assert view.pixels.shape[1] < 200


def test_a_fundus_photograph_is_square_and_coloured(tmp_path: Path) -> None:
    scene = np.stack([_scene(), _scene() // 2, _scene() // 4], axis=2)
    pixels = _read(write_image(tmp_path / "a.png", scene), Modality.FUNDUS).views[0].pixels
    assert pixels.shape[0] == pixels.shape[1]
    assert _read(write_image(tmp_path / "b.png", _scene()), Modality.FUNDUS).views[0].pixels.shape[2] == 3


def test_dermatology_is_left_as_it_is(tmp_path: Path) -> None:
    scene = np.stack([_scene(), _scene() // 2, _scene() // 4], axis=2)
    np.testing.assert_array_equal(
        _read(write_image(tmp_path / "a.png", scene), Modality.DERMATOLOGY).views[0].pixels, scene
    )


def test_the_generic_rendering_is_eight_bits_of_any_readable_file(tmp_path: Path) -> None:
    for path in (
        write_image(tmp_path / "a.png", _scene().astype(np.uint16) * 16),
        write_dicom(tmp_path / "b", _scene().astype(np.uint16), Modality="OT"),
        write_dicom(tmp_path / "c", np.dstack([_scene()] * 3), Modality=""),
    ):
        sample = _read(path, None)
        assert sample.modality is None
        assert sample.views[0].pixels.dtype == np.uint8
        assert sample.views[0].value_range == (0, 255)


def test_a_dicom_that_does_not_say_may_be_read_as_a_projection_only(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", _scene(), Modality="RG")
    assert _read(path, Modality.XRAY).modality is Modality.XRAY
    assert _read(path, Modality.MAMMOGRAPHY).modality is Modality.MAMMOGRAPHY
    assert _reason(path, Modality.FUNDUS) is Reason.NOT_SUPPORTED_YET


def test_a_ct_that_is_said_to_be_an_xray_is_not_read_as_one(tmp_path: Path) -> None:
    assert _reason(write_dicom(tmp_path / "a", ramp(), Modality="CT"), Modality.XRAY) is Reason.NOT_SUPPORTED_YET


@pytest.mark.parametrize("modality", [None, Modality.XRAY, Modality.FUNDUS])
def test_a_constant_image_fails(tmp_path: Path, modality: Modality | None) -> None:
    for name, pixels in (("a", np.full((40, 40), 7, np.uint8)), ("b", np.full((40, 40), 700, np.uint16))):
        assert _reason(write_image(tmp_path / f"{name}.png", pixels), modality) is Reason.CONSTANT_IMAGE
    path = write_image(tmp_path / "c.png", np.full((40, 40, 3), (1, 2, 3), np.uint8))
    assert _reason(path, modality) is Reason.CONSTANT_IMAGE


@pytest.mark.parametrize("modality", [None, Modality.XRAY, Modality.FUNDUS])
def test_an_icon_is_too_small(tmp_path: Path, modality: Modality | None) -> None:
    assert _reason(write_image(tmp_path / "a.png", ramp(15, 300)), modality) is Reason.TOO_SMALL
    assert Reason.TOO_SMALL.status is Status.SKIPPED
    assert _read(write_image(tmp_path / "b.png", ramp(16, 300)), modality).views


def test_a_huge_png_and_a_text_say_why(tmp_path: Path) -> None:
    assert _reason(huge_png(tmp_path / "a.png"), None) is Reason.TOO_LARGE
    (tmp_path / "b").write_text("hello there")
    assert _reason(tmp_path / "b", None) is Reason.NOT_AN_IMAGE


def test_an_adapter_reads_again_to_the_same_pixels(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", _scene())
    facts = inspect_file(path, SETTINGS)
    first, second = (MammographyAdapter().read(single(path, facts), SETTINGS).views[0].pixels for _ in range(2))
    np.testing.assert_array_equal(first, second)
