"""The same colours on every slide: pixels of one slide, as the scanner and the stainer of the target had made them."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.patches.grid import Patch
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.readers.readable import DAMAGED, readable_overview
from medclip.imaging.slides.stain.estimate import (
    TARGETS,
    StainEstimate,
    StainOptions,
    estimate_stain,
    from_lab,
    to_lab,
)
from medclip.imaging.slides.stain.optical_density import White, absorbance, light
from medclip.imaging.slides.tissue.background import glass_of, white_point
from medclip.imaging.slides.tissue.find import TissueOptions, overview_mpp

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
