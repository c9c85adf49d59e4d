"""LP++: a linear probe whose logits are f·w + b + α·(f·t), with one learned weight α of the text for each class.

Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024. Full-batch gradient descent with
step sizes from the data, started from the sums of the classes' features. The text vectors enter without the model's
logit scale: α starts at 250 times the mean similarity of examples to their class's text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import LinearHead
from medclip.adaptation.data.shot_features import Shots, Views, seen, take, unit_logits, with_unseen
from medclip.adaptation.frozen.estimator import FeatureClassifier
from medclip.adaptation.methods import Fitted
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import Quality, quality

if TYPE_CHECKING:
    from medclip.models.model import Model

EPOCHS = 300
MOMENTUM = 0.9
ALPHA_EVERY = 10
"""Epochs between two steps of α."""


@dataclass(frozen=True, eq=False)
class State:
    """The probe after some epochs. float64."""

    weight_DC: NDArray[np.float64]
    bias_C: NDArray[np.float64]
    alpha_C: NDArray[np.float64]
    alpha_grad_C: NDArray[np.float64]
    """Gradient of the last loss, or the sum of all so far (`accumulate_alpha_grad`)."""
    loss: float
    """Before the last step; NaN at the start."""

    def head(self, text_DC: NDArray) -> LinearHead:
        """Fold the text into the weights."""
        weight = self.weight_DC + self.alpha_C * text_DC
        return LinearHead(weight.astype(np.float32), self.bias_C.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Descent:
    """Gradient descent on one set of rows.

    Args:
        features_MD: float64 [M, D] of unit norm.
        targets: int64 [M], or float [M, C] with 1, 0 and NaN.
        text_DC: Text vectors, or positive minus negative ones.
        positive_DC: Text vectors of the classes' presence: what examples are compared with for the first α.
    """

    features_MD: NDArray[np.float64]
    targets: NDArray
    text_DC: NDArray[np.float64]
    positive_DC: NDArray[np.float64]

    @property
    def multilabel(self) -> bool:
        """Whether targets are [M, C]."""
        return self.targets.ndim == 2

    @property
    def shown_MC(self) -> NDArray[np.float64]:
        """1 where a row shows a class, 0 where not or where nobody knows."""
        if self.multilabel:
            return (self.targets == 1).astype(np.float64)
        return np.eye(self.text_DC.shape[1])[self.targets]

    @property
    def known_MC(self) -> NDArray[np.bool_]:
        """Where the answer is known."""
        return ~np.isnan(self.targets) if self.multilabel else np.ones(self.shown_MC.shape, bool)

    @property
    def lr_weight(self) -> float | NDArray[np.float64]:
        """4M/λ_max(FᵀF): the inverse of a bound on the curvature in w.

        Multi-label: one for each class, [C], over the rows that are known of it, as its loss is their mean.
        """
        if not self.multilabel:
            return float(4 * len(self.features_MD) / np.linalg.norm(self.features_MD, ord=2) ** 2)
        rows = [self.features_MD[has_answer_M] for has_answer_M in self.known_MC.T]
        return np.array([4 * len(f) / np.linalg.norm(f, ord=2) ** 2 if len(f) else 0.0 for f in rows])

    @property
    def lr_alpha(self) -> float | NDArray[np.float64]:
        """M/(4 max_c Σ(f·t_c)²); multi-label: one for each class, [C], over what is known of it."""
        known = self.known_MC
        squares = ((self.features_MD @ self.text_DC) ** 2 * known).sum(axis=0)
        if self.multilabel:
            return known.sum(axis=0) / (4 * np.maximum(squares, 1e-12))
        return float(len(known) / (4 * max(squares.max(), 1e-12)))

    def start(self) -> State:
        """Return w = sum of each class's features, b = 0, α = 250 × mean similarity to the class's text.

        Multi-label: w = n⁺ (mean of the positives − mean of the negatives), and b = −mean of α(f·t) over what is known,
        as texts lie on one side of all images, which α ≈ 100 would make a certain answer of.
        """
        shown = self.shown_MC
        num = np.maximum(shown.sum(axis=0), 1)
        weight = self.features_MD.T @ shown
        if self.multilabel:
            denied = (self.targets == 0).astype(np.float64)
            weight = weight - num / np.maximum(denied.sum(axis=0), 1) * (self.features_MD.T @ denied)
        similar = ((self.features_MD @ self.positive_DC) * shown).sum(axis=0) / num
        zeros = np.zeros(shown.shape[1])
        alpha = np.full(len(zeros), 250 * similar[shown.any(axis=0)].mean())
        bias = zeros
        if self.multilabel:
            known = self.known_MC
            bias = -alpha * ((self.features_MD @ self.text_DC) * known).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        return State(weight, bias, alpha, zeros, float("nan"))

    def epochs(self, count: int, accumulate_alpha_grad: bool = False) -> Iterator[State]:
        """Run; give the state after each epoch."""
        state = self.start()
        weight, bias, alpha = state.weight_DC, state.bias_C, state.alpha_C
        velocity_w, velocity_b, summed = np.zeros_like(weight), np.zeros_like(bias), np.zeros_like(alpha)
        similar, lr_weight, lr_alpha = self.features_MD @ self.text_DC, self.lr_weight, self.lr_alpha
        for epoch in range(1, count + 1):
            loss, wrong = self._loss(self.features_MD @ weight + bias + alpha * similar)
            if not np.isfinite(loss):
                raise MedclipError(Reason.NON_FINITE, "the loss of LP++ is not finite.")
            velocity_w = MOMENTUM * velocity_w + self.features_MD.T @ wrong
            velocity_b = MOMENTUM * velocity_b + wrong.sum(axis=0)
            weight, bias = weight - lr_weight * velocity_w, bias - lr_weight * velocity_b
            gradient = (wrong * similar).sum(axis=0)
            summed = summed + gradient if accumulate_alpha_grad else gradient
            if epoch % ALPHA_EVERY == 0:
                alpha = alpha - lr_alpha * summed
            yield State(weight, bias, alpha, summed, loss)

    def _loss(self, z: NDArray) -> tuple[float, NDArray]:
        """Return the mean cross-entropy (multi-label: summed over classes, mean over known values) and d loss / d z."""
        shown = self.shown_MC
        if self.multilabel:
            known = self.known_MC
            share = known / np.maximum(known.sum(axis=0), 1)
            return float(((np.logaddexp(0, z) - shown * z) * share).sum()), (expit(z) - shown) * share
        log_p = log_softmax(z, axis=1)
        return float(-(log_p * shown).sum() / len(z)), (np.exp(log_p) - shown) / len(z)


def fit_lp_plus_plus(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    epochs: int = EPOCHS,
    accumulate_alpha_grad: bool = False,
    views: Views = "pooled",
) -> Fitted:
    """Fit LP++.

    Args:
        base: The base model.
        text: The classes' words.
        train: The shots.
        val: Examples that the epoch is chosen on, see `choose_epoch`; the last epoch where None.
        seed: Seed, not needed: nothing here is drawn.
        epochs: Number of full-batch steps.
        accumulate_alpha_grad: Whether each step of α uses the gradient summed over all epochs so far, as the published
            code does; False uses the gradient of its own epoch.
        views: Kind of rows: one for each unit, or one for each view.

    Raises:
        MedclipError: As `take`; WRONG_USE for fewer than one epoch.
    """
    if epochs < 1:
        raise MedclipError(Reason.WRONG_USE, f"epochs is {epochs}; LP++ takes at least one.")
    shots = take(base, text, train, val, views)
    descent = descent_of(shots)
    present = seen(train.targets, len(shots.names))
    states = descent.epochs(epochs, accumulate_alpha_grad)
    if shots.multilabel:
        states = chain([descent.start()], states)
    heads = (with_unseen(s.head(descent.text_DC), shots.zero, present, multilabel=shots.multilabel) for s in states)
    if shots.val is None:
        *_, head = heads
        chosen = epochs
    else:
        head, chosen = choose_epoch(heads, shots.val, first=0 if shots.multilabel else 1)
    settings = shots.settings(
        epoch=chosen,
        epochs=epochs,
        accumulate_alpha_grad=accumulate_alpha_grad,
        chosen_on="default" if shots.val is None else "val",
    )
    return Fitted(head, head.weight_DC.size + 2 * len(present), settings)


def descent_of(shots: Shots) -> Descent:
    """Make the descent of a task. Its text is without the logit scale."""
    assert shots.vectors is not None, "LP++ needs words"
    text_DC = (shots.zero.weight_DC / shots.logit_scale).astype(np.float64)
    return Descent(*shots.rows(shots.train), text_DC, shots.vectors.positive.T.astype(np.float64))


def choose_epoch(heads: Iterable[LinearHead], val: Examples, first: int) -> tuple[LinearHead, int]:
    """Return the best head on validation examples, and its epoch.

    Multi-class as published: the last one of the highest accuracy. Multi-label: by `Quality`, the last one where all is
    equal; the AUROC of a few units ties often, and the last of the ties would be an accident.

    Args:
        heads: Heads, one for each epoch, at least one.
        val: Examples that are judged on.
        first: Number of the first epoch; 0 where the heads begin with the start.
    """
    best: tuple[Quality, LinearHead, int] | None = None
    for epoch, head in enumerate(heads, first):
        score = quality(unit_logits(head, val), val.targets)
        if not val.multilabel:
            score = score._replace(minus_log_loss=0.0)
        if best is None or score >= best[0]:
            best = score, head, epoch
    assert best is not None
    return best[1], best[2]


class LpPlusPlus(FeatureClassifier):
    """LP++ as an estimator. Without class vectors it is the probe alone.

    Args:
        class_vectors: float [C, D], one row per class in the order of sorted labels; None for none.
        epochs: Number of full-batch steps.
    """

    def __init__(self, class_vectors: Any = None, epochs: int = EPOCHS) -> None:
        self.class_vectors = class_vectors
        self.epochs = epochs

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from features [N, D] and labels [N]."""
        features, targets = self._read(X, y)
        text = self._text(features.shape[1])
        *_, last = Descent(features, targets, text, text).epochs(self.epochs)
        self.head_ = last.head(text)
        return self
