"""Colour in DICOM: YBR to RGB, and palettes."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 16
_HALVES = (78 << 8 | 178, 178 << 8 | 78)
"""Cb and Cr for which green lies on a half exactly, so that the rounding noise of pydicom's float32 decides."""


def ybr_to_rgb(pixels: NDArray[Any]) -> NDArray[Any]:
    """Convert YBR_FULL to RGB (PS3.3 C.7.6.3.1.2), rounded and clipped.

    Values are those of pydicom for all 256³ colours of 8 bits, in a tenth of the time: what chroma adds to luma is
    looked up.

    Args:
        pixels: ... x 3, uint8; other types go to pydicom.
    """
    if pixels.dtype != np.uint8:
        return _by_pydicom(pixels)
    red, green, blue = _chroma()
    flat = pixels.reshape(-1, 3)
    out = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _BLOCK):
        part = flat[start : start + _BLOCK]
        luma = part[:, 0].astype(np.int16)
        b, r = part[:, 1].astype(np.intp), part[:, 2].astype(np.intp)
        pair = (b << 8) | r
        for channel, added in enumerate((red.take(r), green.take(pair), blue.take(b))):
            out[start : start + _BLOCK, channel] = np.clip(luma + added, 0, 255)
        halves = (pair == _HALVES[0]) | (pair == _HALVES[1])
        if halves.any():
            out[start : start + _BLOCK][halves] = _by_pydicom(part[halves])
    return out.reshape(pixels.shape)


def _by_pydicom(pixels: NDArray[Any]) -> NDArray[Any]:
    from pydicom.pixels.processing import convert_color_space

    return np.asarray(convert_color_space(pixels, "YBR_FULL", "RGB"))


@cache
def _chroma() -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
    """What Cr adds to red, Cb and Cr (index 256 Cb + Cr) to green, Cb to blue."""
    signed = np.arange(256) - 128.0
    green = -0.114 * 1.772 / 0.587 * signed[:, None] - 0.299 * 1.402 / 0.587 * signed[None, :]
    tables = [np.floor(t + 0.5).astype(np.int16) for t in (1.402 * signed, green.ravel(), 1.772 * signed)]
    return tables[0], tables[1], tables[2]


def apply_palette(indices: NDArray[Any], dataset: Any) -> NDArray[Any]:
    """Look colours up (PS3.3 C.7.6.3.1.5 and C.7.9.2, segmented ones too).

    pydicom's `apply_color_lut` wraps indices above 255 round for tables of bytes, takes the byte offset of a repeated
    segment of words for a place, and expands segments that refer to themselves without end.

    Args:
        indices: Stored values of any shape.
        dataset: Data set that holds the palette.

    Returns:
        ... x 3; uint8, or uint16 where the palette uses more than 8 bits.

    Raises:
        ValueError: If there is no usable palette.
    """
    tables, first = _palette(dataset)
    places = np.clip(indices.astype(np.int64) - first, 0, tables.shape[0] - 1)
    return tables[places]


def _palette(dataset: Any) -> tuple[NDArray[Any], int]:
    """Return entries x 3 and the stored value of the first entry."""
    channels = []
    first = 0
    for name in ("Red", "Green", "Blue"):
        count, first, bits = (int(v) for v in dataset[f"{name}PaletteColorLookupTableDescriptor"].value)
        count = count or 1 << 16
        plain = dataset.get(f"{name}PaletteColorLookupTableData")
        if plain is not None:
            channels.append(_entries(plain, count, dataset))
        else:
            segments = dataset[f"Segmented{name}PaletteColorLookupTableData"].value
            channels.append(_expand(segments, count, bits, dataset))
    if first >= 1 << 15 and dataset.get("PixelRepresentation") == 1:
        first -= 1 << 16  # written as unsigned beside signed pixels
    shortest = min(len(channel) for channel in channels)
    if not shortest:
        raise ValueError("an empty palette")
    tables = np.stack([channel[:shortest] for channel in channels], axis=1)
    # Some writers declare 16 bits and store 8: shown as stored, such an image would be black.
    return (tables.astype(np.uint8) if tables.max() < 256 else tables), first


def _order(dataset: Any) -> str:
    return "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"


def _entries(data: bytes, count: int, dataset: Any) -> NDArray[Any]:
    """Read plain entries: 16-bit words, or bytes where the data has only as many."""
    if len(data) >= 2 * count:
        return np.frombuffer(data, f"{_order(dataset)}u2", count).astype(np.uint16)
    if len(data) < count:
        raise ValueError("a palette with fewer entries than it states")
    entries = np.frombuffer(data, np.uint8)[:count]
    if _order(dataset) == ">":  # bytes in swapped words
        entries = np.frombuffer(data, np.uint8)[: len(data) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()[:count]
    return entries


def _expand(data: bytes, count: int, bits: int, dataset: Any) -> NDArray[Any]:
    """Expand segments: 0 gives values, 1 a straight line to a value, 2 repeats segments at an offset."""
    kind = "u1" if bits <= 8 else f"{_order(dataset)}u2"
    words = [int(word) for word in np.frombuffer(data, kind, len(data) // np.dtype(kind).itemsize)]
    out: list[int] = []
    at = 0
    while at + 1 < len(words) and len(out) < count:
        at = _segment(words, at, out, count, wide=bits > 8)
    return np.clip(np.array(out[:count]), 0, (1 << (8 if bits <= 8 else 16)) - 1).astype(
        np.uint8 if bits <= 8 else np.uint16
    )


def _segment(words: list[int], at: int, out: list[int], count: int, *, wide: bool) -> int:
    """Append one segment's values; give the place of the next one."""
    code, length = words[at], words[at + 1]
    if code == 0:
        out.extend(words[at + 2 : at + 2 + length])
        return at + 2 + length
    if code == 1:
        if not out:
            raise ValueError("a palette that starts with a line")
        start, end = out[-1], words[at + 2]
        out.extend(round(start + (end - start) * step / length) for step in range(1, min(length, count) + 1))
        return at + 3
    if code == 2:
        if wide:  # the offset counts bytes
            target, after = (words[at + 2] | words[at + 3] << 16) // 2, at + 4
        else:
            target, after = int.from_bytes(bytes(words[at + 2 : at + 6]), "little"), at + 6
        for _ in range(length):
            if target + 1 >= len(words) or words[target] == 2 or len(out) > count:
                raise ValueError("a palette that refers to itself")
            target = _segment(words, target, out, count, wide=wide)
        return after
    raise ValueError("an unknown segment")
