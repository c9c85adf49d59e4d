"""Zero-shot answers for whole slides: the patches that match a sentence best stand for the slide.

The similarity of every patch with every class is pooled over the K highest patches of that class (MI-Zero). The mean of
all patches would drown a small lesion; the highest alone follows one smudge. K = 50 of thousands of patches was a good
middle in the reference; a slide with fewer patches has them all.

Reference: Lu et al., Visual language pretrained multiple instance zero-shot transfer for histopathology images, CVPR
2023.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.models.scores.class_vectors import ClassVectors, score_features
from medclip.text.vocabulary.task import Kind

TOP_PATCHES = 50


def patch_logits(
    features_ND: NDArray[np.floating], vectors: ClassVectors, kind: Kind, logit_scale: float
) -> NDArray[np.float32]:
    """Score every patch as scoring does an image: a·cos, or a·(cos⁺ − cos⁻) for multilabel tasks; float32 [N, C].

    Args:
        features_ND: Patch vectors of unit norm.
        vectors: The task's class vectors.
        kind: multiclass or multilabel.
        logit_scale: a, the model's exp(logit_scale).
    """
    return score_features(np.asarray(features_ND, np.float32), vectors, kind, logit_scale)[0]


def top_pooled(logits_NC: NDArray[np.floating], top: int = TOP_PATCHES) -> NDArray[np.float32]:
    """Average the highest patches of each class, float32 [C].

    Args:
        logits_NC: Of each patch.
        top: K; all patches where a slide has fewer.

    Raises:
        MedclipError: WRONG_USE for no patch, or K below 1.

    Example:
        >>> top_pooled(np.array([[1.0, 0.0], [3.0, 4.0], [2.0, 0.0]]), top=2).tolist()
        [2.5, 2.0]
    """
    if not len(logits_NC) or top < 1:
        raise MedclipError(Reason.WRONG_USE, f"the {top} highest of {len(logits_NC)} patches: both take at least 1.")
    count = min(top, len(logits_NC))
    highest_KC = np.partition(np.asarray(logits_NC, np.float64), -count, axis=0)[-count:]
    return highest_KC.mean(axis=0).astype(np.float32)
