"""How the answers of two breasts become that of the examination: one table of rules, and which of them a pack takes.

The mean of all images dilutes what is in one breast alone. A rule here takes for each step of the answer the
probability that a breast is at least so far ("malignant", "benign or malignant"; of a finding "present"), pools these
over the breasts, and takes differences: a maximum of falling sequences falls, so what comes out is a distribution. A
task whose classes have no order, and no worst one, is not pooled: nothing says what is true of a woman whose breasts
differ.

Reference: noisy-or as Pearl, Probabilistic reasoning in intelligent systems, 1988, 4.3; log-mean-exp as Pinheiro and
Collobert, From image-level to pixel-level labeling with convolutional networks, CVPR 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, logsumexp

from medclip.errors import MedclipError, Reason
from medclip.text.vocabulary.task import Task

MEAN = "mean"
LEARNED = "learned"
_SMALLEST = 1e-12
"""Probabilities are kept so far from 0 and 1, so that their logits are numbers."""
SHARPNESS = (0.01, 100.0)
"""What `learned` may be fitted to: nearly the mean of the logits, to nearly their maximum."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pooling:
    """A rule."""

    title: str
    """What a page calls it."""
    pool: Callable[[Floats, float], Floats] | None
    """(probabilities [B, T] of each breast to be at least at each step, sharpness): returns [T]; None for the mean of
    the logits of all images, or for what the pack's fusion makes of them."""


def _log_mean_exp(at_least_BT: Floats, sharpness: float) -> Floats:
    logits_BT = logit(np.clip(at_least_BT, _SMALLEST, 1 - _SMALLEST))
    return expit((logsumexp(sharpness * logits_BT, axis=0) - np.log(len(logits_BT))) / sharpness)


POOLINGS: Mapping[str, Pooling] = MappingProxyType(
    {
        MEAN: Pooling("the mean of its images", None),
        "max": Pooling("the worse breast", lambda at_least_BT, _: at_least_BT.max(axis=0)),
        "noisy_or": Pooling("either breast (noisy-or)", lambda at_least_BT, _: 1 - np.prod(1 - at_least_BT, axis=0)),
        LEARNED: Pooling("a learned mean that leans to the worse breast", _log_mean_exp),
    }
)
"""By what an option, or a card, names."""


def is_pooled(task: Task) -> bool:
    """Whether something says what is true of a woman whose breasts differ, so that a rule other than the mean holds."""
    has_worst = task.rules.independent or task.worst_last or (task.ordered and not task.outside_order)
    return has_worst and not task.rules.timed and task.level != "exam"


def pool_breasts(
    probabilities_BC: NDArray[np.floating], task: Task, rule: str, sharpness: float | None = None
) -> NDArray[np.float64]:
    """Pool the answers of breasts.

    Args:
        probabilities_BC: Probabilities of each class for each breast, in the order of the task: the worst one last.
        task: The task, for which `is_pooled` holds.
        rule: A name of `POOLINGS`; not the mean, which is of images.
        sharpness: Number that `learned` was fitted to.

    Returns:
        [C] probabilities of the examination.

    Raises:
        MedclipError: WRONG_USE for `learned` where nothing was learned.

    Example:
        >>> from medclip.text.vocabulary.load import load_task
        >>> malignancy = load_task("mammography_malignancy")
        >>> pool_breasts(np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]]), malignancy, "max").round(3).tolist()
        [0.2, 0.3, 0.5]
        >>> pool_breasts(np.array([[0.5, 0.0, 0.5], [0.5, 0.0, 0.5]]), malignancy, "noisy_or").tolist()
        [0.25, 0.0, 0.75]
    """
    if rule == LEARNED and sharpness is None:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the pack learned no pooling of breasts for {task.name}.",
            hint="Choose another one with --pool: max, noisy_or or mean.",
        )
    pool = POOLINGS[rule].pool
    assert pool is not None
    own_BC = np.asarray(probabilities_BC, np.float64)
    if task.rules.independent:
        return pool(own_BC, sharpness or 1.0)
    at_least_BT = np.clip(own_BC[:, ::-1].cumsum(axis=1)[:, ::-1], 0, 1)[:, 1:]
    pooled_T = pool(at_least_BT, sharpness or 1.0)
    return np.append(1.0, pooled_T) - np.append(pooled_T, 0.0)


def fit_sharpness(probabilities: list[NDArray[np.floating]], is_worst_X: NDArray[np.bool_], task: Task) -> float:
    """Fit the one number of `learned` to examinations, by the log-loss of the last class.

    Args:
        probabilities: Probabilities of the breasts of each examination, [B, C].
        is_worst_X: Whether the last class is true of each.
        task: The task.
    """
    from scipy.optimize import fminbound

    def loss(log_sharpness: float) -> float:
        sharpness = float(np.exp(log_sharpness))
        p_X = np.array([pool_breasts(of, task, LEARNED, sharpness)[-1] for of in probabilities])
        p_X = np.clip(p_X, _SMALLEST, 1 - _SMALLEST)
        return -float(np.where(is_worst_X, np.log(p_X), np.log1p(-p_X)).mean())

    return round(float(np.exp(fminbound(loss, *np.log(SHARPNESS)))), 4)


def rule_of(card: Any, task: Task, pool: str | None) -> tuple[str, float | None]:
    """Return the rule of a task and its sharpness: what the caller names, else what the pack's card chose.

    The mean where neither does, and for a task that is not pooled.
    """
    entry = card.tasks.get(task.name)
    chosen = None if entry is None else entry.pooling
    rule = pool or (MEAN if chosen is None else chosen.rule)
    return (rule if is_pooled(task) else MEAN), None if chosen is None else chosen.sharpness


def pooled_logits(probabilities_C: NDArray[np.floating], task: Task) -> NDArray[np.float64]:
    """Return logits whose probabilities, by the task's kind, are those that were pooled."""
    clipped_C = np.clip(probabilities_C, _SMALLEST, 1 - _SMALLEST)
    return logit(clipped_C) if task.rules.independent else np.log(clipped_C)
