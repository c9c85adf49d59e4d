"""Stains of a slide: how much of each lies on a pixel, and the same colours on every slide (HED, Macenko, Reinhard)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.imaging.slides.patch_grid import Patch
from medclip.imaging.slides.readers.open import DAMAGED, readable_overview
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.tissue.find import TissueOptions, overview_mpp
from medclip.imaging.slides.tissue.glass import WHITE, glass_of, white_point
from medclip.result import Result

# From light to absorbance, and from absorbance to amounts of stains: light through two stains multiplies, this adds.
#
# Absorbance here is to base 10, as in spectroscopy and QuPath: 1 lets a tenth of the light through. Stains are
# separated by the vectors of A. Ruifrok and D. Johnston, Anal. Quant. Cytol. Histol. 23 (2001): haematoxylin, eosin
# and DAB. One unit of a stain has a vector of length 1, so that amounts of two stains may be compared.

HED_SC = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
"""Haematoxylin, eosin, DAB: how much red, green and blue each takes away. Rows have length 1 within 1 %."""
HED_SC /= np.linalg.norm(HED_SC, axis=1, keepdims=True)
HED_SC.setflags(write=False)

White = float | tuple[float, float, float]
"""Value of bare glass, for all channels or for red, green and blue."""


def absorbance(rgb: NDArray[np.uint8], white: White = WHITE) -> NDArray[np.float32]:
    """Compute the absorbance of each channel.

    Args:
        rgb: RGB uint8 [..., 3].
        white: Value of bare glass.

    Returns:
        float32 [..., 3], log10(white / value); below 0 where a pixel is brighter than the glass, 2.4 for black.

    Example:
        >>> absorbance(np.array([[245, 24, 0]], np.uint8)).astype(float).round(2).tolist()
        [[0.0, 1.01, 2.39]]
    """
    values = np.maximum(np.arange(256, dtype=np.float64), 1)
    tables = [np.log10(channel / values).astype(np.float32) for channel in channels_of(white)]
    return np.stack([table[rgb[..., c]] for c, table in enumerate(tables)], axis=-1)


def light(absorbed: NDArray[Any], white: White = WHITE) -> NDArray[np.uint8]:
    """Compute the pixels of an absorbance: the inverse of `absorbance`, rounded and clipped.

    Args:
        absorbed: [..., 3].
        white: Value of bare glass.

    Returns:
        RGB uint8 [..., 3].
    """
    values = np.asarray(channels_of(white), np.float32) * np.exp(absorbed * np.float32(-np.log(10)))
    values += np.float32(0.5)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def separate(rgb: NDArray[np.uint8], vectors_SC: NDArray[Any] = HED_SC, white: White = WHITE) -> NDArray[np.float32]:
    """Compute the amount of each stain on each pixel.

    Args:
        rgb: RGB uint8 [..., 3].
        vectors_SC: Stains x red, green, blue; two or three rows. Of two, amounts are the best in least squares.
        white: Value of bare glass.

    Returns:
        float32 [..., S] in absorbance. Small negative amounts are noise, or a colour that the stains do not make.

    Example:
        >>> pixel = light(0.5 * HED_SC[:1])
        >>> (separate(pixel).astype(float).round(1) + 0).tolist()
        [[0.5, 0.0, 0.0]]
    """
    inverse_CS = np.linalg.pinv(np.asarray(vectors_SC, np.float64)).astype(np.float32)
    return absorbance(rgb, white) @ inverse_CS


def channels_of(white: White) -> tuple[float, float, float]:
    """Return the value of bare glass in red, green and blue."""
    return white if isinstance(white, tuple) else (white, white, white)


# What is known of a slide's stains: estimated once for a slide, on tissue from all over it, and used for each patch.
#
# An estimate of each patch for itself would paint a patch of pale stroma as dark as one of crowded nuclei: what
# differs between patches is tissue, what differs between slides is staining. Three ways:
#
# - `hed`: the vectors are Ruifrok's; only how strong the two stains are is measured.
# - `macenko`: the vectors are those of the slide, the extreme directions of its pixels in the plane that holds most of
#   the absorbance (M. Macenko et al., ISBI 2009, and its constants: over 0.15 nats, the 1st and 99th percentile).
# - `reinhard`: mean and standard deviation of lightness and colour in CIE Lab, as torchstain has it (E. Reinhard et
#   al., IEEE CG&A 2001, used another opponent space).

StainMethod = Literal["hed", "macenko", "reinhard"]
"""How colours are made alike."""
METHODS: tuple[StainMethod, ...] = ("hed", "macenko", "reinhard")


@dataclass(frozen=True)
class StainOptions:
    """Constants of the estimate."""

    method: StainMethod = "macenko"
    least_absorbance: float = 0.065
    """Absorbance (base 10) of the palest channel, from which a pixel counts as stained: Macenko's 0.15 nats."""
    percentile: float = 1.0
    """Of the directions, from both ends: what lies beyond is noise."""
    strong_percentile: float = 99.0
    """Of the amounts: how strong a stain is on this slide."""
    least_pixels: int = 1000
    """Stained pixels, below which nothing is estimated."""
    least_degrees: float = 8.0
    """Angle between the two stains, below which the slide has one stain only: amounts would be noise."""
    white: White = WHITE
    """Value of bare glass; `slide_stain` measures it."""


