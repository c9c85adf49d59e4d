"""Where the tissue is: colour against a bright background, without pen marks, on an overview of 8 to 16 µm/px.

1. Chroma (largest minus smallest of R, G, B), smoothed; Otsu's threshold, held between `chroma` limits: on an empty
   slide Otsu would split noise, on one full of tissue it would split the tissue.
2. What is nearly white is background but for strong colour; what is nearly black is a shadow, a rim or black ink.
3. Ink: blue and green that no stain has, and red far purer than eosin; grown a little, for its pale rim. A piece that
   touches mostly ink goes with it.
4. Small gaps are closed, holes filled and specks dropped, all in µm².
A dark background (fluorescence, dark field), or ink nearly everywhere (an unusual stain), is not decided: the mask is
empty, and `problem` says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.slides.reader import SlideReader


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
    """Mean of R, G, B from which a pixel is background, if its chroma is below twice the threshold."""
    black: float = 40.0
    """Largest of R, G, B below which a pixel is a shadow."""
    dark: float = 80.0
    """A slide whose bright parts (95th percentile of the brightest channel) are darker than this is not decided."""
    smooth_um: float = 8.0
    close_um: float = 24.0
    ink_grow_um: float = 48.0
    ink_share: float = 0.4
    """A piece with more ink than this share of its area is a pen mark."""
    ink_most: float = 0.5
    """Where more than this share of the slide looks like ink, the stain is an unusual one: nothing is decided."""
    min_hole_um2: float = 100_000.0
    min_piece_um2: float = 40_000.0


@dataclass(frozen=True, eq=False)
class TissueMask:
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
    from scipy import ndimage

    options = options or TissueOptions()
    brightest = rgb.max(axis=2)
    empty = TissueMask(np.zeros(rgb.shape[:2], bool), mpp_um)
    if np.percentile(brightest, 95) < options.dark:
        return replace(
            empty,
            problem="The slide is dark, as in fluorescence; tissue is found by stains on a bright background.",
        )
    pixel_um = (mpp_um[0] * mpp_um[1]) ** 0.5
    sigma = options.smooth_um / 2 / pixel_um
    smooth = (
        ndimage.gaussian_filter(rgb.astype(np.float32), (sigma, sigma, 0)) if sigma > 0.3 else rgb.astype(np.float32)
    )
    chroma = smooth.max(axis=2) - smooth.min(axis=2)
    ink = ink_of(rgb)
    shadow = smooth.max(axis=2) < options.black
    threshold = float(np.clip(_otsu(chroma[~(ink | shadow)]), *options.chroma))
    candidate = (chroma > threshold) & ~shadow & ~((smooth.mean(axis=2) > options.white) & (chroma < 2 * threshold))
    ink = _opened(ink, options.close_um / 4 / pixel_um)
    pen = float(ink.mean())
    if pen > options.ink_most:
        return replace(
            empty,
            pen_fraction=pen,
            problem="Most of the slide has colours that marker pens have and the usual stains have not.",
        )
    near_ink = _grown(ink, options.ink_grow_um / pixel_um) if ink.any() else ink
    pieces = _closed(candidate | ink, options.close_um / pixel_um)
    pieces = _without_pen(pieces, near_ink, options.ink_share)
    area = mpp_um[0] * mpp_um[1]
    mask = _filled(pieces & ~near_ink, options.min_hole_um2 / area) & ~ink
    mask = _large(mask, min(options.min_piece_um2 / area, mask.size * 0.05))
    notes = (f"pen marks on {pen:.1%} of the overview left out",) if pen > 0.001 else ()
    return replace(empty, mask=mask, pen_fraction=pen, notes=notes)


def ink_of(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find ink of marker pens: green, blue, red by hue and purity, black by darkness without colour.

    Args:
        rgb: RGB uint8 [H, W, 3].

    Returns:
        bool [H, W].
    """
    red, green, blue = (rgb[:, :, i].astype(np.int16) for i in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    chroma = high - low
    # Haematoxylin, eosin, DAB and their mixtures always let more red or blue through than green.
    is_green = (green == high) & (green - red > 14) & (chroma > 24) & (green - low > 20)
    # Haematoxylin takes red and green away alike; blue ink lets green through, or takes far more red away.
    is_blue = (blue == high) & (chroma > 60) & (red < 130) & ((green - red > 20) | ((blue - red > 90) & (red < 90)))
    # Red ink takes green and blue away alike, and more of blue than blood and eosin do; DAB's brown keeps more green.
    is_red = (red > 100) & (chroma > 85) & (blue * 3 < red) & (np.abs(green - blue) < 30)
    is_black = (high < 70) & (chroma < 24)
    return is_green | is_blue | is_red | is_black


def _otsu(values: NDArray[np.float32]) -> float:
    """Give Otsu's threshold of values in 0-255 (N. Otsu, 1979): the split with the largest variance between halves."""
    counts = np.bincount(np.clip(values, 0, 255).astype(np.uint8).ravel(), minlength=256).astype(np.float64)
    weight = np.cumsum(counts)
    total = weight[-1]
    if total == 0:
        return 0.0
    moment = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * weight / total - moment) ** 2 / (weight * (total - weight))
    return float(np.nanargmax(np.where(np.isfinite(between), between, -1)))


def _label(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the pieces that are connected by sides from 1; 0 is what is not in the mask."""
    from scipy import ndimage

    found: Any = ndimage.label(mask)
    return found


def _distance(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give each pixel of the mask its distance from what is not in it."""
    from scipy import ndimage

    found: Any = ndimage.distance_transform_edt(mask)
    return found


def _disc(radius: float) -> NDArray[np.bool_]:
    size = int(np.ceil(radius))
    y, x = np.ogrid[-size : size + 1, -size : size + 1]
    return y * y + x * x <= radius * radius


def _grown(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Grow by a radius in pixels; by distances, whose cost does not depend on the radius."""
    return mask if radius < 0.5 else _distance(~mask) <= radius


def _closed(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Close gaps of twice a radius in pixels; the picture's border does not count as background."""
    if radius < 0.5 or not mask.any():
        return mask
    margin = int(np.ceil(radius)) + 1
    padded = np.pad(mask, margin, mode="edge")
    grown = _grown(padded, radius)
    shrunk: NDArray[Any] = _distance(grown) > radius if not grown.all() else grown
    return np.asarray(shrunk[margin:-margin, margin:-margin] | mask, bool)


def _opened(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Drop specks and threads thinner than twice a radius in pixels."""
    from scipy import ndimage

    return np.asarray(ndimage.binary_opening(mask, _disc(radius)), bool) if radius >= 0.5 else mask


def _without_pen(pieces: NDArray[np.bool_], ink: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Drop the connected pieces that are mostly ink."""
    if not ink.any():
        return pieces
    labels, count = _label(pieces)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    inked = np.bincount(labels[ink], minlength=count + 1)
    keep = inked <= share * sizes
    keep[0] = False
    return np.asarray(keep[labels], bool)


def _filled(mask: NDArray[np.bool_], limit: float) -> NDArray[np.bool_]:
    """Fill holes of up to `limit` pixels; larger ones are lumina or tears, and stay."""
    labels, count = _label(~mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    fill = sizes <= limit
    fill[border] = False
    fill[0] = False
    return mask | np.asarray(fill[labels], bool)


def _large(mask: NDArray[np.bool_], limit: float) -> NDArray[np.bool_]:
    """Keep the connected pieces of at least `limit` pixels."""
    labels, count = _label(mask)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= limit
    keep[0] = False
    return np.asarray(keep[labels], bool)
