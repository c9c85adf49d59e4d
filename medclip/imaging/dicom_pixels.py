"""Turn stored DICOM pixels into what a person is meant to see.

The order is the standard's (PS3.4 N.2): rescale, values of interest, polarity; padding is set to black at the end.
For grey images of up to 16 bits each step is a function of the stored value alone, so the whole chain is computed once
for all possible values (in float64, by pydicom's functions) and applied in a single look-up: exact, and about ten times
faster than running the chain over the pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.dicom_header import DicomHeader
from medclip.files.quiet import quiet
from medclip.imaging.decoded import Decoded, check_size
from medclip.imaging.dicom_decode import decode, open_dataset
from medclip.sample import Step
from medclip.settings import Settings

PERCENTILES = (0.1, 99.9)
"""What becomes black and white in images of more than 8 bits without a window; the same as for deep PNG, so that one
hot pixel does not make the image black."""

_SAMPLES = 1_000_000
"""Percentiles are taken over about this many pixels of a regular grid."""

_FAR = 1e9
"""A value beyond every window: shows where a VOI function saturates."""


_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "PALETTE COLOR")
_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")


def read_dicom(path: Path, settings: Settings, *, header: DicomHeader | None = None) -> Decoded:
    """Read the pixels of a single-frame DICOM image as they are meant to be seen.

    Grey: rescale or modality LUT; VOI LUT, else the first window (LINEAR, LINEAR_EXACT or SIGMOID), else all values
    that can be stored for up to 8 bits (as in an 8-bit PNG) and the 0.1 to 99.9 percentile of the pixels that are not
    padding for deeper ones; MONOCHROME1 or an INVERSE presentation inverted, once; padding black.
    Colour: YBR and palettes to RGB.

    Args:
        path: The file.
        settings: Limits; the size is checked from the header before pixels are decoded.
        header: The file's header where it was read before; else it is read here.

    Returns:
        H x W x 1 or H x W x 3: uint8 (0-255) for images stored with up to 8 bits, else float32 (0-1).

    Raises:
        MedclipError: NO_PIXELS, NOT_SUPPORTED_YET (several frames), TOO_LARGE, TRUNCATED, CORRUPT, MISSING_CODEC.
    """
    with quiet("pydicom"):
        dataset, known = open_dataset(path, header)
        _check(known, dataset, settings)
        stored, decoder = decode(dataset, known)
        steps = [Step("decode", f"{known.bits_stored} bits stored, {known.photometric}")]
        try:
            if stored.ndim == 3 or known.photometric == "PALETTE COLOR":
                pixels = _colour(stored, dataset, known, steps)
            else:
                pixels = _grey(stored, dataset, known, steps)
        except MedclipError:
            raise
        except Exception:
            raise MedclipError(Reason.CORRUPT, "The DICOM header's pixel description makes no sense.") from None
    return Decoded(pixels, tuple(steps), decoder, public_headers(known))


def public_headers(header: DicomHeader) -> dict[str, Any]:
    """Give the header values that may be shown: they describe the picture, not the person."""
    return {
        "modality": header.modality,
        "sop_class": header.sop_class,
        "transfer_syntax": header.transfer_syntax,
        "photometric": header.photometric,
        "rows": header.rows,
        "columns": header.columns,
        "bits_stored": header.bits_stored,
        "view_position": header.view_position,
        "laterality": header.laterality,
        "presentation_intent": header.presentation_intent,
        "burned_in": header.burned_in,
    }


def _check(header: DicomHeader, dataset: Any, settings: Settings) -> None:
    if header.has_pixels and not header.float_pixels and "PixelData" not in dataset:
        raise MedclipError(Reason.TRUNCATED, "The DICOM file ends before its pixels do.")
    if not header.has_pixels:
        raise MedclipError(Reason.NO_PIXELS, "The DICOM object holds no pixel data.")
    if header.float_pixels:
        raise MedclipError(Reason.NOT_SUPPORTED_YET, "The DICOM object stores floating-point pixels.")
    if header.frames > 1:
        raise MedclipError(Reason.NOT_SUPPORTED_YET, f"The DICOM object holds {header.frames} frames.")
    if not header.photometric:
        raise MedclipError(Reason.CORRUPT, "The DICOM header states no photometric interpretation.")
    if header.photometric not in (*_GREY, *_COLOUR, *_YBR):
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            "The DICOM header's photometric interpretation is none that is read; "
            "MONOCHROME1, MONOCHROME2, RGB, PALETTE COLOR and YBR are.",
        )
    check_size(header.columns, header.rows, settings)


def _grey(stored: NDArray[Any], dataset: Any, header: DicomHeader, steps: list[Step]) -> NDArray[Any]:
    """Map stored grey values (H x W) to display values."""
    deep = header.bits_stored > 8
    if stored.dtype.itemsize > 2:
        return _grey_wide(stored, dataset, header, steps)
    values = np.arange(int(stored.min()), int(stored.max()) + 1, dtype=np.int64)
    padding = _padding(dataset, header, stored, values, steps)
    low, high = _extent(stored, values, padding)
    sample = _grid(stored).ravel().astype(np.int64) - values[0]
    sample = sample[~padding[sample]]
    shown = _display(values, dataset, header, steps, (low, high), sample)
    shown[padding] = 0.0
    table = np.zeros(2 ** (8 * stored.dtype.itemsize), np.float32 if deep else np.uint8)
    table[values] = shown if deep else np.rint(shown * 255)  # a negative value counts from the end,
    return table[stored.view(np.dtype(f"u{stored.dtype.itemsize}"))][:, :, None]  # as its two's complement does


def _grey_wide(stored: NDArray[Any], dataset: Any, header: DicomHeader, steps: list[Step]) -> NDArray[np.float32]:
    """Do the same pixel by pixel for images of more than 16 bits, which are rare."""
    values = stored.astype(np.int64)
    padding = _padding(dataset, header, stored, values, steps)
    if padding.all():
        raise MedclipError(Reason.CONSTANT_IMAGE, "All pixels are padding, so there is nothing to see.")
    low, high = int(values[~padding].min()), int(values[~padding].max())
    places = _grid(np.arange(values.size).reshape(values.shape)).ravel()
    sample = places[~padding.ravel()[places]]
    shown = _display(values.ravel(), dataset, header, steps, (low, high), sample).reshape(values.shape)
    shown[padding] = 0.0
    return shown.astype(np.float32)[:, :, None]


def _grid(pixels: NDArray[Any]) -> NDArray[Any]:
    stride = max(1, round((pixels.size / _SAMPLES) ** 0.5))
    return pixels[::stride, ::stride]


def _display(
    values: NDArray[np.int64],
    dataset: Any,
    header: DicomHeader,
    steps: list[Step],
    extent: tuple[int, int],
    sample: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Map stored values to 0 (black) - 1 (white).

    Args:
        values: 1-D stored values.
        dataset: For the LUTs and windows.
        header: For the polarity.
        steps: Receives what was done.
        extent: Smallest and largest stored value that occurs outside the padding.
        sample: Index into `values` for each pixel of a grid, padding left out.
    """
    limits = np.array([*extent, *_storable(header, *extent)])
    rescaled, ends = _rescale(values, limits, dataset, steps)
    shown = _voi(rescaled, ends[:2], dataset, steps)
    if shown is None:
        what, bottom, top = _span(rescaled, ends, header, sample, table=bool(dataset.get("ModalityLUTSequence")))
        shown = np.clip((rescaled - bottom) / ((top - bottom) or 1.0), 0.0, 1.0)
        steps.append(Step("window", f"none stated; {what}, {bottom:g} to {top:g}"))
    inverse = str(dataset.get("PresentationLUTShape", "")).upper() == "INVERSE"
    if header.photometric == "MONOCHROME1" or inverse:
        shown = 1.0 - shown
        steps.append(Step("polarity", "inverted"))
    return shown


