"""Turn stored DICOM pixels into what a person is meant to see, into modality units, or leave them as they are.

The order is the standard's (PS3.4 N.2): modality LUT or rescale, values of interest, polarity, padding; then pixels
are made square. What was done is in the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medclip.dicom.codecs.completeness import UNTERMINATED
from medclip.dicom.header.elements import floats, quiet
from medclip.dicom.header.read import DicomHeader
from medclip.dicom.header.safe_header import public_values
from medclip.dicom.pixels.decoded import Decoded, Frames, check_size
from medclip.dicom.pixels.display import PERCENTILES, Chain, colour, grey
from medclip.dicom.pixels.modality_and_voi import Element, elements_of
from medclip.dicom.pixels.stored import Stored, check, check_volume, open_dataset
from medclip.errors import MedclipError, Reason
from medclip.sample import Step
from medclip.settings import Settings

__all__ = ["PERCENTILES", "Mode", "public_headers", "read_dicom", "read_frames", "read_stored"]

Mode = Literal["display", "modality", "raw"]

_SQUARE_WITHIN = 0.01
_MOST_RATIO = 8.0
"""A pixel eight times as long as wide is a mistake of the header."""


def read_dicom(
    path: Path,
    settings: Settings,
    *,
    header: DicomHeader | None = None,
    mode: Mode = "display",
    frame: int | None = None,
) -> Decoded:
    """Read one frame of a DICOM image.

    "display", grey: rescale or modality LUT; VOI LUT, else the first window (LINEAR, LINEAR_EXACT or SIGMOID), else
    all values that can be stored for up to 8 bits (as in an 8-bit PNG) and the 0.1 to 99.9 percentile of the pixels
    that are not padding for deeper ones; MONOCHROME1 or an INVERSE presentation inverted, once; padding black; pixels
    made square. Colour: YBR and palettes to RGB, pixels made square. `settings.policy.pixels` changes each of these.
    "modality": rescale or modality LUT and nothing else; padding is NaN unless the policy keeps it.
    "raw": stored values in their own type, as pydicom's `pixel_array` gives them (YBR as RGB, palette indices as such).

    Args:
        path: The file.
        settings: Limits and policy; sizes are checked from the header before pixels are decoded.
        header: The file's header where it was read before; else its values are taken from the file.
        mode: Form of the values: "display", "modality" or "raw".
        frame: Number of a frame of a multi-frame object, from 0; needed where there is more than one.

    Returns:
        H x W x C, C = 1 or 3. "display": uint8 (0-255) for images stored with up to 8 bits, else float32 (0-1).
        "modality": float32. "raw": the stored type. `unit` and `spacing_mm` say what values and pixels measure.

    Raises:
        MedclipError: NO_PIXELS, NOT_SUPPORTED_YET (several frames and no `frame`; colour in "modality"), TOO_LARGE,
            TRUNCATED, CORRUPT, MISSING_CODEC, CONSTANT_IMAGE (nothing but padding), WRONG_USE (no such frame, window).
    """
    with quiet("pydicom"):
        dataset, stated = open_dataset(path, header, settings)
        check(stated, dataset, settings)
        if frame is None and stated.frames > 1:
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET,
                f"the DICOM object holds {stated.frames} frames, and none was chosen (read_dicom reads one frame, "
                "read_frames many).",
            )
        frames = _read(dataset, stated, settings, mode, [frame or 0])
    return Decoded(
        frames.pixels[0],
        frames.steps,
        frames.decoder,
        frames.headers,
        frames.unit,
        frames.spacing_mm,
        stored_size=frames.stored_size,
    )


def read_frames(
    path: Path,
    settings: Settings,
    *,
    header: DicomHeader | None = None,
    mode: Mode = "display",
    frames: Sequence[int] | None = None,
) -> Frames:
    """Read many frames of a DICOM image with one parse of the file.

    Rescale, window and spacing of enhanced objects are each frame's own. Where no window is stated, frames share one
    percentile range, so that a loop does not flicker.

    Args:
        path: The file.
        settings: Limits and policy.
        header: The file's header where it was read before.
        mode: Form of the values, as in `read_dicom`.
        frames: Numbers of frames, in this order; all if not given.

    Returns:
        F x H x W x C and what was done; see `read_dicom` for types.

    Raises:
        MedclipError: As `read_dicom`; TOO_LARGE where the frames would take more than `settings.max_volume_bytes`.
    """
    with quiet("pydicom"):
        dataset, stated = open_dataset(path, header, settings)
        check(stated, dataset, settings)
        return _read(dataset, stated, settings, mode, list(range(stated.frames)) if frames is None else list(frames))


def read_stored(path: Path, settings: Settings, *, header: DicomHeader | None = None) -> NDArray[Any]:
    """Read all frames as they are stored, in the shape of pydicom's `pixel_array`: [F,] H, W [, C].

    Args:
        path: The file.
        settings: Limits.
        header: The file's header where it was read before.

    Returns:
        The stored type in native byte order; float pixel data as float32 or float64, 1-bit pixels as uint8, YBR as RGB,
        palette indices as such.
    """
    with quiet("pydicom"):
        dataset, stated = open_dataset(path, header, settings)
        check(stated, dataset, settings)
        check_volume(stated, stated.frames, settings)
        unterminated = settings.policy.accept_unterminated
        stored = Stored(dataset, stated, align=False, unterminated=unterminated).read()
    return stored[0] if stated.frames == 1 else stored


def _read(dataset: Any, header: DicomHeader, settings: Settings, mode: Mode, frames: list[int]) -> Frames:
    if not frames or min(frames) < 0 or max(frames) >= header.frames:
        raise MedclipError(
            Reason.WRONG_USE, f"the DICOM object holds {header.frames} frames, and not the one asked for."
        )
    check_volume(header, len(frames), settings)
    unterminated = settings.policy.accept_unterminated
    source = Stored(dataset, header, align=mode != "raw", unterminated=unterminated)
    stored = source.read(frames)
    steps = [Step("decode", f"{header.bits_stored or header.bits_allocated} bits stored, {header.photometric}")]
    if source.stated:
        steps.append(Step("note", f"the transfer syntax is wrong: it says {source.stated}, the pixels are plain"))
    if source.found:
        steps.append(Step("colour", f"header says {header.photometric}, the pixels are {source.found}"))
    if source.ends.accepted:
        steps.append(Step("end", UNTERMINATED))
    if source.moved:
        steps.append(Step("bits", f"values stood in the high bits of their words; moved down by {source.moved}"))
    try:
        elements = [elements_of(dataset, frame) for frame in frames]
        spacing, ratio = pixel_shape(dataset, header, elements[0].spacing_mm)
        pixels, unit = _made(stored, dataset, header, settings, mode, elements, steps)
        size = pixels.shape[1:3]
        if mode == "display" and settings.policy.pixels.square_pixels:
            pixels, spacing = make_square(pixels, spacing, ratio, settings, steps)
    except MedclipError:
        raise
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "the image does not fit into memory.") from None
    except Exception:
        raise MedclipError(Reason.CORRUPT, "the DICOM header's pixel description makes no sense.") from None
    stored_size = None if pixels.shape[1:3] == size else size
    return Frames(pixels, tuple(steps), source.decoder, public_headers(header), unit, spacing, stored_size)


def _made(
    stored: NDArray[Any],
    dataset: Any,
    header: DicomHeader,
    settings: Settings,
    mode: Mode,
    elements: list[Element],
    steps: list[Step],
) -> tuple[NDArray[Any], str]:
    """Return F x H x W x C pixels of a mode, and their unit."""
    is_colour = stored.ndim == 4 or header.photometric == "PALETTE COLOR"
    if mode == "raw":
        return (stored if stored.ndim == 4 else stored[..., None]), "stored"
    if mode == "modality" and is_colour:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET, "the DICOM object is a colour image; only grey values have modality units."
        )
    if is_colour:
        return colour(stored, dataset, header, steps), "relative"
    chain = Chain(dataset, header, settings.policy.pixels)
    elements = [element._replace(spacing_mm=None) for element in elements]
    shown = mode == "display"
    pixels = grey(chain, stored, elements, steps, shown=shown)
    return pixels[..., None], _one_unit(elements, steps) if not shown else "relative"


def _one_unit(elements: list[Element], steps: list[Step]) -> str:
    """Return the unit of all frames; none where they differ."""
    units = sorted({element.unit for element in elements})
    if len(units) > 1:
        steps.append(
            Step("note", f"frames are in different units ({', '.join(units)}), so that they have none together")
        )
    return units[0] if len(units) == 1 else "relative"


def public_headers(header: DicomHeader) -> dict[str, Any]:
    """Return the header values that may be shown (`medclip.dicom.header.safe_header`), as far as they are known."""
    return dict(public_values(header))


def pixel_shape(
    dataset: Any, header: DicomHeader, spacing: tuple[float, float] | None
) -> tuple[tuple[float, float] | None, float]:
    """Return the spacing in millimetres (row, column) and the height of a pixel in its widths.

    Spacing counts before PixelAspectRatio, which the standard wants only where there is no spacing.
    """
    spacing = spacing or header.spacing_mm or _pair(dataset, "ImagerPixelSpacing")
    if spacing is not None:
        return spacing, spacing[0] / spacing[1]
    aspect = _pair(dataset, "PixelAspectRatio")
    return None, aspect[0] / aspect[1] if aspect else 1.0


def _pair(dataset: Any, keyword: str) -> tuple[float, float] | None:
    numbers = floats(dataset, keyword)
    if not numbers or len(numbers) != 2:
        return None
    first, second = numbers
    return (first, second) if 1e-3 < first < 1e4 and 1e-3 < second < 1e4 else None


def make_square(
    pixels: NDArray[Any],
    spacing: tuple[float, float] | None,
    ratio: float,
    settings: Settings,
    steps: list[Step],
) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Resample F x H x W x C pixels so that they are square; the coarser axis gets more of them (bilinear).

    Args:
        pixels: uint8 or float32.
        spacing: Row and column spacing in millimetres, if known.
        ratio: Height of a pixel in its widths.
        settings: Settings, which limit the result.
        steps: List that receives what was done.

    Returns:
        The pixels and their spacing.

    Raises:
        MedclipError: TOO_LARGE.
    """
    if abs(ratio - 1) <= _SQUARE_WITHIN:
        return pixels, spacing
    if not 1 / _MOST_RATIO <= ratio <= _MOST_RATIO:
        steps.append(Step("square pixels", f"ignored: a pixel {ratio:g} times as high as wide is not believed"))
        return pixels, spacing
    height, width = pixels.shape[1:3]
    new_height, new_width = (round(height * ratio), width) if ratio > 1 else (height, round(width / ratio))
    check_size(new_width, new_height, settings)
    if (new_height, new_width) == (height, width):
        return pixels, spacing
    out = np.empty((len(pixels), new_height, new_width, pixels.shape[3]), pixels.dtype)
    for frame, target in zip(pixels, out, strict=True):
        for channel in range(frame.shape[2]):
            plane = Image.fromarray(np.ascontiguousarray(frame[:, :, channel]))
            target[:, :, channel] = np.asarray(plane.resize((new_width, new_height), Image.Resampling.BILINEAR))
    steps.append(
        Step(
            "square pixels",
            f"{height} x {width} pixels, {ratio:g} times as high as wide, to {new_height} x {new_width}",
        )
    )
    side = min(spacing) if spacing else None
    return out, (side, side) if side is not None else None
