"""Which codec decodes which DICOM transfer syntax, and the ones that pydicom does not know.

The order was measured (docs/concepts/pixels.md); a codec comes before pydicom's own choice only where its values are
equal to it. GDCM comes last everywhere: it is the slowest for most syntaxes and can abort the process on damaged files.
The functions follow pydicom's interface for decoding plug-ins (bytes of one frame and a runner that holds the pixel
description), in decoders of our own: pydicom's are shared by the whole process and stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.codecs.codestream import (
    DATA_MISSING,
    DataMissingError,
    decode_compared,
    decode_waiting,
    may_be_made_up,
    size_of,
)
from medclip.dicom.codecs.completeness import NO_END, decode_unterminated, lacks
from medclip.dicom.codecs.transfer_syntax import (
    BASELINE,
    EXTENDED,
    HTJ2K,
    JPEG_2000,
    JPEG_LS,
    JPEG_LS_NEAR,
    LOSSLESS,
    LOSSLESS_SV1,
    NATIVE,
    RLE,
)
from medclip.errors import MedclipError, Reason

PIP_LINE = "pip install 'medclip-imaging[dicom]'"
_HERE = "medclip.dicom.codecs.decoders"
_PYDICOM = "pydicom.pixels.decoders"


_ORDER: dict[str, tuple[str, ...]] = {
    BASELINE: ("Pillow", "gdcm"),
    EXTENDED: ("imagecodecs", "gdcm"),
    LOSSLESS: ("imagecodecs", "gdcm"),
    LOSSLESS_SV1: ("imagecodecs", "gdcm"),
    JPEG_LS: ("imagecodecs", "pyjpegls", "gdcm"),
    JPEG_LS_NEAR: ("imagecodecs", "pyjpegls", "gdcm"),
    **dict.fromkeys(JPEG_2000, ("openjpeg", "pillow", "gdcm")),
    **dict.fromkeys(HTJ2K, ("imagecodecs", "openjpeg")),
    RLE: ("rle", "pydicom"),
}
COMPRESSED = frozenset(_ORDER)
"""Syntaxes of compressed pixels that are read."""
_PLUGINS = {
    "Pillow": (_HERE, "decode_baseline"),
    "imagecodecs": (_HERE, "decode_imagecodecs"),
    "pillow": (f"{_PYDICOM}.pillow", "_decode_frame"),
    "pyjpegls": (f"{_PYDICOM}.pyjpegls", "_decode_frame"),
    "openjpeg": (f"{_PYDICOM}.pylibjpeg", "_decode_frame"),
    "rle": (f"{_PYDICOM}.pylibjpeg", "_decode_frame"),
    "pydicom": (f"{_PYDICOM}.rle", "_decode_frame"),
    "gdcm": (f"{_PYDICOM}.gdcm", "_decode_frame"),
}
_SPOKEN = {"openjpeg": "pylibjpeg-openjpeg", "rle": "pylibjpeg-rle", "gdcm": "GDCM", "pillow": "Pillow"}

ENDS = "medclip_ends"
"""Name of the option that holds an `Ends`."""

DECODER_DEPENDENCIES = dict.fromkeys(_ORDER, ("imagecodecs",))
"""What pydicom asks a plug-in's module for."""


class Codecs(NamedTuple):
    """What can decode one transfer syntax here."""

    names: tuple[str, ...]
    """Codecs that are installed, in the order in which they are tried."""
    missing: str
    """The pip line that brings one, where `names` is empty; else ""."""


def is_available(uid: str) -> bool:
    """Return whether our own plug-in for a syntax can work (pydicom calls this)."""
    if uid == BASELINE:
        return True
    try:
        import imagecodecs
    except ImportError:
        return False
    needed = {
        EXTENDED: ("JPEG8",),
        LOSSLESS: ("LJPEG", "JPEG8"),
        LOSSLESS_SV1: ("LJPEG", "JPEG8"),
        JPEG_LS: ("JPEGLS",),
        JPEG_LS_NEAR: ("JPEGLS",),
        **dict.fromkeys(HTJ2K, ("HTJ2K",)),
    }
    return any(getattr(getattr(imagecodecs, name, None), "available", False) for name in needed.get(str(uid), ()))


def available(uid: str) -> Codecs:
    """Return which installed codecs decode a transfer syntax, and what to install where there is none.

    Args:
        uid: A transfer syntax UID that holds still images.

    Example:
        >>> available("1.2.840.10008.1.2.1").names
        ('needs no decoder',)
    """
    if uid in NATIVE:
        return Codecs(("needs no decoder",), "")
    names = tuple(_SPOKEN.get(name, name) for name in in_order(uid)) if uid in _ORDER else ()
    return Codecs(names, "" if names else PIP_LINE)


def in_order(uid: str) -> tuple[str, ...]:
    """Return the installed plug-ins of a compressed syntax in the order in which they are tried."""
    available = decoder_for(uid).available_plugins
    return tuple(name for name in _ORDER[uid] if name in available)


def spoken(plugin: str) -> str:
    """Return the package name of a plug-in."""
    return _SPOKEN.get(plugin, plugin)


@cache
def decoder_for(uid: str) -> Any:
    """Return the decoder of a compressed transfer syntax with its plug-ins in the measured order.

    Raises:
        MedclipError: NOT_SUPPORTED_YET for a syntax that no codec here decodes.
    """
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID

    if uid not in _ORDER:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET, f"the DICOM transfer syntax {_known(uid)} is not one that can be decoded."
        )
    decoder = Decoder(UID(uid))
    for name in _ORDER[uid]:
        decoder.add_plugin(name, _PLUGINS[name])
    for name in decoder.available_plugins:
        decoder._available[name] = _guarded(decoder._available[name], _WHOLE_JPEG.get(name) if uid in _JPEG else None)
    return decoder


