"""Augmentation of clips of volumes and loops: chance is drawn once into plain values, then applied. No torch here.

What is drawn for an image is drawn for a clip, and the place along its slices or frames beside it. A clip is cut out
with its change, in one pass, by the code that cuts the clips which are scored; grey values change after that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.training.batches.augment import Change, draw_change, grey_table
from medclip.training.recipe.sections.augment import Augment

if TYPE_CHECKING:
    from numpy.random import Generator

    from medclip.imaging.volume.voxels import Voxels
    from medclip.models.inputs.volume_input import VolumeInput


class ClipChange(NamedTuple):
    """What is done to one clip."""

    within: Change
    """To all of its slices or frames alike; nothing is turned and no colour changed."""
    at: float
    """Where along the slices or frames it lies, from 0 (at the first) to 1 (at the last)."""


def draw_clip_change(settings: Augment, rng: Generator, *, may_flip: bool) -> ClipChange:
    """Draw a change; every call takes the same number of draws.

    Args:
        settings: Settings of what may change, and how much.
        rng: Source of chance.
        may_flip: Whether the clip may be mirrored: not where the caption or the record names a side.
    """
    return ClipChange(draw_change(settings, rng, may_flip=may_flip, may_tint=False), float(rng.random()))


def make_clip(voxels: Voxels, change: ClipChange | None, taken: VolumeInput, size_px: int) -> NDArray[np.uint8]:
    """Cut the clip of a training or validation sample.

    Args:
        voxels: The sample's volume or loop.
        change: Change from `draw_clip_change`; None for validation: the middle one of the clips that are scored.
        taken: The model's treatment of volumes.
        size_px: Side of its clips.

    Returns:
        uint8 [T, S, S, C].

    Raises:
        MedclipError: As `VolumeInput.clips`: what the model is not trained on.
    """
    taken.check(voxels)
    if change is None:
        places = taken.places(voxels)
        return taken.clip(voxels, taken.part(voxels, size_px, at=places[len(places) // 2]), taken.black_white(voxels))
    within = change.within
    part = taken.part(voxels, size_px, at=change.at, zoom=_zoom(within), shift=(within.shift[1], within.shift[0]))
    clip_THWC = taken.clip(voxels, part, taken.black_white(voxels))
    if within.flip:
        clip_THWC = clip_THWC[:, :, ::-1]
    return clip_THWC if within.gain == within.gamma == 1 else grey_table(within)[clip_THWC]


def _zoom(change: Change) -> tuple[float, float]:
    """Return height and width of what is shown, relative to the whole square."""
    if not change.parts:
        return change.zoom, change.zoom
    share, ratio = change.parts[0]
    return min(1.0, math.sqrt(share / ratio)), min(1.0, math.sqrt(share * ratio))
