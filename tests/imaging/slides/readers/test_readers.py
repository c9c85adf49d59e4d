from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides import open_slide
from medclip.imaging.slides.readers import jpeg_tiles as fast_tiles
from medclip.imaging.slides.readers.dicom import jpeg_colour
from medclip.imaging.slides.readers.pyramid import reduced
from medclip.settings import ReadPolicy, Settings
from tests.kits.slides import MPP, draw_section, tiles_of, write_dicom_slide, write_pyramid


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return draw_section()


@pytest.fixture(scope="module")
def slide(tmp_path_factory, image) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "a.tiff", image)


def through_openslide(path: Path, top: int, left: int, height: int, width: int) -> np.ndarray:
    with openslide.OpenSlide(path) as known:
        rgba = np.asarray(known.read_region((left, top), 0, (width, height)))
    return np.where(rgba[:, :, 3:] == 255, rgba[:, :, :3], 255)


@pytest.mark.parametrize(
    "place", [(256, 512, 256, 256), (100, 37, 300, 411), (-40, -50, 200, 200), (1400, 1800, 256, 256)]
)
@pytest.mark.parametrize("options", [{}, {"compressionargs": {"level": 80, "outcolorspace": "rgb"}}])
def test_stored_tiles_give_the_pixels_that_openslide_gives(tmp_path, image, place, options):
    path = write_pyramid(tmp_path / "a.tiff", image, **options)
    with open_slide(path) as reader:
        assert "turbo" in reader.facts.decoder
        top, left, height, width = place
        found = reader.read(top * MPP, left * MPP, height, width, MPP)
    np.testing.assert_array_equal(found, through_openslide(path, *place))


def test_each_stored_tile_is_decoded_once_off_the_grid(slide, monkeypatch):
    calls = []
    decode = fast_tiles.decode_jpeg
    monkeypatch.setattr(fast_tiles, "decode_jpeg", lambda *a: calls.append(1) or decode(*a))
    with open_slide(slide) as reader:
        for y in range(100, 1100, 256):
            for x in range(100, 1500, 256):
                reader.read(y * MPP, x * MPP, 256, 256, MPP)
    assert len(calls) == 5 * 7  # 4 x 6 patches touch 5 x 7 tiles


def test_what_a_region_gives_may_be_written_to_and_changes_nothing(slide):
    with open_slide(slide) as reader:
        for _ in range(3):
            first = reader.read(0, 0, 256, 256, MPP)
            before = first.copy()
            first[:] = 0
            np.testing.assert_array_equal(reader.read(0, 0, 256, 256, MPP), before)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 4000),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([(3, 4, 3), (20, 20, 1), (33,), (50, 41)])), max_size=120),
)
def test_the_cache_stays_below_its_limit_and_returns_each_tile_as_it_was_stored(limit_bytes, asked):
    cache, shapes = fast_tiles.TileCache(limit_bytes), {}
    for number, (key, shape) in enumerate(asked):
        tile = np.full(shape, number % 251, np.uint8)
        kept = cache.take(key, np.copy)
        if kept is None:
            cache.store(key, tile)
            shapes[key] = tile
        else:
            np.testing.assert_array_equal(kept, shapes[key])
        held = {id(memory): len(memory) for memory, _ in cache._slabs.values()}
        assert sum(held.values()) == cache._bytes <= limit_bytes
        assert all(view.base is not None for view, _ in cache._tiles.values())


def test_a_full_cache_drops_what_was_used_least_and_fills_its_memory_anew():
    cache = fast_tiles.TileCache(1000)
    for i in range(50):
        cache.store(i, np.full(200, i, np.uint8))
        assert cache.take(0, lambda tile: int(tile[0])) == 0
    assert cache.take(49, lambda tile: int(tile[-1])) == 49
    assert cache.take(1, np.copy) is None
    addresses = {memory.ctypes.data for memory, _ in cache._slabs.values()}
    for i in range(50, 60):
        cache.store(i, np.full(200, i, np.uint8))
        cache.take(0, np.copy)
    assert {memory.ctypes.data for memory, _ in cache._slabs.values()} == addresses


