"""Images with their masks, read in processes of their own. Never imports torch."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Problem, Reason
from medclip.imaging.mask_files import MaskOf, read_mask_of
from medclip.imaging.masks import Shown, shown_of, stored_size
from medclip.models.inputs.preprocess import Preprocess
from medclip.sample import Kind
from medclip.settings import Settings


@dataclass(frozen=True)
class Masked:
    """One image and its mask."""

    row: int
    """Row of the table under its header from 1."""
    path: Path
    mask: Path
    patient: str | None = None
    """Keyed hash; None where nothing says whose image it is."""
    structure: str = ""
    """As the column of masks is called, where a file may hold several."""


@dataclass(frozen=True, eq=False)
class MaskedImage:
    """What a reading process gives back for one image; crosses a pipe."""

    sha256: str
    image: NDArray[np.uint8] | None = None
    """As the model takes it; None exactly where there is a problem."""
    labels: NDArray[np.uint8] | None = None
    """Mask on the model's side, see `Shown.to_model`."""
    shown: Shown | None = None
    truth: bytes = b""
    """Mask of the image's own pixels: packed bits, compressed (1 or 2 KB of an outline)."""
    problem: Problem | None = None

    def mask(self) -> NDArray[np.bool_]:
        """Return the mask of the image's own pixels."""
        assert self.shown is not None
        height, width = self.shown.size
        bits = np.frombuffer(zlib.decompress(self.truth), np.uint8)
        return np.unpackbits(bits, count=height * width).reshape(height, width).astype(np.bool_)


def read_masked(one: Masked, modality: str, preprocess: Preprocess, settings: Settings) -> MaskedImage:
    """Read one image through its modality's adapter, and its mask. Never imports torch."""
    from medclip.adapters.base import combined_sha256, source_of
    from medclip.adapters.registry import read_unit
    from medclip.sample import Modality

    sha256 = ""
    try:
        source = source_of(one.path, settings)
        sha256 = combined_sha256(source)
        asked = modality if modality == "generic" else Modality(modality)
        sample = read_unit(source, asked, preprocess.reading(settings))
        if sample.kind is not Kind.IMAGE or len(sample.views) != 1:
            message = f"it is a {sample.kind}, and masks are of single images."
            raise MedclipError(Reason.OTHER_INPUT, message, where=one.path)
        (view,) = sample.views
        mask_HW = read_mask_of(one.mask, MaskOf(one.path, stored_size(view), one.structure), settings)
        size = (mask_HW.shape[0], mask_HW.shape[1])
        shown = shown_of(view, size, preprocess.placement(*view.pixels.shape[:2]))
        image = preprocess.to_array(view)
    except MedclipError as error:
        return MaskedImage(sha256, problem=error.problem())
    return MaskedImage(sha256, image, shown.to_model(mask_HW), shown, zlib.compress(np.packbits(mask_HW).tobytes()))
