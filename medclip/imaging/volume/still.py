"""Which frame of a volume in time stands for all: the one that is shown, and that a model of volumes is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from medclip.sample import Step, Volume


def still_frame(volume: Volume, headers: Mapping[str, Any]) -> tuple[Volume, tuple[Step, ...]]:
    """Choose a frame of a volume in time: the lowest b-value where b-values are known, else the middle one.

    Args:
        volume: Volume, 3-D, which stays what it is, or 4-D with frames first.
        headers: Header values, as the volume's reader returned them.

    Returns:
        The 3-D volume, and what was done.
    """
    if volume.voxels.ndim == 3:
        return volume, ()
    count = volume.voxels.shape[0]
    known = headers.get("b_values")
    if known and all(value is not None for value in known):
        number = int(np.argmin(known))
        why = f"the lowest b-value, {known[number]:g} s/mm²"
    else:
        number, why = count // 2, "the middle one"
    return replace(volume, voxels=volume.voxels[number]), (Step("frame", f"{number} of {count}, {why}"),)