def test_a_scale_between_levels_is_read_from_the_finer_one_without_aliasing(slide, image):
    with open_slide(slide) as reader:
        assert reader.effective_mpp(1.0) == (1.0, 1.0)
        found = reader.read(100, 150, 200, 300, 1.0)
    expected = image[200:600, 300:900].reshape(200, 2, 300, 2, 3).mean((1, 3))
    assert np.abs(found - expected).mean() < 2.5


@pytest.mark.parametrize(("wanted", "times"), [(1.0, 2), (1.01, 2), (1.5, 3), (5.93, 3)])
def test_a_whole_multiple_of_a_level_is_its_average_counted_from_the_corner(slide, wanted, times):
    level = 0.5 if wanted < 2 else 2.0
    with open_slide(slide) as reader:
        assert reader.effective_mpp(wanted) == (level * times, level * times)
        top, left = 7 * level * times, 11 * level * times
        found = reader.read(top, left, 40, 50, wanted)
        fine = reader.read(top, left, 40 * times, 50 * times, level)
    expected = fine.reshape(40, times, 50, times, 3).mean((1, 3))
    assert np.abs(found - expected).max() < 0.6  # PIL averages in fixed point


@given(
    corner=st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
    size=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    times=st.sampled_from([2, 7, 16, 1000]),
)
@settings(max_examples=20)
def test_an_average_read_block_by_block_is_that_of_all_pixels_at_once(corner, size, times):
    size = tuple(min(side, 2000 // times) for side in size)
    box = (*corner, corner[0] + size[0], corner[1] + size[1])
    pixels = np.random.default_rng(0).integers(0, 256, (size[0] * times, size[1] * times, 3), np.uint8)
    asked = []

    def stored(top: int, left: int, height: int, width: int) -> np.ndarray:
        asked.append((height, width))
        y, x = top - corner[0] * times, left - corner[1] * times
        return pixels[y : y + height, x : x + width]

    np.testing.assert_array_equal(reduced(stored, box, times), np.asarray(Image.fromarray(pixels).reduce(times)))
    assert max(max(sides) for sides in asked) <= max(768, times)


def test_an_overlapping_grid_decodes_each_stored_tile_once(slide, monkeypatch):
    calls = []
    decode = fast_tiles.decode_jpeg
    monkeypatch.setattr(fast_tiles, "decode_jpeg", lambda *a: calls.append(1) or decode(*a))
    with open_slide(slide) as reader:
        for y in range(0, 1024, 64):
            for x in range(0, 1400, 64):
                reader.read(y * MPP, x * MPP, 256, 256, MPP)
    assert len(calls) <= 5 * 7 + 1  # the first patch falls on a tile and does not keep it


def test_neighbouring_regions_fit_together_at_any_scale(slide):
    with open_slide(slide) as reader:
        for mpp in (0.7, 1.3, 3.1):
            whole = reader.read(50, 70, 100, 200, mpp)
            right = reader.read(50, 70 + 100 * mpp, 100, 100, mpp)
            assert np.abs(whole[:, 100:].astype(int) - right).max() <= 1


def test_a_level_within_two_percent_is_given_as_it_is_stored(slide):
    with open_slide(slide) as reader:
        assert reader.effective_mpp(0.505) == (0.5, 0.5)
        assert reader.effective_mpp(1.98) == (2.0, 2.0)
        np.testing.assert_array_equal(reader.read(0, 0, 90, 90, 0.505), reader.read(0, 0, 90, 90, 0.5))


def test_a_finer_scale_than_was_scanned_is_refused(slide):
    with open_slide(slide) as reader, pytest.raises(MedclipError) as caught:
        reader.read(0, 0, 10, 10, 0.25)
    assert caught.value.reason is Reason.TOO_SMALL


def test_a_region_over_the_limit_is_refused_before_it_is_read(slide):
    with open_slide(slide, replace(Settings(), max_pixels=10_000)) as reader, pytest.raises(MedclipError) as caught:
        reader.read(0, 0, 200, 200, 0.5)
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_slide_without_pixel_size_says_so_and_takes_the_users(tmp_path, image):
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, image[:300, :400], photometric="rgb", metadata=None)
    with open_slide(path) as reader, pytest.raises(MedclipError) as caught:
        reader.read(0, 0, 10, 10, 0.5)
    assert caught.value.reason is Reason.NO_SCALE
    with open_slide(path, Settings(policy=ReadPolicy(mpp_um=0.25))) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 300, 400, 0.25), image[:300, :400])


