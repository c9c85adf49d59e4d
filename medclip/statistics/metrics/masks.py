"""How near a mask comes to the true one: overlap, distance of outlines, and lesions one by one."""

from __future__ import annotations

from typing import Any

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


def lesion_counts(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Count lesions one by one: pieces of a mask whose pixels touch, by sides or corners.

    Returns:
        True lesions of which at least a pixel is predicted; true lesions; and predicted pieces that touch no true one.

    Example:
        >>> predicted, truth = np.zeros((5, 5), np.bool_), np.zeros((5, 5), np.bool_)
        >>> truth[0, :2] = truth[4, 4] = predicted[0, 1] = predicted[2, 2] = True
        >>> lesion_counts(predicted, truth)
        (1, 2, 1)
    """
    from scipy import ndimage

    touching = np.ones((3, 3), np.bool_)
    pieces: list[Any] = [ndimage.label(mask, touching) for mask in (predicted, truth)]
    (predicted_HW, num_predicted), (truth_HW, num_true) = pieces
    hit = len(np.unique(truth_HW[predicted & truth]))
    right = len(np.unique(predicted_HW[predicted & truth]))
    return hit, int(num_true), int(num_predicted) - right
