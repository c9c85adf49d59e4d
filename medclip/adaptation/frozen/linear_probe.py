"""Linear probe: L2-regularised logistic regression on image features, started from the text or from nothing.

`start="text"` regularises the difference from the text classifier instead of the weights themselves: minimise
C·Σ cross-entropy + ½‖W − a·T‖² + ½‖b‖², where a·T is the zero-shot classifier at the model's own logit scale. A small C
is zero-shot, a large one forgets the text. `start="zeros"` is the usual probe, C·Σ cross-entropy + ½‖W‖² with a free
intercept: scikit-learn's `LogisticRegression`. Multi-label tasks have one sigmoid per class, over what is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, xlogy
from threadpoolctl import threadpool_limits

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import LinearHead
from medclip.adaptation.data.shot_features import Judge, Shots, Views, seen, take, with_unseen
from medclip.adaptation.frozen.estimator import FeatureClassifier
from medclip.adaptation.methods import Fitted
from medclip.errors import MedclipError, Reason
from medclip.wording import count

if TYPE_CHECKING:
    from medclip.models.model import Model

Start = Literal["text", "zeros"]
STARTS: tuple[Start, ...] = get_args(Start)
GRID = (1e6, 1e4, 1e2, 1e0, 1e-2, 1e-4, 1e-6)
HALVINGS = 8
DEFAULT = 10.0
"""C times the variance of the features (their mean squared distance from their mean), where one patient a class and no
validation set leave nothing to choose by. On two base models of variance 0.5 and 0.005 this was near the best."""
_NO_BETTER = 1e-3
"""A log loss that is lower by less than this is not lower."""
_ITERATIONS = 15_000
_SEARCH_TOLERANCE = 1e-8
_CURVATURE = 0.1
"""Of the cross-entropy in a logit: p(1 − p), roughly."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The minimum of one probe."""

    weight_DC: NDArray[np.float64]
    bias_C: NDArray[np.float64]
    num_iterations: int
    converged: bool


class Problem:
    """The rows of one probe, ready to be solved for several C.

    The solution differs from its start only within the span of the rows, so that the search runs along their principal
    axes, in which the penalty is the same and L-BFGS is given steps that fit each axis: image features lie close
    together, and plain L-BFGS takes thousands of steps then.

    Args:
        features_MD: float64 [M, D].
        targets: int64 [M], or float [M, C] with 1, 0 and NaN.
        num_classes: Number of classes, C.
        start_DC: The weights that the penalty pulls towards, with the intercept towards 0; None for zeros and a free
            intercept.
    """

    def __init__(
        self, features_MD: NDArray, targets: NDArray, num_classes: int, start_DC: NDArray | None = None
    ) -> None:
        num_rows = len(features_MD)
        self._with_start = start_DC is not None
        self._mean = np.zeros(features_MD.shape[1]) if self._with_start else features_MD.mean(axis=0)
        ones = np.ones((num_rows, 1))
        u, s, axes = np.linalg.svd(
            np.hstack([features_MD, ones]) if self._with_start else features_MD - self._mean, full_matrices=False
        )
        kept = s > 1e-9 * max(s[0], 1e-9)
        self._axes = axes[kept]
        self._rows = u[:, kept] * s[kept]
        self._penalty = np.ones((self._rows.shape[1], 1))
        if not self._with_start:
            self._rows, self._penalty = np.hstack([self._rows, ones]), np.vstack([self._penalty, [[0.0]]])
        self._squares = (self._rows**2).mean(axis=0)[:, None]
        self._start = np.zeros((features_MD.shape[1], num_classes)) if start_DC is None else start_DC
        self._offset = features_MD @ self._start
        self._multilabel = targets.ndim == 2
        self._known = ~np.isnan(targets) if self._multilabel else np.ones((num_rows, 1), bool)
        self._truth = np.where(self._known, targets, 0.0) if self._multilabel else np.eye(num_classes)[targets]
        self._from = np.zeros((self._rows.shape[1], num_classes))

    def solve(self, c: float, tolerance: float = 1e-12) -> Solution:
        """Minimise for one C with L-BFGS, from the solution before, to a relative change of the loss."""
        scale = 1.0 / (c * len(self._rows))
        steps = 1 / np.sqrt(_CURVATURE * self._squares + scale * self._penalty)
        solution = minimize(
            self._loss,
            (self._from / steps).ravel(),
            args=(scale, steps),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "gtol": 1e-6, "ftol": tolerance, "maxcor": 20},
        )
        coefficients = solution.x.reshape(self._from.shape) * steps
        if not np.isfinite(coefficients).all():
            raise MedclipError(Reason.NON_FINITE, "the loss of the linear probe is not finite.")
        self._from = coefficients
        converged = bool(solution.status != 1)
        if self._with_start:
            moved = self._axes.T @ coefficients
            return Solution(self._start + moved[:-1], moved[-1], int(solution.nit), converged)
        weight = self._axes.T @ coefficients[:-1]
        return Solution(weight, coefficients[-1] - self._mean @ weight, int(solution.nit), converged)

    def _loss(self, flat: NDArray, scale: float, steps: NDArray) -> tuple[float, NDArray]:
        x = flat.reshape(self._from.shape) * steps
        z = self._offset + self._rows @ x
        if self._multilabel:
            loss = ((np.logaddexp(0, z) - self._truth * z) * self._known).sum()
            wrong = (expit(z) - self._truth) * self._known
        else:
            log_p = log_softmax(z, axis=1)
            loss = -(log_p * self._truth).sum()
            wrong = np.exp(log_p) - self._truth
        num_rows = len(z)
        pulled = scale * self._penalty * x
        gradient = (self._rows.T @ wrong / num_rows + pulled) * steps
        return loss / num_rows + 0.5 * float((pulled * x).sum()), gradient.ravel()