def test_the_users_pixel_size_never_replaces_a_stated_one(slide):
    with open_slide(slide, Settings(policy=ReadPolicy(mpp_um=0.1))) as reader:
        assert reader.mpp_um == pytest.approx((MPP, MPP))


def _read_corner(reader) -> np.ndarray:
    return reader.read(10, 20, 64, 64, 1.0)


def test_a_reader_survives_pickling_and_spawn(slide):
    with open_slide(slide) as reader:
        here = _read_corner(reader)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            there = pool.apply(_read_corner, (reader,))
        np.testing.assert_array_equal(here, there)
        np.testing.assert_array_equal(here, _read_corner(pickle.loads(pickle.dumps(reader))))


def test_a_closed_reader_opens_again(slide):
    reader = open_slide(slide)
    before = _read_corner(reader)
    reader.close()
    np.testing.assert_array_equal(before, _read_corner(reader))
    reader.close()


def test_a_damaged_tile_is_one_reason_and_the_reader_lives_on(tmp_path, image):
    path = write_pyramid(tmp_path / "a.tiff", image, steps=(1,))
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[9], tiff.pages[0].databytecounts[9]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\xff\xd8" + b"\x55" * (count - 2)
    path.write_bytes(data)
    with open_slide(path) as reader:
        with pytest.raises(MedclipError) as caught:
            reader.read(256 * MPP, 256 * MPP, 256, 256, MPP)
        assert caught.value.reason is Reason.CORRUPT
        assert reader.read(0, 0, 256, 256, MPP).shape == (256, 256, 3)


def test_a_cut_off_file_says_truncated(tmp_path, image):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", metadata=None)
    path.write_bytes(path.read_bytes()[:-400_000])
    with pytest.raises(MedclipError) as caught, open_slide(path, Settings(policy=ReadPolicy(mpp_um=0.5))) as reader:
        reader.read(1200 * 0.5, 1600 * 0.5, 256, 256, 0.5)
    assert caught.value.reason in (Reason.TRUNCATED, Reason.CORRUPT)


@pytest.mark.parametrize("content", [b"", b"hello, this is no slide"])
def test_what_is_no_slide_is_refused(tmp_path, content):
    (tmp_path / "x.svs").write_bytes(content)
    with pytest.raises(MedclipError) as caught:
        open_slide(tmp_path / "x.svs")
    assert caught.value.reason is (Reason.NOT_SUPPORTED_YET if content else Reason.EMPTY_FILE)


def test_an_ome_tiff_of_16_bit_channels_becomes_colour(tmp_path):
    rng = np.random.default_rng(0)
    planes = rng.integers(100, 4000, (2, 300, 260)).astype(np.uint16)
    sizes = {"axes": "CYX", "PhysicalSizeX": 650, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.65}
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, tile=(128, 128), metadata=sizes, compression="zlib")
    with open_slide(tmp_path / "a.ome.tif") as reader:
        assert reader.mpp_um == pytest.approx((0.65, 0.65))
        found = reader.read(0, 0, 300, 260, 0.65)
        assert reader.notes
    assert not found[:, :, 2].any()
    for channel in range(2):
        assert np.corrcoef(found[:, :, channel].ravel(), planes[channel].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("layout", ["contig", "separate"])
def test_ome_tiffs_of_8_bit_colour_stay_as_they_are(tmp_path, image, layout):
    part = image[:300, :420]
    data, axes = (part, "YXS") if layout == "contig" else (part.transpose(2, 0, 1), "SYX")
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        data,
        tile=(128, 128),
        photometric="rgb",
        planarconfig=layout,
        metadata={"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )
    with open_slide(tmp_path / "a.ome.tif") as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 300, 420, 0.5), part)
        assert (reader.read(-10, -10, 20, 20, 0.5) == 255).all()


def jpegs(image: np.ndarray, colour: str, **options) -> list[bytes]:
    return [
        imagecodecs.jpeg8_encode(part, level=95, colorspace="RGB", outcolorspace=colour, **options)
        for part in tiles_of(image, 128)
    ]


