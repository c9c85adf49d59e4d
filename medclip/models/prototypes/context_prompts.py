"""Classification in the context of an image: first which view, device or patient it shows, then the finding given that.

A prompt of each class is completed by a phrase of each context z ("chest X-ray: pneumonia, lateral view."). From the
scaled cosines s(y, z) follow the context, p(z|x), and the class in each context, p(y|x, z); the answer is their sum,
p(y|x) = Σ p(z|x) p(y|x, z). All in log space: at a scale of 100 and cosines of 0.9 an exponential in single precision
overflows.

Reference: An, Zhu et al., More context, less distraction (PerceptionCLIP), ICLR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class InContext:
    """What is said of N images, over Y classes and Z contexts."""

    contexts_NZ: Floats
    """p(z|x)."""
    given_NYZ: Floats
    """p(y|x, z)."""
    classes_NY: Floats
    """p(y|x)."""


def in_context(
    logits_NYZ: ArrayLike, context_logits_NZ: ArrayLike | None = None, *, temperature: float = 1.0
) -> InContext:
    """Infer the context of images, and classify them given it.

    Args:
        logits_NYZ: Cosine of each image with the prompt of each class in each context, times the model's scale.
        context_logits_NZ: Logits with prompts of the contexts alone (class-free); None: contexts are inferred from the
            classes' prompts, summed over the classes.
        temperature: Temperature of p(z|x) alone: above 1 the inferred context is trusted less.

    Returns:
        Probabilities.

    Example:
        >>> answer = in_context([[[2.0, 0.0], [1.0, 1.0]]])
        >>> answer.contexts_NZ.round(6).tolist(), answer.classes_NY.round(6).tolist()
        ([[0.731059, 0.268941]], [[0.606776, 0.393224]])
    """
    logits = np.asarray(logits_NYZ, np.float64)
    if context_logits_NZ is None:
        evidence_NZ = np.asarray(logsumexp(logits / temperature, axis=1))
    else:
        evidence_NZ = np.asarray(context_logits_NZ, np.float64) / temperature
    log_contexts_NZ = np.asarray(log_softmax(evidence_NZ, axis=1))
    log_given_NYZ = np.asarray(log_softmax(logits, axis=1))
    log_classes_NY = np.asarray(logsumexp(log_contexts_NZ[:, None] + log_given_NYZ, axis=2))
    return InContext(np.exp(log_contexts_NZ), np.exp(log_given_NYZ), np.exp(log_classes_NY))
