"""Whether probabilities mean what they say (calibration intercept and slope, Cox 1958), and how scores are made to.

Everything that is fitted here is fitted on one set of patients and used on another. Platt scaling and the temperature
keep the order of the scores, so AUROC stays as it was.

Intercept and slope are those of the logistic regression of the truth on the logit of the probability. A model that is
calibrated has intercept 0 and slope 1; a slope below 1 means probabilities that are too extreme. With
the slope fixed at 1 the intercept is calibration in the large: whether probabilities are too high or low altogether.
A probability of 0 or 1 has no logit. Such rows do not count for intercept and slope, as in Harrell's `val.prob`: put
10⁻⁷ away from the end, one ill patient among 600 with a score of 0 takes a slope of 1.02 to 0.84, and its interval
held the truth in 88 % of cohorts with a few of them. They do count for calibration in the large and all other errors.
The values of the sample itself are maximum-likelihood fits. Those of a resample are one step from that fit with the
sums of the resample: the one-step bootstrap of Moulton and Zeger (1991), whose Newton step is followed by the
second-order correction of Chebyshev's method. With 20 positives among 200 rows, refitting 600 resamples gave a slope of
0.31 to 1.17, the corrected step 0.37 to 1.11 and the bare one 0.22 to 1.02; from 400 rows on, refit and corrected step
agree to 0.02.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Rows
from medclip.statistics.metrics.selection_score import log_loss
from medclip.statistics.resampling.sums import Block, summing_matrix

Floats = NDArray[np.float64]

SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1 before their logit is taken: a float32 score cannot come nearer to 1."""
_LARGEST = float(logit(1 - SMALLEST)) - 1e-6
"""Logits from here on are of probabilities of 0 and 1."""
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


FIGURES = ("intercept", "slope", "in the large")
_MAX_STEPS = 50
_TERMS = 9

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """A metric that is one of the figures fitted."""

    figure: Literal["intercept", "slope", "in the large"]

    @property
    def place(self) -> int:
        """Where it stands in `FIGURES`."""
        return FIGURES.index(self.figure)


def has_logit(logit_n: Array) -> NDArray[np.bool_]:
    """Return whether each row's probability is neither 0 nor 1, so that it counts for intercept and slope, [n]."""
    return np.abs(logit_n) < _LARGEST


def fit(logit_n: Array, truth_n: NDArray[np.bool_], weight_n: Array | None = None) -> tuple[float, float]:
    """Fit intercept and slope by maximum likelihood (Newton's method with step halving).

    Rows with probabilities of 0 and 1 are left out (`has_logit`).

    Returns:
        Intercept and slope; NaN where there is no finite maximum: one class only, one value only, or classes that the
        score separates.
    """
    weight_n = np.ones(len(logit_n)) if weight_n is None else weight_n
    counted = (weight_n > 0) & has_logit(logit_n)
    x_n, y_n, w_n = logit_n[counted], truth_n[counted].astype(np.float64), weight_n[counted]
    if _separated(x_n[y_n == 0], x_n[y_n == 1]):
        return np.nan, np.nan
    start = np.average(y_n, weights=w_n)
    theta = np.array([np.log(start / (1 - start)), 0.0])
    loss = _loss(theta, x_n, y_n, w_n)
    for _ in range(_MAX_STEPS):
        sums = _slopes(theta, x_n, y_n) @ w_n
        step = _solved(sums[:2, None], sums[2:, None])[:, 0]
        if not np.isfinite(step).all():
            return np.nan, np.nan
        while (new_loss := _loss(theta + step, x_n, y_n, w_n)) > loss and np.abs(step).max() > 1e-12:
            step = step / 2
        theta, loss = theta + step, min(loss, new_loss)
        if np.abs(step).max() <= 1e-10 * (1 + np.abs(theta).max()):
            return float(theta[0]), float(theta[1])
    return np.nan, np.nan


def fit_in_the_large(logit_n: Array, truth_n: NDArray[np.bool_], weight_n: Array | None = None) -> float:
    """Fit the intercept with the slope fixed at 1, by maximum likelihood.

    Returns:
        NaN where there is one class only: no finite intercept is the likeliest.
    """
    from scipy.optimize import brentq

    weight_n = np.ones(len(logit_n)) if weight_n is None else weight_n
    observed, total = float(weight_n @ truth_n), float(weight_n.sum())
    if not 0 < observed < total:
        return np.nan
    # The intercept that brings every row to the share observed, from its lowest and its highest probability.
    target = np.log(observed / (total - observed))
    low, high = target - float(logit_n.max()), target - float(logit_n.min())
    if low == high:
        return low
    root: Any = brentq(lambda a: float(weight_n @ expit(a + logit_n)) - observed, low - 1e-9, high + 1e-9, xtol=1e-14)
    return float(root)


def _separated(negative: Array, positive: Array) -> bool:
    """Whether one class is missing or the classes do not overlap, so that a steeper slope is always likelier."""
    if not (len(negative) and len(positive)):
        return True
    return bool(negative.max() <= positive.min() or positive.max() <= negative.min())


def _loss(theta: Array, x_n: Array, y_n: Array, w_n: Array) -> float:
    z_n = theta[0] + theta[1] * x_n
    return float(w_n @ (np.logaddexp(0, z_n) - y_n * z_n))


def terms(fitted: Array, x_n: Array, y_n: Array) -> Array:
    """Return what each row adds to the sums that a resample's step from the fit is made of, [12, n].

    Args:
        fitted: Intercept, slope, and the intercept with the slope fixed at 1; NaN where there is none.
        x_n: Logit of each row's probability.
        y_n: Truth of each row, 1 or 0.
    """
    slope, large = (fitted[0], fitted[1]), float(fitted[2])
    of_slope = np.concatenate([_slopes(slope, x_n, y_n), _bends(slope, x_n)]) * has_logit(x_n)
    return np.nan_to_num(np.concatenate([of_slope, _large_terms(large, x_n, y_n)]))


