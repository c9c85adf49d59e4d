"""Steps of a scale on frozen features: proportional odds, CORAL and a plain regression, each one line and thresholds.

All three give one number z = f·w of an image and thresholds θ between the steps; P(step > k) = σ(z − θ_k). They differ
in what is minimised:

- proportional odds: −log P(step), the likelihood of the ordered logit model;
- CORAL: the binary cross-entropies of all "is it above k", with one w and a bias each;
- regression: the squared distance of f·w + b to the number of the step (ridge); the thresholds lie half way between
  steps, and the slope of σ is fitted on held-out shots.

References: McCullagh, J. R. Stat. Soc. B 42 (1980) 109-142; Cao, Mirjalili & Raschka, Pattern Recognit. Lett. 140
(2020) 325-331 (CORAL).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit
from sklearn.linear_model import Ridge

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import ArrayHead
from medclip.adaptation.data.shot_features import Judge, Shots, Views, mean_of_views, take
from medclip.adaptation.methods import Fitted
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import log_loss
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.models.model import Model

Floats = NDArray[np.float64]
PENALTIES = (1e-3, 1e-2, 1e-1, 1e0, 1e1)
"""Weights of |w|² beside the sum over examples whose mean squared length, about their centre, is 1."""
_DEFAULT = 1e-1
DEFAULT_SLOPE = 4.0
"""Of the logistic where nothing can be judged: half a step off is then likely."""
_CLOSEST = 1e-3
"""Least distance of two thresholds: a step between equal ones would have no probability, and no logit."""
_FARTHEST = 700.0
"""Beyond it e to the distance is no number."""

Solve = Callable[[Floats, NDArray[np.int64], int, float], tuple[Floats, Floats]]
"""(rows [M, D], steps [M], number of steps K, penalty): returns w [D] and rising thresholds [K − 1]."""


@dataclass(frozen=True, eq=False)
class OrdinalHead(ArrayHead):
    """The log probabilities of steps: P(step > k) = σ(f·w − θ_k)."""

    weight_D: NDArray[np.float32]
    thresholds_K: NDArray[np.float32]
    """One between each two steps, rising."""
    kind: ClassVar[str] = "ordinal"

    def place(self, features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return where images lie on the line that the thresholds cut, float32 [N]."""
        return np.asarray(features_ND, np.float32) @ self.weight_D

    def logits(self, features_ND: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C], of which the softmax is the probability of each step."""
        return log_probabilities(self.place(features_ND).astype(np.float64), self.thresholds_K).astype(np.float32)


def log_probabilities(place_N: Floats, thresholds_K: NDArray[np.floating]) -> Floats:
    """Compute the logarithm of the probability of each step, exact far out in the tails: float64 [N, K + 1].

    log(σ(a) − σ(b)) = log σ(a) + log σ(−b) + log(1 − e^(b − a)), for a and b the distances to the thresholds around.

    Args:
        place_N: Places on the line.
        thresholds_K: Rising thresholds.
    """
    away_NK = np.asarray(thresholds_K, np.float64)[None] - place_N[:, None]
    below, above = log_expit(away_NK), log_expit(-away_NK)
    between = np.log(-np.expm1(-np.diff(np.asarray(thresholds_K, np.float64))))
    return np.concatenate([below[:, :1], below[:, 1:] + above[:, :-1] + between, above[:, -1:]], axis=1)


def check_scale(text: ClassText) -> None:
    """Refuse a task whose classes are no steps of a scale.

    Raises:
        MedclipError: WRONG_USE where the classes have no order, or one of them is no step.
    """
    if not text.task.ordered:
        raise MedclipError(
            Reason.WRONG_USE,
            f"this way learns steps of a scale, and nothing says in which order {list_of(text.names, most=4)} come.",
            hint="Name them from the lowest to the highest with --order, or a task file of the kind ordinal with "
            "--task.",
        )
    if outside := [name for name in text.names if name not in text.task.steps]:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{list_of(outside)} of the task {text.task.name} is no step of its scale.",
            hint="Leave those rows out.",
        )


def take_steps(base: Model, text: ClassText, train: Examples, val: Examples | None, views: Views = "pooled") -> Shots:
    """Check the examples of a task whose classes are steps of a scale; as `shot_features.take`.

    Raises:
        MedclipError: As `check_scale` and `take`; WRONG_USE where a step has no example.
    """
    check_scale(text)
    shots = take(base, text, train, val, views)
    if shots.no_examples:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the scale has a gap: there are no examples of {list_of(shots.no_examples)}.",
            hint="Give examples of every step, or join steps.",
        )
    return shots


def fit_proportional_odds(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    penalty: float | None = None,
    views: Views = "pooled",
) -> Fitted:
    """Fit the ordered logit model with an L2 penalty.

    Args:
        base: The base model; its words are not used.
        text: The classes, steps of a scale in their order.
        train: The shots.
        val: Further examples, which choose the penalty.
        seed: Seed of the folds.
        penalty: Weight of the penalty; one of `PENALTIES` is chosen where None, 0.1 where nothing can be judged.
        views: Kind of rows: one for each unit, or one for each view.

    Raises:
        MedclipError: As `take_steps`; WRONG_USE for a penalty that is not above 0.
    """
    return _fit(take_steps(base, text, train, val, views), seed, penalty, ordered_logit)


def fit_coral(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    penalty: float | None = None,
    views: Views = "pooled",
) -> Fitted:
    """Fit CORAL: one binary question for each threshold, of the same weights. Arguments as `fit_proportional_odds`.

    Raises:
        MedclipError: As `fit_proportional_odds`.
    """
    return _fit(take_steps(base, text, train, val, views), seed, penalty, coral)


def fit_regression(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    penalty: float | None = None,
    views: Views = "pooled",
) -> Fitted:
    """Regress the number of the step with an L2 penalty (scikit-learn's `Ridge`). Arguments as `fit_proportional_odds`.

    The slope that makes it probabilities is fitted on held-out shots; 4 where nothing can be judged, which takes half a
    step for likely.

    Raises:
        MedclipError: As `fit_proportional_odds`.
    """
    return _fit(take_steps(base, text, train, val, views), seed, penalty, regression, slope=DEFAULT_SLOPE)


def ordered_logit(rows_MD: Floats, step_M: NDArray[np.int64], num_steps: int, penalty: float) -> tuple[Floats, Floats]:
    """Maximise the likelihood of proportional odds: returns w [D] and rising thresholds [K − 1]."""
    num_dim, cuts = rows_MD.shape[1], num_steps - 1

    def loss(values: Floats) -> tuple[float, Floats]:
        weight_D, theta_K, rise_K = values[:num_dim], *_rising(values[num_dim:])
        place_M = rows_MD @ weight_D
        low_M, high_M = (np.full(len(step_M), end) for end in (-np.inf, np.inf))
        low_M[step_M > 0] = theta_K[step_M[step_M > 0] - 1]
        high_M[step_M < cuts] = theta_K[step_M[step_M < cuts]]
        minus = log_probabilities(place_M, theta_K)[np.arange(len(step_M)), step_M]
        # d log p / dz = σ(θ_low − z) − σ(z − θ_high); each threshold moves the steps on both of its sides
        up_M, down_M = expit(low_M - place_M), expit(place_M - high_M)
        gap_M = 1 / np.expm1(np.minimum(high_M - low_M, _FARTHEST))
        of_low = -(up_M + gap_M)
        of_high = down_M + gap_M
        of_theta = np.zeros(cuts)
        np.add.at(of_theta, step_M[step_M > 0] - 1, of_low[step_M > 0])
        np.add.at(of_theta, step_M[step_M < cuts], of_high[step_M < cuts])
        slope_D = rows_MD.T @ (up_M - down_M) - penalty * weight_D
        of_values = np.cumsum(of_theta[::-1])[::-1] * rise_K
        return penalty / 2 * float(weight_D @ weight_D) - float(minus.sum()), -np.concatenate([slope_D, of_values])

    return _minimised(loss, num_dim, step_M, num_steps)


def coral(rows_MD: Floats, step_M: NDArray[np.int64], num_steps: int, penalty: float) -> tuple[Floats, Floats]:
    """Minimise the binary cross-entropies of "above k": returns w [D] and rising thresholds [K − 1].

    Without a bound they rise anyway at the minimum (Cao et al., theorem 1).
    """
    num_dim = rows_MD.shape[1]
    above_MK = (step_M[:, None] > np.arange(num_steps - 1)).astype(np.float64)

    def loss(values: Floats) -> tuple[float, Floats]:
        weight_D, theta_K, rise_K = values[:num_dim], *_rising(values[num_dim:])
        away_MK = (rows_MD @ weight_D)[:, None] - theta_K
        off_MK = expit(away_MK) - above_MK
        value = -(above_MK * log_expit(away_MK) + (1 - above_MK) * log_expit(-away_MK)).sum()
        slope_D = rows_MD.T @ off_MK.sum(axis=1) + penalty * weight_D
        of_values = np.cumsum(-off_MK.sum(axis=0)[::-1])[::-1] * rise_K
        return float(value + penalty / 2 * weight_D @ weight_D), np.concatenate([slope_D, of_values])

    return _minimised(loss, num_dim, step_M, num_steps)


def regression(rows_MD: Floats, step_M: NDArray[np.int64], num_steps: int, penalty: float) -> tuple[Floats, Floats]:
    """Regress the number of the step: returns w [D], and thresholds half way between steps."""
    ridge = Ridge(alpha=penalty).fit(rows_MD, step_M)
    halves_K = np.linspace(0.5, num_steps - 1.5, num_steps - 1)
    return np.asarray(ridge.coef_, np.float64), np.subtract(halves_K, float(ridge.intercept_))


def _rising(values_K: Floats) -> tuple[Floats, Floats]:
    """Read thresholds from the first one and the logarithms of their distances; and what each of these moves."""
    rise_K = np.concatenate([[1.0], np.exp(values_K[1:])])
    return np.cumsum(np.concatenate([values_K[:1], rise_K[1:] + _CLOSEST])), rise_K


def _minimised(
    loss: Callable[[Floats], tuple[float, Floats]], num_dim: int, step_M: NDArray[np.int64], num_steps: int
) -> tuple[Floats, Floats]:
    """Start from w = 0 and the shares of the steps, which no weights would give."""
    share_K = (np.bincount(step_M, minlength=num_steps).cumsum()[:-1] + 0.5) / (len(step_M) + 1)
    theta_K = np.log(share_K / (1 - share_K))
    rises = np.log(np.maximum(np.diff(theta_K) - _CLOSEST, _CLOSEST))
    start = np.concatenate([np.zeros(num_dim), theta_K[:1], rises])
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return best.x[:num_dim], _rising(best.x[num_dim:])[0]


def _learn(shots: Shots, examples: Examples, penalty: float, solve: Solve) -> OrdinalHead:
    """Solve on rows about their centre, of mean squared length 1, so that one penalty suits all towers."""
    rows_MD, step_M = shots.rows(examples)
    centre_D = rows_MD.mean(axis=0)
    size = max(float(np.sqrt(((rows_MD - centre_D) ** 2).sum(axis=1).mean())), 1e-12)
    weight_D, theta_K = solve((rows_MD - centre_D) / size, step_M, len(shots.names), penalty)
    weight_D = weight_D / size
    return OrdinalHead(weight_D.astype(np.float32), (theta_K + centre_D @ weight_D).astype(np.float32))


def _fit(shots: Shots, seed: int, penalty: float | None, solve: Solve, slope: float | None = None) -> Fitted:
    """Choose the penalty by log loss, and learn from all shots.

    Args:
        shots: The checked examples.
        seed: Seed of the folds.
        penalty: The penalty; chosen where None.
        solve: Way of learning.
        slope: Slope where nothing can be judged, of a way that has none of its own; None for one that has.

    Raises:
        MedclipError: WRONG_USE for a penalty that is not above 0.
    """
    if penalty is not None and not 0 < penalty < np.inf:
        raise MedclipError(Reason.WRONG_USE, f"penalty is {penalty}; it takes a number above 0.")
    judge, chosen = Judge(shots, seed), _DEFAULT if penalty is None else penalty
    if judge.parts and (penalty is None or slope is not None):
        tried = []
        for value in PENALTIES if penalty is None else (penalty,):
            heads = [_learn(shots, part.learn, value, solve) for part in judge.parts]
            if slope is None:
                tried.append((judge.log_loss(heads), 1.0, value))
                continue
            places = [
                mean_of_views(head.place(np.concatenate(part.judge.features))[:, None], part.judge)[:, 0]
                + (0.5 - float(head.thresholds_K[0]))
                for head, part in zip(heads, judge.parts, strict=True)
            ]
            tried.append((*best_slope(np.concatenate(places), judge.targets, len(shots.names)), value))
        _, factor, chosen = min(tried)
        slope = slope and factor
    head = _learn(shots, shots.train, chosen, solve)
    settings = {"penalty": chosen, "chosen_on": judge.how if penalty is None else "given"}
    if slope is not None:
        head = OrdinalHead(np.float32(slope) * head.weight_D, np.float32(slope) * head.thresholds_K)
        settings |= {"slope": slope, "slope_fitted_on": judge.how}
    return Fitted(head, head.weight_D.size + head.thresholds_K.size, shots.settings(**settings))


def best_slope(place_N: Floats, step_N: NDArray[np.int64], num_steps: int) -> tuple[float, float]:
    """Return the least log loss of places on the scale itself, and the slope of σ at which it is, from 0.1 to 100.

    Args:
        place_N: Places of units that were not learned from, 0 for the lowest step, 1 for the next.
        step_N: Steps that they are.
        num_steps: Number of steps.
    """
    thresholds_K = np.arange(num_steps - 1) + 0.5

    def loss(log_slope: float) -> float:
        slope = np.exp(log_slope)
        return log_loss(log_probabilities(slope * place_N, slope * thresholds_K), step_N)

    best: Any = minimize_scalar(loss, bounds=(np.log(0.1), np.log(100)), method="bounded")
    return float(best.fun), float(np.exp(best.x))
