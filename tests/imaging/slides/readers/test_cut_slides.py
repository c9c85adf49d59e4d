"""Slides that were cut, and tiles that are not all there, in every kind of slide that is made by code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from pydicom.uid import UID

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.tiff_directories import ends_early
from medclip.imaging.slides.readers.open import open_slide
from medclip.settings import ReadPolicy, Settings
from tests.kits.codestreams import cut, cut_and_ended, half_zeroed, zeroed_to_end
from tests.kits.slides import MPP, draw_section, tiles_of, write_dicom_slide, write_pyramid

IMAGE = draw_section(512, 512)
ACCEPTING = Settings(policy=ReadPolicy(accept_unterminated=True))
_JPEG_LS, _J2K, _JPEG_XL = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.110")
ENCODERS: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
    "1.2.840.10008.1.2.4.50": ("YBR_FULL", lambda a: imagecodecs.jpeg8_encode(a, level=90, subsampling="444")),
    _JPEG_LS: ("RGB", imagecodecs.jpegls_encode),
    _J2K: ("YBR_RCT", lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k", mct=True, reversible=True)),
    _JPEG_XL: ("RGB", lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
}


def _read(path: Path, settings: Settings | None = None) -> np.ndarray:
    with open_slide(path, settings) as reader:
        return reader.read(0, 0, 512, 512, MPP)


def _reason(path: Path, settings: Settings | None = None) -> Reason:
    with pytest.raises(MedclipError) as caught:
        _read(path, settings)
    return caught.value.reason


def _dicom(path: Path, uid: str, change: Callable[[bytes], bytes] = bytes) -> Path:
    photometric, encode = ENCODERS[uid]
    frames = [bytes(encode(tile)) for tile in tiles_of(IMAGE, 128)]
    frames[5] = change(frames[5])

    def edit(ds) -> None:
        ds.file_meta.TransferSyntaxUID = UID(uid)
        ds["PixelData"].is_undefined_length = True

    return write_dicom_slide(path, IMAGE, photometric=photometric, frames=frames, edit=edit)


@pytest.mark.parametrize("uid", ENCODERS)
def test_one_cut_tile_of_a_dicom_slide_is_refused(tmp_path: Path, uid: str) -> None:
    whole = _read(_dicom(tmp_path / "whole.dcm", uid))
    assert np.abs(whole.astype(int) - IMAGE).mean() < 6
    for percent in (10, 50, 90):
        for settings in (Settings(), ACCEPTING):
            path = _dicom(tmp_path / f"{percent}.dcm", uid, lambda tile: cut(tile, percent))  # noqa: B023
            assert _reason(path, settings) in (Reason.TRUNCATED, Reason.CORRUPT)
    assert _reason(_dicom(tmp_path / "zeros.dcm", uid, half_zeroed)) in (Reason.TRUNCATED, Reason.CORRUPT)
    if uid != _JPEG_XL:  # has no end marker
        for number, damage in enumerate((cut_and_ended, zeroed_to_end)):
            path = _dicom(tmp_path / f"ended{number}.dcm", uid, lambda tile: damage(tile, 30))  # noqa: B023
            assert _reason(path) in (Reason.TRUNCATED, Reason.CORRUPT)
    padded = _dicom(tmp_path / "padded.dcm", uid, lambda tile: tile + bytes(100))
    np.testing.assert_array_equal(_read(padded), whole)


@pytest.mark.parametrize("uid", [uid for uid in ENCODERS if uid != _JPEG_XL])
def test_a_tile_without_its_end_marker_is_read_only_where_that_is_accepted(tmp_path: Path, uid: str) -> None:
    def unterminated(tile: bytes) -> bytes:
        return tile.rstrip(b"\0")[:-2]

    path = _dicom(tmp_path / "a.dcm", uid, unterminated)
    assert _reason(path) is Reason.TRUNCATED
    np.testing.assert_array_equal(_read(path, ACCEPTING), _read(_dicom(tmp_path / "b.dcm", uid)))


def test_uncompressed_tiles_that_begin_like_a_jpeg_are_pixels(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[0, 0] = (0xFF, 0xD8, 0xFF)
    path = write_dicom_slide(tmp_path / "a.dcm", image, photometric="RGB")
    np.testing.assert_array_equal(_read(path), image)


@pytest.mark.parametrize("percent", [10, 50, 90, 99])
@pytest.mark.parametrize("compression", ["jpeg", "lzw", "zlib", "jpeg2000", "webp", "jpegxl"])
def test_a_cut_tiff_slide_is_truncated(tmp_path: Path, compression: str, percent: int) -> None:
    path = tmp_path / "a.tiff"
    options: dict[str, Any] = {"tile": (128, 128), "compression": compression, "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(IMAGE, resolution=(20000, 20000), resolutionunit="CENTIMETER", **options)
        tiff.write(IMAGE[::2, ::2], subfiletype=1, **options)
    assert _read(path).shape == (512, 512, 3)
    path.write_bytes(cut(path.read_bytes(), percent))
    assert _reason(path) is Reason.TRUNCATED


@pytest.mark.parametrize("percent", [10, 50, 90, 99])
def test_a_cut_svs_is_truncated_and_not_of_another_kind(tmp_path: Path, percent: int) -> None:
    path = write_pyramid(tmp_path / "a.svs", draw_section(1024, 1024))
    with path.open("rb") as file:
        assert not ends_early(file)
    path.write_bytes(cut(path.read_bytes(), percent))
    assert _reason(path) is Reason.TRUNCATED


@pytest.mark.parametrize("change", [lambda tile: cut(tile, 50), half_zeroed, lambda tile: tile[:-2]])
@pytest.mark.parametrize("grey", [False, True])
def test_a_tile_that_ends_early_inside_a_tiff_is_truncated(
    tmp_path: Path, change: Callable[[bytes], bytes], grey: bool
) -> None:
    path = tmp_path / "a.tiff"
    options: dict[str, Any] = {"photometric": "minisblack" if grey else "rgb"}
    image = IMAGE[..., 0] if grey else IMAGE
    tifffile.imwrite(
        path, image, tile=(128, 128), compression="jpeg", resolution=(20000, 20000), resolutionunit=3, **options
    )
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[5], tiff.pages[0].databytecounts[5]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = change(bytes(data[offset : offset + count])).ljust(count, b"\0")
    path.write_bytes(data)
    assert _reason(path) is Reason.TRUNCATED
