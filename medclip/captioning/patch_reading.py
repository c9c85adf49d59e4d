"""What reading processes do for captions: read the chosen patches, hash and measure them. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.nuclei import NucleiMeasurements, measure_nuclei
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.stain import StainEstimate


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


def reread_pixels(reader: SlideReader, record: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Read the pixels of a record again: from the slide that it names, and from nowhere else.

    Args:
        reader: Reader of the record's slide, opened with the scale that it was opened with (of a slide that states
            none).
        record: A row of records.parquet, or what a sample's JSON has under `slide`.

    Returns:
        RGB uint8 [size_px, size_px, 3]: the very pixels.

    Raises:
        MedclipError: CHANGED where they are others; what reading raises.
    """
    pixels = reader.read(record["top_um"], record["left_um"], record["size_px"], record["size_px"], record["mpp_um"])
    if pixels_sha256(pixels) != record["pixels_sha256"]:
        raise MedclipError(Reason.CHANGED, "the slide has other pixels there than the record: it is another slide.")
    return pixels
