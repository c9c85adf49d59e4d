"""What is explained: a number that scoring computes from an image's features, and how the features move it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
_STEP = 1e-2
"""Of the differences that stand for a derivative: features are of unit norm, logits tens."""
_LINEAR = 1e-4
"""Difference, relative to the largest logit, below which a head counts as linear."""


@dataclass(frozen=True, eq=False)
class Target:
    """One score: of a prompt, or of a class of a task."""

    name: str
    """The prompt or the class."""
    against: str
    """What it is compared with, in words; "" for nothing."""
    task: str
    """Name of its task."""
    score: Callable[[Features], NDArray[np.float64]]
    """float32 [N, D] of unit norm to N logits: those whose sigmoid is the probability, where it is compared."""
    direction: Callable[[Features], NDArray[np.float64]]
    """float32 [D] of one image to the gradient of what its map follows, [D]: the score, or of a class among exclusive
    ones its logit less the mean of the others."""
    unit_score: Callable[[Features], float]
    """float32 [V, D] of all images of a unit to its score, as scoring has it: of the mean of their logits."""
    caution: str = ""
    """Why the answer is grey, as the tables of a run have it; empty for one like any other."""
    figures: tuple[Mapping[str, Any], ...] = ()
    """What the card says of how good the answers to it are: `metric`, `value`, `low`, `high`, `chance`, `num_patients`,
    `source` (None where it is over all of them) and `in_words`; empty for prompts and where nobody has measured it."""

    @property
    def title(self) -> str:
        """Both in one line."""
        return f"{self.name} against {self.against}" if self.against else self.name


def logit_target(
    name: str, against: str, task: str, logits: Callable[[Features], NDArray], number: int, *, exclusive: bool
) -> Target:
    """Make a target of one class's logit.

    Args:
        name: Name of the class or prompt.
        against: Name of what the class is compared with.
        task: Name of the task.
        logits: Function of features, float32 [N, D], to logits [N, C], as scoring computes them: of prompts or of a
            pack's head.
        number: Number of the class.
        exclusive: Whether classes share the probability of 1. The score then is the log-odds of the class, its logit
            less the log-sum-exp of the others, whose sigmoid is the probability. The map follows the logit less the
            mean of the others: it is the same for all images, does not change where something is added to all logits,
            and what lowers the likeliest other class is not taken for evidence of this one.
    """
    from scipy.special import logsumexp

    def others(values_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.delete(values_NC, number, axis=1)

    def compared(values_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        own_N = values_NC[:, number]
        if not exclusive or values_NC.shape[1] == 1:
            return own_N
        return own_N - np.asarray(logsumexp(others(values_NC), axis=1))

    def score(features_ND: Features) -> NDArray[np.float64]:
        return compared(np.asarray(logits(features_ND), np.float64))

    def unit_score(features_VD: Features) -> float:
        return float(compared(np.asarray(logits(features_VD), np.float64).mean(axis=0, keepdims=True))[0])

    def followed(features_ND: Features) -> NDArray[np.float64]:
        values_NC = np.asarray(logits(features_ND), np.float64)
        own_N = values_NC[:, number]
        return own_N if not exclusive or values_NC.shape[1] == 1 else own_N - others(values_NC).mean(axis=1)

    slopes: list[NDArray[np.float64] | None] = []

    def direction(feature_D: Features) -> NDArray[np.float64]:
        if not slopes:
            slopes.append(_linear(followed, feature_D))
        return _slope(followed, feature_D) if slopes[0] is None else slopes[0]

    return Target(name, against, task, score, direction, unit_score)


def _linear(score: Callable[[Features], NDArray[np.float64]], feature_D: Features) -> NDArray[np.float64] | None:
    """Return the slope, [D], of a score that is linear in the features; None where it is not."""
    dim = len(feature_D)
    probes = np.concatenate([np.zeros((1, dim)), np.eye(dim), feature_D[None]]).astype(np.float32)
    with np.errstate(all="ignore"):
        values = score(probes)
    slope_D, seen = values[1:-1] - values[0], values[-1] - values[0]
    difference = abs(float(feature_D.astype(np.float64) @ slope_D - seen))
    return slope_D if difference <= _LINEAR * max(1.0, abs(float(values[-1]))) else None


def _slope(score: Callable[[Features], NDArray[np.float64]], feature_D: Features) -> NDArray[np.float64]:
    steps = _STEP * np.eye(len(feature_D))
    ahead, behind = (score((feature_D + sign * steps).astype(np.float32)) for sign in (1, -1))
    return (ahead - behind) / (2 * _STEP)
