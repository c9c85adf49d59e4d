"""Ridge regression, nearest neighbours and the linear discriminant on frozen features: no text, nothing iterated.

Each has one setting, chosen on `val` or by cross-validation over the shots' patients, and then one temperature that
makes its logits probabilities: fitted (with Platt's smoothing) on logits of shots whose patient was held out, on `val`
where a class has one patient only, and a stated default where there is neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import Ridge

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import ArrayHead, Head, LinearHead
from medclip.adaptation.data.shot_features import Judge, Shots, Views, seen, take, with_unseen
from medclip.adaptation.methods import Fitted
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import temperature

if TYPE_CHECKING:
    from medclip.models.model import Model

RIDGE_ALPHAS = (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
SHRINKAGES = ("ledoit_wolf", 0.01, 0.1, 0.3, 0.6, 0.9, 1.0)
NEIGHBOURS = (1, 3, 5, 7, 11, 15, 25)
NEAR = 0.07
"""Falling-off of a neighbour's vote with its distance in cosine, as in Wu et al. 2018 (instance discrimination)."""
_LEAST_SHRINKAGE = 1e-3

Learn = Callable[[Examples, Any], Head]


@dataclass(frozen=True, eq=False)
class KnnHead(ArrayHead):
    """The k nearest examples vote by exp((cos − nearest cos)/0.07); one vote more is spread over all answers.

    The logit is the log of a class's share of the votes, or (multi-label) its log-odds among the examples of which it
    is known; times `scale`.
    """

    keys_ND: NDArray[np.float32]
    values_NC: NDArray[np.float32]
    """1, 0, or NaN where nobody knows."""
    k: int
    scale: float
    text_weight_DC: NDArray[np.float32]
    """Zero-shot weights: used for classes without examples only."""
    multilabel: bool
    kind: ClassVar[str] = "knn"

    def logits(self, features_ND: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C]."""
        features = np.asarray(features_ND, np.float32)
        cosine = features @ self.keys_ND.T
        is_known = ~np.isnan(self.values_NC)
        if self.multilabel:
            shares = [self._share(cosine[:, k], self.values_NC[k, c : c + 1], 0.5) for c, k in enumerate(is_known.T)]
            share = np.concatenate(shares, axis=1)
            logits = self.scale * (np.log(share) - np.log1p(-share))
        else:
            logits = self.scale * np.log(self._share(cosine, self.values_NC, 1 / self.values_NC.shape[1]))
        present = seen(self.values_NC if self.multilabel else self.values_NC.argmax(axis=1), self.values_NC.shape[1])
        shift = 0.0 if self.multilabel else logits[:, present].mean(axis=1, keepdims=True)
        by_text = features @ self.text_weight_DC + shift
        return np.where(present, logits, by_text).astype(np.float32)

    def _share(self, cosine_NM: NDArray, values_MX: NDArray, prior: float) -> NDArray[np.float64]:
        if not cosine_NM.shape[1]:
            return np.full((len(cosine_NM), values_MX.shape[1]), prior)
        order = np.argsort(-cosine_NM, axis=1, kind="stable")[:, : self.k]
        near = np.take_along_axis(cosine_NM, order, axis=1).astype(np.float64)
        votes = np.exp((near - near[:, :1]) / NEAR)
        total = np.einsum("nk,nkx->nx", votes, values_MX[order])
        return (total + prior) / (votes.sum(axis=1, keepdims=True) + 1)


def fit_ridge(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    alpha: float | None = None,
    views: Views = "pooled",
) -> Fitted:
    """Regress ±1 for each class with an L2 penalty (scikit-learn's `Ridge`).

    Args:
        base: The base model; its text only serves classes without examples.
        text: The classes' words.
        train: The shots.
        val: Further examples, which choose the penalty.
        seed: Seed of the folds.
        alpha: The penalty; one of `RIDGE_ALPHAS` is chosen where None, 1 where nothing can be judged.
        views: Kind of rows: one for each unit, or one for each view.

    Raises:
        MedclipError: As `take`; WRONG_USE for a penalty that is not above 0.
    """
    if alpha is not None and not 0 < alpha < np.inf:
        raise MedclipError(Reason.WRONG_USE, f"alpha is {alpha}; it takes a number above 0.")
    shots = take(base, text, train, val, views)

    def learn(examples: Examples, value: float) -> LinearHead:
        def solve(rows: NDArray, targets: NDArray) -> tuple[NDArray, NDArray]:
            ridge = Ridge(alpha=value).fit(rows, targets)
            return np.atleast_2d(ridge.coef_).T, np.atleast_1d(ridge.intercept_)

        return _linear(shots, examples, solve)

    return _fit(shots, seed, "alpha", alpha, RIDGE_ALPHAS, 1.0, learn, 4.0)


def fit_lda(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    shrinkage: float | str | None = None,
    views: Views = "pooled",
) -> Fitted:
    """Fit a linear discriminant: Gaussian classes of one covariance, shrunk towards a multiple of the identity.

    Classes that compete count as equally frequent: their shares in the shots are those of the sampling. Multi-label
    classes count as frequent as they are in the shots. With one example a class, whose covariance nobody can estimate,
    it is the nearest class.

    `shrinkage` is 0.001 … 1, or "ledoit_wolf"; one of `SHRINKAGES` is chosen on `val` where None, "ledoit_wolf" where
    nothing can be judged. All other arguments are those of `fit_ridge`.

    Raises:
        MedclipError: As `take`; WRONG_USE for another shrinkage.
    """
    number = isinstance(shrinkage, int | float) and _LEAST_SHRINKAGE <= shrinkage <= 1
    if shrinkage not in (None, "ledoit_wolf") and not number:
        raise MedclipError(
            Reason.WRONG_USE, f"shrinkage is {shrinkage!r}.", hint='It is "ledoit_wolf" or a number from 0.001 to 1.'
        )
    shots = take(base, text, train, val, views)

    def learn(examples: Examples, value: float | str) -> LinearHead:
        def solve(rows: NDArray, targets: NDArray) -> tuple[NDArray, NDArray]:
            return discriminant(rows, targets, value)

        return _linear(shots, examples, solve)

    # Where it can be fitted, the scale of 256 dimensions lies between 0.001 and 0.3.
    scale = 1.0 / len(shots.zero.weight_DC)
    offset = np.zeros(len(shots.names))
    if shots.multilabel:
        yes, no = ((train.targets == side).sum(axis=0) for side in (1, 0))
        offset = np.log((yes + 0.5) / (no + 0.5))
    return _fit(shots, seed, "shrinkage", shrinkage, SHRINKAGES, "ledoit_wolf", learn, scale, offset)


def fit_knn(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    k: int | None = None,
    views: Views = "pooled",
) -> Fitted:
    """Let the nearest examples vote, see `KnnHead`.

    `k` is their number; one of `NEIGHBOURS` is chosen on `val` where None, 1 where nothing can be judged. All other
    arguments are those of `fit_ridge`.

    Raises:
        MedclipError: As `take`; WRONG_USE for fewer than one neighbour.
    """
    if k is not None and k < 1:
        raise MedclipError(Reason.WRONG_USE, f"k is {k}; it takes at least one neighbour.")
    shots = take(base, text, train, val, views)
    present = seen(train.targets, len(shots.names))
    text_weight = shots.zero.weight_DC.copy()
    if not shots.multilabel:
        text_weight -= text_weight[:, present].mean(axis=1, keepdims=True)

    def learn(examples: Examples, value: int) -> KnnHead:
        rows, targets = shots.rows(examples)
        values = targets if shots.multilabel else np.eye(len(shots.names), dtype=np.float32)[targets]
        return KnnHead(rows.astype(np.float32), values.astype(np.float32), value, 1.0, text_weight, shots.multilabel)

    return _fit(shots, seed, "k", k, [n for n in NEIGHBOURS if n < len(train)], 1, learn)


def discriminant(rows_MD: NDArray, targets: NDArray, shrinkage: float | str) -> tuple[NDArray, NDArray]:
    """Return the weights [D, C] and biases [C] of the linear discriminant with equally frequent classes.

    Args:
        rows_MD: float64 [M, D].
        targets: ±1 [M, C], +1 where a row is of the class: exactly one of them; or [M, 1] for two classes.
        shrinkage: γ: the covariance is (1 − γ)S + γ·(tr S/D)·I; "ledoit_wolf" estimates it.
    """
    two = targets.shape[1] == 1
    of_class = np.column_stack([targets < 0, targets > 0] if two else [targets > 0]).astype(np.float64)
    means = of_class.T @ rows_MD / of_class.sum(axis=0)[:, None]
    centre = means.mean(axis=0)
    within = rows_MD - of_class @ means
    variance = (within**2).mean()
    if variance < 1e-12:  # one example a class
        within, variance = np.zeros_like(within), max(float(((means - centre) ** 2).mean()), 1e-12)
        gamma = 1.0
    elif isinstance(shrinkage, str):
        gamma = max(float(ledoit_wolf_shrinkage(within, assume_centered=True)), _LEAST_SHRINKAGE)
    else:
        gamma = shrinkage
    # The inverse in the span of the rows, and outside of it, where the covariance is γ·variance.
    _, s, basis = np.linalg.svd(within, full_matrices=False)
    outside = gamma * variance
    inside = (1 - gamma) * s**2 / len(within) + outside
    weight = (means - centre).T / outside
    weight += basis.T @ ((1 / inside - 1 / outside)[:, None] * (basis @ (means - centre).T))
    bias = -0.5 * ((means + centre).T * weight).sum(axis=0)
    return (weight[:, 1:] - weight[:, :1], bias[1:] - bias[:1]) if two else (weight, bias)


def _linear(
    shots: Shots, examples: Examples, solve: Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]
) -> LinearHead:
    """Solve for all classes at once, or (multi-label) for each one over what is known; targets are ±1."""
    rows, targets = shots.rows(examples)
    present = seen(examples.targets, len(shots.names))
    weight, bias = np.zeros(shots.zero.weight_DC.shape), np.zeros(len(present))
    if shots.multilabel:
        for c in np.flatnonzero(present):
            has_answer = ~np.isnan(targets[:, c])
            weight[:, [c]], bias[[c]] = solve(rows[has_answer], 2.0 * targets[has_answer, c : c + 1] - 1)
    else:
        weight[:, present], bias[present] = solve(rows, 2.0 * np.eye(len(present))[targets][:, present] - 1)
    return LinearHead(weight.astype(np.float32), bias.astype(np.float32))


def _fit(
    shots: Shots,
    seed: int,
    name: str,
    given: Any,
    grid: Sequence[Any],
    default: Any,
    learn: Learn,
    default_scale: float = 1.0,
    offset_C: NDArray | None = None,
) -> Fitted:
    """Choose the setting, learn, and scale to probabilities; the offset is added to the logits after that."""
    judge = Judge(shots, seed)
    value = judge.best(grid, learn, default) if given is None else given
    chosen_on = judge.how if given is None else "given"
    inside = Judge(replace(shots, val=None), seed)
    held_out = inside if inside.parts else judge
    scale = default_scale
    offset = np.zeros(len(shots.names)) if offset_C is None else offset_C
    present = seen(shots.train.targets, len(shots.names))
    if held_out.parts:
        logits = held_out.logits([learn(p.learn, value) for p in held_out.parts])
        scale = _scale(logits, held_out.targets, present, offset)
    head = _scaled(learn(shots.train, value), scale)
    if isinstance(head, LinearHead):
        head = LinearHead(head.weight_DC, head.bias_C + offset.astype(np.float32))
        head = with_unseen(head, shots.zero, present, multilabel=shots.multilabel)
        num = head.weight_DC.size + head.bias_C.size
    else:
        num = 0
    return Fitted(
        head, num, shots.settings(**{name: value}, chosen_on=chosen_on, scale=scale, scale_fitted_on=held_out.how)
    )


def _scale(logits_NC: NDArray, targets: NDArray, there_C: NDArray[np.bool_], offset_C: NDArray) -> float:
    """Fit the temperature on the classes that were learned."""
    if targets.ndim == 2:
        return temperature(logits_NC[:, there_C], targets[:, there_C], offset_C[there_C])
    of_learned = there_C[targets]
    number = np.cumsum(there_C) - 1
    return temperature(logits_NC[of_learned][:, there_C], number[targets[of_learned]], offset_C[there_C])


def _scaled(head: Head, scale: float) -> Head:
    if isinstance(head, KnnHead):
        return replace(head, scale=scale)
    assert isinstance(head, LinearHead)
    return LinearHead(np.float32(scale) * head.weight_DC, np.float32(scale) * head.bias_C)