@pytest.mark.parametrize("stated", ["RGB", "YBR_FULL_422"])
@pytest.mark.parametrize("held", ["YCBCR", "RGB"])
def test_dicom_slides_are_decoded_by_what_the_jpeg_says_of_itself(tmp_path, image, stated, held):
    part = image[600:860, 500:800]
    path = write_dicom_slide(tmp_path / "a.dcm", part, photometric=stated, frames=jpegs(part, held))
    with open_slide(path) as reader:
        assert reader.mpp_um == pytest.approx((MPP, MPP))
        assert reader.properties["objective_power"] == 20
        found = reader.read(0, 0, 260, 300, MPP)
    assert np.abs(found.astype(int) - part).mean() < 6


def test_native_dicom_tiles_are_read_exactly(tmp_path, image):
    part = image[600:860, 500:800]
    path = write_dicom_slide(tmp_path / "a.dcm", part, photometric="RGB")
    with open_slide(path) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 260, 300, MPP), part)
        assert "Planted" not in str(reader.facts)


def test_a_jpeg_without_marks_is_what_the_header_says():
    image = np.zeros((16, 16, 3), np.uint8)
    plain = imagecodecs.jpeg8_encode(image, colorspace="RGB", outcolorspace="YCBCR", subsampling="444")
    at = plain.index(b"\xff\xe0")
    bare = plain[:at] + plain[at + 2 + int.from_bytes(plain[at + 2 : at + 4], "big") :]
    assert jpeg_colour(plain, "RGB") == "YCBCR"
    assert jpeg_colour(bare, "RGB") == "RGB"
    assert jpeg_colour(bare, "YCBCR") == "YCBCR"
    assert jpeg_colour(b"\xff\xd8\xff", "RGB") == "RGB"


@pytest.mark.shared
def test_the_dicom_pyramid_shows_the_colours_of_the_svs_it_was_made_from(shared):
    wsi = shared / "data" / "field_dev" / "wsi"
    with (
        open_slide(wsi / "svs" / "CMU-1-Small-Region.svs") as truth,
        open_slide(sorted((wsi / "dicom-cmu1-pyramid").glob("*.dcm"))) as dicom,
    ):
        assert truth.size_px == dicom.size_px == (2967, 2220)
        a, b = (reader.read(400, 300, 1024, 1024, 0.499).reshape(-1, 3).mean(0) for reader in (truth, dicom))
        assert np.abs(a - b).max() < 3


@pytest.mark.shared
def test_an_svs_is_equal_to_openslide_and_keeps_its_label_to_itself(shared):
    path = shared / "data" / "field_dev" / "wsi" / "svs" / "CMU-1-Small-Region.svs"
    with open_slide(path) as reader:
        found = reader.read(333 * 0.499, 211 * 0.499, 700, 640, 0.499)
        assert set(reader.associated) == {"label", "macro", "thumbnail"}
        assert set(reader.properties) == {"vendor", "objective_power"}
    np.testing.assert_array_equal(found, through_openslide(path, 333, 211, 700, 640))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken.svs", Reason.NOT_SUPPORTED_YET),
        ("zero_length.svs", Reason.EMPTY_FILE),
        ("unreadable.svs", Reason.CORRUPT),
        ("truncated_300k.svs", Reason.TRUNCATED),
        ("unopenable.tiff", Reason.NOT_SUPPORTED_YET),
    ],
)
def test_broken_slides_end_in_one_reason(shared, name, reason):
    with pytest.raises(MedclipError) as caught, open_slide(shared / "data/field_dev/wsi/broken" / name) as reader:
        reader.read(0, 0, 16, 16, 0.499)
    assert caught.value.reason is reason


@pytest.mark.shared
def test_a_segmentation_is_never_a_slide(shared):
    with pytest.raises(MedclipError) as caught:
        open_slide(shared / "data/field_dev/wsi/dicom-highdicom/seg_image_sm_dots.dcm")
    assert caught.value.reason is Reason.NOT_AN_IMAGE


@pytest.mark.shared
def test_jpeg_ls_and_native_twins_of_a_dicom_slide_are_equal(shared):
    folder = shared / "data/field_dev/wsi/dicom-highdicom"
    with open_slide(folder / "sm_image.dcm") as a, open_slide(folder / "sm_image_jpegls.dcm") as b:
        np.testing.assert_array_equal(a.read(0, 0, 50, 50, 0.499), b.read(0, 0, 50, 50, 0.499))
