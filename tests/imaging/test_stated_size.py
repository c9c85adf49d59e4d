"""Tiles that unpack to more than their place, or claim to, take no memory: as images, as slides and in every codec."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import imagecodecs
import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format
from medclip.imaging.raster import read_raster
from medclip.imaging.raster_end import check_stated_size, stated_size
from medclip.imaging.slides.readers.open import open_slide
from medclip.settings import Settings
from tests.kits import bombs
from tests.kits.slides import write_dicom_slide

SETTINGS = Settings()
_CODECS = ("png", "webp", "jpegxl", "jpegxr", "lerc", "jpeg2k", "jpeg8", "htj2k")
_LITTLE = 64 * 2**20


@pytest.fixture(scope="module")
def packed() -> dict[str, tuple[int, bytes]]:
    return bombs.packed()


@pytest.mark.parametrize("codec", _CODECS)
@pytest.mark.parametrize("shape", [(40, 24), (64, 64), (300, 200), (360, 640), (777, 1234)])
def test_the_size_of_every_codec_is_read_from_its_first_bytes(codec: str, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    stream = getattr(imagecodecs, f"{codec}_encode")(pixels)
    assert stated_size(stream) == shape
    check_stated_size(stream, *shape)
    with pytest.raises(MedclipError, match="claims to hold"):
        check_stated_size(stream, shape[0] - 17, shape[1])
    for end in range(min(len(stream), 40)):
        stated_size(stream[:end])  # raises nothing: what is cut, its decoder says


def test_jpeg_xl_in_boxes_and_lossless_webp_state_their_size() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8)
    assert stated_size(imagecodecs.jpegxl_encode(pixels, usecontainer=True)) == (300, 200)
    assert stated_size(imagecodecs.webp_encode(pixels, lossless=True)) == (300, 200)


@pytest.mark.parametrize("columns", [120, 144, 160, 180, 240], ids=lambda n: f"{n} to 120")
def test_jpeg_xl_states_common_ratios_by_their_number(columns: int) -> None:
    for shape in ((120, columns), (135, 240)):
        assert stated_size(imagecodecs.jpegxl_encode(np.zeros((*shape, 3), np.uint8))) == shape


@pytest.mark.parametrize(("version", "sums"), [(2, 0), (3, 1), (4, 1)])
def test_lerc_states_its_size_behind_a_check_sum_from_its_third_version_on(version: int, sums: int) -> None:
    stream = b"Lerc2 " + struct.pack(f"<i{sums}Iii", version, *[7] * sums, 300, 200) + bytes(40)
    assert stated_size(stream) == (300, 200)


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_jpeg_xl_that_is_cut_within_its_header_states_its_size(cut: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8)
    code = imagecodecs.jpegxl_encode(pixels, usecontainer=False)
    parts = [code[:cut], b"", code[cut:]]
    boxes = [b"\0\0\0\x0cJXL \r\n\x87\n", _box(b"ftyp", b"jxl \0\0\0\0jxl ")]
    boxes += [_box(b"jxlp", (n + (n == 2) * 2**31).to_bytes(4, "big") + part) for n, part in enumerate(parts)]
    stream = b"".join(boxes)
    assert imagecodecs.jpegxl_decode(stream).shape == pixels.shape, "a decoder takes it"
    assert stated_size(stream) == (300, 200)


def _box(kind: bytes, body: bytes) -> bytes:
    """A box with its length in 64 bits."""
    return (1).to_bytes(4, "big") + kind + (16 + len(body)).to_bytes(8, "big") + body


@pytest.mark.parametrize("codec", bombs.claiming())
def test_a_tile_that_claims_to_be_huge_is_refused_before_it_is_decoded(codec: str, tmp_path) -> None:
    compression, stream = bombs.claiming()[codec]
    image = bombs.write_tiff(tmp_path / "a.tif", compression, stream, side=256, samples=3)
    slide = bombs.write_tiff(tmp_path / "b.tif", compression, stream, side=2048, samples=3)
    with bombs.peak_memory() as peak:
        with pytest.raises(MedclipError) as caught:
            read_raster(image, Format.TIFF, SETTINGS)
        assert caught.value.reason in (Reason.CORRUPT, Reason.TOO_LARGE, Reason.TRUNCATED)
        with open_slide(slide, SETTINGS) as reader, pytest.raises(MedclipError) as caught:
            reader._backend().read_level(0, 0, 0, 64, 64)
        assert caught.value.reason in (Reason.CORRUPT, Reason.TRUNCATED)
    assert peak.num_bytes < _LITTLE


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("codec", ["deflate", "deflate of Adobe", "LZMA", "zstd", "PackBits", "LZW"])
def test_a_tile_that_unpacks_to_much_fills_its_place_and_no_more(codec: str, bits: int, packed, tmp_path) -> None:
    compression, stream = packed[codec]
    image = bombs.write_tiff(tmp_path / "a.tif", compression, stream, side=256, samples=1, bits=bits)
    slide = bombs.write_tiff(tmp_path / "b.tif", compression, stream, side=2048, samples=1, bits=bits)
    with bombs.peak_memory() as peak:
        with suppress(MedclipError):  # some decoders refuse it
            assert read_raster(image, Format.TIFF, SETTINGS).pixels.shape == (256, 256, 1)
        with suppress(MedclipError), open_slide(slide, SETTINGS) as reader:
            assert reader._backend().read_level(0, 0, 0, 64, 64).shape[:2] == (64, 64)
    assert peak.num_bytes < _LITTLE


@pytest.mark.parametrize("codec", ["JPEG", "JPEG 2000 of one tile"])
def test_a_tile_of_a_dicom_slide_that_claims_to_be_huge_is_refused_before_it_is_decoded(codec: str, tmp_path) -> None:
    _, stream = bombs.claiming()[codec]
    syntax = {"JPEG": "1.2.840.10008.1.2.4.50", "JPEG 2000 of one tile": "1.2.840.10008.1.2.4.90"}[codec]

    def edit(dataset: Any) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax

    image = np.full((256, 256, 3), 200, np.uint8)
    path = write_dicom_slide(tmp_path / "a.dcm", image, photometric="RGB", frames=[stream] * 4, edit=edit)
    with bombs.peak_memory() as peak, open_slide(path, SETTINGS) as reader:
        with pytest.raises(MedclipError, match=r"claims to hold|does not decode") as caught:
            reader._backend().read_level(0, 0, 0, 64, 64)
        assert caught.value.reason is Reason.CORRUPT
    assert peak.num_bytes < _LITTLE