def fit_linear_probe(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    start: Literal["auto", "text", "zeros"] = "auto",
    c: float | None = None,
    views: Views = "pooled",
) -> Fitted:
    """Fit a linear probe to the shots and the validation examples together.

    C and start are chosen by cross-validation over both, patients apart, by log loss, as scikit-learn's
    `LogisticRegressionCV` chooses C; the probe is then fitted to all of them. C is searched over 10⁶, 10⁴ … 10⁻⁶, then
    by 8 halvings of the step (in log C, from one decade) around the best one.

    Args:
        base: The base model.
        text: The classes' words.
        train: The shots.
        val: Further examples; nothing is held back for choosing, so they are learned from, too.
        seed: Seed of the folds.
        start: Weights to start from: "text" or "zeros", see above; "auto" chooses. Where zero-shot is far off, a pull
            towards it does harm.
        c: Inverse penalty C, where it is not to be searched; `DEFAULT` and the text where a class has one patient only.
        views: Kind of rows: one for each unit, or one for each view.

    Raises:
        MedclipError: As `take`; WRONG_USE for another `start`, a start from the text where the base has no words, or a
            C that is not above 0.
    """
    if start not in ("auto", *STARTS):
        raise MedclipError(Reason.WRONG_USE, f"start is {start!r}.", hint='It is "auto", "text" or "zeros".')
    if start == "text" and not base.has_text:
        raise MedclipError(
            Reason.WRONG_USE, 'start is "text", and the base is image only.', hint='It is "auto" or "zeros" then.'
        )
    if c is not None and not 0 < c < np.inf:
        raise MedclipError(Reason.WRONG_USE, f"`C` is {c}; it takes a number above 0.")
    shots = take(base, text, train, val, views)
    how = "folds" if shots.val is None else "folds of shots and validation"
    shots = replace(shots, train=shots.train.joined(shots.val), val=None)
    judge = Judge(shots, seed)
    starts = STARTS if base.has_text else ("zeros",)
    probes = [_Probe(shots, s == "text") for s in starts if start in ("auto", s)]
    settings: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if judge.how == "default" or (c is not None and len(probes) == 1):
        probe, chosen_on = probes[0], "default" if c is None else "given"
        c = _default(shots) if c is None else c
    else:
        grid, halvings = (GRID, HALVINGS) if c is None else ((c,), 0)
        # More threads would only wait for each other on matrices of this size: on a busy machine 9 s instead of 0.4 s.
        with threadpool_limits(limits=1):
            searched = [_search(p, judge, grid, halvings) for p in probes]
        best = min(range(len(probes)), key=lambda n: searched[n][1])
        (c, loss), probe, chosen_on = searched[best], probes[best], how
        settings["log_loss"] = round(loss, 4)
        zero_shot = np.inf
        if base.has_text:
            zero_shot = judge.log_loss([shots.zero] * len(judge.parts))
            settings["log_loss_zero_shot"] = round(zero_shot, 4)
        alike = _log_loss_of_shares(judge.targets)
        if loss > zero_shot - _NO_BETTER:
            notes = (
                f"Cross-validation over {count(len(shots.train), 'file')} (shots and validation) found no probe better "
                f"than the base's prompts: log loss {loss:.3f}, zero-shot {zero_shot:.3f}. The answers are near "
                "zero-shot's.",
            )
        elif loss > alike - _NO_BETTER:
            notes = (
                f"Cross-validation over {count(len(shots.train), 'file')} (shots and validation) found no probe better "
                f"than the same probabilities for all of them: log loss {loss:.3f}, with each class's share {alike:.3f}"
                ". What it says of a single file means little.",
            )
    head, solution = probe.learn(shots.train, c)
    settings = shots.settings(
        start="text" if probe.with_text else "zeros", c=c, chosen_on=chosen_on, converged=solution.converged, **settings
    )
    return Fitted(head, head.weight_DC.size + head.bias_C.size, settings, notes=notes)


