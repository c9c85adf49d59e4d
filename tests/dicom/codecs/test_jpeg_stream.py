"""A JPEG is read where its compressed data lasts to its last pixel, and refused where it does not."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from medclip.dicom.codecs.codestream import (
    END,
    OTHER_DATA,
    DataMissingError,
    decode_compared,
    decode_waiting,
    read_jpeg,
)
from medclip.dicom.codecs.completeness import lacks
from tests.kits.codestreams import cut_and_ended, film, zeroed_to_end

GREY = film(8)
COLOUR = np.stack([GREY, np.roll(GREY, 9, 0), np.roll(GREY, 9, 1)], -1)
WAYS: dict[str, dict[str, Any]] = {
    "standard tables": {},
    "tables of its own": {"optimize": True},
    "finest": {"quality": 100, "optimize": True},
    "coarsest": {"quality": 1, "optimize": True},
    "restarts": {"restart_marker_blocks": 3},
    "progressive": {"progressive": True},
}

ARITHMETIC = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO"
    "UlNSMj5aYVpQYEpRUk//yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8AsAPGXOEhGJlsKmsZAy9+Ry5JSu7G8a9YBly5EJC7"
    "G2t8h51yZv4QX7EveLfsifyE6SE1pyR3US9D3rIKd1UwW4wgZAbhQssY9B+hPWzU6FHCYDdMVlgfvmfOsLpwbux4jqIq/wA5YcXp"
    "+PJmvx57h2kS6wTK4ecQJv39yMgx8OrBMJ3t3Df/2Q=="
)
"""Noise of 16 x 16 pixels, quality 60; no codec of the tests writes this process."""


def _encode(pixels: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _decode(stream: bytes) -> bytes:
    return Image.open(io.BytesIO(stream), formats=("JPEG",)).tobytes()


@pytest.mark.parametrize("way", [way for way in WAYS if way != "coarsest"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("damage", [cut_and_ended, zeroed_to_end], ids=["cut", "zeroed"])
@pytest.mark.parametrize("percent", [10, 50, 90])
def test_missing_data_is_seen_although_the_end_marker_stands(
    way: str, pixels: NDArray[Any], damage: Callable[[bytes, int], bytes], percent: int
) -> None:
    stream = _encode(pixels, **WAYS[way])
    header = read_jpeg(stream).data
    damaged = stream[:header] + damage(stream[header:], percent)
    with pytest.raises((DataMissingError, OSError)):
        decode_waiting(damaged, _decode)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (17, 33), (300, 401)], ids=str)
def test_whole_images_are_read_as_before(way: str, colours: int, size: tuple[int, int]) -> None:
    """Flat ones with tables of their own are the hardest: black is two bits for each block, all of them zero."""
    noise = np.random.default_rng(0).integers(0, 256, size)
    half_black = noise.copy()
    half_black[size[0] // 3 :] = 0
    grey_below = noise.copy()
    grey_below[size[0] // 2 :] = 128
    for pixels in (noise, half_black, grey_below, np.zeros(size), np.full(size, 128), np.full(size, 255)):
        stream = _encode(pixels if colours == 1 else np.stack([pixels] * 3, -1), **WAYS[way])
        assert decode_waiting(stream, _decode) == _decode(stream)
        assert decode_waiting(stream + b"\xff\xd8 another image \xff\xd9", _decode) == _decode(stream)


@pytest.mark.parametrize("size", [(64, 64), (512, 300), (137, 91)], ids=str)
def test_whole_lossless_images_are_read_also_where_their_data_is_nothing_but_zeros(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size)
    below = np.arange(size[0])[:, None] > size[0] // 2
    for value in (0, 128, 255):
        for pixels in (np.full(size, value), np.where(below, value, noise)):
            stream = bytes(imagecodecs.jpeg8_encode(pixels.astype(np.uint8), lossless=True))
            assert decode_compared(stream, _decode) == _decode(stream)


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_another_image_behind_a_cut_progressive_one_does_not_end_it(percent: int) -> None:
    whole, other = (_encode(pixels, progressive=True) for pixels in (COLOUR, COLOUR[:64, :64]))
    cut = cut_and_ended(whole, percent).rstrip(b"\0")
    assert read_jpeg(whole + other).end == len(whole) - 2
    assert lacks(whole + other) == ""
    for behind in (other, whole):
        assert read_jpeg(cut + behind).end == len(cut) - 2
        if not lacks(cut + behind):
            with pytest.raises(DataMissingError):
                decode_waiting(cut + behind, _decode)


def test_zeros_that_an_arithmetic_coder_left_out_are_not_missed() -> None:
    """Made with libjpeg-turbo: its last bytes were zeros, which other bytes behind the data would replace."""
    stream = base64.b64decode(ARITHMETIC)
    jpeg = read_jpeg(stream)
    assert decode_waiting(stream, _decode) == _decode(stream)
    assert _decode(stream[: jpeg.end] + OTHER_DATA + END) != _decode(stream)
    data = stream[jpeg.data : jpeg.end]
    with pytest.raises(DataMissingError):
        decode_waiting(stream[: jpeg.data] + data[: len(data) // 2] + END, _decode)


def test_zeros_that_are_data_are_needed_and_zeros_that_stand_for_data_are_not() -> None:
    black = np.zeros((1024, 1024), np.uint8)
    for seed in range(50):  # the last byte is filled up with ones, where the data does not fill it
        black[:8] = np.random.default_rng(seed).integers(0, 256, (8, 1024))
        stream = _encode(black, optimize=True)
        end = read_jpeg(stream).end
        if stream[:end].endswith(bytes(64)):
            break
    else:
        raise AssertionError("no image whose data ends in zeros")
    assert decode_waiting(stream, _decode) == _decode(stream)
    with pytest.raises(DataMissingError):
        decode_waiting(stream[:end] + bytes(64) + stream[end:], _decode)


def test_what_a_program_tells_pillow_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataMissingError):
        decode_waiting(cut_and_ended(_encode(GREY), 50), _decode)
    assert ImageFile.LOAD_TRUNCATED_IMAGES
