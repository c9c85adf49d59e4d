"""Flags of a patch: out of focus, a pen's ink, dirt or a bubble's rim, a fold, hardly any tissue.

Flags are words of a closed list. They are measured on the pixels as they are read, before stains are normalised, at
scales in micrometres, so that a patch of 0.25 µm/px and one of 0.5 µm/px get the same. A flag drops nothing: who uses
the patches decides.

Sharpness is the strength of detail below about 2 px over the strength of detail of twice that size, at 0.5 µm/px. It
does not depend on how strong the stain is. Of sharp H&E patches 98 % have 0.77 to 1.25 (glas_colon, CMU-1); smoothed
with 1.5 px (0.75 to 0.9 µm) they have 0.46 to 0.57, and with 1 px 0.55 to 0.76, on both sides of the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.slides.stain import White, absorbance, channels_of
from medclip.imaging.slides.tissue.glass import WHITE, brightness, levelled, low_high
from medclip.imaging.slides.tissue.pen_marks import colours_of

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "blank": "less than a twentieth of the patch is stained",
        "blurred": "out of focus: detail below 1 µm is missing",
        "pen": "over a twentieth of the patch has a marker's colour, and no texture",
        "dark": "over a twentieth of the patch is black: dirt, ink, pigment or the rim of a bubble",
        "fold": "over a tenth of the patch is so dense that tissue lies on tissue, or the section is too thick",
    }
)
"""Flags, and what they mean."""
_SHARP = 0.6
_FOCUS_MPP_UM, _INK_MPP_UM = 0.5, 2.0
_STAINED = 0.065
_BLANK, _PEN, _DARK, _FOLD = 0.05, 0.05, 0.05, 0.1
_DENSE = 0.9
"""Absorbance (mean of the channels, over 8 µm): an eighth of the light comes through."""
_EVEN = 5.0


@dataclass(frozen=True)
class PatchQuality:
    """What was measured of a patch."""

    flags: tuple[str, ...]
    """In the order of `FLAGS`."""
    sharpness: float
    """0.4 for the worst blur, about 1 for a sharp patch; NaN for a blank one."""
    stained_share: float
    """Shares of the patch's area, 0-1."""
    pen_share: float
    dark_share: float
    dense_share: float


def assess_patch(rgb: NDArray[np.uint8], mpp_um: float, *, white: White = WHITE) -> PatchQuality:
    """Measure a patch.

    Args:
        rgb: RGB uint8 [H, W, 3].
        mpp_um: Scale of the patch in µm/px. Coarser than 0.7 µm/px, only a worse blur is seen.
        white: Value of the slide's bare glass.

    Returns:
        Flags, and what they stand on.

    Example:
        >>> assess_patch(np.full((256, 256, 3), 245, np.uint8), 0.5).flags
        ('blank',)
    """
    absorbed = absorbance(rgb, white)
    stained = float((low_high(absorbed)[1] >= _STAINED).mean())
    dense = float((_smoothed(brightness(absorbed), 8 / mpp_um) > _DENSE).mean())
    coarse = levelled(_reduced(rgb, _INK_MPP_UM / mpp_um), channels_of(white))
    colours = colours_of(coarse)
    pen = float(((colours.cool | colours.red) & _even(brightness(coarse))).mean())
    dark = float(colours.black.mean())
    sharpness = _sharpness(_reduced(rgb, _FOCUS_MPP_UM / mpp_um)) if stained >= _BLANK else float("nan")
    raised = {
        "blank": stained < _BLANK,
        "blurred": sharpness < _SHARP,
        "pen": pen > _PEN,
        "dark": dark > _DARK,
        "fold": dense > _FOLD,
    }
    return PatchQuality(tuple(flag for flag in FLAGS if raised[flag]), sharpness, stained, pen, dark, dense)


def _sharpness(rgb: NDArray[np.uint8]) -> float:
    """Divide the strength of the finest detail by that of the next finer; infinite detail of a flat patch is 0."""
    from scipy import ndimage

    values = brightness(rgb)
    fine: Any = ndimage.gaussian_filter(values, 1.0, truncate=3)
    next_fine: Any = ndimage.gaussian_filter(values, 2.0, truncate=3)
    below = float((fine - next_fine).std())
    return float((values - fine).std()) / below if below > 1e-3 else 0.0


def _even(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Find where brightness hardly varies within 5 x 5 pixels."""
    from scipy import ndimage

    mean: Any = ndimage.uniform_filter(values, 5)
    square: Any = ndimage.uniform_filter(values * values, 5)
    return np.asarray(square - mean * mean <= _EVEN**2, bool)


def _smoothed(values: NDArray[np.float32], width_px: float) -> NDArray[np.float32]:
    from scipy import ndimage

    size = max(1, round(width_px))
    return np.asarray(ndimage.uniform_filter(values, size), np.float32) if size > 1 else values


def _reduced(rgb: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Average k x k pixels, k the nearest whole number to a factor."""
    from PIL import Image

    k = min(round(factor), *rgb.shape[:2])
    return np.asarray(Image.fromarray(rgb).reduce(k)) if k > 1 else rgb
