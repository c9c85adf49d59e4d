"""Marker pens: colours that the usual stains have not, judged piece by piece, since some stains have them too.

Trichrome's aniline blue and light green, alcian blue and methyl green have the hues of markers. What tells them apart:

- Tissue has texture (at 8 µm/px its brightness varies by 9 to 30 within 5 x 5 pixels); ink on glass is even (1 to 3).
- Ink is pure: most of its pixels have a saturation over 0.6. What is pure and even is ink, and so is a thin, long, pure
  line on glass, whose middle is too narrow to measure.
- Strokes are long. What is long, even and not pale is ink where the slide has other tissue to compare it with; where it
  has not, it is doubtful.
- Strokes lie on glass. A hue that lies there nearly always, on a slide with far more of other colours, is a marker's.
- Small even pools within tissue are mucin's, unless they continue a stroke.
Black ink needs no such care: no stain is black over an area.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.slides.tissue.glass import (
    brightness,
    closed,
    distance,
    filled,
    labelled,
    low_high,
    opened,
    wide,
    within,
)


@dataclass(frozen=True)
class InkOptions:
    """What makes a piece of a marker's colour a marker's."""

    open_um: float = 6.0
    """Threads thinner than twice this are not ink."""
    saturation: float = 0.6
    """Chroma over the brightest channel, from which a colour is purer than stains are."""
    strong_share: float = 0.5
    """Share of such pixels in a pure piece."""
    texture: float = 5.0
    """Standard deviation of brightness within 5 x 5 pixels, up to which a piece (its median) is even."""
    stroke: float = 2.0
    """Area over squared width, from which a piece is long: a square has 1."""
    black_um: float = 48.0
    """Width from which black is a marker's: pigment and crowded nuclei make specks."""
    glass_share: float = 0.4
    """Share of glass in what surrounds a piece that lies on glass."""
    apart: float = 0.8
    """Where this share of a hue's area lies on glass, ..."""
    others: float = 5.0
    """... and the slide has this many times as much tissue of other colours, the hue is not that of a stain: streaks
    of ink are not even on coarse overviews."""
    marker_um: float = 72.0
    """Width that most ink has; what is stained here and there is in specks and threads."""
    embedded_um: float = 160.0
    """Width from which ink is told within tissue: pools of mucin are as pure and even, but smaller."""
    doubtful_stroke: float = 8.0
    """An even piece as long as this may be either where no other tissue helps to tell, ..."""
    gap_um: float = 32.0
    """Gaps between hues up to twice this are closed before a piece counts as a line."""
    pale: float = 0.3
    """... if most of its pixels are purer than this; few markers are paler."""
    rim_um: float = 144.0
    """Pieces of the hue that lie mostly within this distance of ink are its rim; even ones within reach continue it."""


@dataclass(frozen=True, eq=False)
class Ink:
    """Where ink is."""

    mask: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]
    """What may be ink or stain."""


@dataclass(frozen=True, eq=False)
class InkColours:
    """Which pixels have the colours of markers."""

    cool: NDArray[np.bool_]
    """Green and blue."""
    red: NDArray[np.bool_]
    black: NDArray[np.bool_]

    @property
    def any(self) -> NDArray[np.bool_]:
        """Pixels of any of the colours."""
        return self.cool | self.red | self.black


def colours_of(rgb: NDArray[np.uint8]) -> InkColours:
    """Find the colours of marker pens: green, blue, red by hue and purity, black by darkness without colour.

    Args:
        rgb: RGB uint8 [H, W, 3] on neutral glass.
    """
    red, green, blue = (rgb[:, :, i].astype(np.int16) for i in range(3))
    low, high = (channel.astype(np.int16) for channel in low_high(rgb))
    chroma = high - low
    # Haematoxylin, eosin, DAB and their mixtures always let more red or blue through than green.
    is_green = (green == high) & (green - red > 14) & (chroma > 24) & (green - low > 20)
    # Haematoxylin takes red and green away alike; blue ink lets green through, or takes far more red away.
    is_blue = (blue == high) & (chroma > 60) & (red < 130) & ((green - red > 20) | ((blue - red > 90) & (red < 90)))
    # Red ink takes green and blue away alike, and more of blue than blood and eosin do; DAB's brown keeps more green.
    is_red = (red > 100) & (chroma > 85) & (blue * 3 < red) & (np.abs(green - blue) < 30)
    return InkColours(is_green | is_blue, is_red, (high < 70) & (chroma < 24))


def ink_of(
    rgb: NDArray[np.uint8],
    colours: InkColours,
    stained: NDArray[np.bool_],
    pixel_um: float,
    options: InkOptions | None = None,
) -> Ink:
    """Separate ink from stains that have the colours of ink.

    Args:
        rgb: RGB uint8 [H, W, 3] on neutral glass.
        colours: Masks of the pixels that have a marker's colours.
        stained: Mask of what has colour, ink and tissue, bool [H, W].
        pixel_um: Side of a pixel.
        options: Constants; the defaults if None.
    """
    options = options or InkOptions()
    mask = wide(colours.black, options.black_um / pixel_um)
    doubtful = np.zeros_like(mask)
    usual = int((stained & ~colours.any).sum())
    for colour, parts in ((colours.cool, True), (colours.red, False)):
        hue = opened(colour, options.open_um / pixel_um)
        if not hue.any():
            continue
        ink = _judged(rgb, hue, stained, usual, pixel_um, options, parts=parts)
        mask, doubtful = mask | ink.mask, doubtful | ink.doubtful
    return Ink(mask, doubtful & ~mask)


