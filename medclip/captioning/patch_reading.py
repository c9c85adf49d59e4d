"""What reading processes do for captions: read patches, look whether they are any good, measure them. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.nuclei import NucleiMeasurements, measure_nuclei
from medclip.imaging.slides.quality import assess_patch
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.stain.estimate import StainEstimate
from medclip.imaging.slides.stain.normalise import normalise_stain
from medclip.imaging.slides.stain.optical_density import White

DAMAGED = frozenset({Reason.CORRUPT, Reason.TRUNCATED})
"""Reasons of a patch that is lost while its slide is not."""
AT_ONCE = 16
"""Patches of one job: 5 MB of 336 x 336 pixels."""


@dataclass(frozen=True, eq=False)
class LookedAt:
    """One patch as the selection sees it."""

    pixels: NDArray[np.uint8] | None
    """What is encoded; None for a patch that is damaged or has a flag."""
    flags: tuple[str, ...] = ()
    damaged: bool = False


@dataclass(frozen=True, eq=False)
class ReadPatch:
    """One patch as an agent sees it."""

    pixels: NDArray[np.uint8]
    sha256: str
    measured: NucleiMeasurements | None = None
    measured_again: NucleiMeasurements | None = None


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """Hash the pixels of a patch: RGB, row by row."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def look_at_patches(
    reader: SlideReader,
    corners_um: Sequence[tuple[float, float]],
    size_px: int,
    mpp_um: float,
    refused: frozenset[str],
    white: White,
    stain: StainEstimate | None,
) -> list[LookedAt]:
    """Read patches for the selection.

    Args:
        reader: The slide; it is opened in this process.
        corners_um: Top and left of each.
        size_px: Rows and columns.
        mpp_um: The scale that was asked for.
        refused: Flags that a patch may not have.
        white: Value of the slide's bare glass.
        stain: Estimate of the slide, if patches are normalised before they are encoded.
    """
    seen = []
    with reader:
        for top, left in corners_um:
            try:
                pixels = reader.read(top, left, size_px, size_px, mpp_um)
            except MedclipError as error:
                if error.reason not in DAMAGED:
                    raise
                seen.append(LookedAt(None, damaged=True))
                continue
            flags = tuple(flag for flag in assess_patch(pixels, mpp_um, white=white).flags if flag in refused)
            shown = pixels if stain is None else normalise_stain(pixels, stain)
            seen.append(LookedAt(None if flags else shown, flags))
    return seen


def read_patch(
    reader: SlideReader,
    corner_um: tuple[float, float],
    size_px: int,
    mpp_um: float,
    stain: StainEstimate | None,
    measures: bool,
) -> ReadPatch:
    """Read one patch, hash it, and measure it for agents that ask for it."""
    with reader:
        pixels = reader.read(*corner_um, size_px, size_px, mpp_um)
    measured: Any = (None, None)
    if measures:
        measured = measure_nuclei(pixels, mpp_um, stain), measure_nuclei(pixels, mpp_um)
    return ReadPatch(pixels, pixels_sha256(pixels), *measured)
