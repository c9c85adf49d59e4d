"""The one order of operations for DICOM pixels: modality, window, polarity, padding; and square pixels at the end.

For integers of a moderate range each step is a function of the stored value alone, so the whole chain is computed once
for all values that occur (in float64) and applied in a single look-up: exact, and about ten times faster than running
the chain over the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import present, text
from medclip.dicom.header.elements import value as value_of
from medclip.dicom.header.read import DicomHeader
from medclip.dicom.pixels.modality_and_voi import Element, Values, to_display, to_modality
from medclip.errors import MedclipError, Reason
from medclip.sample import Step
from medclip.settings import PixelPolicy

# Colour in DICOM: YBR to RGB, and palettes.

_COLOUR_BLOCK = 1 << 16
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
    for start in range(0, len(flat), _COLOUR_BLOCK):
        part = flat[start : start + _COLOUR_BLOCK]
        luma = part[:, 0].astype(np.int16)
        b, r = part[:, 1].astype(np.intp), part[:, 2].astype(np.intp)
        pair = (b << 8) | r
        for channel, added in enumerate((red.take(r), green.take(pair), blue.take(b))):
            out[start : start + _COLOUR_BLOCK, channel] = np.clip(luma + added, 0, 255)
        halves = (pair == _HALVES[0]) | (pair == _HALVES[1])
        if halves.any():
            out[start : start + _COLOUR_BLOCK][halves] = _by_pydicom(part[halves])
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


def apply_palette(indices: NDArray[Any], dataset: Any, *, shown: bool = False) -> NDArray[Any]:
    """Look colours up (PS3.3 C.7.6.3.1.5 and C.7.9.2, segmented ones too).

    pydicom's `apply_color_lut` wraps indices above 255 round for tables of bytes, takes the byte offset of a repeated
    segment of words for a place, and expands segments that refer to themselves without end.

    Args:
        indices: Stored values of any shape.
        dataset: Data set that holds the palette.
        shown: Whether colours of more than 8 bits become float32 (0-1).

    Returns:
        ... x 3; uint8, or uint16 where the palette uses more than 8 bits.

    Raises:
        ValueError: If there is no usable palette.
    """
    tables, first = _palette(dataset)
    if shown:
        tables = _as_shown(tables, 8 * tables.dtype.itemsize)
    if not indices.size:
        return np.empty((*indices.shape, 3), tables.dtype)
    low, high = int(indices.min()), int(indices.max())
    if high - low >= indices.size:
        return tables.take(indices.astype(np.int64) - first, axis=0, mode="clip")
    by_value = tables.take(np.arange(low, high + 1) - first, axis=0, mode="clip")
    unsigned = indices.dtype.kind == "u" and low == 0
    return by_value.take(indices if unsigned else indices.astype(np.int64) - low, axis=0)


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


_FLOAT_NAMES = {
    "f4": ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    "f8": ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
}


class Padding(NamedTuple):
    """The padding of some pixels, and the range of what is left."""

    stated: bool
    """The header states padding, and at least one pixel has it."""
    first: float
    last: float
    value_range: tuple[Any, Any]
    """Smallest and largest value of all pixels (of those that are finite)."""
    extent: tuple[Any, Any]
    """Smallest and largest value outside the padding."""
    nothing: bool = False
    """All pixels are padding."""
    masked: bool = True
    """The policy wants it masked."""

    def inside(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values are masked: padding, and whatever is no number."""
        if not (self.stated and self.masked):
            return ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        padded = (values >= self.first) & (values <= self.last)
        return padded | ~np.isfinite(values) if values.dtype.kind == "f" else padded


