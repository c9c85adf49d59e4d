from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format, sniff
from medclip.imaging.raster import read_raster
from medclip.imaging.raster_end import webp_size
from medclip.settings import Settings
from tests.imaging.test_colourfulness import dermoscopy
from tests.kits.codestreams import film
from tests.kits.files import huge_png, ramp, write_image

SETTINGS = Settings()
COLOUR = np.stack([ramp(), 255 - ramp(), ramp() // 2], axis=2)
DEEP = ramp(32, 48, np.uint16, 4095)


def _read(path: Path, *, grey: bool = False, paper: bool = False) -> NDArray[Any]:
    fmt = {".png": Format.PNG, ".jpg": Format.JPEG, ".tif": Format.TIFF}[path.suffix]
    return read_raster(path, fmt, SETTINGS, grey=grey, paper=paper).pixels


def _reason(path: Path, fmt: Format) -> Reason:
    with pytest.raises(MedclipError) as caught:
        read_raster(path, fmt, SETTINGS)
    return caught.value.reason


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_lossless_images_come_back_as_stored(tmp_path: Path, suffix: str) -> None:
    for name, pixels in (("grey", ramp()), ("deep", DEEP), ("colour", COLOUR)):
        found = _read(write_image(tmp_path / f"{name}.{suffix}", pixels))
        assert found.dtype == pixels.dtype
        np.testing.assert_array_equal(found.squeeze(), pixels)
        assert found.shape == (32, 48, 3 if name == "colour" else 1)


def test_colour_becomes_luma_where_grey_is_asked_for(tmp_path: Path) -> None:
    expected = np.asarray(Image.fromarray(COLOUR).convert("L"))[:, :, None]
    np.testing.assert_array_equal(_read(write_image(tmp_path / "a.png", COLOUR), grey=True), expected)
    path = write_image(tmp_path / "a.jpg", COLOUR, quality=95)
    full = np.asarray(Image.fromarray(_read(path)).convert("L"), int)[:, :, None]
    assert np.abs(_read(path, grey=True).astype(int) - full).max() <= 2


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "palette.png"])
def test_what_is_read_as_grey_says_whether_it_was_in_colour(tmp_path: Path, name: str) -> None:
    grey = np.repeat(film(8)[..., None], 3, -1)
    for pixels, in_colour in ((dermoscopy(), True), (grey, False), ((grey * (1, 0.9, 0.7)).astype(np.uint8), False)):
        if name.startswith("palette"):
            Image.fromarray(pixels).quantize(64).save(tmp_path / name)
        else:
            write_image(tmp_path / name, pixels)
        fmt = {".png": Format.PNG, ".jpg": Format.JPEG, ".tif": Format.TIFF}[Path(name).suffix]
        assert read_raster(tmp_path / name, fmt, SETTINGS, grey=True).in_colour is in_colour


def test_a_deep_tiff_in_colour_says_so_though_it_is_read_as_grey(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", dermoscopy().astype(np.uint16) << 8, photometric="rgb")
    assert read_raster(tmp_path / "a.tif", Format.TIFF, SETTINGS, grey=True).in_colour


def test_transparency_is_composited_on_black(tmp_path: Path) -> None:
    rgba = np.dstack([COLOUR, np.full((32, 48), 255, np.uint8)])
    rgba[:, :10, 3] = 0
    pixels = _read(write_image(tmp_path / "a.png", rgba))
    assert (pixels[:, :10] == 0).all()
    np.testing.assert_array_equal(pixels[:, 10:], COLOUR[:, 10:])
    grey = np.dstack([ramp(), np.zeros((32, 48), np.uint8)])
    assert (_read(write_image(tmp_path / "b.png", grey)) == 0).all()
    assert (_read(tmp_path / "b.png", paper=True) == 255).all()


def test_palettes_and_single_bits_become_eight_bits(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).quantize(16).save(tmp_path / "a.png")
    assert _read(tmp_path / "a.png").shape == (32, 48, 3)
    Image.fromarray(ramp() > 127).save(tmp_path / "b.png")
    assert set(np.unique(_read(tmp_path / "b.png"))) == {0, 255}
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.jpg")
    assert _read(tmp_path / "c.jpg").shape == (32, 48, 3)


def test_the_orientation_of_a_camera_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write_image(tmp_path / "a.jpg", ramp(), exif=exif, quality=100)
    decoded = read_raster(path, Format.JPEG, SETTINGS)
    assert decoded.pixels.shape == (48, 32, 1)
    assert np.abs(decoded.pixels[:, :, 0].astype(int) - np.rot90(ramp(), -1)).max() <= 3
    assert decoded.steps[0].name == "orientation"


def test_a_tiff_where_white_is_zero_is_turned_round(tmp_path: Path) -> None:
    for name, pixels in (("a", ramp()), ("b", DEEP)):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, pixels, photometric="miniswhite")
        top = np.iinfo(pixels.dtype).max
        np.testing.assert_array_equal(_read(path)[:, :, 0], top - pixels)


def test_deep_colour_and_floating_point_tiffs_are_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR.astype(np.uint16) * 257, photometric="rgb")
    np.testing.assert_array_equal(_read(tmp_path / "a.tif"), COLOUR)
    tifffile.imwrite(tmp_path / "b.tif", ramp().astype(np.float32) / 255)
    np.testing.assert_allclose(_read(tmp_path / "b.tif")[:, :, 0], ramp() / 255, atol=1e-6)
    tifffile.imwrite(tmp_path / "c.tif", ramp().astype(np.float16))
    assert _read(tmp_path / "c.tif").dtype == np.float32