@dataclass(frozen=True, eq=False, repr=False)
class StainEstimate(Result):
    """What normalising needs to know of a slide, or of the colours that all slides shall have."""

    method: StainMethod
    white: White = WHITE
    vectors_SC: NDArray[np.float64] = field(default_factory=lambda: HED_SC[:2].copy())
    """Haematoxylin and eosin: how much red, green and blue each takes away; rows of length 1."""
    strength_S: NDArray[np.float64] = field(default_factory=lambda: np.ones(2))
    """Amount (absorbance) that 99 % of the stained pixels stay below."""
    lab_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    lab_sd: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """CIE L*a*b* (D65) of the stained pixels; of Reinhard's way only."""
    num_pixels: int = 0
    """Stained pixels that were measured."""
    problem: str = ""
    """Why nothing was estimated; such a slide's pixels stay as they are."""

    def _facts(self) -> dict[str, object]:
        return {
            "stain": self.method,
            "measured on": f"{self.num_pixels} stained pixels",
            "undecided": self.problem or "no",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        strengths = self.strength_S.tolist()
        names = ("haematoxylin", "eosin")
        vectors = self.vectors_SC.tolist()
        return [
            {"stain": name, "red": v[0], "green": v[1], "blue": v[2], "strength": s}
            for name, v, s in zip(names, vectors, strengths, strict=True)
        ][:most]


MACENKO_SC = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
"""Haematoxylin and eosin of the slide that Macenko's method takes as its target in most software."""
_NATS = float(np.log(10))
MACENKO_TARGET = StainEstimate("macenko", 240.0, MACENKO_SC, np.array([1.9705, 1.0308]) / _NATS, num_pixels=1)
HED_TARGET = StainEstimate("hed", 240.0, HED_SC[:2].copy(), np.array([0.949, 0.293]), num_pixels=1)
REINHARD_TARGET = StainEstimate("reinhard", 240.0, lab_mean=(56.9, 21.5, -11.7), lab_sd=(13.2, 4.5, 4.3), num_pixels=1)
"""The targets of all methods look alike: both are what the slide CMU-1-Small-Region (CC0) has after Macenko's."""
TARGETS: Mapping[StainMethod, StainEstimate] = {
    "hed": HED_TARGET,
    "macenko": MACENKO_TARGET,
    "reinhard": REINHARD_TARGET,
}


def estimate_stain(rgb: NDArray[np.uint8], options: StainOptions | None = None) -> StainEstimate:
    """Estimate the stains of pixels.

    Args:
        rgb: RGB uint8 [..., 3], from all over one slide's tissue; glass among it is left out.
        options: Constants; the defaults if None.

    Returns:
        The estimate; its `problem` tells when there is none.

    Raises:
        MedclipError: WRONG_USE for an unknown method; MISSING_CODEC where Reinhard's lacks scikit-image.

    Example:
        >>> from medclip.imaging.slides.stain import light
        >>> amounts = np.random.default_rng(0).uniform(0.1, 0.8, (4000, 2))
        >>> estimate = estimate_stain(light(amounts @ MACENKO_SC))
        >>> bool(np.abs(estimate.vectors_SC - MACENKO_SC).max() < 0.1), estimate.problem
        (True, '')
    """
    options = options or StainOptions()
    if options.method not in METHODS:
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no way of normalising stains called {options.method!r}.",
            hint=did_you_mean(options.method, METHODS, "Ways are"),
        )
    pixels = rgb.reshape(-1, 3)
    absorbed = absorbance(pixels, options.white)
    stained = absorbed.min(axis=1) >= options.least_absorbance
    count = int(stained.sum())
    if count < options.least_pixels:
        problem = f"only {count} stained pixels, of {options.least_pixels} that an estimate needs"
        return StainEstimate(options.method, options.white, num_pixels=count, problem=problem)
    if options.method == "reinhard":
        lab = to_lab(pixels[stained])
        mean, sd = lab.mean(axis=0), lab.std(axis=0)
        if sd.min() < 1e-3:
            problem = "all stained pixels have one colour"
            return StainEstimate(options.method, options.white, num_pixels=count, problem=problem)
        return StainEstimate(options.method, options.white, lab_mean=_three(mean), lab_sd=_three(sd), num_pixels=count)
    tissue = absorbed[stained].astype(np.float64)
    vectors_SC = HED_SC[:2].copy() if options.method == "hed" else _extremes(tissue, options.percentile)
    degrees = float(np.degrees(np.arccos(np.clip(vectors_SC[0] @ vectors_SC[1], -1, 1))))
    if degrees < options.least_degrees:
        problem = f"one stain only: the colours of the tissue lie within {degrees:.1f} degrees"
        return StainEstimate(options.method, options.white, num_pixels=count, problem=problem)
    strength_S = np.percentile(tissue @ np.linalg.pinv(vectors_SC), options.strong_percentile, axis=0)
    if strength_S.min() < options.least_absorbance:
        name = ("haematoxylin", "eosin")[int(strength_S.argmin())]
        return StainEstimate(
            options.method, options.white, num_pixels=count, problem=f"no {name} that could be measured on the tissue"
        )
    return StainEstimate(options.method, options.white, vectors_SC, strength_S, num_pixels=count)


