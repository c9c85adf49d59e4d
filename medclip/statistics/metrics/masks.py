"""How near a mask comes to the true one: overlap, distance of outlines, and lesions one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dice_and_iou(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Return Dice and intersection over union of two masks; both are 1 where neither has a pixel.

    Example:
        >>> dice_and_iou(np.array([True, True, False]), np.array([True, False, False]))
        (0.6666666666666666, 0.5)
    """
    both, either = int((predicted & truth).sum()), int((predicted | truth).sum())
    total = both + either
    return (2 * both / total, both / either) if total else (1.0, 1.0)