@dataclass
class Ends:
    """What the guard of a decoder is told, and what it saw, about how frames end: an option of pydicom's runner."""

    accept: bool
    """Whether a frame that lacks its end marker, and nothing else, is decoded."""
    accepted: int = 0
    """How many such frames were decoded."""
    lacking: str = ""
    """What the last refused frame lacks."""
    refused: bytes = b""
    """The last frame whose data ends before its pixels do; no other decoder is to try it."""


def _guarded(decode: Any, strictly: Any = None) -> Any:
    """Let a decoder see only frames of the size that the header states, with an end.

    A codestream of a few bytes may claim billions of pixels, and decoders take the memory first; one of another shape
    with as many pixels would come out scrambled; and of one that was cut they make up the rest.

    Args:
        decode: The decoder, as pydicom calls it.
        strictly: Calls it so that it makes nothing up; None for a codec that refuses by itself.
    """

    def guarded(src: bytes, runner: Any) -> Any:
        size = size_of(src)
        if size is not None and size != (runner.rows, runner.columns):
            raise ValueError("the codestream is of another size than the header states")
        ends: Ends = runner.get_option(ENDS) or Ends(accept=False)
        lacking = lacks(src)
        if not lacking and strictly is None:
            return decode(src, runner)
        if not lacking:
            try:
                if src != ends.refused:
                    return strictly(decode, src, runner)
            except DataMissingError:
                ends.refused = src
            ends.lacking = DATA_MISSING
            raise DataMissingError(DATA_MISSING)
        ends.lacking = lacking
        if lacking != NO_END or not ends.accept:
            raise ValueError(lacking)
        decoded = decode_unterminated(src, lambda stream: decode(stream, runner))
        ends.lacking = ""
        ends.accepted += 1
        return decoded

    return guarded


def _pillow(decode: Any, src: bytes, runner: Any) -> bytes:
    return decode_waiting(src, lambda stream: decode(stream, runner))


def _libjpeg(decode: Any, src: bytes, runner: Any) -> bytes:
    decoded = decode(src, runner)
    pixels = np.frombuffer(decoded, f"u{runner.bits_allocated // 8}")
    if may_be_made_up(src, pixels[-runner.samples_per_pixel :]):
        return decode_compared(src, lambda stream: decode(stream, runner))
    return decoded


_JPEG = frozenset({BASELINE, EXTENDED, LOSSLESS, LOSSLESS_SV1})
_WHOLE_JPEG = {"Pillow": _pillow, "imagecodecs": _libjpeg, "gdcm": _libjpeg}


def _known(uid: str) -> str:
    """Return a UID of the standard; anything else could be an identifier of somebody."""
    return uid if uid.startswith("1.2.840.10008.1.2") else "of this file"


def decode_baseline(src: bytes, runner: Any) -> bytes:
    """Decode an 8-bit JPEG frame with Pillow (libjpeg-turbo), colour by the codestream where that speaks.

    Header and codestream contradict each other often. A JFIF or Adobe marker decides, as in every JPEG viewer
    (pydicom heeds JFIF and converts twice where the Adobe marker says YCbCr and the header agrees); chroma of half the
    size is YCbCr whatever anyone says; without any marker the header is believed.
    """
    from PIL import Image

    image = Image.open(BytesIO(src), formats=("JPEG",))
    if runner.samples_per_pixel == 3:
        adobe = image.info.get("adobe_transform")
        halved = len({layer[1:3] for layer in getattr(image, "layer", ())}) > 1
        image.draft("YCbCr", image.size)
        ids = [layer[0] for layer in getattr(image, "layer", ())]
        if adobe == 1 or halved:
            runner.set_option("photometric_interpretation", "YBR_FULL")
        elif adobe == 0 or ids == [82, 71, 66]:
            runner.set_option("photometric_interpretation", "RGB")
    elif image.mode != "L":
        raise ValueError("more samples than the header states")
    return image.tobytes()


def decode_imagecodecs(src: bytes, runner: Any) -> bytes:
    """Decode a JPEG lossless, JPEG-LS, 12-bit JPEG or HTJ2K frame with imagecodecs."""
    import imagecodecs

    uid = str(runner.transfer_syntax)
    if uid in (JPEG_LS, JPEG_LS_NEAR):
        pixels = imagecodecs.jpegls_decode(src)
    elif uid in HTJ2K:
        pixels = imagecodecs.htj2k_decode(src)
        if pixels.shape == (runner.samples_per_pixel, runner.rows, runner.columns):
            pixels = np.moveaxis(pixels, 0, -1)  # components that were not transformed come plane by plane
        if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
            runner.set_option("photometric_interpretation", "RGB")
    elif uid == EXTENDED:
        pixels = _extended(src, runner)
    else:
        pixels = _lossless(src)
    pixels = np.ascontiguousarray(pixels)
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", pixels.dtype.itemsize * 8)
    return pixels.tobytes()


def _lossless(src: bytes) -> NDArray[Any]:
    import imagecodecs

    return imagecodecs.jpeg8_decode(src)


def _extended(src: bytes, runner: Any) -> NDArray[Any]:
    """8-bit frames of the extended process are read as baseline ones."""
    import imagecodecs

    if runner.samples_per_pixel == 3:
        pixels = np.frombuffer(decode_baseline(src, runner), np.uint8)
        return pixels.reshape(runner.rows, runner.columns, 3)
    return imagecodecs.jpeg8_decode(src)