def _extremes(absorbed_NC: NDArray[np.float64], percentile: float) -> NDArray[np.float64]:
    """Find the two directions between which the pixels' colours lie; haematoxylin, which takes more red, first."""
    _, axes = np.linalg.eigh(np.cov(absorbed_NC.T))
    plane = axes[:, :0:-1]  # the axis of most variance first
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)  # absorbance is positive: so is the angle's middle
    along = absorbed_NC @ plane
    angle = np.arctan2(along[:, 1], along[:, 0])
    ends = np.percentile(angle, [percentile, 100 - percentile])
    vectors = np.stack([plane @ (np.cos(end), np.sin(end)) for end in ends])
    if vectors[0, 0] < vectors[1, 0]:
        vectors = vectors[::-1]
    return np.ascontiguousarray(vectors)


def to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert RGB uint8 [..., 3] to CIE L*a*b* (D65), float32."""
    color = _colour_module()
    return np.asarray(color.rgb2lab(rgb.astype(np.float32) / 255), np.float32)


def from_lab(lab: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert CIE L*a*b* [..., 3] to RGB uint8; colours beyond sRGB are clipped."""
    import warnings

    color = _colour_module()
    with warnings.catch_warnings():
        # It warns of each colour with a negative Z, which it clips as we want it to.
        warnings.simplefilter("ignore", UserWarning)
        return (np.clip(color.lab2rgb(lab), 0, 1) * 255 + 0.5).astype(np.uint8)


def _colour_module() -> Any:
    try:
        from skimage import color
    except ImportError:
        raise MedclipError(
            Reason.MISSING_CODEC,
            "normalising stains in Reinhard's way needs scikit-image, which is not installed.",
            hint="Run: pip install 'medclip-imaging[wsi]'",
        ) from None
    return color