def _storable(header: DicomHeader, low: int, high: int) -> tuple[int, int]:
    """Give the range of values that up to 8 bits can hold, widened where the pixels go beyond it."""
    bits = header.bits_stored or 8
    if bits > 8:
        return low, high
    first = -(2 ** (bits - 1)) if header.signed else 0
    return min(low, first), max(high, first + 2**bits - 1)


def _span(
    rescaled: NDArray[np.float64],
    ends: NDArray[np.float64],
    header: DicomHeader,
    sample: NDArray[np.intp],
    *,
    table: bool,
) -> tuple[str, float, float]:
    """Say which values become black and white where no window does, and in words what they are."""
    if header.bits_stored <= 8:
        # A rescale keeps or reverses the order of values, a modality LUT need not.
        span = rescaled if table else ends[2:]
        return "all storable values" if not table else "minimum to maximum", float(span.min()), float(span.max())
    if sample.size:
        bottom, top = (float(value) for value in np.percentile(rescaled[sample], PERCENTILES, method="nearest"))
        if top > bottom:
            return f"percentiles {PERCENTILES[0]:g} to {PERCENTILES[1]:g}", bottom, top
    span = rescaled if table else ends[:2]
    return "minimum to maximum", float(span.min()), float(span.max())


def _rescale(
    values: NDArray[np.int64], ends: NDArray[np.int64], dataset: Any, steps: list[Step]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from pydicom.pixels.processing import apply_modality_lut

    both = np.concatenate([values, ends])
    try:
        rescaled = np.asarray(apply_modality_lut(both, dataset), np.float64)
    except Exception:
        steps.append(Step("rescale", "ignored: the header's rescale values are unusable"))
        rescaled = both.astype(np.float64)
    else:
        if dataset.get("ModalityLUTSequence"):
            steps.append(Step("rescale", "modality LUT"))
        elif dataset.get("RescaleSlope") is not None and (rescaled != both).any():
            steps.append(
                Step("rescale", f"slope {dataset.RescaleSlope}, intercept {dataset.get('RescaleIntercept', 0)}")
            )
    return rescaled[: len(values)], rescaled[len(values) :]


def _voi(
    rescaled: NDArray[np.float64], ends: NDArray[np.float64], dataset: Any, steps: list[Step]
) -> NDArray[np.float64] | None:
    """Apply the VOI LUT or the first window; None if there is none, or none that shows anything."""
    from pydicom.pixels.processing import apply_voi, apply_windowing

    extremes = np.array([-_FAR, _FAR])
    both = np.concatenate([rescaled, ends, extremes])
    if dataset.get("VOILUTSequence"):
        try:
            item = dataset.VOILUTSequence[0]
            count, first, bits = (int(value) for value in item.LUTDescriptor)
            if bits == 8 and (count or 2**16) > 256:
                item.LUTDescriptor = [count, first, 16]  # pydicom would index the table with 8-bit numbers
            # Beyond the table its ends hold; pydicom's index would wrap around.
            inside = np.clip(np.rint(both), first, first + (count or 2**16) - 1).astype(np.int64)
            mapped = np.asarray(apply_voi(inside, dataset), np.float64)
            entries = float(mapped.max())
            top = float(2**bits - 1)
            # Some writers declare 16 bits and store 8 or 12: then the largest entry is white.
            top = top if top / 2 < entries <= top else entries
            if top > 0 and mapped[-4] != mapped[-3]:
                steps.append(Step("window", f"VOI LUT, {bits} bits"))
                return np.clip(mapped[:-4] / top, 0.0, 1.0)
        except Exception:  # noqa: S110 - recorded below
            pass
        steps.append(Step("window", "ignored: the header's VOI LUT is unusable"))
    if dataset.get("WindowWidth") is None or dataset.get("WindowCenter") is None:
        return None
    try:
        with np.errstate(over="ignore"):
            mapped = np.asarray(apply_windowing(both, dataset), np.float64)
        bottom, top = float(mapped[-2]), float(mapped[-1])
        if top != bottom and (mapped[-4] != mapped[-3] or ends[0] == ends[1]):
            centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
            function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
            steps.append(Step("window", f"{function}, centre {centre:g}, width {width:g}"))
            return np.clip((mapped[:-4] - bottom) / (top - bottom), 0.0, 1.0)
    except Exception:  # noqa: S110 - recorded below
        pass
    steps.append(Step("window", "ignored: the header's window is unusable"))
    return None


def _first(value: Any) -> float:
    return float(value[0]) if hasattr(value, "__iter__") and not isinstance(value, str) else float(value)


def _padding(
    dataset: Any, header: DicomHeader, stored: NDArray[Any], values: NDArray[np.int64], steps: list[Step]
) -> NDArray[np.bool_]:
    """Say which stored values are padding (PixelPaddingValue, PixelPaddingRangeLimit), if any pixel has one."""
    try:
        start = _as_stored(int(dataset.PixelPaddingValue), header)
        end = _as_stored(int(dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue)), header)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return np.zeros(values.shape, bool)
    first, last = min(start, end), max(start, end)
    if not ((stored >= first) & (stored <= last)).any():
        return np.zeros(values.shape, bool)
    steps.append(Step("padding", f"stored values {first} to {last} set to black"))
    return (values >= first) & (values <= last)


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


