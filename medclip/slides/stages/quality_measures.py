"""What is measured of each patch while its pixels are there, as numbers that a slide's file keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.slides.quality import FLAGS, assess_patch

MEASURES = ("flags", "sharpness", "stained_share", "pen_share", "dark_share", "dense_share")
"""`flags` is a sum: 1 for the first of `medclip.imaging.slides.quality.FLAGS`, 2 for the second, 4, 8, ..."""
_ARTEFACTS = ("pen", "dark", "fold")


def measure_quality(pixels: NDArray[np.uint8], effective_mpp_um: tuple[float, float]) -> tuple[float, ...]:
    """Measure a patch.

    Args:
        pixels: RGB uint8 [H, W, 3].
        effective_mpp_um: Row and column µm/px.

    Returns:
        One number for each of `MEASURES`; sharpness is NaN for a blank patch.
    """
    quality = assess_patch(pixels, sum(effective_mpp_um) / 2)
    flags = sum(1 << place for place, flag in enumerate(FLAGS) if flag in quality.flags)
    return (float(flags), *(getattr(quality, name) for name in MEASURES[1:]))


def count_flags(quality: Mapping[str, NDArray[np.float32]]) -> dict[str, int]:
    """Count the patches of a slide that are blurred, and those with an artefact, as columns of `SlideRow`."""
    raised = quality["flags"].astype(np.int64)
    bits = {flag: raised >> place & 1 for place, flag in enumerate(FLAGS)}
    artefacts = np.any([bits[flag] for flag in _ARTEFACTS], axis=0)
    return {"num_blurred": int(bits["blurred"].sum()), "num_artefacts": int(artefacts.sum())}