def _three(values: NDArray[Any]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


# The same colours on every slide: pixels of one slide, as the scanner and the stainer of the target had made them.

SAMPLED_PATCHES = 16
"""Patches, spread over the tissue, that a slide's stains are measured on: a million pixels of 256 x 256."""


class Patches(Protocol):
    """Any grid of patches that can be sampled."""

    @property
    def size_px(self) -> int:
        """Rows and columns of a patch."""
        ...

    @property
    def mpp_um(self) -> float:
        """The µm/px that was asked for."""
        ...

    def spread(self, count: int) -> tuple[Patch, ...]:
        """Choose up to `count` patches, evenly over the tissue."""
        ...


def normalise_stain(
    rgb: NDArray[np.uint8], source: StainEstimate, target: StainEstimate | None = None
) -> NDArray[np.uint8]:
    """Recolour pixels of one slide.

    Args:
        rgb: RGB uint8 [..., 3].
        source: Estimate of the slide that the pixels are of.
        target: Estimate of the slide that they shall look like; the usual one of the method if None.

    Returns:
        RGB uint8 of the same shape; the pixels as they are where `source` has a problem.

    Raises:
        MedclipError: WRONG_USE if the two were estimated by different methods, or the target has a problem.
    """
    target = target or TARGETS[source.method]
    if target.method != source.method or target.problem:
        why = target.problem or f"the target was estimated by {target.method}, the slide by {source.method}"
        raise MedclipError(Reason.WRONG_USE, f"the stain cannot be normalised: {why}.", hint="Estimate both alike.")
    if source.problem:
        return rgb
    if source.method == "reinhard":
        scale = np.asarray(target.lab_sd, np.float32) / np.asarray(source.lab_sd, np.float32)
        lab = to_lab(rgb)
        lab -= np.asarray(source.lab_mean, np.float32)
        lab *= scale
        lab += np.asarray(target.lab_mean, np.float32)
        return np.where(_is_stained(rgb, source)[..., None], from_lab(lab), rgb)
    # Amounts of stain, scaled, and back to absorbance: one 3 x 3 matrix.
    amounts_CS = np.linalg.pinv(source.vectors_SC)
    matrix = amounts_CS @ np.diag(target.strength_S / source.strength_S) @ target.vectors_SC
    if source.method == "hed":  # what two fixed vectors do not span stays, as the slide has it
        matrix += np.eye(3) - amounts_CS @ source.vectors_SC
    return light(absorbance(rgb, source.white) @ matrix.astype(np.float32), target.white)


def _is_stained(rgb: NDArray[np.uint8], source: StainEstimate) -> NDArray[np.bool_]:
    """Find the pixels that the estimate's mean is about: Reinhard's shift would tint the glass."""
    least = StainOptions().least_absorbance
    return np.asarray(absorbance(rgb, source.white).min(axis=-1) >= least, bool)


def slide_white(reader: SlideReader) -> White | None:
    """Measure the value of a slide's bare glass on its overview; None where it shows none.

    Raises:
        MedclipError: What reading the overview raises.
    """
    wanted = overview_mpp(reader, TissueOptions())
    try:
        thumbnail = reader.thumbnail(wanted)
    except MedclipError as error:
        if error.reason not in DAMAGED:
            raise
        thumbnail, _ = readable_overview(reader, wanted)
    return white_point(thumbnail, glass_of(thumbnail))


def slide_stain(
    reader: SlideReader, grid: Patches, options: StainOptions | None = None, *, num_patches: int = SAMPLED_PATCHES
) -> StainEstimate:
    """Estimate the stains of a slide, on patches spread over its tissue; its white is measured on the overview.

    Args:
        reader: The slide.
        grid: Patches of the slide.
        options: Constants; the defaults if None.
        num_patches: Number of patches that are read; a damaged one is left out.

    Returns:
        The estimate; its `problem` tells when there is none.

    Raises:
        MedclipError: What reading the overview raises.
    """
    options = options or StainOptions()
    white = slide_white(reader)
    options = replace(options, white=white) if white is not None else options
    pixels = []
    for patch in grid.spread(num_patches):
        try:
            pixels.append(reader.read(patch.top_um, patch.left_um, grid.size_px, grid.size_px, grid.mpp_um))
        except MedclipError as error:
            if error.reason not in DAMAGED:
                raise
    if not pixels:
        return StainEstimate(options.method, options.white, problem="no patch of the slide could be read")
    return estimate_stain(np.concatenate([part.reshape(-1, 3) for part in pixels]), options)
