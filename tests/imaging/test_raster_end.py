"""Plain image files that were cut, or whose second half is zeros, are refused whatever their decoder makes of them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from medclip.dicom.codecs.completeness import UNTERMINATED
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import sniff
from medclip.imaging.raster import read_raster
from medclip.sample import Step
from medclip.settings import ReadPolicy, Settings
from tests.kits.codestreams import cut, cut_and_ended, film, half_zeroed, zeroed_to_end

SETTINGS = Settings()
ACCEPTING = Settings(policy=ReadPolicy(accept_unterminated=True))
GREY, DEEP = film(8), film(16)
COLOUR = np.stack([GREY, np.roll(GREY, 9, 0), np.roll(GREY, 9, 1)], -1)


def _pillow(fmt: str, pixels=COLOUR, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt, **options)
    return buffer.getvalue()


def _tiff(pixels, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


FILES = {
    "png": _pillow("PNG"),
    "png of 16 bits": _pillow("PNG", DEEP),
    "jpeg": _pillow("JPEG"),
    "progressive jpeg": _pillow("JPEG", progressive=True),
    "gif": _pillow("GIF", GREY),
    "bmp": _pillow("BMP"),
    "webp": _pillow("WEBP"),
    "lossless webp": _pillow("WEBP", lossless=True),
    "jp2": _pillow("JPEG2000"),
    "bare jpeg 2000": imagecodecs.jpeg2k_encode(GREY, level=0, codecformat="j2k"),
    "tiff": _tiff(COLOUR, photometric="rgb"),
    "tiff in strips": _tiff(DEEP, rowsperstrip=20),
    "tiff in tiles": _tiff(COLOUR, photometric="rgb", tile=(48, 48)),
    **{
        f"{codec} tiff in {layout}": _tiff(DEEP, compression=codec, **options)
        for codec in ("zlib", "lzw", "zstd", "lzma", "jpeg2000")
        for layout, options in {"one": {}, "strips": {"rowsperstrip": 20}, "tiles": {"tile": (48, 48)}}.items()
    },
    "webp tiff": _tiff(COLOUR, photometric="rgb", compression="webp"),
    "jpeg tiff in tiles": _tiff(COLOUR, photometric="rgb", compression="jpeg", tile=(48, 48)),
    "colour tiff of 16 bits": _tiff(np.stack([DEEP] * 3, -1), photometric="rgb", compression="lzw"),
}
COMPRESSED = [name for name in FILES if name not in ("bmp", "tiff", "tiff in strips", "tiff in tiles")]
"""The others hold pixels as such; among those zeros are black."""
TERMINATED = {"png": 12, "jpeg": 2, "progressive jpeg": 2, "gif": 1, "jp2": 2, "bare jpeg 2000": 2}
"""Bytes of the end marker of formats that have one."""


def _reason(path: Path, data: bytes, settings: Settings = SETTINGS) -> Reason:
    path.write_bytes(data)
    with pytest.raises(MedclipError) as caught:
        read_raster(path, sniff(path), settings)
    return caught.value.reason


@pytest.mark.parametrize("settings", [SETTINGS, ACCEPTING], ids=["strict", "accepting"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("tolerant", [False, True], ids=["", "LOAD_TRUNCATED_IMAGES"])
def test_a_cut_file_is_refused_whatever_pillow_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, settings: Settings, tolerant: bool
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    for percent in (10, 50, 90, 99):
        reason = _reason(tmp_path / "a", cut(FILES[name], percent), settings)
        assert reason in (Reason.TRUNCATED, Reason.CORRUPT), percent
    assert tolerant == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("settings", [SETTINGS, ACCEPTING], ids=["strict", "accepting"])
@pytest.mark.parametrize("name", COMPRESSED)
def test_a_file_whose_second_half_is_zeros_is_refused(tmp_path: Path, name: str, settings: Settings) -> None:
    assert _reason(tmp_path / "a", half_zeroed(FILES[name]), settings) in (Reason.TRUNCATED, Reason.CORRUPT)


@pytest.mark.parametrize("settings", [SETTINGS, ACCEPTING], ids=["strict", "accepting"])
@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "jp2", "bare jpeg 2000"])
@pytest.mark.parametrize("damage", [cut_and_ended, zeroed_to_end], ids=["cut", "zeroed"])
def test_an_end_marker_does_not_make_up_for_missing_data(
    tmp_path: Path, name: str, damage: Callable[[bytes, int], bytes], settings: Settings
) -> None:
    for percent in (10, 50, 90):
        assert _reason(tmp_path / "a", damage(FILES[name], percent), settings) is Reason.TRUNCATED, percent


def test_a_png_with_a_wrong_check_sum_is_corrupt_and_not_cut(tmp_path: Path) -> None:
    data = bytearray(FILES["png"])
    at = data.index(b"IDAT") + 40
    data[at : at + 200] = bytes(200)
    assert _reason(tmp_path / "a", bytes(data)) is Reason.CORRUPT


@pytest.mark.parametrize("big", [False, True], ids=["classic", "BigTIFF"])
def test_a_tiff_whose_directory_is_cut_off_is_truncated(tmp_path: Path, big: bool) -> None:
    data = _tiff(COLOUR, photometric="rgb", bigtiff=big)
    kind = ("<Q", 8) if big else ("<I", 4)
    at_end = data[: kind[1]] + struct.pack(kind[0], len(data)) + data[kind[1] + struct.calcsize(kind[0]) :]
    assert _reason(tmp_path / "a", at_end) is Reason.TRUNCATED


@pytest.mark.parametrize("name", FILES)
def test_bytes_behind_the_end_change_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_bytes(FILES[name])
    (tmp_path / "b").write_bytes(FILES[name] + bytes(300))
    whole, padded = (read_raster(path, sniff(path), SETTINGS) for path in (tmp_path / "a", tmp_path / "b"))
    np.testing.assert_array_equal(padded.pixels, whole.pixels)


@pytest.mark.parametrize("name", TERMINATED)
def test_a_file_without_its_end_marker_is_read_only_where_that_is_accepted(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(FILES[name])
    whole = read_raster(path, sniff(path), ACCEPTING)
    assert "end" not in [step.name for step in whole.steps]
    assert _reason(path, FILES[name][: -TERMINATED[name]]) is Reason.TRUNCATED
    accepted = read_raster(path, sniff(path), ACCEPTING)
    np.testing.assert_array_equal(accepted.pixels, whole.pixels)
    assert Step("end", UNTERMINATED) in accepted.steps


def test_an_animation_must_be_whole_although_its_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(GREY, step, 1)) for step in (0, 20, 40)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert _reason(tmp_path / "a", cut((tmp_path / "a.gif").read_bytes(), 80)) is Reason.TRUNCATED
