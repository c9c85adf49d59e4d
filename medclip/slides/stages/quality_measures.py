"""What is measured of each patch while its pixels are there, as numbers that a slide's file keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.slides.patch_quality import FLAGS, assess_patch
from medclip.imaging.slides.stain import White
from medclip.imaging.slides.tissue.glass import WHITE

MEASURES = ("flags", "sharpness", "stained_share", "pen_share", "dark_share", "dense_share")
"""`flags` is a sum: 1 for the first of `medclip.imaging.slides.patch_quality.FLAGS`, 2 for the second, 4, 8, ..."""
_ARTEFACTS = ("pen", "dark", "fold")


def measure_quality(
    pixels: NDArray[np.uint8], effective_mpp_um: tuple[float, float], white: White = WHITE
) -> tuple[float, ...]:
    """Measure a patch.

    Args:
        pixels: RGB uint8 [H, W, 3].
        effective_mpp_um: Row and column µm/px.
        white: Value of the slide's bare glass.

    Returns:
        One number for each of `MEASURES`; sharpness is NaN for a blank patch.
    """
    quality = assess_patch(pixels, sum(effective_mpp_um) / 2, white=white)
    flags = sum(1 << place for place, flag in enumerate(FLAGS) if flag in quality.flags)
    return (float(flags), *(getattr(quality, name) for name in MEASURES[1:]))


def count_flags(quality: Mapping[str, NDArray[np.float32]]) -> dict[str, int]:
    """Count the patches of a slide that are blurred, and those with an artefact, as columns of `SlideRow`."""
    raised = raised_flags(quality["flags"])
    num_artefacts = sum(any(flag in _ARTEFACTS for flag in flags) for flags in raised)
    return {"num_blurred": sum("blurred" in flags for flags in raised), "num_artefacts": num_artefacts}


def raised_flags(sums_N: NDArray[np.floating[Any]]) -> list[tuple[str, ...]]:
    """Return the flags of each patch by name, from the sums that stand for them.

    Example:
        >>> raised_flags(np.array([0.0, 3.0]))
        [(), ('blank', 'blurred')]
    """
    return [tuple(flag for place, flag in enumerate(FLAGS) if number >> place & 1) for number in sums_N.astype(int)]
