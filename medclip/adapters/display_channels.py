"""Which channels of a view a person is shown: three HU windows of a CT slice are no colours."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medclip.sample import Kind, Modality, Sample

T = TypeVar("T", bound=np.generic)
_NAMED = re.compile(r"(\w+) centre")


def channel_names(sample: Sample) -> tuple[str, ...]:
    """Name the channels of a sample's views where they are windows on one slice, as the step "window" has them.

    Returns:
        Lung, soft tissue, bone for CT volumes; () where the channels are a colour, or one grey value three times.
    """
    if not _is_ct_volume(sample):
        return ()
    matches = [_NAMED.findall(step.detail) for step in sample.provenance.steps if step.name == "window"]
    names = tuple(name.replace("_", " ") for name in matches[0]) if matches else ()
    return names if len(names) == 3 else ()


def as_shown(sample: Sample, pixels: NDArray[T]) -> NDArray[T]:
    """Return the pixels H x W x C of a view as a person looks at them.

    Of CT volumes the middle channel in grey: the soft tissue window, or the slice itself between its neighbours. Put
    together as red, green and blue they would make a lung red and a bone white.
    """
    return pixels[:, :, 1:2] if _is_ct_volume(sample) and pixels.shape[2] == 3 else pixels


def _is_ct_volume(sample: Any) -> bool:
    return sample.modality is Modality.CT and sample.kind is Kind.VOLUME
