"""Where the tissue is: colour against bright glass, without pen marks, on an overview of 8 to 16 µm/px.

1. The glass is made neutral (`background.py`): tinted glass has colour too.
2. Chroma (largest minus smallest of R, G, B), smoothed; Otsu's threshold, held between `chroma` limits: on an empty
   slide Otsu would split noise, on one full of tissue it would split the tissue.
3. What is nearly white is background but for strong colour; what is nearly black is a shadow or a rim.
4. Ink (`pen_marks.py`), grown a little for its pale rim, is taken away; each piece that remains is judged by itself.
5. Small gaps are closed, holes filled and specks dropped, all in µm².
A slide without any colour (8-bit grey, some silver stains) is judged by darkness instead, and a note says so.
A dark background (fluorescence, dark field), or what may be ink as well as a stain, is not decided: the mask is empty,
and `problem` says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.tissue.glass import (
    WHITE,
    away,
    brightness,
    closed,
    filled,
    glass_of,
    is_dark,
    large,
    levelled,
    low_high,
    opened,
    white_point,
    wide,
    within,
    without,
)
from medclip.imaging.slides.tissue.pen_marks import Ink, InkOptions, colours_of, ink_of
from medclip.result import Result

_DARK = "The slide has a dark background, as in fluorescence or dark field; tissue is found by stains on a bright one."
_COLOURLESS = 0.001
"""Share of pixels with colour, below which a slide has none."""


@dataclass(frozen=True)
class TissueOptions:
    """Constants of the tissue finder."""

    mpp_um: float = 8.0
    """Scale of the overview where no stored level is near."""
    stored_um: tuple[float, float] = (6.0, 20.0)
    """A stored level within this range is taken as it is: nothing is resampled."""
    overview_pixels: float = 4e6
    """Most pixels of the overview: a section of more than 16 x 16 mm gets a coarser one."""
    chroma: tuple[float, float] = (10.0, 28.0)
    """Bounds of the threshold on chroma, 0-255."""
    white: float = 236.0
    """Mean of R, G, B from which a pixel is background, if its chroma is below twice the threshold; glass is 245."""
    black: float = 40.0
    """Largest of R, G, B below which a pixel is a shadow."""
    dark: float = 80.0
    """Brightest channel below which a pixel is dark: a slide with more of them than of glass is not decided."""
    grey: tuple[float, float] = (20.0, 60.0)
    """Bounds of the threshold on darkness, where a slide has no colour."""
    grey_open_um: float = 64.0
    """Half the width of what is dropped on such a slide: edges of cover slips and hairs are as grey as its tissue."""
    smooth_um: float = 8.0
    close_um: float = 24.0
    ink_grow_um: float = 48.0
    ink_share: float = 0.5
    """What remains beside ink with more than this share of its area within twice `ink_grow_um` of it, is its rim."""
    ink_doubt: float = 0.2
    """Where more than this share of what has colour may be ink or stain, nothing is decided."""
    ink: InkOptions = field(default_factory=InkOptions)
    min_hole_um2: float = 100_000.0
    min_piece_um2: float = 40_000.0


@dataclass(frozen=True, eq=False, repr=False)
class TissueMask(Result):
    """Where tissue is, at the scale of an overview."""

    mask: NDArray[np.bool_]
    """[H, W]: tissue."""
    mpp_um: tuple[float, float]
    """Row and column µm of a mask pixel."""
    pen_fraction: float = 0.0
    """Share of the overview that is ink."""
    problem: str = ""
    """Why nothing was decided; the mask is empty then."""
    notes: tuple[str, ...] = field(default=())

    @property
    def fraction(self) -> float:
        """Share of the slide's area that is tissue."""
        return float(self.mask.mean())

    @property
    def area_mm2(self) -> float:
        """Area of the tissue in mm²."""
        return float(self.mask.sum()) * self.mpp_um[0] * self.mpp_um[1] / 1e6

    def _facts(self) -> dict[str, object]:
        height, width = self.mask.shape
        return {
            "tissue": f"{self.area_mm2:.1f} mm², {self.fraction:.1%} of the slide",
            "pen marks": f"{self.pen_fraction:.1%} of the slide",
            "mask": f"{width} x {height} pixels of {self.mpp_um[1]:.2f} µm",
            "undecided": self.problem or "no",
            "notes": " ".join(self.notes),
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        shares = {"tissue_share": self.fraction, "pen_share": self.pen_fraction}
        return [{"tissue_mm2": self.area_mm2, **shares, "problem": self.problem, "notes": " ".join(self.notes)}]


def find_tissue(reader: SlideReader, options: TissueOptions | None = None) -> TissueMask:
    """Find the tissue of a slide.

    Args:
        reader: The slide.
        options: Constants; the defaults if None.

    Returns:
        The mask at the scale of a stored level near 8 to 16 µm/px, or at `options.mpp_um` where there is none.

    Raises:
        MedclipError: NO_SCALE without a pixel size; what reading the overview raises.
    """
    options = options or TissueOptions()
    wanted = overview_mpp(reader, options)
    return tissue_of(reader.thumbnail(wanted), reader.effective_mpp(wanted), options)


def overview_mpp(reader: SlideReader, options: TissueOptions) -> float:
    """Choose the scale of the overview: a stored level's own if one is near, else the wanted one, or the finest."""
    stored = reader.stored_mpp()
    low, high = options.stored_um
    height, width = reader.size_um
    least = max(options.mpp_um, (height * width / options.overview_pixels) ** 0.5)
    near = [mpp for mpp in stored if max(low, least * 0.75) <= mpp <= max(high, least * 1.25)]
    if near:
        return min(near, key=lambda mpp: abs(np.log(mpp / least)))
    return max(least, stored[0])


def tissue_of(rgb: NDArray[np.uint8], mpp_um: tuple[float, float], options: TissueOptions | None = None) -> TissueMask:
    """Find tissue in an overview.

    Args:
        rgb: RGB uint8 [H, W, 3].
        mpp_um: Row and column µm of a pixel; any scale works, sizes are in µm.
        options: Constants; the defaults if None.

    Returns:
        The mask, of the same height and width.
    """
    options = options or TissueOptions()
    empty = TissueMask(np.zeros(rgb.shape[:2], bool), mpp_um)
    glass = glass_of(rgb)
    if is_dark(rgb, glass, options.dark):
        return replace(empty, problem=_DARK)
    rgb = levelled(rgb, white_point(rgb, glass))
    pixel_um = (mpp_um[0] * mpp_um[1]) ** 0.5
    smooth = _smoothed(rgb, options.smooth_um / 2 / pixel_um)
    low, high = low_high(smooth)
    chroma = high - low
    if float((chroma > options.chroma[0]).mean()) < _COLOURLESS:
        return _by_darkness(rgb, smooth, empty, pixel_um, options)
    colours = colours_of(rgb)
    shadow = high < options.black
    threshold = float(np.clip(otsu_threshold(chroma[~(colours.any | shadow)]), *options.chroma))
    bright = brightness(smooth) > options.white
    stained = ((chroma > threshold) & ~(bright & (chroma < 2 * threshold)) & ~shadow) | colours.any
    ink = ink_of(rgb, colours, stained, pixel_um, options.ink)
    problem = _undecided(ink, stained, options)
    if problem:
        return replace(empty, pen_fraction=float((ink.mask | ink.doubtful).mean()), problem=problem)
    candidate = stained & ~shadow & ~colours.black
    return _without_ink(candidate, ink.mask, empty, pixel_um, options)


def _without_ink(
    candidate: NDArray[np.bool_], ink: NDArray[np.bool_], empty: TissueMask, pixel_um: float, options: TissueOptions
) -> TissueMask:
    """Take the ink away, judge what remains piece by piece, and mend the pieces."""
    beside = away(ink, 2 * options.ink_grow_um / pixel_um)
    clear = (beside > options.ink_grow_um / pixel_um) & ~ink
    mask = closed(candidate & clear, options.close_um / pixel_um) & clear
    if ink.any():
        mask = without(mask, np.isfinite(beside), options.ink_share)
    mask = filled(mask, options.min_hole_um2 / pixel_um**2) & ~ink
    mask = large(mask, min(options.min_piece_um2 / pixel_um**2, mask.size * 0.05))
    pen = float(ink.mean())
    notes = (f"pen marks on {pen:.1%} of the overview left out",) if pen > 0.001 else ()
    return replace(empty, mask=mask, pen_fraction=pen, notes=notes)


def _by_darkness(
    rgb: NDArray[np.uint8], smooth: NDArray[np.float32], empty: TissueMask, pixel_um: float, options: TissueOptions
) -> TissueMask:
    """Find tissue on a slide without any colour."""
    darkness = WHITE - brightness(smooth)
    # Silver is black where it is deposited, but not over an area as a marker is; what is paler of a mark lies beside.
    high = low_high(rgb)[1]
    ink = wide(high < options.black, options.ink.black_um / pixel_um)
    ink |= within(ink, options.ink.rim_um / pixel_um) & (high < 2 * options.black)
    threshold = float(np.clip(otsu_threshold(darkness[~ink]), *options.grey))
    candidate = opened(closed(darkness > threshold, options.close_um / pixel_um), options.grey_open_um / pixel_um)
    tissue = _without_ink(candidate, ink, empty, pixel_um, options)
    note = ("the slide has no colour: tissue is what is darker than the glass",) if tissue.mask.any() else ()
    return replace(tissue, notes=(*note, *tissue.notes))


def _undecided(ink: Ink, stained: NDArray[np.bool_], options: TissueOptions) -> str:
    """Return why nothing is decided; empty if it can be."""
    if int(ink.doubtful.sum()) > options.ink_doubt * max(int((stained & ~ink.mask).sum()), 1):
        return (
            "What has colour on the slide may be marks of a pen or a stain: it is as even as ink, and no other tissue "
            "helps to tell."
        )
    return ""


def _smoothed(rgb: NDArray[np.uint8], sigma: float) -> NDArray[np.float32]:
    from scipy import ndimage

    values = rgb.astype(np.float32)
    if sigma <= 0.3:
        return values
    smooth: Any = ndimage.gaussian_filter(values, (sigma, sigma, 0))
    return smooth


def otsu_threshold(values: NDArray[np.floating[Any]]) -> float:
    """Return Otsu's threshold of values in 0-255 (N. Otsu, 1979): the split with most variance between the halves."""
    counts = np.bincount(np.clip(values, 0, 255).astype(np.uint8).ravel(), minlength=256).astype(np.float64)
    weight = np.cumsum(counts)
    total = weight[-1]
    if total == 0:
        return 0.0
    moment = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * weight / total - moment) ** 2 / (weight * (total - weight))
    return float(np.nanargmax(np.where(np.isfinite(between), between, -1)))
