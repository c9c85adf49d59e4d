"""Turn scores into probabilities that mean what they say.

Everything that is fitted here is fitted on one set of patients and used on another. Platt scaling and the temperature
keep the order of the scores, so AUROC stays as it was.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import log_loss

Floats = NDArray[np.float64]

SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1 before their logit is taken: a float32 score cannot come nearer to 1."""
LOG_T_BOUNDS = (-4.0, 4.0)
"""Where the logarithm of the temperature is looked for."""


@dataclass(frozen=True)
class Scaling:
    """`sigmoid(slope · logit(p) + intercept)`."""

    slope: float
    """1 where the scores are neither too extreme (below 1) nor too timid (above 1)."""
    intercept: float
    """0 where, given the slope, they are neither too high nor too low."""

    def __call__(self, probability: ArrayLike) -> Floats:
        """Return the scaled probabilities, in the shape of what comes in."""
        return expit(self.slope * logits(probability) + self.intercept)


def logits(probability: ArrayLike) -> Floats:
    """Return log(p / (1 − p)), with p kept `SMALLEST` away from 0 and 1."""
    return logit(np.clip(np.asarray(probability, np.float64), SMALLEST, 1 - SMALLEST))


def platt(probability: ArrayLike, truth: ArrayLike, *, smoothed: bool = False, weight: Floats | None = None) -> Scaling:
    """Fit Platt scaling: a logistic regression, without penalty, of the truth on the logit of the score.

    Fitted on the very rows that are audited, slope and intercept are Cox's calibration slope and intercept.

    Args:
        probability: Probabilities, float [N], 0 to 1.
        truth: Truths, 0 or 1, [N].
        smoothed: Whether to fit to (n⁺ + 1) / (n⁺ + 2) and 1 / (n⁻ + 2) in place of 1 and 0, as Platt did. The fit
            stays finite where the score makes no mistake.
        weight: Weight of each row, float [N].

    Raises:
        MedclipError: WRONG_USE where there is one class only, or where the score makes no mistake, so that no slope is
            the best (then `smoothed` helps).

    Reference: Platt, Probabilistic outputs for support vector machines (1999); Cox, Biometrika 45 (1958) 562-565.
    """
    z, y, w = _rows(probability, truth, weight)
    if not smoothed:
        if _parted(z, y):
            raise MedclipError(
                Reason.WRONG_USE,
                "the scores separate the two classes without a mistake, so that no finite slope is the best.",
                hint="Use the smoothed variant, or more patients.",
            )
        return _logistic(z, y, w)
    up, down = (w[y == 1].sum() + 1) / (w[y == 1].sum() + 2), 1 / (w[y == 0].sum() + 2)
    target = np.where(y == 1, up, down)
    # A truth between 0 and 1 is both classes at once, each by its share.
    both, share = np.repeat([1.0, 0.0], len(z)), np.concatenate([target, 1 - target])
    return _logistic(np.tile(z, 2), both, np.tile(w, 2) * share)


def temperature(logit: ArrayLike, truth: ArrayLike, *, weight: Floats | None = None) -> float:
    """Fit the one number T that makes sigmoid(z / T), or softmax(z / T), the most likely: above 1 it tones down.

    Args:
        logit: Logits, float [N] for a yes-or-no question (`logits(p)`), or [N, C] for classes that exclude each other.
        truth: Truths, [N]: 0 or 1, or the index of the class.
        weight: Weight of each row, float [N]; for logits [N] alone.

    Returns:
        T, between exp(−4) and exp(4).

    Raises:
        MedclipError: WRONG_USE where there is one class only.

    Reference: Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    z, y = np.asarray(logit, np.float64), np.asarray(truth)
    if z.ndim == 1:
        _need_both(y)
        w = np.ones(len(z)) if weight is None else weight

        def loss(log_t: float) -> float:
            scaled = z * np.exp(-log_t)
            return float(np.average(np.logaddexp(0, scaled) - y * scaled, weights=w))
    else:
        y = y.astype(np.int64)

        def loss(log_t: float) -> float:
            return log_loss(z * np.exp(-log_t), y)

    solution: Any = minimize_scalar(loss, bounds=LOG_T_BOUNDS, method="bounded", options={"xatol": 1e-9})
    return float(np.exp(solution.x))


def cooled(probability: ArrayLike, t: float) -> Floats:
    """Return sigmoid(logit(p) / T)."""
    return Scaling(1 / t, 0.0)(probability)


def edges(num_bins: int) -> Floats:
    """Return the inner edges of bins of equal width over 0 to 1, [num_bins − 1]: the floats nearest to k / num_bins."""
    return np.arange(1, num_bins) / num_bins


def bins_of(probability: ArrayLike, inner_edges: ArrayLike) -> NDArray[np.intp]:
    """Return the bin of each probability, [N]; one that lies on an edge belongs to the lower bin."""
    return np.digitize(np.asarray(probability, np.float64), np.asarray(inner_edges), right=True)


def chosen_class(probability_NC: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    """Return the probability of the likeliest class, [N], and whether it was right, [N]."""
    p = np.asarray(probability_NC, np.float64)
    return p.max(axis=1), (p.argmax(axis=1) == np.asarray(truth)).astype(np.float64)


def _logistic(z: Floats, y: Floats, w: Floats) -> Scaling:
    # Imported here: a command that refuses its arguments does not wait for scikit-learn.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # Standardised for the solver only; nothing is penalised.
    middle, spread = z.mean(), z.std() or 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
                ((z - middle) / spread)[:, None], y, sample_weight=w
            )
        except ConvergenceWarning as e:
            raise MedclipError(
                Reason.WRONG_USE, "no calibration slope was found: the scores hardly overlap between the classes."
            ) from e
    slope = float(fit.coef_[0, 0]) / spread
    return Scaling(slope, float(fit.intercept_[0]) - slope * middle)


def _rows(probability: ArrayLike, truth: ArrayLike, weight: Floats | None) -> tuple[Floats, Floats, Floats]:
    z, y = logits(probability), np.asarray(truth, np.float64)
    _need_both(y)
    return z, y, np.ones(len(z)) if weight is None else np.asarray(weight, np.float64)


def _need_both(y: NDArray) -> None:
    if y.min(initial=1) == y.max(initial=0):
        raise MedclipError(Reason.WRONG_USE, f"{len(y)} rows of one class only; calibration needs both.")


def _parted(z: Floats, y: Floats) -> bool:
    low, high = z[y == 0], z[y == 1]
    return bool(low.max() <= high.min() or high.max() <= low.min()) and bool(z.min() < z.max())
