"""Which stored values a DICOM header declares to be no image."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import value as value_of
from medclip.dicom.header.read import DicomHeader

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