def padding_of(dataset: Any, header: DicomHeader, stored: NDArray[Any], *, masked: bool = True) -> Padding:
    """Find PixelPaddingValue and PixelPaddingRangeLimit among pixels.

    Args:
        dataset: The pydicom data set.
        header: Plain values of the header.
        stored: Stored values of any shape.
        masked: Whether padding is to be masked; if not, it counts as image.
    """
    kind = stored.dtype.kind
    usable = stored if kind != "f" else stored[np.isfinite(stored)]
    if not usable.size:
        return Padding(False, 0, 0, (0, 0), (0, 0), nothing=True)
    extremes = _python(usable.min()), _python(usable.max())
    limits = _limits(dataset, header, stored) if masked else None
    if limits is None or limits[1] < extremes[0] or limits[0] > extremes[1]:
        return Padding(False, 0, 0, extremes, extremes, masked=masked)
    first, last = limits
    if first > extremes[0] or last < extremes[1]:
        outside = usable[(usable < first) | (usable > last)]
        if outside.size == usable.size:
            return Padding(False, 0, 0, extremes, extremes, masked=masked)
        if outside.size:
            return Padding(True, first, last, extremes, (_python(outside.min()), _python(outside.max())))
    return Padding(True, first, last, extremes, extremes, nothing=True)


def _python(value: Any) -> Any:
    return value.item()


def _limits(dataset: Any, header: DicomHeader, stored: NDArray[Any]) -> tuple[Any, Any] | None:
    value_name, limit_name = _FLOAT_NAMES.get(
        f"f{stored.dtype.itemsize}" if stored.dtype.kind == "f" else "", ("PixelPaddingValue", "PixelPaddingRangeLimit")
    )
    try:
        value = value_of(dataset, value_name)
        if value is None:
            return None
        other = value_of(dataset, limit_name)
        other = value if other is None else other
        if stored.dtype.kind == "f":
            start, end = float(value), float(other)
        else:
            start, end = _as_stored(int(value), header), _as_stored(int(other), header)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    return min(start, end), max(start, end)


def _as_stored(value: int, header: DicomHeader) -> int:
    """Read a padding value as its pixels are, signed or not.

    Many writers store it as unsigned beside signed pixels (US 63536 for -2000), or the other way round.
    """
    bits = header.bits_stored or header.bits_allocated
    if header.signed and value >= 2 ** (bits - 1):
        return value - 2 ** (bits if value < 2**bits else header.bits_allocated)
    if not header.signed and value < 0:
        return value + 2**header.bits_allocated
    return value


PERCENTILES = (0.1, 99.9)
"""What becomes black and white in images of more than 8 bits without a window; the same as for deep PNG, so that one
hot pixel does not make the image black."""

_SAMPLES = 1_000_000
"""Percentiles are taken over about this many pixels of a regular grid."""
_WIDEST_TABLE = 1 << 20
_BLOCK = 1 << 14
"""Pixels per look-up: the buffers stay in the processor's cache, which is three times as fast."""


