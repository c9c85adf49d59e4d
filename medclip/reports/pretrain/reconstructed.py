"""The section of a page that shows what a model puts where patches were hidden, and what it may be taken for."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.sample import spoken
from medclip.wording import capital, figure, percent

if TYPE_CHECKING:
    from medclip.training.reconstructions import Reconstruction

_LARGEST_PX = 256
"""Sides above this are halved until they are not: a page of eight images stays at one or two megabytes."""


@dataclass(frozen=True)
class Triptych:
    """One image three times."""

    name: str
    original: str
    """data URI of a PNG, as the two that follow."""
    visible: str
    filled: str
    text: str
    """The error of the guess beside that of a guess without a model."""


def triptychs(reconstructions: Sequence[Reconstruction]) -> tuple[Triptych, ...]:
    """Turn reconstructions into what the page shows."""
    return tuple(_triptych(one) for one in reconstructions)


def better_than_naive(reconstructions: Sequence[Reconstruction]) -> float:
    """Return by which share the guesses' error is smaller than that of guesses without a model; below 0: larger."""
    naive = sum(one.naive_error for one in reconstructions)
    return 1 - sum(one.error for one in reconstructions) / naive if naive > 0 else 0.0


def _triptych(one: Reconstruction) -> Triptych:
    grey = _is_grey(one.original_HWC)
    error, naive = (figure(value, decimals=3) for value in (one.error, one.naive_error))
    return Triptych(
        name=capital(spoken(one.modality)) if one.modality else "Modality not known",
        original=_uri(one.original_HWC, grey),
        visible=_uri(one.visible_HWC, grey),
        filled=_uri(one.filled_HWC, grey),
        text=f"{percent(one.hidden_share)} hidden. Error {error}; without a model {naive}.",
    )


def _is_grey(pixels_HWC: NDArray[np.uint8]) -> bool:
    return bool((pixels_HWC == pixels_HWC[..., :1]).all())


def _uri(pixels_HWC: NDArray[np.uint8], grey: bool) -> str:
    """Write pixels as a PNG. Of a grey original the guess is shown in grey, too: its three channels are one value."""
    from PIL import Image

    pixels = pixels_HWC.mean(axis=2).round().astype(np.uint8) if grey else np.ascontiguousarray(pixels_HWC)
    image = Image.fromarray(pixels)
    while max(image.size) > _LARGEST_PX:
        image = image.reduce(2)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
