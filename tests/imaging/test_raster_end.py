"""Plain image files that were cut, or whose second half is zeros, are refused whatever their decoder makes of them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from medclip.dicom.codecs.completeness import UNTERMINATED
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format, sniff
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


@pytest.mark.parametrize("settings", [SETTINGS, ACCEPTING], ids=["strict", "accepting"])
@pytest.mark.parametrize("damage", [cut_and_ended, zeroed_to_end], ids=["cut", "zeroed"])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 64}, {"tile": (64, 64)}], ids=["one", "strips", "tiles"])
@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000"])
def test_an_end_marker_does_not_make_up_for_missing_data_inside_a_tiff(
    tmp_path: Path, codec: str, layout: dict[str, Any], damage: Callable[[bytes, int], bytes], settings: Settings
) -> None:
    for pixels, photometric in ((COLOUR, "rgb"), (GREY, "minisblack")):
        data = _tiff(pixels, compression=codec, photometric=photometric, **layout)
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        for offset, count in (segments[0], segments[-1]):
            for percent in (30, 60):
                damaged = damage(data[offset : offset + count], percent)[:count].ljust(count, b"\0")
                file = data[:offset] + damaged + data[offset + count :]
                assert _reason(tmp_path / "a", file, settings) is Reason.TRUNCATED, (offset, percent)


def test_streams_of_a_tiff_may_have_filling_behind_their_ends(tmp_path: Path) -> None:
    for codec in ("jpeg", "jpeg2000"):
        data = _tiff(np.tile(GREY, (8, 8)), compression=codec, tile=(512, 512))
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page: Any = tiff.pages[0]
            offset, count, tags = page.dataoffsets[-1], page.databytecounts[-1], page.tags
            place = tags["TileByteCounts"].valueoffset + (len(page.databytecounts) - 1) * 4
            assert tags["TileByteCounts"].dtype == tags["TileOffsets"].dtype == 4
        padded = bytearray(data + data[offset : offset + count] + bytes(100))
        padded[place : place + 4] = struct.pack("<I", count + 100)
        at = tags["TileOffsets"].valueoffset + (len(page.dataoffsets) - 1) * 4
        padded[at : at + 4] = struct.pack("<I", len(data))
        (tmp_path / "a").write_bytes(data)
        (tmp_path / "b").write_bytes(bytes(padded))
        whole, filled = (read_raster(path, sniff(path), SETTINGS) for path in (tmp_path / "a", tmp_path / "b"))
        np.testing.assert_array_equal(filled.pixels, whole.pixels)


def test_a_deflated_tiff_with_a_hole_is_refused(tmp_path: Path) -> None:
    data = _tiff(COLOUR, photometric="rgb", compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        offset, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    for percent in (50, 90):
        damaged = data[:offset] + zeroed_to_end(data[offset : offset + count], percent)[:count] + data[offset + count :]
        assert _reason(tmp_path / "a", damaged) in (Reason.CORRUPT, Reason.TRUNCATED)


@pytest.mark.parametrize("name", ["png", "png of 16 bits"])
def test_a_png_that_was_closed_before_its_last_rows_is_truncated(tmp_path: Path, name: str) -> None:
    """Its chunks, sums and compressed data are whole; Pillow leaves the other rows black."""
    data = FILES[name]
    at, packed = data.index(b"IDAT") - 4, b""
    while data[at + 4 : at + 8] == b"IDAT":
        length = int.from_bytes(data[at : at + 4], "big")
        packed, at = packed + data[at + 8 : at + 8 + length], at + 12 + length
    rows = zlib.decompress(packed)
    body = b"IDAT" + zlib.compress(rows[: len(rows) // 2])
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    assert _reason(tmp_path / "a", data[: data.index(b"IDAT") - 4] + chunk + data[at:]) is Reason.TRUNCATED


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_a_png_whose_last_row_is_of_one_colour_is_read(tmp_path: Path, mode: str) -> None:
    pixels = (
        Image.new("L", (131, 67), 9).convert(mode) if mode != "I;16" else Image.fromarray(np.zeros((67, 131), "u2"))
    )
    pixels.save(tmp_path / "a.png")
    assert read_raster(tmp_path / "a.png", Format.PNG, SETTINGS).pixels.shape[:2] == (67, 131)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (37, 50)], ids=str)
def test_an_interlaced_png_is_read_and_one_without_its_last_pass_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    parts = [pixels[top::down, left::across] for left, top, across, down in passes]
    rows = [b"".join(b"\0" + row.tobytes() for row in part if len(row)) for part in parts]

    def png(data: bytes) -> bytes:
        chunks = (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)),
            (b"IDAT", zlib.compress(data)),
            (b"IEND", b""),
        )
        sums = (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(sums)

    (tmp_path / "a").write_bytes(png(b"".join(rows)))
    np.testing.assert_array_equal(read_raster(tmp_path / "a", Format.PNG, SETTINGS).pixels[..., 0], pixels)
    if rows[-1]:
        assert _reason(tmp_path / "a", png(b"".join(rows[:-1]))) is Reason.TRUNCATED


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize(
    "more", [{}, {"exif": b"Exif\0\0MM\0*" + bytes(300)}, {"xmp": b"<x/>" + bytes(300)}], ids=["", "exif", "xmp"]
)
def test_a_webp_may_end_in_zeros_that_are_needed_or_no_pixels(tmp_path: Path, value: int, more: dict[str, Any]) -> None:
    """A flat lossy image is zeros to its end, and notes behind an image may be filled up with them."""
    flat = np.full((2000, 2000, 3), value, np.uint8)
    for data in (_pillow("WEBP", flat, **more), _pillow("WEBP", lossless=True, **more)):
        (tmp_path / "a").write_bytes(data)
        assert read_raster(tmp_path / "a", Format.WEBP, SETTINGS).pixels.size
        damaged = data[: len(data) // 3] + bytes(len(data) - len(data) // 3)
        assert _reason(tmp_path / "a", damaged) in (Reason.TRUNCATED, Reason.CORRUPT)


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_animation_whose_first_frame_is_zeroed_is_truncated(tmp_path: Path, lossless: bool) -> None:
    frames = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (128, 128, 3), dtype=np.uint8)) for n in (0, 1)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=lossless)
    data = (tmp_path / "a.webp").read_bytes()
    assert read_raster(tmp_path / "a.webp", Format.WEBP, SETTINGS).pixels.shape == (128, 128, 3)
    second = data.rindex(b"ANMF")
    assert _reason(tmp_path / "a", data[: second - 4000] + bytes(4000) + data[second:]) is Reason.TRUNCATED


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