class Chain:
    """What is done to the frames of one grey object.

    Args:
        dataset: The pydicom data set.
        header: Plain values of the header.
        policy: Policy of what the header leaves open.
    """

    def __init__(self, dataset: Any, header: DicomHeader, policy: PixelPolicy) -> None:
        self.dataset, self.header, self.policy = dataset, header, policy

    def display(self, stored: NDArray[Any], element: Element, steps: list[Step]) -> NDArray[Any]:
        """Map F x H x W stored values to display values: uint8 for up to 8 bits, else float32 (0-1)."""
        deep = self.header.bits_stored > 8 or stored.dtype.kind == "f"
        return self._mapped(stored, element, steps, np.float32 if deep else np.uint8, shown=True)

    def modality(self, stored: NDArray[Any], element: Element, steps: list[Step]) -> NDArray[np.float32]:
        """Map F x H x W stored values to float32 modality units, padding NaN."""
        return self._mapped(stored, element, steps, np.float32, shown=False)

    def _mapped(
        self, stored: NDArray[Any], element: Element, steps: list[Step], dtype: Any, *, shown: bool
    ) -> NDArray[Any]:
        masked = self.policy.padding == "black"
        padding = padding_of(self.dataset, self.header, stored, masked=masked)
        if shown and padding.nothing:
            raise MedclipError(Reason.CONSTANT_IMAGE, "all pixels are padding, so there is nothing to see.")
        if stored.dtype.kind == "f":
            values, places = stored.ravel(), None
        else:
            low, high = padding.value_range
            if high - low < _WIDEST_TABLE:
                values, places = np.arange(low, high + 1), low
            else:
                values, places = stored.ravel(), None
        inside = padding.inside(values)
        if shown:
            result = self._shown(values, places, stored, padding, inside, element, steps)
            if padding.stated or stored.dtype.kind == "f":
                result[inside] = 0.0
            result = np.rint(result * 255) if dtype == np.uint8 else result
        else:
            result = to_modality(values, self.dataset, element, steps)
            result[inside] = np.nan
        if padding.stated and masked:
            what = "black" if shown else "not a number"
            steps.append(Step("padding", f"stored values {padding.first:g} to {padding.last:g} set to {what}"))
        table = result.astype(dtype)
        return table.reshape(stored.shape) if places is None else look_up(stored, table, places)

    def _shown(
        self,
        values: NDArray[Any],
        places: int | None,
        stored: NDArray[Any],
        padding: Padding,
        inside: NDArray[np.bool_],
        element: Element,
        steps: list[Step],
    ) -> Values:
        """Map values to 0 (black) - 1 (white); see `_mapped` for the arguments."""
        limits = np.array([*padding.extent, *self._storable(*padding.extent)])
        both = to_modality(np.concatenate([values, limits.astype(values.dtype)]), self.dataset, element, steps)
        rescaled, ends = both[: len(values)], both[len(values) :]
        result = to_display(rescaled, ends[:2], self.dataset, element, self.policy.window, steps)
        if result is None:
            counts = None
            if self.header.bits_stored > 8 or stored.dtype.kind == "f":
                counts = _histogram(stored, places, len(values), inside)
            what, bottom, top = self._span(rescaled, ends, counts)
            with np.errstate(invalid="ignore"):
                result = np.clip((rescaled - bottom) / ((top - bottom) or 1.0), 0.0, 1.0)
            ignored = any(step.name == "window" for step in steps)
            why = "none wanted" if self.policy.window == "none" else "none usable" if ignored else "none stated"
            steps.append(Step("window", f"{why}; {what}, {bottom:g} to {top:g}"))
        return self._turned(result, steps)

    def _turned(self, shown: Values, steps: list[Step]) -> Values:
        """Invert where header and policy want it, once."""
        first = self.header.photometric == "MONOCHROME1"
        second = text(self.dataset, "PresentationLUTShape").upper() == "INVERSE"
        if not (first or second):
            return shown
        if self.policy.polarity == "stored":
            steps.append(Step("polarity", "left as stored"))
            return shown
        if first and second and self.policy.both_inverse == "cancel":
            steps.append(Step("polarity", "MONOCHROME1 and INVERSE cancel each other"))
            return shown
        steps.append(Step("polarity", "inverted"))
        return 1.0 - shown

    def _storable(self, low: float, high: float) -> tuple[float, float]:
        """Return the range of values that up to 8 bits can hold, widened where the pixels go beyond it."""
        bits = self.header.bits_stored or 8
        if bits > 8 or self.header.float_pixels:
            return low, high
        first = -(2 ** (bits - 1)) if self.header.signed else 0
        return min(low, first), max(high, first + 2**bits - 1)

    def _span(self, rescaled: Values, ends: Values, counts: NDArray[np.int64] | None) -> tuple[str, float, float]:
        """Return which values become black and white where no window does, and in words what they are."""
        # A rescale keeps or reverses the order of values, a modality LUT need not.
        table = present(self.dataset, "ModalityLUTSequence")
        if counts is None:
            span = rescaled if table else ends[2:]
            return "minimum to maximum" if table else "all storable values", float(span.min()), float(span.max())
        if counts.any():
            order = np.argsort(rescaled, kind="stable")
            reached = np.cumsum(counts[order])
            ranks = np.rint((reached[-1] - 1) * np.array(PERCENTILES) / 100)
            bottom, top = (float(rescaled[order[np.searchsorted(reached, rank, side="right")]]) for rank in ranks)
            if top > bottom:
                return f"percentiles {PERCENTILES[0]:g} to {PERCENTILES[1]:g}", bottom, top
        span = rescaled[np.isfinite(rescaled)] if table else ends[:2]
        return "minimum to maximum", float(span.min()), float(span.max())