def _extent(stored: NDArray[Any], values: NDArray[np.int64], padding: NDArray[np.bool_]) -> tuple[int, int]:
    """Give the smallest and largest stored value that is not padding."""
    if padding[0] or padding[-1]:
        present = np.zeros(values.shape, bool)
        present[stored.ravel().astype(np.int64) - values[0]] = True
        found = values[present & ~padding]
        if found.size == 0:
            raise MedclipError(Reason.CONSTANT_IMAGE, "All pixels are padding, so there is nothing to see.")
        return int(found[0]), int(found[-1])
    return int(values[0]), int(values[-1])


def _colour(stored: NDArray[Any], dataset: Any, header: DicomHeader, steps: list[Step]) -> NDArray[Any]:
    """Give RGB; `stored` is H x W x 3 RGB already, or H x W palette indices."""
    bits = header.bits_stored
    if header.photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        stored = np.asarray(apply_color_lut(stored, dataset))[:, :, :3]
        bits = stored.dtype.itemsize * 8
        steps.append(Step("palette", "to RGB"))
    elif header.photometric.startswith("YBR"):
        steps.append(Step("colour", f"{header.photometric} to RGB"))
    if stored.dtype == np.uint8:
        return stored
    return np.clip(stored.astype(np.float32) / np.float32(2**bits - 1), 0, 1)
