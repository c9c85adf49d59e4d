"""One compressed image of each transfer syntax that is read, made by code, and ways to cut it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID

from medclip.dicom.codecs import decoders as codecs
from tests.kits.files import dataset

SIDE = 128


class Stream(NamedTuple):
    """A compressed frame and what it must decode to."""

    pixels: NDArray[np.generic]
    bits: int
    data: bytes


def film(bits: int, shift: int = 0) -> NDArray[np.generic]:
    """Draw a grey image with noise, so that every codec has much to store."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + shift
    noise = np.random.default_rng(bits).normal(0, 0.02, (SIDE, SIDE))
    values = (0.5 + 0.3 * np.sin(x / 9) * np.cos(y / 11) + noise).clip(0, 1) * ((1 << bits) - 1)
    return values.astype(np.uint8 if bits == 8 else np.uint16)


_ENCODERS: Mapping[str, tuple[int, Callable[[NDArray[np.generic]], Any]]] = {
    codecs.BASELINE: (8, lambda a: imagecodecs.jpeg8_encode(a, level=95)),
    codecs.EXTENDED: (12, lambda a: imagecodecs.jpeg8_encode(a, level=95, bitspersample=12)),
    codecs.LOSSLESS: (12, lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=4, bitspersample=12)),
    codecs.LOSSLESS_SV1: (12, lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=1, bitspersample=12)),
    codecs.JPEG_LS: (16, imagecodecs.jpegls_encode),
    codecs.JPEG_LS_NEAR: (16, lambda a: imagecodecs.jpegls_encode(a, level=2)),
    codecs.JPEG_2000[0]: (12, lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k", bitspersample=12)),
    codecs.JPEG_2000[1]: (8, lambda a: imagecodecs.jpeg2k_encode(a, level=60, codecformat="j2k", reversible=False)),
    codecs.HTJ2K[0]: (16, lambda a: imagecodecs.htj2k_encode(a, reversible=True, rgb=False)),
    codecs.HTJ2K[1]: (16, lambda a: imagecodecs.htj2k_encode(a, reversible=True, rgb=False)),
    codecs.HTJ2K[2]: (8, lambda a: imagecodecs.htj2k_encode(a, reversible=False, rgb=False)),
    codecs.RLE: (12, lambda a: _rle(a)),
}
SYNTAXES = tuple(_ENCODERS)
WITH_END = tuple(uid for uid in SYNTAXES if uid != codecs.RLE)
"""Syntaxes whose streams have an end marker of two bytes."""


@cache
def stream(uid: str, shift: int = 0) -> Stream:
    """Encode the test image in a transfer syntax."""
    bits, encode = _ENCODERS[uid]
    pixels = film(bits, shift)
    return Stream(pixels, bits, bytes(encode(pixels)))


def cut(data: bytes, percent: int) -> bytes:
    """Keep so much of a stream."""
    return data[: len(data) * percent // 100]


def cut_and_ended(data: bytes, percent: int) -> bytes:
    """Cut a stream and put its end marker back, as repair tools do."""
    body = data.rstrip(b"\0")
    ended = cut(body, percent) + body[-2:]
    return ended + bytes(len(ended) % 2)


def zeroed_to_end(data: bytes, percent: int) -> bytes:
    """Overwrite a stream with zeros up to its end marker."""
    body = data.rstrip(b"\0")
    kept = cut(body, percent)
    return kept + bytes(len(body) - 2 - len(kept)) + body[-2:] + bytes(len(body) % 2)


def ended_before_old_data(data: bytes, percent: int) -> bytes:
    """End a stream early in a buffer that still holds another whole one."""
    body = data.rstrip(b"\0")
    kept = cut(body, percent)
    return kept + body[-2:] + body[len(kept) :] + bytes(len(body) % 2)


def half_zeroed(data: bytes) -> bytes:
    """Overwrite the second half with zeros, as a copy that stopped does in a file of the right size."""
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def write_streams(path: Path, uid: str, streams: list[bytes], **elements: object) -> Path:
    """Write frames in a transfer syntax, whole or not, into a DICOM file that is whole."""
    made = stream(uid)
    more = {"NumberOfFrames": len(streams)} if len(streams) > 1 else {}
    data = dataset(made.pixels, **({"BitsStored": made.bits, "HighBit": made.bits - 1} | more | elements))
    data.file_meta.TransferSyntaxUID = UID(uid)
    data.PixelData = encapsulate(streams)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)
    return path


def _rle(pixels: NDArray[np.generic]) -> bytes:
    data = dataset(pixels)
    data.compress(codecs.RLE, encoding_plugin="pydicom", generate_instance_uid=False)
    return get_frame(data.PixelData, 0, number_of_frames=1)
