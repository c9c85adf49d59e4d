"""How well each patch fits the prompts: the best of the organ's attributes, and the sum over the report's findings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 100.0
"""What cosines are multiplied with, as CLIP's logits are."""


def attribute_scores(
    features_ND: NDArray[np.floating[Any]], attributes_AD: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Score each patch by the attribute that it shows best.

    Args:
        features_ND: Unit vectors of patches.
        attributes_AD: Unit vectors of the attributes, however many.

    Returns:
        float32 [N]: 100 times the largest cosine; 0 without attributes.

    Example:
        >>> attribute_scores(np.eye(3), np.eye(3)[:1]).tolist()
        [100.0, 0.0, 0.0]
    """
    if not len(attributes_AD):
        return np.zeros(len(features_ND), np.float32)
    return (SCALE * (np.asarray(features_ND, np.float32) @ np.asarray(attributes_AD, np.float32).T)).max(axis=1)


def finding_scores(
    features_ND: NDArray[np.floating[Any]], findings_FD: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Score each patch by all findings of the slide's report together.

    Args:
        features_ND: Unit vectors of patches.
        findings_FD: Unit vectors of the findings.

    Returns:
        float32 [N]: 100 times the sum of cosines; 0 without findings.

    Example:
        >>> finding_scores(np.eye(3), np.eye(3)[[1, 1]]).tolist()
        [0.0, 200.0, 0.0]
    """
    if not len(findings_FD):
        return np.zeros(len(features_ND), np.float32)
    return (SCALE * (np.asarray(features_ND, np.float32) @ np.asarray(findings_FD, np.float32).T)).sum(axis=1)


def best_rows(scores_N: NDArray[np.float32], num: int) -> list[int]:
    """Return the rows of the highest scores, best first; of equal ones the first."""
    return np.argsort(-scores_N, kind="stable")[:num].tolist()
