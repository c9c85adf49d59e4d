from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from medclip.dicom.pixels.render import PERCENTILES, read_dicom
from medclip.errors import MedclipError, Reason
from medclip.settings import Settings
from tests.kits.files import nested_dicom, ramp, write_dicom

SETTINGS = Settings()
DEEP = ramp(32, 48, np.uint16, 4095)


def _read(path: Path) -> NDArray[Any]:
    return read_dicom(path, SETTINGS).pixels


def _shown(folder: Path, pixels: NDArray[Any], **elements: Any) -> NDArray[Any]:
    return _read(write_dicom(folder / "a.dcm", pixels, **elements))


def _reason(path: Path, settings: Settings = SETTINGS) -> Reason:
    with pytest.raises(MedclipError) as caught:
        read_dicom(path, settings)
    assert "SECRET" not in str(caught.value)
    return caught.value.reason


def test_eight_bits_stay_eight_bits(tmp_path: Path) -> None:
    pixels = _shown(tmp_path, ramp())
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:, :, 0], ramp())


def _stretched(pixels: NDArray[Any]) -> NDArray[Any]:
    low, high = np.percentile(pixels, PERCENTILES, method="nearest")
    return np.clip((pixels - float(low)) / (float(high) - float(low)), 0, 1)


def test_a_deep_image_without_a_window_is_stretched_between_percentiles(tmp_path: Path) -> None:
    pixels = _shown(tmp_path, DEEP + np.uint16(1000), BitsStored=14)
    assert pixels.dtype == np.float32
    assert pixels.shape == (32, 48, 1)
    np.testing.assert_allclose(pixels[:, :, 0], _stretched(DEEP), atol=1e-6)


def test_one_hot_pixel_does_not_make_a_deep_image_black(tmp_path: Path) -> None:
    stored = DEEP.copy()
    stored[3, 3] = 65535
    decoded = read_dicom(write_dicom(tmp_path / "a", stored), SETTINGS)
    assert 0.4 < float(np.median(decoded.pixels)) < 0.6
    assert "percentiles 0.1 to 99.9" in str(decoded.steps)


@pytest.mark.parametrize("signed", [False, True])
def test_a_dim_eight_bit_image_without_a_window_stays_dim_as_a_png_would(tmp_path: Path, signed: bool) -> None:
    dim = ramp(top=100)
    stored = (dim.astype(np.int16) - 128).astype(np.int8) if signed else dim
    decoded = read_dicom(write_dicom(tmp_path / "a", stored), SETTINGS)
    np.testing.assert_array_equal(decoded.pixels[:, :, 0], dim)
    assert "all storable values" in str(decoded.steps)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    pixels = _shown(tmp_path, ramp(), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(pixels[:, :, 0], 255 - ramp())


def test_monochrome1_with_an_inverse_presentation_is_inverted_once(tmp_path: Path) -> None:
    pixels = _shown(tmp_path, ramp(), PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(pixels[:, :, 0], 255 - ramp())


def test_an_inverse_presentation_alone_inverts(tmp_path: Path) -> None:
    np.testing.assert_array_equal(_shown(tmp_path, ramp(), PresentationLUTShape="INVERSE")[:, :, 0], 255 - ramp())


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [None, (1, -1024), (2.5, 100), (-1, 2048)])
@pytest.mark.parametrize("signed", [False, True])
def test_the_table_gives_what_pydicom_gives_pixel_by_pixel(
    tmp_path: Path, function: str | None, rescale: tuple[float, float] | None, signed: bool
) -> None:
    stored = (DEEP.astype(np.int32) - 2048).astype(np.int16) if signed else DEEP
    elements: dict[str, Any] = {"WindowCenter": [900, 1], "WindowWidth": [1500, 2], "VOILUTFunction": function}
    if rescale:
        elements |= {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1], "RescaleType": "US"}
    path = write_dicom(tmp_path / "a", stored, **elements)
    dataset = dcmread(path)
    far = np.array([[-1e9, 1e9]])
    with np.errstate(over="ignore"):
        bottom, top = apply_windowing(far, dataset)[0]
        expected = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    np.testing.assert_allclose(_read(path)[:, :, 0], (expected - bottom) / (top - bottom), atol=1e-6)


@pytest.mark.parametrize("window", [(1000, 0), (90_000, 10), (-5000, 2)])
def test_a_window_that_shows_nothing_is_ignored(tmp_path: Path, window: tuple[float, float]) -> None:
    path = write_dicom(tmp_path / "a", DEEP, WindowCenter=window[0], WindowWidth=window[1])
    decoded = read_dicom(path, SETTINGS)
    np.testing.assert_allclose(decoded.pixels[:, :, 0], _stretched(DEEP), atol=1e-6)
    assert "ignored" in str(decoded.steps)


