"""How well logits answer a task: what hyper-parameters are chosen by, and the temperature that makes them honest."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from medclip.statistics.metrics.ranks import auroc


class Quality(NamedTuple):
    """Compared from left to right; the greater the better."""

    right: float
    """Accuracy (multi-class), or the mean AUROC of the classes that have positives and negatives (multi-label)."""
    minus_log_loss: float
    """Breaks ties, of which a handful of units makes many."""


def quality(logits_NC: NDArray, targets: NDArray) -> Quality:
    """Score logits.

    Args:
        logits_NC: Logits, float [N, C].
        targets: Truths: int64 [N], or float32 [N, C] with NaN where nobody knows.
    """
    right = accuracy(logits_NC, targets) if targets.ndim == 1 else float(mean_auroc(logits_NC[None], targets)[0])
    return Quality(float(right), -log_loss(logits_NC, targets))


def accuracy(logits_NC: NDArray, targets_N: NDArray) -> float:
    """Compute the share of units whose greatest logit is their class."""
    return float((logits_NC.argmax(axis=1) == targets_N).mean())


def mean_auroc(logits_GNC: NDArray, targets_NC: NDArray) -> NDArray[np.float64]:
    """Average the AUROC over the classes with positives and negatives; ½ where no class has both.

    Args:
        logits_GNC: G sets of logits, float [G, N, C].
        targets_NC: Truths, float [N, C]: 1, 0 and NaN.

    Returns:
        float64 [G].
    """
    areas = []
    for c in range(targets_NC.shape[1]):
        is_known = ~np.isnan(targets_NC[:, c])
        area_G = auroc(logits_GNC[:, is_known, c], targets_NC[is_known, c] == 1)
        if not np.isnan(area_G).any():
            areas.append(area_G)
    return np.mean(areas, axis=0) if areas else np.full(len(logits_GNC), 0.5)


def log_loss(logits_NC: NDArray, targets: NDArray, smooth: float = 0.0) -> float:
    """Compute the mean cross-entropy: softmax over classes, or sigmoid per class over what is known.

    Args:
        logits_NC: Logits, float [N, C].
        targets: Truths, int64 [N] or float [N, C].
        smooth: Share of the truth that is spread over the other answers.
    """
    z = np.asarray(logits_NC, np.float64)
    if targets.ndim == 2:
        is_known = ~np.isnan(targets)
        t = np.where(targets[is_known] == 1, 1 - smooth, smooth)
        return float((np.logaddexp(0, z[is_known]) - t * z[is_known]).mean()) if is_known.any() else 0.0
    log_p = log_softmax(z, axis=1)
    true = log_p[np.arange(len(z)), targets]
    if not smooth:
        return float(-true.mean())
    others = (log_p.sum(axis=1) - true) / (z.shape[1] - 1)
    return float(-((1 - smooth) * true + smooth * others).mean())


def temperature(logits_NC: NDArray, targets: NDArray, offset_C: NDArray | float = 0.0) -> float:
    """Compute the factor that makes logits of held-out units the best probabilities, between 1/1000 and 1000.

    The truth is smoothed by 1/(n+2), as in Platt scaling, so that a few units that are all right do not make it
    endless. `logits · factor + offset` is what to use; 1 where the logits say nothing.

    Args:
        logits_NC: Logits of units that were not learned from, float [N, C].
        targets: Truths, int64 [N] or float [N, C].
        offset_C: Numbers added after the factor: log-odds of the classes before anything is seen.
    """
    count = len(targets) if targets.ndim == 1 else int((~np.isnan(targets)).sum())
    if not count or float(np.ptp(logits_NC)) == 0:
        return 1.0
    minimum: Any = minimize_scalar(
        lambda t: log_loss(np.exp(t) * logits_NC + offset_C, targets, smooth=1 / (count + 2)),
        bounds=(np.log(1e-3), np.log(1e3)),
        method="bounded",
    )
    return float(np.exp(minimum.x))