def _judged(
    rgb: NDArray[np.uint8],
    hue: NDArray[np.bool_],
    stained: NDArray[np.bool_],
    usual: int,
    pixel_um: float,
    options: InkOptions,
    *,
    parts: bool,
) -> Ink:
    """Judge the pieces of one hue; `parts` takes what has texture out of them again."""
    from scipy import ndimage

    values = brightness(rgb)
    labels, count = labelled(hue)
    inside = labels[hue]
    area = np.bincount(inside, minlength=count + 1).astype(np.float64)
    area[0] = 1
    depth = distance(hue)
    width = np.zeros(count + 1)
    np.maximum.at(width, inside, np.minimum(depth[hue], 1e6))
    if width.max() <= 3:  # specks and threads only
        return Ink(np.zeros_like(hue), np.zeros_like(hue))
    low, high = low_high(rgb[hue])
    saturation = 1 - low / np.maximum(high, 1).astype(np.float32)
    strong = np.bincount(inside, saturation > options.saturation, count + 1) / area >= options.strong_share
    coloured = np.bincount(inside, saturation > options.pale, count + 1) / area >= 0.5
    core = depth > np.maximum(3, width[labels] / 2)
    number = np.bincount(labels[core], minlength=count + 1)
    # Edges are not even in anything: their 3 pixels do not count.
    smooth = _texture(values, depth > 3) <= options.texture
    even = np.bincount(labels[core & smooth], minlength=count + 1) * 2 > number
    stroke = area / (2 * width + 1e-9) ** 2
    # What lies 4 to 6 pixels from a piece: nearer is its own pale rim.
    ring = np.where(ndimage.maximum_filter(hue, size=7), 0, ndimage.maximum_filter(labels, size=13))
    around = np.bincount(ring.ravel(), minlength=count + 1).astype(np.float64)
    on_glass = np.bincount(ring[~stained], minlength=count + 1) / np.maximum(around, 1) >= options.glass_share

    long = stroke >= options.stroke
    total = area[1:].sum()
    # Tissue of other colours, or of this hue but with texture: beside it, what is even stands out.
    others = usual + area[1:][~even[1:]].sum() >= area[1:][even[1:]].sum()
    width_um = 2 * width * pixel_um
    on_its_own = area[1:][on_glass[1:]].sum() >= options.apart * total
    a_pens_hue = (
        usual >= options.others * total
        and on_its_own
        and area[1:][(coloured & (width_um >= options.marker_um))[1:]].sum() >= 0.5 * total
    )
    pen = strong & even
    if others:
        pen |= even & long & coloured
    thin = width_um < options.embedded_um
    # A line so thin has no middle to measure. A sheet of tissue full of small holes only seems one.
    line = strong & on_glass & _lines(hue, labels, area, pixel_um, options)
    pen |= line
    rough = np.bincount(ring[_texture(values) > options.texture], minlength=count + 1) * 2 >= around
    narrow = ~on_glass & rough & thin
    inner = pen & narrow
    pen = (pen | a_pens_hue) & ~narrow
    either = even & coloured & (stroke >= options.doubtful_stroke) & ~pen & (not others)
    # Pure, even and compact: a marker's, or the one deep-stained piece of the slide.
    either |= pen & ~long if usual < 0.05 * total else False
    # Lines, or threads of the only stain that the slide has.
    either |= line & ~even if usual < area[line].sum() else False
    pen[0] = either[0] = False
    mask = np.asarray(pen[labels], bool)
    if mask.any():
        near = np.bincount(labels[hue & within(mask, options.rim_um / pixel_um)], minlength=count + 1)
        # Pale rims, and a stroke's way on through tissue.
        pen |= (near > 0.5 * area) | (inner & (near > 0))
        pen[0] = False
        mask = np.asarray(pen[labels], bool)
    # Where a stroke runs into tissue of its own hue, the tissue's texture parts them again. Not in red: it lets the
    # texture below it through, and hardly a stain is as pure.
    deep = np.bincount(labels[depth > 3], minlength=count + 1)
    both = pen & even & (np.bincount(labels[(depth > 3) & smooth], minlength=count + 1) < 0.85 * deep)
    if parts and both.any():
        mask &= ~both[labels] | within(opened(smooth & mask, 2), 5)
    return Ink(mask & ~either[labels], np.asarray(either[labels], bool))


def _lines(
    hue: NDArray[np.bool_],
    labels: NDArray[np.int32],
    area: NDArray[np.float64],
    pixel_um: float,
    options: InkOptions,
) -> NDArray[np.bool_]:
    """Return which pieces are thin and long once their small holes and gaps are closed."""
    solid = filled(closed(hue, options.gap_um / pixel_um), (options.embedded_um / pixel_um) ** 2)
    depth = distance(solid)
    width = np.zeros(len(area))
    np.maximum.at(width, labels[hue], np.minimum(depth[hue], 1e6))
    lines = (2 * width * pixel_um < options.embedded_um) & (area / (2 * width + 1e-9) ** 2 >= options.doubtful_stroke)
    lines[0] = False
    return lines


def _texture(values: NDArray[np.float32], where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Return the standard deviation within 5 x 5 pixels, or within those in a mask; infinite for fewer than 8."""
    from scipy import ndimage

    if where is None:
        mean, square = ndimage.uniform_filter(values, 5), ndimage.uniform_filter(values * values, 5)
        return np.sqrt(np.maximum(square - mean * mean, 0))
    part = where.astype(np.float32)
    share = ndimage.uniform_filter(part, 5)
    weight = np.maximum(share, 1e-3)
    mean = ndimage.uniform_filter(values * part, 5) / weight
    square = ndimage.uniform_filter(values * values * part, 5) / weight
    return np.where(share > 0.3, np.sqrt(np.maximum(square - mean * mean, 0)), np.float32(np.inf))