def _lut(entries: list[int], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = entries
    item["LUTData"].VR = "US"
    return item


def test_a_voi_table_comes_before_the_window(tmp_path: Path) -> None:
    table = [0, 65535, 0, 65535]
    elements = {"VOILUTSequence": [_lut(table, 10, 16)], "WindowCenter": 10, "WindowWidth": 5}
    stored = np.array([[0, 10, 11], [12, 13, 4095]], np.uint16)
    np.testing.assert_array_equal(_shown(tmp_path, stored, **elements)[:, :, 0], [[0, 0, 1], [0, 1, 1]])


def test_a_voi_table_of_long_eight_bit_entries_does_not_wrap_around(tmp_path: Path) -> None:
    table = [i // 16 for i in range(4096)]
    pixels = _shown(tmp_path, DEEP, VOILUTSequence=[_lut(table, 0, 8)])
    np.testing.assert_allclose(pixels[:, :, 0], (DEEP // 16) / 255, atol=1e-6)


def test_a_voi_table_that_declares_more_bits_than_it_uses_is_not_dark(tmp_path: Path) -> None:
    pixels = _shown(tmp_path, DEEP, VOILUTSequence=[_lut(list(range(4096)), 0, 16)])
    assert pixels.max() == 1


def test_a_modality_table_is_applied_first(tmp_path: Path) -> None:
    item = _lut([0, 300, 100, 200], 0, 16)
    item.ModalityLUTType = "US"
    stored = np.array([[0, 1], [2, 3]], np.uint16)
    np.testing.assert_allclose(
        _shown(tmp_path, stored, ModalityLUTSequence=[item])[:, :, 0], [[0, 1], [1 / 3, 2 / 3]], atol=1e-6
    )


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_set_the_range(tmp_path: Path, photometric: str) -> None:
    stored = DEEP.copy()
    stored[:, :5] = 60000
    stored[:, 5:8] = 60001
    elements = {"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 60001, "PhotometricInterpretation": photometric}
    pixels = _shown(tmp_path, stored, **elements)
    assert (pixels[:, :8] == 0).all()
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_nothing_but_padding_is_a_constant_image(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.full((8, 8), 7, np.uint16), PixelPaddingValue=7)
    assert _reason(path) is Reason.CONSTANT_IMAGE


def test_signed_padding_is_found(tmp_path: Path) -> None:
    stored = DEEP.astype(np.int16) - np.int16(1000)
    stored[0] = -2000
    pixels = _shown(tmp_path, stored, PixelPaddingValue=-2000)
    assert (pixels[0] == 0).all()
    assert pixels[1:].max() == 1


@pytest.mark.parametrize(("bits", "written"), [(16, 63536), (12, 2096), (12, 63536)])
def test_padding_with_the_wrong_sign_is_found(tmp_path: Path, bits: int, written: int) -> None:
    stored = (DEEP // 2).astype(np.int16) - np.int16(1000)
    stored[0] = -2000
    path = write_dicom(tmp_path / "a", stored, BitsStored=bits, HighBit=bits - 1)
    dataset = dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", written)
    dataset.save_as(path)
    decoded = read_dicom(path, SETTINGS)
    assert (decoded.pixels[0] == 0).all()
    assert np.median(decoded.pixels[1:]) > 0.4
    assert "-2000 to -2000" in str(decoded.steps)


def test_padding_that_no_pixel_has_is_no_step(tmp_path: Path) -> None:
    stored = DEEP.copy()
    stored[stored == 500] = 501
    for value in (60000, 500):
        decoded = read_dicom(write_dicom(tmp_path / "a", stored, PixelPaddingValue=value), SETTINGS)
        assert "padding" not in [step.name for step in decoded.steps]


@pytest.mark.parametrize("uid", ["1.2.3.4.5", "1.2.840.10008.1.2.4.999", "1.2.840.10008.5.1.4.1.1.2"])
def test_an_unknown_transfer_syntax_is_named_as_the_problem(tmp_path: Path, uid: str) -> None:
    path = write_dicom(tmp_path / "a", ramp())
    old = b"1.2.840.10008.1.2.1\0"
    raw = path.read_bytes()
    new = uid.encode() + b"\0" * (len(uid) % 2)
    at = raw.index(old)
    head = raw[: at - 2] + len(new).to_bytes(2, "little") + new
    length = int.from_bytes(raw[140:144], "little") + len(new) - len(old)
    path.write_bytes(head[:140] + length.to_bytes(4, "little") + head[144:] + raw[at + len(old) :])
    with pytest.raises(MedclipError, match="transfer syntax") as caught:
        read_dicom(path, SETTINGS)
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET


def test_an_unknown_photometric_interpretation_is_named_as_the_problem(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="photometric interpretation") as caught:
        read_dicom(write_dicom(tmp_path / "a", ramp(), PhotometricInterpretation="MONOCHROME9"), SETTINGS)
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET
    with pytest.raises(MedclipError, match="photometric interpretation"):
        read_dicom(write_dicom(tmp_path / "a", ramp(), PhotometricInterpretation=None), SETTINGS)


def test_more_than_sixteen_bits_are_read(tmp_path: Path) -> None:
    pixels = _shown(tmp_path, (DEEP.astype(np.uint32) * 1000), PixelPaddingValue=None)
    np.testing.assert_allclose(pixels[:, :, 0], _stretched(DEEP), atol=1e-6)


def test_colour_is_rgb(tmp_path: Path) -> None:
    colour = np.stack([ramp(), 255 - ramp(), ramp() // 2], axis=2)
    np.testing.assert_array_equal(_shown(tmp_path, colour), colour)
    deep = _shown(tmp_path, colour.astype(np.uint16) * 257)
    np.testing.assert_allclose(deep, colour / 255, atol=1e-6)


def test_a_palette_becomes_rgb(tmp_path: Path) -> None:
    entries = np.arange(256, dtype=np.uint16)
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, factor in (("Red", 257), ("Green", 0), ("Blue", 128)):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{name}PaletteColorLookupTableData"] = (entries * factor).astype(np.uint16).tobytes()
    pixels = _shown(tmp_path, ramp(), **elements)
    np.testing.assert_allclose(pixels[:, :, 0], ramp() / 255, atol=1e-3)
    assert (pixels[:, :, 1] == 0).all()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_compression_changes_nothing(tmp_path: Path, syntax: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (48, 64)).astype(np.uint16)
    path = write_dicom(tmp_path / "a", noise, BitsStored=12, HighBit=11)
    expected = _read(path)
    dataset = dcmread(path)
    dataset.compress(syntax)
    dataset.save_as(path)
    np.testing.assert_array_equal(_read(path), expected)
    path.write_bytes(path.read_bytes()[:-600])
    assert _reason(path) is Reason.TRUNCATED


def test_a_file_that_ends_early_is_truncated(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", DEEP)
    path.write_bytes(path.read_bytes()[:-100])
    assert _reason(path) is Reason.TRUNCATED


def test_a_size_beyond_the_limit_is_refused_from_the_header(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", ramp(), Rows=60000, Columns=60000)
    assert _reason(path) is Reason.TOO_LARGE
    assert _reason(write_dicom(tmp_path / "b", ramp()), Settings(max_pixels=10)) is Reason.TOO_LARGE


def test_other_damage_has_its_reason(tmp_path: Path) -> None:
    assert _reason(write_dicom(tmp_path / "a")) is Reason.NO_PIXELS
    assert _reason(write_dicom(tmp_path / "b", ramp(), NumberOfFrames=3)) is Reason.NOT_SUPPORTED_YET
    assert _reason(write_dicom(tmp_path / "c", ramp(), Rows=0)) is Reason.CORRUPT
    assert _reason(nested_dicom(tmp_path / "d")) is Reason.CORRUPT
    assert _reason(tmp_path / "none") is Reason.MISSING_FILE


def test_a_missing_codec_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a", ramp())
    dataset = dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    assert _reason(path) is Reason.MISSING_CODEC


def test_headers_hold_nothing_that_names_a_person(tmp_path: Path) -> None:
    decoded = read_dicom(write_dicom(tmp_path / "a", ramp()), SETTINGS)
    assert "SECRET" not in str(decoded.headers).upper()
    assert set(decoded.headers) >= {"modality", "photometric", "rows"}


def test_warnings_of_the_parser_stay_inside(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", ramp())
    path.write_bytes(path.read_bytes().replace(b"SECRET-1", b"\xff\xfeCRET-1"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _read(path)


@given(
    low=st.integers(0, 60000),
    high=st.integers(0, 60000),
    centre=st.floats(-1e5, 1e5),
    width=st.floats(-10, 1e5),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
def test_whatever_the_header_says_pixels_lie_between_black_and_white(
    tmp_path_factory: pytest.TempPathFactory, low: int, high: int, centre: float, width: float, photometric: str
) -> None:
    stored = np.linspace(low, high, 64).reshape(8, 8).astype(np.uint16)
    elements = {"WindowCenter": f"{centre:.6g}", "WindowWidth": f"{width:.6g}"}
    folder = tmp_path_factory.mktemp("window")
    pixels = _shown(folder, stored, PhotometricInterpretation=photometric, **elements)
    assert pixels.dtype == np.float32
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    order = np.diff(pixels.ravel()) * np.sign(high - low) * (-1 if photometric == "MONOCHROME1" else 1)
    assert (order >= -1e-6).all()


def test_a_frames_own_functional_group_goes_before_the_shared_one() -> None:
    from pydicom.dataset import Dataset

    from medclip.dicom.pixels.modality_and_voi import elements_of

    dataset, own, shared = Dataset(), Dataset(), Dataset()
    for group, slope in ((own, 2), (shared, 1)):
        values = Dataset()
        values.RescaleSlope, values.RescaleIntercept = slope, -1024
        group.PixelValueTransformationSequence = [values]
    dataset.PerFrameFunctionalGroupsSequence, dataset.SharedFunctionalGroupsSequence = [own], [shared]
    assert [elements_of(dataset, frame).slope for frame in (0, 1)] == [2, 1]
