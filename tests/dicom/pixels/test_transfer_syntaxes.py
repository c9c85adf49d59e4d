"""Each photometric interpretation in each transfer syntax that can hold it, against the pixels that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from medclip.dicom.codecs import decoders as codecs
from medclip.dicom.pixels.render import read_dicom, read_stored
from medclip.errors import MedclipError, Reason
from medclip.settings import Settings
from tests.kits.files import dataset

SETTINGS = Settings()
ROWS, COLUMNS = 24, 32
NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
LOSSLESS = [
    *NATIVE,
    RLELossless,
    codecs.LOSSLESS,
    codecs.LOSSLESS_SV1,
    codecs.JPEG_LS,
    codecs.JPEG_2000[0],
    codecs.HTJ2K[0],
]
GREYS = [("u1", 8), ("i1", 8), ("u2", 12), ("i2", 12), ("u2", 16), ("i2", 16)]


def grey(kind: str, bits: int, frames: int = 1) -> NDArray[Any]:
    low = -(1 << bits - 1) if kind[0] == "i" else 0
    values = np.random.default_rng(bits).integers(low, low + (1 << bits), (frames, ROWS, COLUMNS)).astype(kind)
    values[0, 0, :2] = low, low + (1 << bits) - 1
    return values if frames > 1 else values[0]


def smooth(top: float, kind: str = "u1") -> NDArray[Any]:
    """Give colours or greys that lossy codecs keep nearly."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS] / [[[ROWS]], [[COLUMNS]]]
    return np.stack([y, x, (x + y) / 2], -1).__mul__(top).round().astype(kind)


def encoded(pixels: NDArray[Any], uid: str, bits: int) -> bytes:
    """Compress without loss; signed pixels by their bits where a codec knows no signs."""
    plain = pixels.view(f"u{pixels.dtype.itemsize}") & ((1 << bits) - 1)
    if uid == codecs.JPEG_LS:
        return imagecodecs.jpegls_encode(plain)
    if uid in (codecs.LOSSLESS, codecs.LOSSLESS_SV1):
        return imagecodecs.jpeg8_encode(plain, lossless=True, predictor=1, bitspersample=bits)
    if uid in codecs.HTJ2K:
        return imagecodecs.htj2k_encode(pixels, reversible=True, rgb=False)
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", mct=False, bitspersample=bits)


def write(path: Path, pixels: NDArray[Any], uid: str, streams: list[bytes] | None = None, **elements: Any) -> Path:
    """Write an image (or frames of a grey one) in a transfer syntax; `streams` where it is compressed otherwise."""
    frames = list(pixels) if elements.get("NumberOfFrames") else [pixels]
    bits = elements.get("BitsStored", pixels.dtype.itemsize * 8)
    data = dataset(frames[0], **({"HighBit": bits - 1} | elements))
    data.file_meta.TransferSyntaxUID = UID(uid)
    if uid == RLELossless:
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.PixelData = pixels.tobytes()
        data.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    elif uid in NATIVE:
        order = ">" if uid == ExplicitVRBigEndian else "<"
        data.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        data["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 or uid == ImplicitVRLittleEndian else "OB"
    else:
        data.PixelData = encapsulate(streams or [encoded(frame, uid, bits) for frame in frames])
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
    if uid == ExplicitVRBigEndian:
        dcmwrite(path, data, little_endian=False, implicit_vr=False, force_encoding=True)
    else:
        data.save_as(path, enforce_file_format=True)
    return path


def rgb(luma: NDArray[Any], cb: NDArray[Any], cr: NDArray[Any]) -> NDArray[Any]:
    """PS3.3 C.7.6.3.1.2, backwards."""
    y, b, r = luma.astype(float), cb - 128.0, cr - 128.0
    return np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], -1).clip(0, 255)