def _histogram(stored: NDArray[Any], places: int | None, size: int, inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count how often each value occurs on a grid of pixels, padding left out."""
    stride = max(1, round((stored.size / _SAMPLES) ** 0.5))
    if places is None:
        counts = np.zeros(stored.shape, np.int64)
        counts[:, ::stride, ::stride] = 1
        counts = counts.ravel()
    else:
        counts = np.bincount(stored[:, ::stride, ::stride].ravel().astype(np.int64) - places, minlength=size)
    counts[inside] = 0
    return counts


def look_up(stored: NDArray[Any], table: NDArray[Any], first: int) -> NDArray[Any]:
    """Return `table[stored - first]`.

    Args:
        stored: Integers of any shape, none below `first` or beyond the table.
        table: Values, one for each integer.
        first: The integer of the first value.
    """
    size = stored.dtype.itemsize
    kind = np.dtype(f"u{size}")
    source = np.ascontiguousarray(stored).reshape(-1).view(kind)
    out = np.empty(source.shape, table.dtype)
    places = np.empty(min(_BLOCK, source.size), np.intp)
    moved = np.empty(places.shape, kind)
    offset = kind.type(first % (1 << 8 * size))
    for start in range(0, source.size, _BLOCK):
        part = source[start : start + _BLOCK]
        index = places[: part.size]
        if offset:  # unsigned numbers wrap around, so that this is right for signed pixels too
            part = np.subtract(part, offset, out=moved[: part.size])
        index[:] = part
        table.take(index, out=out[start : start + _BLOCK], mode="wrap")
    return out.reshape(stored.shape)


def grey(
    chain: Chain, stored: NDArray[Any], elements: Sequence[Element], steps: list[Step], *, shown: bool
) -> NDArray[Any]:
    """Run the chain over frames; those with equal elements together, so that a loop does not flicker.

    Args:
        chain: The chain.
        stored: F x H x W.
        elements: Elements, one for each frame.
        steps: List that receives what was done; of the first kind of frame where there are several.
        shown: Whether frames become display values; else modality units.
    """
    kinds: dict[Element, list[int]] = {}
    for place, element in enumerate(elements):
        kinds.setdefault(element, []).append(place)
    run = chain.display if shown else chain.modality
    if len(kinds) == 1:
        return run(stored, elements[0], steps)
    parts = []
    for number, (element, places) in enumerate(kinds.items()):
        parts.append((places, run(stored[places], element, steps if number == 0 else [])))
    out = np.empty(stored.shape, parts[0][1].dtype)
    for places, part in parts:
        out[places] = part
    steps.append(Step("frames", f"{len(kinds)} different rescales or windows, each frame with its own"))
    return out


def colour(stored: NDArray[Any], dataset: Any, header: DicomHeader, steps: list[Step]) -> NDArray[Any]:
    """Return F x H x W x 3 RGB; `stored` is RGB already, or F x H x W palette indices."""
    if header.photometric == "PALETTE COLOR":
        steps.append(Step("palette", "to RGB"))
        return apply_palette(stored, dataset, shown=True)
    if header.photometric.startswith("YBR"):
        steps.append(Step("colour", f"{header.photometric} to RGB"))
    return _as_shown(stored, header.bits_stored)


def _as_shown(colours: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return bytes as they are, and deeper colours as float32 (0-1)."""
    if colours.dtype == np.uint8:
        return colours
    return np.clip(colours.astype(np.float32) / np.float32(2**bits - 1), 0, 1)
