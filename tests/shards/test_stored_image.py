from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.shards.stored_data import decode, encode


def smooth(side, channels=3):
    """An image with structure at several scales, as photographs have."""
    rng = np.random.default_rng(0)
    total = np.zeros((side, side, channels))
    for size in (4, 16, 64, 256):
        coarse = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        total += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), float)[:, :, :channels] / size**0.5
    total -= total.min()
    return (total / total.max() * 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_value_and_jpeg_nearly(channels):
    pixels = smooth(120, channels)
    said = {
        "png": np.asarray(decode(encode(pixels, "png", 95))),
        "jpeg": np.asarray(decode(encode(pixels, "jpeg", 95))),
    }
    flat = pixels[:, :, 0] if channels == 1 else pixels
    assert np.array_equal(said["png"], flat)
    assert said["jpeg"].shape == flat.shape
    assert np.abs(said["jpeg"].astype(int) - flat).mean() < 3


def test_a_stored_jpeg_carries_no_metadata():
    with Image.open(io.BytesIO(encode(smooth(64), "jpeg", 90))) as image:
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.parametrize(
    ("side", "wanted", "decoded"),
    [(1024, 256, 512), (1024, 257, 1024), (1023, 64, 256), (2048, 100, 256), (300, 224, 300)],
)
def test_a_large_jpeg_is_decoded_at_a_fraction_that_leaves_twice_what_is_wanted(side, wanted, decoded):
    data = encode(smooth(side), "jpeg", 92)
    assert max(decode(data, wanted).size) == decoded
    assert decoded >= min(side, 2 * wanted)
    assert max(decode(data).size) == side


def test_a_png_is_always_decoded_whole():
    assert decode(encode(smooth(1024), "png", 0), 64).size == (1024, 1024)


def test_what_is_resampled_from_a_fraction_looks_like_what_is_resampled_from_all():
    data = encode(smooth(1024), "jpeg", 92)
    whole, part = (
        np.asarray(i.resize((236, 236), Image.Resampling.BICUBIC), float) for i in (decode(data), decode(data, 236))
    )
    decibel = 10 * np.log10(255**2 / np.mean((whole - part) ** 2))
    assert decibel > 45


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK"])
def test_other_modes_become_grey_or_colour(mode):
    buffer = io.BytesIO()
    Image.fromarray(smooth(40)).convert(mode).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert decode(buffer.getvalue()).mode == ("L" if mode == "1" else "RGB")


def test_webp_is_read():
    buffer = io.BytesIO()
    Image.fromarray(smooth(40)).save(buffer, "WEBP", lossless=True)
    assert np.array_equal(np.asarray(decode(buffer.getvalue())), smooth(40))


def test_what_is_no_image_of_8_bits_is_refused():
    deep = io.BytesIO()
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(deep, "PNG")
    with pytest.raises(MedclipError) as e:
        decode(deep.getvalue())
    assert e.value.reason is Reason.NOT_SUPPORTED_YET
    whole = encode(smooth(64), "png", 0)
    for junk in (b"", b"junk", whole[:200], whole[:-40], encode(smooth(64), "jpeg", 90)[:400], b"GIF89a" + bytes(50)):
        with pytest.raises(MedclipError) as e:
            decode(junk)
        assert e.value.reason is Reason.CORRUPT