def steps(sums_tb: Array) -> Array:
    """Return the corrected steps from the fit, [3, b], in the order of `FIGURES`; arguments: sums of `terms`."""
    return np.concatenate([_corrected(sums_tb[:_TERMS]), _large_step(sums_tb[_TERMS:])[None]])


def present(counts_22b: Array) -> NDArray[np.bool_]:
    """Return whether a resample has both classes for each of `FIGURES`, [3, b].

    Args:
        counts_22b: Rows with a logit and without one, each by truth.
    """
    slope_b, large_b = ((counts > 0).all(axis=0) for counts in (counts_22b[0], counts_22b.sum(axis=0)))
    return np.stack([slope_b, slope_b, large_b])


def fit_all(logit_n: Array, truth_n: NDArray[np.bool_], weight_n: Array | None = None) -> Array:
    """Fit all of `FIGURES`, [3]."""
    return np.array([*fit(logit_n, truth_n, weight_n), fit_in_the_large(logit_n, truth_n, weight_n)])


def _slopes(theta: tuple[float, float] | Array, x_n: Array, y_n: Array) -> Array:
    """Return each row's part of the score (2) and of the information (3), [5, n]."""
    mu_n = expit(theta[0] + theta[1] * x_n)
    rest_n, spread_n = y_n - mu_n, mu_n * (1 - mu_n)
    tilted_n = spread_n * x_n
    return np.stack([rest_n, rest_n * x_n, spread_n, tilted_n, tilted_n * x_n])


def _bends(theta: tuple[float, float], x_n: Array) -> Array:
    """Return each row's part of the third derivative, [4, n]."""
    mu_n = expit(theta[0] + theta[1] * x_n)
    powers = [mu_n * (1 - mu_n) * (1 - 2 * mu_n)]
    for _ in range(3):
        powers.append(powers[-1] * x_n)
    return np.stack(powers)


def _corrected(sums_9b: Array) -> Array:
    """Return the Newton step of each column with its second-order correction, [2, b]."""
    score, information, (s0, s1, s2, s3) = sums_9b[:2], sums_9b[2:5], sums_9b[5:]
    a, b = _solved(score, information)
    bend = np.stack([s0 * a * a + 2 * s1 * a * b + s2 * b * b, s1 * a * a + 2 * s2 * a * b + s3 * b * b])
    return _solved(score - bend / 2, information)


def _solved(score_2b: Array, information_3b: Array) -> Array:
    """Return the Newton step of each column; NaN where the information is singular."""
    a, b, c = information_3b
    determinant = a * c - b * b
    regular = determinant > 1e-12 * a * c
    inverse = np.divide(1.0, determinant, out=np.full(determinant.shape, np.nan), where=regular)
    return np.stack([c * score_2b[0] - b * score_2b[1], a * score_2b[1] - b * score_2b[0]]) * inverse


def _large_terms(a: float, x_n: Array, y_n: Array) -> Array:
    """Return each row's part of the score, the information and the third derivative, slope fixed, [3, n]."""
    mu_n = expit(a + x_n)
    spread_n = mu_n * (1 - mu_n)
    return np.stack([y_n - mu_n, spread_n, spread_n * (1 - 2 * mu_n)])


def _large_step(sums_3b: Array) -> Array:
    """Return the Newton step of each column with its second-order correction, [b]."""
    score, information, bend = sums_3b
    inverse = np.divide(1.0, information, out=np.full(information.shape, np.nan), where=information > 0)
    step = score * inverse
    return (score - bend * step**2 / 2) * inverse


class Recalibrated:
    """Intercept and slope of all cells of one label, and the intercept in the large."""

    def __init__(self, rows: Rows, wanted: Mapping[str, Fitted]) -> None:
        self._wanted = wanted
        self._num_cells = rows.num_cells
        self._fits: dict[int, tuple[Array, Any, Any]] = {}
        """Of each cell: what was fitted, sums of a resample, and counts of its positives and negatives."""
        logit_n = logits(rows.score_n)
        for g, cell in enumerate(rows.cells):
            x_n, truth_n, patients_n = logit_n[cell], rows.truth_n[cell], rows.patients_n[cell]
            weight_n = None if rows.weight_n is None else rows.weight_n[cell]
            fitted = fit_all(x_n, truth_n, weight_n)
            if np.isnan(fitted[2]):
                continue
            terms_tn = terms(fitted, x_n, truth_n.astype(np.float64)) * (1.0 if weight_n is None else weight_n)
            term_n, repeated_n = np.repeat(np.arange(len(terms_tn)), len(cell)), np.tile(patients_n, len(terms_tn))
            matrix = summing_matrix(term_n, len(terms_tn), repeated_n, rows.num_patients, terms_tn.ravel())
            class_n = truth_n + 2 * ~has_logit(x_n)
            classes = summing_matrix(class_n.astype(np.int32), 4, patients_n, rows.num_patients)
            self._fits[g] = (fitted, matrix, classes)

    def __call__(self, block: Block) -> Mapping[str, Array]:
        """Return each figure one corrected step from the fit, [G, columns of the block].

        NaN where the resample lacks a class.
        """
        coefficients = np.full((len(FIGURES), self._num_cells, block.weights_Pb.shape[1]), np.nan)
        for g, (fitted, matrix, classes) in self._fits.items():
            present_3b = present(block.sums(classes).reshape(2, 2, -1))
            coefficients[:, g] = np.where(present_3b, fitted[:, None] + steps(block.sums(matrix)), np.nan)
        return {name: coefficients[fitted.place] for name, fitted in self._wanted.items()}
