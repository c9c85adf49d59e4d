"""Leave out patches that look like one that is kept already.

Going through patches by their score and keeping each that is unlike all kept ones is the obvious way, but it can keep
fewer patches at a higher threshold: a patch in the middle that is now kept excludes two at the sides that were kept
before. So patches are taken in the order of T. Gonzalez (Theor. Comput. Sci. 38, 1985): the best one first, then always
the one that is least like those that are kept, until all others are too much like one. What is kept at a threshold is
then kept at every higher one; each patch that is left out is that much like a kept one; and no two kept are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unlike_rows(
    features_ND: NDArray[np.floating[Any]], scores_N: NDArray[np.floating[Any]], most_cosine: float = 0.95
) -> list[int]:
    """Choose patches that differ from each other.

    Args:
        features_ND: Unit vectors.
        scores_N: The best one is kept, and of equal ones the better.
        most_cosine: Cosine that no two kept patches exceed; 1 drops nothing but copies, as far as rounding tells them.

    Returns:
        Rows that are kept, best score first. The order of the input does not matter where scores are distinct.

    Example:
        >>> unlike_rows(np.eye(3)[[0, 0, 1]], np.array([1.0, 2.0, 3.0]))
        [2, 1]
    """
    order = np.argsort(-np.asarray(scores_N, np.float64), kind="stable")
    if not len(order):
        return []
    vectors = np.asarray(features_ND, np.float64)[order]
    limit = min(most_cosine, 1.0 - 1e-6)  # float32 vectors of one image differ by less
    kept = [0]
    nearest = vectors @ vectors[0]
    nearest[0] = np.inf
    while True:
        least = int(np.argmin(nearest))  # of equal ones the first, which has the better score
        if nearest[least] > limit:
            break
        kept.append(least)
        nearest = np.maximum(nearest, vectors @ vectors[least])
        nearest[least] = np.inf
    return [int(order[row]) for row in sorted(kept)]
