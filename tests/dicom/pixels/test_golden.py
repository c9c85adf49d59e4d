"""Stored pixels for each photometric interpretation and transfer syntax, and the chain by hand-computed numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian

from medclip.dicom.codecs import decoders as codecs
from medclip.dicom.pixels.display import ybr_to_rgb
from medclip.dicom.pixels.render import read_dicom, read_frames, read_stored
from medclip.errors import MedclipError, Reason
from medclip.settings import PixelPolicy, ReadPolicy, Settings
from tests.kits.files import dataset, ramp, write_dicom

SETTINGS = Settings()


def policy(**choices: Any) -> Settings:
    return Settings(policy=ReadPolicy(pixels=PixelPolicy(**choices)))


def noise(bits: int, *, signed: bool = False, colour: bool = False) -> NDArray[Any]:
    shape = (24, 32, 3) if colour else (24, 32)
    values = np.random.default_rng(bits).integers(0, 1 << bits, shape)
    values = values - (1 << (bits - 1)) if signed else values
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def compressed(path: Path, pixels: NDArray[Any], frames: list[bytes], uid: str, **elements: Any) -> Path:
    data = dataset(pixels, **elements)
    data.file_meta.TransferSyntaxUID = UID(uid)
    data.PixelData = encapsulate(frames)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)
    return path


def encoded(pixels: NDArray[Any], uid: str, bits: int) -> bytes:
    plain = pixels.view(f"u{pixels.dtype.itemsize}") & ((1 << bits) - 1)
    if uid == codecs.JPEG_LS:
        return imagecodecs.jpegls_encode(plain)
    if uid in (codecs.LOSSLESS, codecs.LOSSLESS_SV1):
        return imagecodecs.jpeg8_encode(plain, lossless=True, predictor=1, bitspersample=bits)
    if uid in codecs.HTJ2K:
        return imagecodecs.htj2k_encode(pixels, reversible=True, rgb=False)
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", mct=False, bitspersample=bits)


LOSSLESS = [codecs.LOSSLESS, codecs.LOSSLESS_SV1, codecs.JPEG_LS, codecs.JPEG_2000[0], codecs.HTJ2K[0]]


@pytest.mark.parametrize("uid", LOSSLESS)
@pytest.mark.parametrize(
    ("bits", "colour", "photometric"),
    [
        (8, False, "MONOCHROME1"),
        (8, False, "MONOCHROME2"),
        (16, False, "MONOCHROME2"),
        (8, True, "RGB"),
        (8, False, "PALETTE COLOR"),
    ],
)
def test_lossless_syntaxes_give_the_pixels_back_as_pydicom_does(
    tmp_path: Path, uid: str, bits: int, colour: bool, photometric: str
) -> None:
    pixels = noise(bits, colour=colour)
    path = compressed(tmp_path / "a", pixels, [encoded(pixels, uid, bits)], uid, PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(read_stored(path, SETTINGS), pixels)
    np.testing.assert_array_equal(dcmread(path).pixel_array, pixels)
    decoder = read_dicom(path, SETTINGS, mode="raw").decoder
    assert decoder == f"{codecs.available(uid).names[0]}, {UID(uid).name}"


@pytest.mark.parametrize("uid", [codecs.JPEG_LS, codecs.JPEG_2000[0]])
def test_signed_pixels_keep_their_sign(tmp_path: Path, uid: str) -> None:
    pixels = noise(12, signed=True)
    elements = {"BitsStored": 12, "HighBit": 11}
    path = compressed(tmp_path / "a", pixels, [encoded(pixels, uid, 12)], uid, **elements)
    # pydicom leaves 12-bit JPEG-LS as the unsigned numbers that the codec knows
    np.testing.assert_array_equal(read_stored(path, SETTINGS), pixels)


@pytest.mark.parametrize("planar", [0, 1])
def test_native_colour_of_either_planar_configuration(tmp_path: Path, planar: int) -> None:
    pixels = noise(8, colour=True)
    data = dataset(pixels, PlanarConfiguration=planar)
    data.PixelData = (pixels.transpose(2, 0, 1) if planar else pixels).tobytes()
    data.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_array_equal(read_stored(tmp_path / "a", SETTINGS), pixels)


def test_ybr_becomes_the_rgb_that_pydicom_gives(tmp_path: Path) -> None:
    chroma = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1)
    pixels = np.concatenate([np.full((256, 256, 1), 131), chroma], -1).astype(np.uint8)
    path = write_dicom(tmp_path / "a", pixels, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(read_stored(path, SETTINGS), dcmread(path).pixel_array)
    assert ybr_to_rgb(np.array([[76, 85, 255]], np.uint8)).tolist() == [[254, 0, 0]]


def _jpeg(colours: NDArray[Any], marker: bytes = b"") -> bytes:
    """Encode smooth YCbCr; an Adobe marker may replace the JFIF one."""
    data = imagecodecs.jpeg8_encode(colours, level=95, subsampling="444")
    at = data.index(b"\xff\xe0")
    return data[:at] + marker + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :] if marker else data


@pytest.mark.parametrize("header", ["RGB", "YBR_FULL_422"])
@pytest.mark.parametrize("marker", [b"", b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"])
def test_the_codestream_says_what_colours_a_jpeg_holds(tmp_path: Path, header: str, marker: bytes) -> None:
    colours = np.empty((24, 32, 3), np.uint8)
    colours[:] = (188, 110, 60)
    path = compressed(
        tmp_path / "a", colours, [_jpeg(colours, marker)], codecs.BASELINE, PhotometricInterpretation=header
    )
    found = read_stored(path, SETTINGS)
    np.testing.assert_allclose(found.astype(int), colours, atol=3)


def test_junk_above_the_stored_bits_is_not_image(tmp_path: Path) -> None:
    pixels = noise(12)
    path = write_dicom(tmp_path / "a", pixels | np.uint16(0xA000), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_stored(path, SETTINGS), pixels)
    signed = noise(12, signed=True)
    junk = (signed.view(np.uint16) & 0x0FFF | 0x5000).view(np.int16)
    path = write_dicom(tmp_path / "b", junk, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_stored(path, SETTINGS), signed)


def test_bits_big_endian_and_floats_are_read(tmp_path: Path) -> None:
    bits = noise(1)
    data = dataset(bits, BitsAllocated=1, BitsStored=1, HighBit=0)
    data.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes()
    data.save_as(tmp_path / "bits", enforce_file_format=True)
    np.testing.assert_array_equal(read_stored(tmp_path / "bits", SETTINGS), bits)

    pixels = noise(16)
    data = dataset(pixels)
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    data.PixelData = pixels.astype(">u2").tobytes()
    dcmwrite(tmp_path / "big", data, little_endian=False, implicit_vr=False, force_encoding=True)
    np.testing.assert_array_equal(read_stored(tmp_path / "big", SETTINGS), pixels)

    floats = np.linspace(-1, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    data = dataset(noise(16), BitsAllocated=32, BitsStored=None, HighBit=None, PixelRepresentation=None)
    del data.PixelData
    data.FloatPixelData = floats.tobytes()
    data.save_as(tmp_path / "floats", enforce_file_format=True)
    np.testing.assert_array_equal(read_stored(tmp_path / "floats", SETTINGS), floats)
    shown = read_dicom(tmp_path / "floats", SETTINGS).pixels
    assert shown.dtype == np.float32
    assert (shown.min(), shown.max()) == (0, 1)


CHAIN = np.array([[0, 10, 20], [30, 40, 50]], np.uint16)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"VOILUTFunction": "LINEAR"}, [[0, 0, 0.0], [0.5 + 0.5 / 19, 1, 1]]),
        ({"VOILUTFunction": "LINEAR_EXACT"}, [[0, 0, 0], [0.5, 1, 1]]),
        (
            {"VOILUTFunction": "SIGMOID"},
            [[1 / (1 + np.exp(-4 * (x - 30) / 20)) for x in row] for row in CHAIN.tolist()],
        ),
        ({"RescaleSlope": -1, "RescaleIntercept": 60, "VOILUTFunction": "LINEAR_EXACT"}, [[1, 1, 1], [0.5, 0, 0]]),
        ({"PhotometricInterpretation": "MONOCHROME1", "VOILUTFunction": "LINEAR_EXACT"}, [[1, 1, 1], [0.5, 0, 0]]),
        (
            {"PixelPaddingValue": 40, "PixelPaddingRangeLimit": 50, "VOILUTFunction": "LINEAR_EXACT"},
            [[0, 0, 0], [0.5, 0, 0]],
        ),
    ],
)
def test_the_chain_gives_what_a_person_computes(tmp_path: Path, elements: dict[str, Any], expected: Any) -> None:
    path = write_dicom(tmp_path / "a", CHAIN, WindowCenter=30, WindowWidth=20, **elements)
    np.testing.assert_allclose(read_dicom(path, SETTINGS).pixels[:, :, 0], expected, atol=1e-6)


def test_polarity_follows_the_policy(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", ramp(), PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    for choices, expected in (
        ({}, 255 - ramp()),
        ({"both_inverse": "cancel"}, ramp()),
        ({"polarity": "stored"}, ramp()),
    ):
        decoded = read_dicom(path, policy(**choices))
        np.testing.assert_array_equal(decoded.pixels[:, :, 0], expected)
        assert "polarity" in [step.name for step in decoded.steps]


def test_a_window_is_chosen_by_number_name_or_value(tmp_path: Path) -> None:
    elements: dict[str, Any] = {
        "WindowCenter": [10, 40],
        "WindowWidth": [20, 20],
        "WindowCenterWidthExplanation": ["SOFT", "BONE"],
        "VOILUTFunction": "LINEAR_EXACT",
    }
    path = write_dicom(tmp_path / "a", CHAIN, **elements)
    bone = [[0, 0, 0], [0, 0.5, 1]]
    for window in (1, "bone"):
        np.testing.assert_allclose(read_dicom(path, policy(window=window)).pixels[:, :, 0], bone, atol=1e-6)
    asked = read_dicom(path, policy(window=(30, 21))).pixels[:, :, 0]
    np.testing.assert_allclose(asked, [[0, 0, 0.025], [0.525, 1, 1]], atol=1e-6)
    assert "none wanted" in str(read_dicom(path, policy(window="none")).steps)
    for window in (2, "LUNG"):
        with pytest.raises(MedclipError) as caught:
            read_dicom(path, policy(window=window))
        assert caught.value.reason is Reason.WRONG_USE


def test_modality_units_are_rescaled_and_padding_is_no_number(tmp_path: Path) -> None:
    elements: dict[str, Any] = {
        "RescaleSlope": 2,
        "RescaleIntercept": -5,
        "Modality": "CT",
        "WindowCenter": 30,
        "WindowWidth": 2,
        "PixelPaddingValue": 50,
    }
    path = write_dicom(tmp_path / "a", CHAIN, **elements)
    decoded = read_dicom(path, SETTINGS, mode="modality")
    assert decoded.unit == "HU"
    np.testing.assert_array_equal(decoded.pixels[:, :, 0], [[-5, 15, 35], [55, 75, np.nan]])
    kept = read_dicom(path, policy(padding="keep"), mode="modality").pixels
    assert kept[1, 2, 0] == 95
    with pytest.raises(MedclipError, match="colour"):
        read_dicom(write_dicom(tmp_path / "b", noise(8, colour=True)), SETTINGS, mode="modality")


@pytest.mark.parametrize(
    ("elements", "shape", "spacing"),
    [
        ({"PixelAspectRatio": [4, 3]}, (43, 48), None),
        ({"PixelSpacing": [0.5, 1.0]}, (32, 96), (0.5, 0.5)),
        ({"PixelSpacing": [1.0, 1.005]}, (32, 48), (1.0, 1.005)),
        ({"PixelAspectRatio": [1, 1000]}, (32, 48), None),
    ],
)
def test_pixels_become_square(tmp_path: Path, elements: dict[str, Any], shape: Any, spacing: Any) -> None:
    path = write_dicom(tmp_path / "a", ramp(), **elements)
    decoded = read_dicom(path, SETTINGS)
    assert decoded.pixels.shape[:2] == shape
    assert decoded.spacing_mm == spacing
    assert read_dicom(path, policy(square_pixels=False)).pixels.shape[:2] == (32, 48)
    assert read_dicom(path, SETTINGS, mode="raw").pixels.shape[:2] == (32, 48)


def _palette(segmented: bool, bits: int) -> dict[str, Any]:
    kind = np.uint16 if bits == 16 else np.uint8
    top = (1 << bits) - 1
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in (("Red", [0, top // 2, top]), ("Green", [top, top, top]), ("Blue", [5, 6, 7])):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [3, 1, bits]
        data = np.array([0, 1, values[0], 0, 2, *values[1:]] if segmented else values, kind).tobytes()
        data += b"\0" * (len(data) % 2)
        elements[f"{'Segmented' if segmented else ''}{name}PaletteColorLookupTableData"] = data
    return elements


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("segmented", [False, True])
def test_palettes_of_both_kinds_and_depths(tmp_path: Path, segmented: bool, bits: int) -> None:
    stored = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)
    pixels = read_dicom(write_dicom(tmp_path / "a", stored, **_palette(segmented, bits)), SETTINGS).pixels
    top = 1.0 if bits == 16 else 255
    half = 32767 / 65535 if bits == 16 else 127
    np.testing.assert_allclose(pixels[:, :, 0], [[0, 0, half], [top, top, top]], atol=1e-6)


def _enhanced(path: Path) -> Path:
    stack = np.stack([CHAIN, CHAIN])
    data = dataset(CHAIN, NumberOfFrames=2, Modality="CT")
    data.PixelData = stack.tobytes()
    groups = []
    for slope, centre in ((1, 10), (2, 40)):
        value, window, group = Dataset(), Dataset(), Dataset()
        value.RescaleSlope, value.RescaleIntercept, value.RescaleType = slope, 0, "HU"
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = centre, 20, "LINEAR_EXACT"
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [value], [window]
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = groups
    data.save_as(path, enforce_file_format=True)
    return path


def test_each_frame_of_an_enhanced_object_has_its_own_rescale_and_window(tmp_path: Path) -> None:
    path = _enhanced(tmp_path / "a")
    units = read_frames(path, SETTINGS, mode="modality")
    assert units.unit == "HU"
    np.testing.assert_array_equal(units.pixels[..., 0], [CHAIN, CHAIN * 2])
    shown = read_frames(path, SETTINGS, frames=[1, 0]).pixels[..., 0]
    np.testing.assert_allclose(shown, [[[0, 0, 0.5], [1, 1, 1]], [[0, 0.5, 1], [1, 1, 1]]], atol=1e-6)
    np.testing.assert_array_equal(read_dicom(path, SETTINGS, frame=1).pixels[..., 0], shown[0])
    with pytest.raises(MedclipError, match="read_frames"):
        read_dicom(path, SETTINGS)
    with pytest.raises(MedclipError) as caught:
        read_frames(path, replace(SETTINGS, max_volume_bytes=10))
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_header_that_lies_about_its_size_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", ramp(), NumberOfFrames=2_000_000)
    with pytest.raises(MedclipError) as caught:
        read_stored(path, SETTINGS)
    assert caught.value.reason is Reason.TOO_LARGE


def test_highdicom_agrees_on_the_windows_of_the_enhanced_object(tmp_path: Path) -> None:
    from highdicom.pixels import apply_voi_window

    shown = read_frames(_enhanced(tmp_path / "a"), SETTINGS).pixels[..., 0]
    for frame, values, centre in ((0, CHAIN, 10), (1, CHAIN * 2, 40)):
        theirs = apply_voi_window(
            values.astype(float),
            window_center=centre,
            window_width=20,
            voi_lut_function="LINEAR_EXACT",
            output_range=(0.0, 1.0),
        )
        np.testing.assert_allclose(shown[frame], theirs, atol=1e-6)


def test_wrong_offset_tables_and_fragments_do_not_matter(tmp_path: Path) -> None:
    frames = [noise(8), 255 - noise(8)]
    streams = [encoded(frame, codecs.JPEG_LS, 8) for frame in frames]
    path = compressed(tmp_path / "a", frames[0], streams, codecs.JPEG_LS, NumberOfFrames=2)
    raw = path.read_bytes()
    offset = len(streams[0]) + len(streams[0]) % 2 + 8
    broken = raw.replace(offset.to_bytes(4, "little"), (offset + 7).to_bytes(4, "little"), 1)
    assert broken != raw
    path.write_bytes(broken)
    np.testing.assert_array_equal(read_stored(path, SETTINGS), frames)


def test_compressed_pixels_without_a_transfer_syntax_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    pixels = noise(8)
    for number, uid in enumerate((codecs.JPEG_LS, codecs.JPEG_2000[0], codecs.LOSSLESS_SV1)):
        path = compressed(tmp_path / str(number), pixels, [encoded(pixels, uid, 8)], uid)
        data = dcmread(path)
        del data.file_meta.TransferSyntaxUID
        data.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=False)
        np.testing.assert_array_equal(read_stored(path, SETTINGS), pixels)


def test_the_doctor_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert codecs.available(codecs.JPEG_LS).names[0] == "imagecodecs"
    monkeypatch.setattr(codecs, "in_order", lambda uid: ())
    assert codecs.available(codecs.JPEG_LS) == ((), codecs.PIP_LINE)
