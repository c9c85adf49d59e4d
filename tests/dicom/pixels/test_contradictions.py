"""Headers that contradict their pixels: what the pixels say counts where it is plain, else the file is refused."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, ImplicitVRLittleEndian

from medclip.dicom.codecs.codestream import size_of, syntax_of
from medclip.dicom.codecs.transfer_syntax import BASELINE, JPEG_2000, JPEG_LS, RLE
from medclip.dicom.pixels.render import read_dicom, read_stored
from medclip.errors import MedclipError, Reason
from medclip.settings import PixelPolicy, ReadPolicy, Settings, parse_window
from tests.kits.files import ramp, write_dicom

SETTINGS = Settings()
DEEP = ramp(32, 48, np.uint16, 4095)


def _reason(path: Path, settings: Settings = SETTINGS) -> Reason:
    with pytest.raises(MedclipError) as caught:
        read_dicom(path, settings)
    return caught.value.reason


def _modality(path: Path) -> Any:
    return read_dicom(path, SETTINGS, mode="modality")


def _with_window(window: Any) -> Settings:
    return Settings(policy=ReadPolicy(pixels=PixelPolicy(window=window)))


def _compressed(path: Path, frame: bytes, syntax: str, pixels: NDArray[Any], **elements: Any) -> Path:
    write_dicom(path, pixels, **elements)
    data = dcmread(path)
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.save_as(path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("padded", [False, True])
def test_an_explicit_data_set_that_calls_itself_implicit_is_read_as_it_is(
    tmp_path: Path, dtype: Any, padded: bool
) -> None:
    pixels = ramp(32, 48, dtype, 200)
    path = write_dicom(tmp_path / "a.dcm", pixels, **({"DataSetTrailingPadding": bytes(40)} if padded else {}))
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"1.2.840.10008.1.2.1\0", ImplicitVRLittleEndian.encode().ljust(20, b"\0"), 1))
    np.testing.assert_array_equal(read_stored(path, SETTINGS), pixels)


def _with_stated_syntax(path: Path, syntax: str, *, num_bytes: int | None = None) -> Path:
    """State a compressed syntax over plain pixels, of which some may be cut off or added."""
    data = dcmread(path)
    data.PixelData = data.PixelData if num_bytes is None else data.PixelData.ljust(num_bytes, b"\1")[:num_bytes]
    raw = BytesIO()
    data.save_as(raw, enforce_file_format=True)
    data.file_meta.TransferSyntaxUID = UID(syntax)
    stated = BytesIO()
    write_file_meta_info(stated, data.file_meta)  # pyright: ignore[reportArgumentType]
    body = raw.getvalue()[132:]
    after_meta = 12 + int.from_bytes(body[8:12], "little")
    path.write_bytes(raw.getvalue()[:132] + stated.getvalue() + body[after_meta:])
    return path


@pytest.mark.parametrize("syntax", [BASELINE, JPEG_LS, JPEG_2000[0], RLE])
@pytest.mark.parametrize(
    ("pixels", "elements"),
    [
        (ramp(32, 48, np.uint16, 4095), {}),
        (ramp(31, 47, np.uint8, 255), {}),
        (
            np.stack([ramp(31, 47, np.uint8, 255)] * 3),
            {
                "NumberOfFrames": 3,
                "Rows": 31,
                "Columns": 47,
                "SamplesPerPixel": 1,
                "PhotometricInterpretation": "MONOCHROME2",
            },
        ),
    ],
    ids=["16 bits", "odd length", "frames"],
)
def test_plain_pixels_that_call_themselves_compressed_are_read_where_their_length_proves_it(
    tmp_path: Path, syntax: str, pixels: NDArray[Any], elements: dict[str, Any]
) -> None:
    path = _with_stated_syntax(write_dicom(tmp_path / "a.dcm", pixels, **elements), syntax)
    np.testing.assert_array_equal(read_stored(path, SETTINGS), pixels)
    steps = read_dicom(path, SETTINGS, frame=0).steps
    assert any(step.detail.startswith(f"the transfer syntax is wrong: it says {UID(syntax).name}") for step in steps)


@pytest.mark.parametrize("num_bytes", [32 * 48 * 2 - 2, 32 * 48 * 2 + 2, 32 * 48])
def test_plain_pixels_of_another_length_that_call_themselves_compressed_are_refused(
    tmp_path: Path, num_bytes: int
) -> None:
    path = _with_stated_syntax(write_dicom(tmp_path / "a.dcm", DEEP), JPEG_LS, num_bytes=num_bytes)
    with pytest.raises(MedclipError, match=rf"transfer syntax is wrong.* 3,072 bytes, and there are {num_bytes:,}"):
        read_dicom(path, SETTINGS)


def test_colours_of_plain_pixels_that_call_themselves_compressed_are_not_guessed(tmp_path: Path) -> None:
    colour = np.repeat(ramp(32, 48, np.uint8, 255)[..., None], 3, axis=2)
    path = write_dicom(tmp_path / "a.dcm", colour, PhotometricInterpretation="YBR_FULL")
    with pytest.raises(MedclipError, match="or RGB by now"):
        read_dicom(_with_stated_syntax(path, JPEG_2000[0]), SETTINGS)
    path = write_dicom(tmp_path / "b.dcm", colour, PhotometricInterpretation="RGB")
    np.testing.assert_array_equal(read_stored(_with_stated_syntax(path, JPEG_2000[0]), SETTINGS), colour)


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"RescaleSlope": 0, "RescaleIntercept": -1024},
        {"RescaleSlope": 1},
        {"RescaleIntercept": -1024},
    ],
)
def test_values_that_nothing_rescales_have_no_unit(tmp_path: Path, elements: dict[str, Any]) -> None:
    found = _modality(write_dicom(tmp_path / "a.dcm", DEEP, Modality="CT", RescaleType="HU", **elements))
    assert found.unit == "relative"
    np.testing.assert_array_equal(found.pixels[..., 0], DEEP)
    assert any("ignored" in step.detail for step in found.steps) == bool(elements)


@pytest.mark.parametrize(("kind", "unit"), [("AXIAL", "HU"), ("LOCALIZER", "relative")])
def test_a_localizer_of_a_ct_has_no_hounsfield_units(tmp_path: Path, kind: str, unit: str) -> None:
    slope = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}
    path = write_dicom(tmp_path / "a.dcm", DEEP, Modality="CT", ImageType=["ORIGINAL", "PRIMARY", kind], **slope)
    assert _modality(path).unit == unit


@pytest.mark.parametrize("broken", [b"1,5 ", b"abc ", b"nan "])
def test_a_slope_that_is_no_number_makes_no_unit(tmp_path: Path, broken: bytes) -> None:
    path = write_dicom(tmp_path / "a.dcm", DEEP, Modality="CT", RescaleSlope="1.25", RescaleIntercept="-1024")
    path.write_bytes(path.read_bytes().replace(b"1.25", broken, 1))
    found = _modality(path)
    assert found.unit == "relative"
    np.testing.assert_array_equal(found.pixels[..., 0], DEEP)


def test_a_window_that_was_asked_for_is_never_replaced(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", DEEP, WindowCenter=[2000, 100], WindowWidth=[1000, 0])
    for window in ((40.0, 0.0), (float("nan"), 10.0), (float("inf"), 10.0), 1, 2, "BONE"):
        assert _reason(path, _with_window(window)) is Reason.WRONG_USE
    shown = read_dicom(path, _with_window((1e6, 10.0))).pixels
    assert (shown == 0).all()  # nothing lies in it, and that is what was asked for


@pytest.mark.parametrize("text", ["40,0", "nan,10", "inf,10", "1e400,1", "40,-5"])
def test_a_window_that_is_none_is_refused_before_anything_is_read(text: str) -> None:
    with pytest.raises(MedclipError) as caught:
        parse_window(text)
    assert caught.value.reason is Reason.WRONG_USE


def _lut(descriptor: list[int], data: bytes, vr: str = "US") -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.LUTDescriptor = descriptor
    item["LUTDescriptor"].VR = vr
    item.LUTData = data
    item["LUTData"].VR = "OW"
    return [item]


def test_a_lookup_table_without_entries_is_left_aside(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", DEEP, VOILUTSequence=_lut([256, 0, 12], b""), WindowCenter=2000, WindowWidth=4000
    )
    found = read_dicom(path, SETTINGS)
    assert np.isfinite(found.pixels).all()
    assert [step.detail.split(",")[0] for step in found.steps if step.name == "window"] == [
        "ignored: the header's VOI LUT is unusable",
        "LINEAR",
    ]


def test_a_lookup_table_that_starts_below_zero_is_applied_though_it_is_written_unsigned(tmp_path: Path) -> None:
    stored = np.array([[924, 974, 1024, 1074, 1124, 1179] * 4] * 16, np.uint16)
    entries = np.arange(256, dtype="<u2").tobytes()
    path = write_dicom(
        tmp_path / "a.dcm",
        stored,
        Modality="CT",
        RescaleSlope=1,
        RescaleIntercept=-1024,
        VOILUTSequence=_lut([256, 65536 - 100, 8], entries),
    )
    found = read_dicom(path, SETTINGS)
    np.testing.assert_allclose(found.pixels[0, :6, 0] * 255, [0, 50, 100, 150, 200, 255], atol=1e-3)


def test_values_in_the_high_bits_are_moved_down_where_the_pixels_agree(tmp_path: Path) -> None:
    high = write_dicom(tmp_path / "a.dcm", DEEP << 4, BitsStored=12, HighBit=15, WindowCenter=2048, WindowWidth=4096)
    low = write_dicom(tmp_path / "b.dcm", DEEP, BitsStored=12, HighBit=15, WindowCenter=2048, WindowWidth=4096)
    found = read_dicom(high, SETTINGS)
    assert any("moved down by 4" in step.detail for step in found.steps)
    np.testing.assert_array_equal(found.pixels, read_dicom(low, SETTINGS).pixels)
    np.testing.assert_array_equal(_modality(low).pixels[..., 0], DEEP)  # a HighBit that is wrong
    np.testing.assert_array_equal(read_stored(high, SETTINGS), dcmread(high).pixel_array)


def test_signed_values_that_fit_are_left_where_they_are(tmp_path: Path) -> None:
    stored = (DEEP // 2).astype(np.int16) - 1000
    path = write_dicom(tmp_path / "a.dcm", stored, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(_modality(path).pixels[..., 0], stored)
    moved = write_dicom(tmp_path / "b.dcm", stored << 4, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(_modality(moved).pixels[..., 0], stored)


def test_the_step_says_whether_a_window_was_not_wanted_not_usable_or_not_there(tmp_path: Path) -> None:
    def said(settings: Settings = SETTINGS, **elements: Any) -> str:
        return read_dicom(write_dicom(tmp_path / "a.dcm", DEEP, **elements), settings).steps[-1].detail.split(";")[0]

    assert said() == "none stated"
    assert said(WindowCenter=100, WindowWidth=0) == "none usable"
    assert said(_with_window("none"), WindowCenter=2000, WindowWidth=4000) == "none wanted"


def _jpeg2000(pixels: NDArray[Any]) -> bytes:
    import imagecodecs

    return imagecodecs.jpeg2k_encode(pixels, codecformat="J2K", reversible=True)


def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    import imagecodecs

    turned = ramp(48, 32, np.uint8)
    frames = {
        JPEG_2000[0]: _jpeg2000(turned),
        JPEG_LS: imagecodecs.jpegls_encode(turned),
        BASELINE: imagecodecs.jpeg8_encode(turned),
    }
    for number, (syntax, frame) in enumerate(frames.items()):
        assert size_of(frame) == (48, 32)
        path = _compressed(tmp_path / f"{number}.dcm", frame, syntax, ramp())
        assert _reason(path) is Reason.CORRUPT


def test_a_codestream_that_claims_billions_of_pixels_takes_no_memory(tmp_path: Path) -> None:
    import tracemalloc

    frame = bytearray(_jpeg2000(ramp()))
    frame[8:16] = struct.pack(">II", 60_000, 60_000)
    assert size_of(bytes(frame)) == (60_000, 60_000)
    path = _compressed(tmp_path / "a.dcm", bytes(frame), JPEG_2000[0], ramp())
    tracemalloc.start()
    assert _reason(path) is Reason.CORRUPT
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("stated", [BASELINE, JPEG_LS, JPEG_2000[0]])
def test_a_codestream_of_another_codec_than_stated_is_read_as_what_it_is(tmp_path: Path, stated: str) -> None:
    import imagecodecs

    frames = {JPEG_2000[1]: _jpeg2000(ramp()), JPEG_LS: imagecodecs.jpegls_encode(ramp())}
    for number, (syntax, frame) in enumerate(frames.items()):
        assert syntax_of(encapsulate([frame])) == syntax
        path = _compressed(tmp_path / f"{number}.dcm", frame, stated, ramp())
        np.testing.assert_array_equal(read_stored(path, SETTINGS), ramp())


def test_chroma_of_full_size_is_read_whatever_the_name_left_over_from_a_jpeg_says(tmp_path: Path) -> None:
    colour = np.stack([ramp(), 255 - ramp(), np.full((32, 48), 128, np.uint8)], axis=2)
    path = write_dicom(tmp_path / "a.dcm", colour, PhotometricInterpretation="YBR_FULL_422")
    plain = write_dicom(tmp_path / "b.dcm", colour, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(read_dicom(path, SETTINGS).pixels, read_dicom(plain, SETTINGS).pixels)
    assert any("all its samples" in step.detail for step in read_dicom(path, SETTINGS).steps)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PhotometricInterpretation": "RGB"}, Reason.CORRUPT),
        ({"BitsAllocated": None}, Reason.CORRUPT),
        ({"BitsAllocated": 12, "BitsStored": 12}, Reason.NOT_SUPPORTED_YET),
    ],
)
def test_a_description_of_pixels_that_cannot_be_is_refused(
    tmp_path: Path, elements: dict[str, Any], reason: Reason
) -> None:
    assert _reason(write_dicom(tmp_path / "a.dcm", ramp(), **elements)) is reason


def test_partial_ybr_that_is_not_compressed_is_not_called_truncated(tmp_path: Path) -> None:
    colour = np.zeros((32, 48, 3), np.uint8)
    path = write_dicom(tmp_path / "a.dcm", colour, PhotometricInterpretation="YBR_PARTIAL_422")
    assert _reason(path) is Reason.NOT_SUPPORTED_YET


def test_fewer_compressed_frames_than_stated_are_truncated(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", ramp(), NumberOfFrames=3)
    data = dcmread(path)
    data.file_meta.TransferSyntaxUID = UID(JPEG_2000[0])
    data.PixelData = encapsulate([_jpeg2000(ramp())] * 2)
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.save_as(path)
    with pytest.raises(MedclipError) as caught:
        read_stored(path, SETTINGS)
    assert caught.value.reason is Reason.TRUNCATED


def test_a_palette_shorter_than_it_says_is_refused(tmp_path: Path) -> None:
    palette = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    palette |= {f"{name}PaletteColorLookupTableData": bytes(range(100)) for name in ("Red", "Green", "Blue")}
    path = write_dicom(tmp_path / "a.dcm", ramp(), PhotometricInterpretation="PALETTE COLOR", **palette)
    assert _reason(path) is Reason.CORRUPT
