"""What a slide library has to give: facts, and pixels of one stored level. The reader above turns that into µm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

PRINT_UM = 20.0
"""A stated pixel coarser than this (1270 dpi) is a printer's or a screen's, not a scanner's: 72 dpi are 352.8 µm,
600 dpi 42.3 µm, and a scanner with a 1 x lens has 10 µm."""
WHITE = 255
"""Value of everything outside the slide, and of tiles that were never scanned."""


@dataclass(frozen=True)
class Level:
    """One stored resolution."""

    height_px: int
    width_px: int


@dataclass(frozen=True)
class SlideSpec:
    """All that is needed to open a slide again in another process."""

    backend: str
    """Who opens it: openslide, dicom or tiff."""
    paths: tuple[Path, ...]
    cache_bytes: int
    max_pixels: int
    mpp_um: float | None
    """The user's µm/px, for slides that do not say, or say no more than how large to print them."""
    accept_unterminated: bool = False
    """Whether tiles that lack their end marker, and nothing else, are read."""


@dataclass(frozen=True)
class SlideFacts:
    """What is known of an opened slide; plain values."""

    levels: tuple[Level, ...]
    """Finest first."""
    mpp_um: tuple[float, float] | None
    """Row and column size of a pixel of the finest level in micrometres, as the file states it."""
    properties: Mapping[str, str | float] = field(default_factory=dict)
    """Allow-listed: vendor, objective_power."""
    associated: tuple[str, ...] = ()
    """Names of label, macro, thumbnail. They may show a patient's name: nothing reads them unless asked."""
    origin_px: tuple[int, int] = (0, 0)
    """Row and column of the scanned area's corner where a viewer crops the empty rest away (QuPath with MRXS)."""
    notes: tuple[str, ...] = ()
    decoder: str = ""


class Backend(Protocol):
    """An open slide of one library. Not shared between processes."""

    @property
    def facts(self) -> SlideFacts:
        """What is known of the slide."""
        ...

    def read_level(self, level: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read [height, width, 3] RGB in pixels of one level; the rectangle may lie partly or wholly outside (white).

        Raises:
            MedclipError: If stored pixels cannot be decoded.
        """
        ...

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Read label, macro or thumbnail as RGB [H, W, 3]."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


def notes_of(colours: str, *, num_planes: int = 1, num_times: int = 1, num_paths: int = 1) -> tuple[str, ...]:
    """List what there is to know of the pixels: how they became RGB, and what of several images is read.

    Args:
        colours: Note on the colours; blank for none.
        num_planes: Focal planes of the slide.
        num_times: Time points.
        num_paths: Optical paths: the same place in another light.
    """
    notes = [colours] if colours else []
    if num_planes > 1:
        notes.append(f"the middle one of {num_planes} focal planes is read")
    if num_times > 1:
        notes.append(f"the first of {num_times} time points is read")
    if num_paths > 1:
        notes.append(f"the first of {num_paths} optical paths is read")
    return tuple(notes)


def missing(package: str) -> MedclipError:
    """Make the error for a slide library that is not installed."""
    return MedclipError(
        Reason.MISSING_CODEC,
        f"reading this slide needs the package {package}, which is not installed.",
        hint="Run: pip install 'medclip-imaging[wsi]'",
    )


# From what a TIFF or DICOM slide stores per pixel to 8-bit RGB.

PERCENTILES = (0.1, 99.9)
"""Of the coarsest level, per channel: what becomes black and white where values are not 8-bit."""


@dataclass(frozen=True)
class ToRgb:
    """How channels become colours: one is repeated, of two the first is red and the second green, of more the first
    three are red, green and blue. Values that are not 8-bit are scaled per channel by limits taken once per slide.
    """

    limits: tuple[tuple[float, float], ...] | None = None
    """Low and high value of each channel; None for 8-bit values, which stay as they are."""
    inverted: bool = False
    """Whether 0 is white (TIFF's WhiteIsZero, DICOM's MONOCHROME1)."""
    palette: NDArray[np.uint8] | None = None
    """[entries, 3] colours of an index."""

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn [H, W, C] into RGB uint8 [H, W, 3]."""
        if self.palette is not None:
            return self.palette[np.minimum(pixels[:, :, 0], len(self.palette) - 1)]
        pixels = pixels[:, :, :3]
        if self.limits is not None:
            low = np.array([limit[0] for limit in self.limits[:3]], np.float32)
            high = np.array([limit[1] for limit in self.limits[:3]], np.float32)
            span = np.where(high > low, high - low, 1)
            scaled = np.nan_to_num((pixels.astype(np.float32) - low) / span)
            pixels = (np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8)
        elif pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * 255
        if self.inverted:
            pixels = 255 - pixels
        count = pixels.shape[2]
        if count == 3:
            return pixels
        if count == 1:
            return np.repeat(pixels, 3, axis=2)
        return np.concatenate([pixels, np.zeros_like(pixels[:, :, :1])], axis=2)

    def note(self, channels: int) -> str:
        """Describe in one sentence what is done; empty where 8-bit RGB stays as it is."""
        parts = []
        if channels == 1 and self.palette is None:
            parts.append("grey repeated as RGB")
        elif channels == 2:
            parts.append("two channels shown as red and green")
        elif channels > 3:
            parts.append(f"the first three of {channels} channels shown as RGB")
        if self.limits is not None:
            parts.append(
                f"scaled to 8 bits between the percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g} per channel"
            )
        return "; ".join(parts)


def limits_of(channels: Sequence[NDArray[Any]]) -> tuple[tuple[float, float], ...]:
    """Find the low and high value of each channel of an overview.

    Args:
        channels: One array per channel, any shape.
    """
    limits = []
    for values in channels:
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = np.percentile(finite, PERCENTILES) if finite.size else (0.0, 1.0)
        if not high > low:
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        limits.append((float(low), float(high)))
    return tuple(limits)
