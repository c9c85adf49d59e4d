"""One file or series becomes the squares of pixels a model takes. Runs in reading processes; never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Problem, Reason

if TYPE_CHECKING:
    from medclip.models.preprocess import Preprocess
    from medclip.sample import Modality
    from medclip.settings import Settings


@dataclass(frozen=True, eq=False)
class Pixels:
    """What a reading process gives back for one image."""

    sha256: str
    views_VHWC: NDArray[np.uint8] | None = None
    """uint8 [views, size, size, 3]; None exactly where there is a problem."""
    way: str = ""
    """How it was read: "xray", "ct:volume"."""
    problem: Problem | None = None


def read_pixels(path: Path, modality: Modality, preprocess: Preprocess, settings: Settings) -> Pixels:
    """Read one image through its modality's adapter and bring it to the model's size. Never imports torch.

    Args:
        path: A file, or the folder of one series.
        modality: Whose adapter reads it.
        preprocess: The model's image size and padding.
        settings: Limits and policy.
    """
    from medclip.adapters.base import combined_sha256
    from medclip.adapters.model_images import pictures_of
    from medclip.adapters.registry import read_unit, slot
    from medclip.adapters.sources import source_of

    sha256 = ""
    try:
        source = source_of(path, settings)
        sha256 = combined_sha256(source)
        sample = read_unit(source, modality, settings)
        pictures = pictures_of(sample)
        if not pictures:
            raise MedclipError(Reason.NO_PIXELS, "The adapter found no picture in the file.")
        views = np.stack([preprocess.to_array(view) for view in pictures])
    except MedclipError as error:
        return Pixels(sha256, problem=error.problem())
    return Pixels(sha256, views, slot(modality, source.kind))