def _log_loss_of_shares(targets: NDArray) -> float:
    """Return the log loss of saying of each unit how frequent each class is (multi-label: over what is known)."""
    if targets.ndim == 1:
        shares = np.bincount(targets) / len(targets)
        return float(-xlogy(shares, shares).sum())
    has_answer = ~np.isnan(targets)
    shares = np.where(has_answer, targets, 0).sum(axis=0) / np.maximum(has_answer.sum(axis=0), 1)
    losses = -(xlogy(shares, shares) + xlogy(1 - shares, 1 - shares))
    return float((losses * has_answer.sum(axis=0)).sum() / max(has_answer.sum(), 1))


class LinearProbe(FeatureClassifier):
    """Multinomial logistic regression on unit features, pulled towards a text classifier where there is one.

    Args:
        class_vectors: float [K, D], one row per class in the order of sorted labels (`ClassVectors.positive`); None
            for the usual probe.
        logit_scale: Scale a, the model's exp(logit_scale); multiplies `class_vectors`.
        C: Weight of the data against the penalty.

    Example:
        >>> probe = LinearProbe(C=10.0).fit([[1.0, 0.0], [0.0, 1.0]], ["cat", "dog"])
        >>> probe.predict([[0.9, 0.1]])
        array(['cat'], dtype='<U3')
    """

    def __init__(self, class_vectors: Any = None, logit_scale: float = 1.0, C: float = 10.0) -> None:
        self.class_vectors = class_vectors
        self.logit_scale = logit_scale
        self.C = C

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from features [N, D] and labels [N]."""
        if not 0 < self.C < np.inf:
            raise ValueError(f"C is {self.C}; it takes a number above 0.")
        features, targets = self._read(X, y)
        start = None if self.class_vectors is None else self.logit_scale * self._text(features.shape[1])
        solution = Problem(features, targets, len(self.classes_), start).solve(self.C)
        self.head_ = LinearHead(solution.weight_DC.astype(np.float32), solution.bias_C.astype(np.float32))
        self.coef_, self.intercept_, self.n_iter_ = solution.weight_DC.T, solution.bias_C, solution.num_iterations
        return self


@dataclass(frozen=True, eq=False)
class _Probe:
    shots: Shots
    with_text: bool

    def problem(self, examples: Examples) -> Problem:
        start = self.shots.zero.weight_DC.astype(np.float64) if self.with_text else None
        return Problem(*self.shots.rows(examples), len(self.shots.names), start)

    def head(self, examples: Examples, solution: Solution) -> LinearHead:
        head = LinearHead(solution.weight_DC.astype(np.float32), solution.bias_C.astype(np.float32))
        present = seen(examples.targets, len(self.shots.names))
        return with_unseen(head, self.shots.zero, present, multilabel=self.shots.multilabel)

    def learn(self, examples: Examples, c: float) -> tuple[LinearHead, Solution]:
        """Solve from zero, so that the result does not depend on what was tried before."""
        solution = self.problem(examples).solve(c)
        return self.head(examples, solution), solution


def _default(shots: Shots) -> float:
    rows, _ = shots.rows(shots.train)
    return DEFAULT / max(float(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean()), 1e-6)


def _search(probe: _Probe, judge: Judge, grid: Sequence[float], halvings: int) -> tuple[float, float]:
    """Return the C of the lowest log loss over the judged examples, and that log loss."""
    problems = [probe.problem(p.learn) for p in judge.parts]
    tried: dict[float, float] = {}

    def loss_of(c: float) -> float:
        if c not in tried:
            heads = [
                probe.head(p.learn, q.solve(c, _SEARCH_TOLERANCE)) for p, q in zip(judge.parts, problems, strict=True)
            ]
            tried[c] = judge.log_loss(heads)
        return tried[c]

    best = min(reversed(grid), key=loss_of)
    step = 1.0
    for _ in range(halvings):
        best = min((best, best / 10**step, best * 10**step), key=loss_of)
        step /= 2
    return float(best), loss_of(best)