@pytest.mark.parametrize("uid", LOSSLESS)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("kind", "bits"), GREYS)
def test_grey_pixels_come_back_from_every_lossless_syntax(
    tmp_path: Path, uid: str, photometric: str, kind: str, bits: int
) -> None:
    if uid in (codecs.LOSSLESS, codecs.LOSSLESS_SV1, *codecs.HTJ2K) and kind[0] == "i" and bits < 16:
        pytest.skip("no encoder here writes these pixels")
    pixels = grey(kind, bits)
    path = write(tmp_path / "a", pixels, uid, BitsStored=bits, PhotometricInterpretation=photometric)
    stored = read_stored(path, SETTINGS)
    assert stored.dtype == pixels.dtype
    np.testing.assert_array_equal(stored, pixels)
    bottom, top = (0, 255) if bits == 8 and kind == "u1" else (-128, 127) if bits == 8 else (None, None)
    shown = read_dicom(path, SETTINGS).pixels[:, :, 0]
    if bottom is not None and top is not None:
        first = top - pixels.astype(int) if photometric == "MONOCHROME1" else pixels.astype(int) - bottom
        np.testing.assert_array_equal(shown, first)
    else:
        assert np.corrcoef(shown.ravel(), pixels.ravel())[0, 1] * (1 if photometric == "MONOCHROME2" else -1) > 0.99


