"""How unlike the images of before an image is: four scores of its cosines with the classes, and one of its vector.

Smaller is more alike for each of them, as in the code of MCM. The temperature divides cosines, without the model's own
scale: with T = 1 the scores of MCM differ in the third decimal only, so that everything is in double precision.

References: Ming et al., Delving into out-of-distribution detection with vision-language representations (MCM), NeurIPS
2022; Liu et al., Energy-based out-of-distribution detection, NeurIPS 2020; Lee et al., NeurIPS 2018 (Mahalanobis).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, logsumexp, softmax

from medclip.statistics.metrics.ranks import auroc

Floats = NDArray[np.float64]
RECALL = 0.95
"""Share of the images of before that are let through where false positives are counted."""


def mcm(cosines_NK: ArrayLike, temperature: float = 1.0) -> Floats:
    """Compute minus the largest softmax over the classes (maximum concept matching), [N].

    Example:
        >>> [round(float(x), 6) for x in (*mcm([[0.30, 0.25, 0.20]]), *mcm([[0.30, 0.25, 0.20]], 0.01))]
        [-0.350132, -0.993262]
    """
    return -_softmax(cosines_NK, temperature).max(axis=-1)


def max_logit(cosines_NK: ArrayLike) -> Floats:
    """Compute minus the largest cosine, [N]."""
    return -np.asarray(cosines_NK, np.float64).max(axis=-1)


def energy(cosines_NK: ArrayLike, temperature: float = 1.0) -> Floats:
    """Compute the free energy, −T · logsumexp(c / T), [N]; near T = 0 it is `max_logit`.

    Example:
        >>> round(float(energy([[0.30, 0.25, 0.20]])[0]), 6)
        -1.349445
    """
    scaled = np.asarray(cosines_NK, np.float64) / temperature
    return -temperature * np.asarray(logsumexp(scaled, axis=-1))


def entropy(cosines_NK: ArrayLike, temperature: float = 1.0) -> Floats:
    """Compute the entropy of the softmax over the classes, [N]."""
    return np.asarray(entr(_softmax(cosines_NK, temperature)).sum(axis=-1))


def mahalanobis(features_ND: ArrayLike, means_KD: ArrayLike, precision_DD: ArrayLike) -> Floats:
    """Compute half the squared Mahalanobis distance to the nearest mean, under one shared covariance, [N]."""
    features, means, precision = (np.asarray(a, np.float64) for a in (features_ND, means_KD, precision_DD))
    offsets_KND = features[None] - means[:, None]
    return (np.einsum("knd,de,kne->kn", offsets_KND, precision, offsets_KND) / 2).min(axis=0)


def shared_precision(features_ND: ArrayLike, shrinkage: float = 0.1) -> Floats:
    """Compute the inverse covariance of vectors about their mean, drawn a little towards a multiple of the unit matrix.

    Args:
        features_ND: Features of the images of before.
        shrinkage: Share of the multiple; above 0 there may be fewer images than dimensions.
    """
    features = np.asarray(features_ND, np.float64)
    centred = features - features.mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    size = float(np.trace(covariance)) / len(covariance)
    return np.linalg.inv((1 - shrinkage) * covariance + shrinkage * max(size, 1e-12) * np.eye(len(covariance)))


@dataclass(frozen=True)
class Separation:
    """How well a score tells new images from those of before."""

    auroc: float
    aupr: float
    """Average precision with the images of before as positives; it depends on how many there are of each."""
    fpr95: float
    """Share of new images that pass where 95 % of those of before do."""


def separation(before_N: ArrayLike, new_M: ArrayLike) -> Separation:
    """Measure a score on two sets of images.

    The operating point of `fpr95` is that whose recall is nearest to 95 %, as in the code of MCM, not the first above.

    Args:
        before_N: Score of each image of before; smaller is more alike.
        new_M: Score of each new image.

    Example:
        >>> separation([0.1, 0.2], [0.8, 0.9])
        Separation(auroc=1.0, aupr=1.0, fpr95=0.0)
    """
    from sklearn.metrics import average_precision_score

    scores = -np.concatenate([np.asarray(before_N, np.float64), np.asarray(new_M, np.float64)])
    alike = np.arange(len(scores)) < np.size(before_N)
    area = float(average_precision_score(alike, scores))
    return Separation(float(auroc(scores, alike)), area, _fpr_at(scores, alike))


def _fpr_at(scores: Floats, alike: NDArray[np.bool_]) -> float:
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    passed = np.cumsum(alike[order])[ends]
    passed = passed[: int(np.searchsorted(passed, passed[-1])) + 1]  # beyond the first full recall there is no point
    strangers = ends[: len(passed)] + 1 - passed
    off = np.abs(passed / passed[-1] - RECALL)
    return float(strangers[np.flatnonzero(off == off.min())[-1]] / (~alike).sum())


def _softmax(cosines_NK: ArrayLike, temperature: float) -> Floats:
    return np.asarray(softmax(np.asarray(cosines_NK, np.float64) / temperature, axis=-1))