def test_a_tiff_of_several_pages_is_not_read_yet(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 32, 48), np.uint8), photometric="minisblack")
    assert _reason(tmp_path / "a.tif", Format.TIFF) is Reason.NOT_SUPPORTED_YET


def test_a_huge_image_is_refused_from_its_header(tmp_path: Path) -> None:
    assert _reason(huge_png(tmp_path / "a.png"), Format.PNG) is Reason.TOO_LARGE


def test_the_limit_is_ours_not_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert _read(write_image(tmp_path / "a.png", ramp())).shape == (32, 48, 1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_image_that_ends_early_fails(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    path = write_image(tmp_path / f"a.{suffix}", noise)
    data = path.read_bytes()
    fmt = {"png": Format.PNG, "jpg": Format.JPEG, "tif": Format.TIFF}[suffix]
    path.write_bytes(data[: len(data) // 2])
    assert _reason(path, fmt) in (Reason.TRUNCATED, Reason.CORRUPT)
    if suffix != "tif":
        assert _reason(path, fmt) is Reason.TRUNCATED


def test_bytes_that_are_no_image_are_corrupt(tmp_path: Path) -> None:
    for fmt, start in ((Format.PNG, b"\x89PNG\r\n\x1a\n"), (Format.JPEG, b"\xff\xd8\xff"), (Format.TIFF, b"II*\0")):
        (tmp_path / "a").write_bytes(start + b"\1" * 64)
        assert _reason(tmp_path / "a", fmt) in (Reason.CORRUPT, Reason.TRUNCATED)
    assert _reason(tmp_path / "none", Format.PNG) is Reason.MISSING_FILE


@given(st.lists(st.tuples(st.integers(8, 400), st.integers(0, 255)), min_size=1, max_size=8))
def test_no_damage_to_a_image_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    for suffix, fmt in (("png", Format.PNG), ("jpg", Format.JPEG), ("tif", Format.TIFF)):
        path = write_image(folder / f"a.{suffix}", COLOUR[:16, :16])
        data = bytearray(path.read_bytes())
        for at, value in flips:
            data[at % len(data)] = value
        path.write_bytes(bytes(data))
        try:
            pixels = read_raster(path, fmt, SETTINGS).pixels
        except MedclipError:
            continue
        assert pixels.ndim == 3
        assert pixels.shape[2] in (1, 3)


def test_a_preview_page_does_not_hide_the_image(tmp_path: Path) -> None:
    full, small = ramp(64, 96, np.uint16, 60_000), ramp(16, 24)
    for name, pages in (("a.tif", (full, small)), ("b.tif", (small, full))):
        with tifffile.TiffWriter(tmp_path / name) as tiff:
            for page in pages:
                tiff.write(page)
        decoded = read_raster(tmp_path / name, Format.TIFF, SETTINGS)
        np.testing.assert_array_equal(decoded.pixels[..., 0], full)
        assert decoded.steps[0].name == "page"


def test_pages_of_one_size_are_a_stack(tmp_path: Path) -> None:
    for count, height in ((2, 64), (3, 64), (2, 40)):
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for number in range(count):
                tiff.write(ramp(height if number else 64, 96))
        with pytest.raises(MedclipError) as caught:
            read_raster(tmp_path / "a.tif", Format.TIFF, SETTINGS)
        assert caught.value.reason is Reason.NOT_SUPPORTED_YET
        assert f"stack of {count} pages" in caught.value.message


@pytest.mark.parametrize(
    ("suffix", "fmt", "options"),
    [
        ("gif", Format.GIF, {}),
        ("bmp", Format.BMP, {}),
        ("webp", Format.WEBP, {"lossless": True}),
        ("jp2", Format.JPEG2000, {"irreversible": False}),
        ("j2k", Format.JPEG2000, {"irreversible": False}),
    ],
)
def test_other_image_formats_give_their_pixels_or_one_reason(
    tmp_path: Path, suffix: str, fmt: Format, options: dict[str, Any]
) -> None:
    path = write_image(tmp_path / f"a.{suffix}", ramp(40, 64), **options)
    assert sniff(path) is fmt
    decoded = read_raster(path, fmt, SETTINGS, grey=True)
    np.testing.assert_array_equal(decoded.pixels[..., 0], ramp(40, 64))
    for limit in (40 * 64, 40 * 64 - 1):
        small = Settings(max_pixels=limit)
        if limit < 40 * 64:
            with pytest.raises(MedclipError, match="limit"):
                read_raster(path, fmt, small)
        else:
            assert read_raster(path, fmt, small).pixels.shape[:2] == (40, 64)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 2 // 3])
    with pytest.raises(MedclipError) as caught:
        read_raster(path, fmt, SETTINGS)
    assert caught.value.reason in (Reason.CORRUPT, Reason.TRUNCATED)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(ramp(40, 64)), Image.fromarray(255 - ramp(40, 64))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    decoded = read_raster(tmp_path / "a.gif", Format.GIF, SETTINGS, grey=True)
    np.testing.assert_array_equal(decoded.pixels[..., 0], ramp(40, 64))
    assert decoded.steps[0].detail == "first of 2"


@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_header_is_refused_before_the_canvas_is_allocated(tmp_path: Path, lossless: bool) -> None:
    path = write_image(tmp_path / "a.webp", ramp(40, 64), lossless=lossless)
    assert webp_size(path.read_bytes()) == (40, 64)
    path.write_bytes(path.read_bytes()[:25])
    with pytest.raises(MedclipError) as caught:
        read_raster(path, Format.WEBP, SETTINGS)
    assert caught.value.reason is Reason.CORRUPT