@pytest.mark.parametrize("uid", LOSSLESS)
@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_comes_back_from_every_lossless_syntax(tmp_path: Path, uid: str, planar: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    path = tmp_path / "a"
    if uid in NATIVE and planar:
        write(path, pixels, uid)
        data = dcmread(path)
        data.PixelData, data.PlanarConfiguration = pixels.transpose(2, 0, 1).tobytes(), 1
        data.save_as(path)
    else:
        write(path, pixels, uid, PlanarConfiguration=0 if uid == RLELossless else planar)
    np.testing.assert_array_equal(read_stored(path, SETTINGS), pixels)
    np.testing.assert_array_equal(read_dicom(path, SETTINGS).pixels, pixels)


@pytest.mark.parametrize("uid", [*NATIVE, RLELossless])
def test_native_ybr_full_becomes_rgb_by_the_formula_of_the_standard(tmp_path: Path, uid: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    path = write(tmp_path / "a", pixels, uid, PhotometricInterpretation="YBR_FULL")
    expected = rgb(pixels[..., 0], pixels[..., 1], pixels[..., 2])
    np.testing.assert_allclose(read_stored(path, SETTINGS).astype(float), expected, atol=0.51)


@pytest.mark.parametrize("uid", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_native_ybr_full_422_shares_chroma_between_two_pixels(tmp_path: Path, uid: str) -> None:
    luma = np.random.default_rng(3).integers(0, 256, (ROWS, COLUMNS // 2, 2)).astype(np.uint8)
    chroma = np.random.default_rng(4).integers(0, 256, (ROWS, COLUMNS // 2, 2)).astype(np.uint8)
    data = dataset(np.zeros((ROWS, COLUMNS, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422")
    data.file_meta.TransferSyntaxUID = uid
    data.PixelData = np.concatenate([luma, chroma], -1).tobytes()
    data.save_as(tmp_path / "a", enforce_file_format=True)
    cb, cr = np.repeat(chroma[..., 0], 2, 1), np.repeat(chroma[..., 1], 2, 1)
    expected = rgb(luma.reshape(ROWS, COLUMNS), cb, cr)
    np.testing.assert_allclose(read_stored(tmp_path / "a", SETTINGS).astype(float), expected, atol=0.51)


@pytest.mark.parametrize(
    ("uid", "photometric", "tolerance"),
    [
        (codecs.JPEG_2000[0], "YBR_RCT", 0),
        (codecs.JPEG_2000[1], "YBR_ICT", 6),
        (codecs.HTJ2K[0], "YBR_RCT", 0),
        (codecs.HTJ2K[2], "YBR_ICT", 4),
    ],
)
def test_transforms_inside_jpeg_2000_are_undone_by_the_codec(
    tmp_path: Path, uid: str, photometric: str, tolerance: int
) -> None:
    pixels = smooth(255)
    if uid in codecs.HTJ2K:
        stream = imagecodecs.htj2k_encode(pixels, reversible=tolerance == 0, rgb=True)
    else:
        stream = imagecodecs.jpeg2k_encode(
            pixels, level=0 if tolerance == 0 else 60, codecformat="j2k", mct=True, reversible=tolerance == 0
        )
    path = write(tmp_path / "a", pixels, uid, [stream], PhotometricInterpretation=photometric)
    np.testing.assert_allclose(read_stored(path, SETTINGS).astype(int), pixels, atol=tolerance)


def _palette(bits: int, segmented: bool) -> tuple[dict[str, Any], NDArray[Any]]:
    """Give the elements of a palette of 256 entries, and its table."""
    top = (1 << bits) - 1
    # A straight line of the standard between two ends: what segments of type 1 expand to.
    line = np.rint(np.linspace(0, top, 256)).astype(int)
    table = np.stack([line, line[::-1], np.full(256, top // 3)], -1)
    kind = np.dtype("<u2" if bits == 16 else "u1")
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, column in zip(("Red", "Green", "Blue"), table.T, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        words = [0, 1, int(column[0]), 1, 255, int(column[-1])] if segmented else column.tolist()
        prefix = "Segmented" if segmented else ""
        elements[f"{prefix}{name}PaletteColorLookupTableData"] = np.array(words, kind).tobytes()
    return elements, table


@pytest.mark.parametrize("uid", [uid for uid in LOSSLESS if uid != ExplicitVRBigEndian])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("segmented", [False, True])
def test_palette_indices_become_the_colours_of_the_table(tmp_path: Path, uid: str, bits: int, segmented: bool) -> None:
    indices = grey("u1", 8)
    elements, table = _palette(bits, segmented)
    path = write(tmp_path / "a", indices, uid, **elements)
    np.testing.assert_array_equal(read_stored(path, SETTINGS), indices)
    expected = table[indices] / (65535 if bits == 16 else 1)
    np.testing.assert_allclose(read_dicom(path, SETTINGS).pixels, expected, atol=1e-6 if bits == 16 else 0)


@pytest.mark.parametrize("uid", NATIVE)
@pytest.mark.parametrize("columns", [32, 27])
def test_single_bits_are_unpacked(tmp_path: Path, uid: str, columns: int) -> None:
    bits = np.random.default_rng(5).integers(0, 2, (ROWS, columns)).astype(np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little")
    data = dataset(bits, BitsAllocated=1, BitsStored=1, HighBit=0)
    data.PixelData = packed.tobytes() + b"\0" * (len(packed) % 2)
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = uid
    if uid == ExplicitVRBigEndian:
        dcmwrite(tmp_path / "a", data, little_endian=False, implicit_vr=False, force_encoding=True)
    else:
        data.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_array_equal(read_stored(tmp_path / "a", SETTINGS), bits)


@pytest.mark.parametrize(
    ("uid", "tolerance"),
    [
        (codecs.BASELINE, 4),
        (codecs.EXTENDED, 4),
        (codecs.JPEG_LS_NEAR, 2),
        (codecs.JPEG_2000[1], 3),
        (codecs.HTJ2K[2], 4),
    ],
)
@pytest.mark.parametrize("bits", [8, 12])
def test_lossy_greys_stay_near(tmp_path: Path, uid: str, tolerance: int, bits: int) -> None:
    if uid == codecs.BASELINE and bits > 8:
        pytest.skip("the baseline process has eight bits")
    pixels = smooth((1 << bits) - 1, "u1" if bits == 8 else "u2")[..., 2].copy()
    if uid in (codecs.BASELINE, codecs.EXTENDED):
        stream = imagecodecs.jpeg8_encode(pixels, level=98, bitspersample=bits)
    elif uid == codecs.JPEG_LS_NEAR:
        stream = imagecodecs.jpegls_encode(pixels, level=2)
    elif uid in codecs.HTJ2K:
        stream = imagecodecs.htj2k_encode(pixels, reversible=False, rgb=False)
    else:
        stream = imagecodecs.jpeg2k_encode(pixels, level=60, codecformat="j2k", reversible=False, bitspersample=bits)
    path = write(tmp_path / "a", pixels, uid, [stream], BitsStored=bits)
    allowed = tolerance * (1 << bits - 8)
    np.testing.assert_allclose(read_stored(path, SETTINGS).astype(int), pixels, atol=allowed)


@pytest.mark.parametrize("uid", [codecs.BASELINE, codecs.EXTENDED])
@pytest.mark.parametrize(("header", "subsampling"), [("YBR_FULL", "444"), ("YBR_FULL_422", "422")])
def test_lossy_colours_stay_near(tmp_path: Path, uid: str, header: str, subsampling: str) -> None:
    pixels = smooth(255)
    stream = imagecodecs.jpeg8_encode(pixels, level=98, subsampling=subsampling)
    path = write(tmp_path / "a", pixels, uid, [stream], PhotometricInterpretation=header)
    np.testing.assert_allclose(read_stored(path, SETTINGS).astype(int), pixels, atol=10)


@pytest.mark.parametrize("header", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_an_adobe_marker_that_says_rgb_is_believed(tmp_path: Path, header: str) -> None:
    pixels = smooth(255)
    stream = imagecodecs.jpeg8_encode(pixels, level=98, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    at = stream.index(b"Adobe")
    assert stream[at + 11] == 0, "transform 0: no transform"
    path = write(tmp_path / "a", pixels, codecs.BASELINE, [stream], PhotometricInterpretation=header)
    np.testing.assert_allclose(read_stored(path, SETTINGS).astype(int), pixels, atol=6)


def _reason(path: Path) -> Reason:
    with pytest.raises(MedclipError) as caught:
        read_stored(path, SETTINGS)
    return caught.value.reason


@pytest.mark.parametrize("uid", LOSSLESS)
def test_a_loop_comes_back_and_a_loop_cut_short_is_truncated(tmp_path: Path, uid: str) -> None:
    frames = grey("u1", 8, frames=3)
    path = write(tmp_path / "a", frames, uid, NumberOfFrames=3)
    np.testing.assert_array_equal(read_stored(path, SETTINGS), frames)
    path.write_bytes(path.read_bytes()[: -ROWS * COLUMNS // 2])
    assert _reason(path) is Reason.TRUNCATED


@pytest.mark.parametrize("uid", LOSSLESS[4:])
def test_a_frame_too_few_is_not_made_up(tmp_path: Path, uid: str) -> None:
    frames = grey("u1", 8, frames=2)
    path = write(tmp_path / "a", frames, uid, NumberOfFrames=2)
    data = dcmread(path)
    data.NumberOfFrames = 3
    data.save_as(path)
    assert _reason(path) in (Reason.TRUNCATED, Reason.CORRUPT)


def test_a_length_that_lies_does_not_change_what_is_there(tmp_path: Path) -> None:
    pixels = grey("u2", 12)
    path = write(tmp_path / "a", pixels, ExplicitVRLittleEndian, BitsStored=12)
    raw = path.read_bytes()
    right = len(pixels.tobytes()).to_bytes(4, "little")
    at = raw.rindex(right)
    path.write_bytes(raw[:at] + (1 << 30).to_bytes(4, "little") + raw[at + 4 :])
    np.testing.assert_array_equal(read_stored(path, SETTINGS), pixels)
    path.write_bytes(raw[:at] + (100).to_bytes(4, "little") + raw[at + 4 :])
    assert _reason(path) in (Reason.TRUNCATED, Reason.CORRUPT)


@pytest.mark.parametrize("uid", NATIVE)
def test_an_odd_number_of_bytes_is_read_with_and_without_its_filling(tmp_path: Path, uid: str) -> None:
    pixels = np.random.default_rng(6).integers(0, 256, (17, 19)).astype(np.uint8)
    path = write(tmp_path / "a", pixels, uid)
    np.testing.assert_array_equal(read_stored(path, SETTINGS), pixels)
    if uid == ExplicitVRLittleEndian:
        raw = path.read_bytes()
        at = raw.rindex((17 * 19 + 1).to_bytes(4, "little"))
        path.write_bytes(raw[:at] + (17 * 19).to_bytes(4, "little") + raw[at + 4 : -1])
        np.testing.assert_array_equal(read_stored(path, SETTINGS), pixels)


@pytest.mark.parametrize("uid", LOSSLESS[4:])
@pytest.mark.parametrize("offsets", ["empty", "right", "wrong"])
def test_offset_tables_help_or_are_left_aside(tmp_path: Path, uid: str, offsets: str) -> None:
    frames = grey("u1", 8, frames=2)
    path = write(tmp_path / "a", frames, uid, NumberOfFrames=2)
    data = dcmread(path)
    value = data.PixelData
    length = int.from_bytes(value[4:8], "little")
    items = value[8 + length :]
    second = 8 + int.from_bytes(items[4:8], "little")
    table = {"empty": [], "right": [0, second], "wrong": [0, second + 6]}[offsets]
    entries = b"".join(offset.to_bytes(4, "little") for offset in table)
    data.PixelData = value[:4] + len(entries).to_bytes(4, "little") + entries + items
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    np.testing.assert_array_equal(read_stored(path, SETTINGS), frames)
