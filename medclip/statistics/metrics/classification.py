"""Answers to a task measured: accuracy, balanced accuracy, macro AUROC, F1, each with its resamples of patients.

Every figure here is a share, a mean of shares over classes, or a coefficient of steps (`ordered_answers`), so that one
rule (`resampling.resampled`) has the interval of each. Zero-shot evaluation, adaptation, few-shot comparison and the
audit's probes call the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from medclip.statistics.estimate import NUM_RESAMPLES
from medclip.statistics.metrics.grading_agreement import KAPPA
from medclip.statistics.metrics.ordered_answers import (
    expected_step,
    resampled_concordance,
    resampled_kappa,
    resampled_spearman,
)
from medclip.statistics.metrics.ranks import resampled_auroc
from medclip.statistics.resampling.resampled import Resampled, bounded, mean, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import ratios
from medclip.statistics.resampling.weights import draw_weights

METRICS = ("balanced_accuracy", "accuracy", "macro_auroc")
"""What adaptations and few-shot comparisons are measured by."""
OF_STEPS = ("spearman", KAPPA, "pairwise_accuracy")
"""What else is measured where the classes are steps of a scale, see `ordered_answers`."""
SIGNED = frozenset({"spearman", KAPPA})
"""Coefficients from −1 to 1; all others lie between 0 and 1."""
STEPS_IN_WORDS: Mapping[str, str] = dict(
    zip(OF_STEPS, ("Spearman's rho", "quadratic weighted kappa", "pairs in the right order"), strict=True)
)
FEWEST = 3
"""A finding with fewer test patients on either side has no area of its own: it is left out of the mean, and named."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The images that all methods are measured on."""

    targets: NDArray
    """int64 [N], or float32 [N, C] with 1, 0 and NaN for multi-label tasks."""
    patients: NDArray[np.int64]
    """Number of each image's patient, 0 to P − 1."""
    num_classes: int
    steps: tuple[int, ...] = ()
    """Classes that are steps of a scale, from the lowest to the highest; empty where none are."""

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several classes."""
        return self.targets.ndim == 2

    @property
    def num_patients(self) -> int:
        """P."""
        return int(self.patients.max()) + 1 if len(self.patients) else 0

    @property
    def primary(self) -> str:
        """The metric that a comparison is about: no threshold is chosen for multi-label tasks, so the area there."""
        return "macro_auroc" if self.multilabel else "balanced_accuracy"

    def sides(self, c: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the images with class c, and of those known to be without it."""
        if self.multilabel:
            return np.flatnonzero(self.targets[:, c] == 1), np.flatnonzero(self.targets[:, c] == 0)
        return np.flatnonzero(self.targets == c), np.flatnonzero(self.targets != c)

    def measured(self) -> tuple[int, ...]:
        """Classes that means are over: those in the test set; for multi-label ones with `FEWEST` patients a side."""
        chosen = []
        for c in range(self.num_classes):
            sides = [len(set(self.patients[rows].tolist())) for rows in self.sides(c)]
            if (self.multilabel and min(sides) >= FEWEST) or (not self.multilabel and sides[0] > 0):
                chosen.append(c)
        return tuple(chosen)


@dataclass(frozen=True, eq=False)
class Shares:
    """One rate, area or coefficient of R sets of answers (runs of one method), in the sample and in each resample."""

    point_R: Floats
    drawn_RB: Floats
    cases_R: Floats
    """Rows in the denominator; of the scarcer kind for an area."""
    patients: float
    """Effective number of patients who can move it."""
    pairs: tuple[float, float] | None = None
    """Positives and negatives, for an area."""
    signed: bool = False
    """Whether it is a coefficient from −1 to 1, and no share."""

    def over_runs(self) -> Resampled:
        """Take the mean over runs."""
        point, drawn_B = float(self.point_R.mean()), self.drawn_RB.mean(axis=0)
        if self.signed:
            return bounded(point, drawn_B, patients=self.patients, least=-1.0)
        return share(point, drawn_B, cases=float(self.cases_R.mean()), patients=self.patients, pairs=self.pairs)


def predictions(logits_RNC: NDArray[np.floating], multilabel: bool) -> NDArray:
    """Decide: int64 [R, N], the class with the highest logit, the first of equal ones; for multi-label tasks bool
    [R, N, C], p above one half.
    """
    return logits_RNC > 0 if multilabel else logits_RNC.argmax(axis=-1)


def ranked_scores(logits_NC: NDArray[np.floating], multilabel: bool) -> Floats:
    """Compute what areas are of: log probabilities, whose order does not saturate; logits for multi-label tasks."""
    logits = np.asarray(logits_NC, np.float64)
    return logits if multilabel else log_softmax(logits, axis=-1)


def figures(
    logits_RNC: NDArray[np.floating],
    test: HeldOut,
    weights_PB: NDArray[np.integer],
    metrics: Iterable[str] = METRICS,
    *,
    runs: tuple[int, int] = (1, 1),
) -> dict[str, Resampled]:
    """Measure the mean over R runs of one method.

    Args:
        logits_RNC: Logits of each run, image and class, [R, N, C].
        test: Images that all methods are measured on.
        weights_PB: Weight of each patient in each replicate.
        metrics: Names of metrics, as `shares_of` takes them.
        runs: Draws of shots S and initialisations I, with S · I = R, in this order.

    Returns:
        By metric; without those that are not defined.
    """
    return {
        name: mean_over_runs(parts, runs) for name, parts in shares_of(logits_RNC, test, weights_PB, metrics).items()
    }


def mean_area(
    scores_NC: NDArray[np.floating], truth_NC: NDArray[np.floating], patients: Sequence[Hashable], num_resamples: int
) -> Resampled | None:
    """Measure the mean area over the classes that are there and absent; None where none is.

    Args:
        scores_NC: Scores of each class.
        truth_NC: 1 and 0; NaN where nothing is known.
        patients: Patient of each row.
        num_resamples: Number of resamples of patients.
    """
    test = HeldOut(truth_NC, numbered(patients), truth_NC.shape[1])
    answers = _Task(scores_NC[None], test, draw_weights(test.num_patients, num_resamples, seed=0))
    areas = [area for c in range(test.num_classes) if (area := answers.area(c)) is not None]
    return mean_over_runs(areas) if areas else None


def mean_over_runs(parts: Sequence[Shares], runs: tuple[int, int] = (1, 1)) -> Resampled:
    """Take the mean over runs of a mean of shares."""
    return mean([p.over_runs() for p in parts], np.mean([p.point_R for p in parts], axis=0).reshape(runs))


def shares_of(
    logits_RNC: NDArray[np.floating],
    test: HeldOut,
    weights_PB: NDArray[np.integer],
    metrics: Iterable[str] = METRICS,
) -> dict[str, tuple[Shares, ...]]:
    """Measure the shares whose mean each metric is.

    Balanced accuracy is the mean recall over classes, for multi-label tasks the mean over classes of (sensitivity +
    specificity) / 2 at p = 0.5; accuracy there is the mean over classes of the share of right answers. `macro_auroc` is
    the mean over classes of class against rest, ties counting half (Mann–Whitney); with two classes of which one is
    true both areas are the same one. `macro_precision` and `macro_f1` are means over the classes that have images, with
    0 for the precision of a class that is never predicted, as in scikit-learn; `precision`, `recall`, `f1` and `auroc`
    are those of the second class of two. Those of `OF_STEPS` are of images of steps, among the answers of steps alone.

    Args:
        logits_RNC: Logits of each run, image and class, [R, N, C].
        test: Images that all methods are measured on.
        weights_PB: Weight of each patient in each replicate.
        metrics: Names of the metrics.

    Returns:
        By metric; without those that are not defined: no class is there, or for an area nothing is on one side.
    """
    task = _Task(logits_RNC, test, weights_PB)
    computed = {name: tuple(PARTS[name](task)) for name in metrics}
    return {name: parts for name, parts in computed.items() if parts}


class _Task:
    """One set of answers, and what each share of it is made of."""

    def __init__(self, logits_RNC: NDArray[np.floating], test: HeldOut, weights_PB: NDArray[np.integer]) -> None:
        self.logits_RNC, self.test, self.weights_PB = logits_RNC, test, weights_PB
        self.chosen = test.measured() if len(test.targets) else ()
        self.predicted = predictions(logits_RNC, test.multilabel)

    def called(self, c: int) -> NDArray[np.bool_]:
        """Which answers are class c, [R, N]."""
        return self.predicted[:, :, c] if self.test.multilabel else self.predicted == c

    def rate(self, hits_RN: NDArray, rows: NDArray[np.int64]) -> Shares:
        """Share of hits among some rows."""
        patients = self.test.patients[rows]
        point_R, drawn_RB = ratios(
            patients, self.weights_PB, hits_RN[:, rows].astype(np.float64), np.ones((1, len(rows)))
        )
        cases_R = np.full(len(hits_RN), float(len(rows)))
        return Shares(point_R, drawn_RB, cases_R, effective_patients(patients))

    def recall(self, c: int) -> Shares:
        """Of the images with class c."""
        return self.rate(self.called(c), self.test.sides(c)[0])

    def specificity(self, c: int) -> Shares:
        """Of the images known to be without class c."""
        return self.rate(~self.called(c), self.test.sides(c)[1])

    def precision(self, c: int) -> Shares:
        """Of the images called c."""
        truth_N, called_RN = self.test.targets == c, self.called(c).astype(np.float64)
        point_R, drawn_RB = ratios(self.test.patients, self.weights_PB, called_RN * truth_N, called_RN)
        num_R = np.maximum(called_RN.sum(axis=1), 1.0)
        patients = min(effective_patients(self.test.patients), float(num_R.mean()))
        return Shares(np.nan_to_num(point_R), np.nan_to_num(drawn_RB), num_R, max(patients, 2.0))

    def f1(self, c: int) -> Shares:
        """Twice the hits among images with class c and images called c."""
        truth_N, called_RN = (self.test.targets == c).astype(np.float64), self.called(c).astype(np.float64)
        both_RN = truth_N + called_RN
        point_R, drawn_RB = ratios(self.test.patients, self.weights_PB, 2 * called_RN * truth_N, both_RN)
        with_c = self.test.sides(c)[0]
        return Shares(point_R, drawn_RB, both_RN.sum(axis=1) / 2, effective_patients(self.test.patients[with_c]))

    def area(self, c: int) -> Shares | None:
        """Class c against the rest; None where a side is empty."""
        with_c, without = self.test.sides(c)
        if not len(with_c) or not len(without):
            return None
        rows = np.sort(np.concatenate([with_c, without]))
        positive, patients = np.isin(rows, with_c), self.test.patients[rows]
        each = [
            resampled_auroc(self.scores(r, c)[rows], positive, patients, self.weights_PB)
            for r in range(len(self.logits_RNC))
        ]
        counts = (float(len(with_c)), float(len(without)))
        sides = [effective_patients(self.test.patients[side]) for side in (with_c, without)]
        points_R, drawn_RB = np.array([point for point, _ in each]), np.stack([drawn for _, drawn in each])
        return Shares(points_R, drawn_RB, np.full(len(each), min(counts)), min(sides), counts)

    def scores(self, r: int, c: int) -> Floats:
        """What the area of class c is computed from."""
        logits_NC = np.asarray(self.logits_RNC[r], np.float64)
        if self.test.multilabel or logits_NC.shape[1] == 1:
            return logits_NC[:, c]
        if logits_NC.shape[1] == 2:  # the order of the log odds, which rounding does not make ties of
            return logits_NC[:, c] - logits_NC[:, 1 - c]
        return ranked_scores(logits_NC, False)[:, c]

    def areas(self) -> list[Shares]:
        """Of every class that has one; of two classes of which one is true the second alone stands for both."""
        two = not self.test.multilabel and self.test.num_classes == 2
        return [area for c in ((1,) if two else self.chosen) if (area := self.area(c)) is not None]

    def right(self) -> list[Shares]:
        """Accuracy: one rate, or one for each class of a multi-label task."""
        if not self.test.multilabel:
            every = np.arange(len(self.test.targets))
            return [self.rate(self.predicted == self.test.targets, every)] if len(every) else []
        parts = []
        for c in self.chosen:
            rows = np.sort(np.concatenate(self.test.sides(c)))
            parts.append(self.rate(self.called(c) == (self.test.targets[:, c] == 1), rows))
        return parts

    def balanced(self) -> list[Shares]:
        """Recalls of all classes; for a multi-label task sensitivities and specificities."""
        parts = [self.recall(c) for c in self.chosen]
        return parts + ([self.specificity(c) for c in self.chosen] if self.test.multilabel else [])

    def of_steps(self, name: str) -> list[Shares]:
        """A figure of ordered answers, over the images whose class is a step; none of fewer than three steps, of which
        areas say it all, nor where only one step is there.
        """
        steps = np.asarray(self.test.steps, np.int64)
        number_C = np.full(self.test.num_classes, -1)
        number_C[steps] = np.arange(len(steps))
        step_N = number_C[self.test.targets] if len(steps) else np.empty(0, np.int64)
        rows = np.flatnonzero(step_N >= 0)
        step_n, patients_n = step_N[rows], self.test.patients[rows]
        counts = np.bincount(step_n) if len(rows) else np.zeros(1, np.int64)
        if len(steps) < 3 or (counts > 0).sum() < 2:
            return []
        each = []
        for logits_NC in self.logits_RNC:
            logits_nK = logits_NC[np.ix_(rows, steps)]
            given = logits_nK.argmax(axis=1) if name == KAPPA else expected_step(logits_nK)
            each.append(_OF_STEPS[name](given, step_n, patients_n, self.weights_PB))
        values_RC = np.stack(each)
        num, most = float(len(rows)), float(counts.max())
        pairs = None if name != "pairwise_accuracy" else (num - most, most)
        patients = effective_patients(patients_n)
        cases_R = np.full(len(each), num if pairs is None else min(pairs))
        return [Shares(values_RC[:, 0], values_RC[:, 1:], cases_R, patients, pairs, signed=name in SIGNED)]

    def second(self, one: Callable[[int], Shares]) -> list[Shares]:
        """The second class of two, where it is there."""
        return [one(1)] if self.test.num_classes == 2 and 1 in self.chosen else []


_OF_STEPS: Mapping[str, Callable[..., Floats]] = {
    "spearman": resampled_spearman,
    KAPPA: resampled_kappa,
    "pairwise_accuracy": resampled_concordance,
}
PARTS: Mapping[str, Callable[[_Task], list[Shares]]] = {
    "accuracy": _Task.right,
    "balanced_accuracy": _Task.balanced,
    "macro_auroc": _Task.areas,
    "macro_f1": lambda task: [task.f1(c) for c in task.chosen],
    "macro_precision": lambda task: [task.precision(c) for c in task.chosen],
    "auroc": lambda task: task.areas() if task.test.num_classes == 2 else [],
    "precision": lambda task: task.second(task.precision),
    "recall": lambda task: task.second(task.recall),
    "f1": lambda task: task.second(task.f1),
    "spearman": lambda task: task.of_steps("spearman"),
    KAPPA: lambda task: task.of_steps(KAPPA),
    "pairwise_accuracy": lambda task: task.of_steps("pairwise_accuracy"),
}


def numbered(patients: Sequence[Hashable]) -> NDArray[np.int64]:
    """Number patients by first appearance: the draw depends on the order of the rows, not on names."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(patient, len(numbers)) for patient in patients], np.int64)


def measured(
    labels_N: NDArray[np.integer],
    scores_NC: NDArray[np.floating],
    patients: Sequence[Hashable],
    metrics: Iterable[str] = METRICS,
    *,
    steps: Sequence[int] = (),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Resampled]:
    """Measure one set of answers of which one class each is true.

    Args:
        labels_N: Class indices; at least one.
        scores_NC: One score for each class; for two classes [N] is the score of the second one.
        patients: Patient of each row.
        metrics: Names of metrics, as `shares_of` takes them.
        steps: Classes that are steps of a scale, as in `HeldOut`.
        num_resamples: Number of resamples of patients.
        seed: Seed of the draw.

    Example:
        >>> import numpy as np
        >>> from medclip.statistics.resampling.resampled import interval_of
        >>> labels = np.array([0, 1] * 10)
        >>> found = measured(labels, np.eye(2)[labels], range(20), ["accuracy"])["accuracy"]
        >>> print(interval_of(found))
        1.00 (95 % interval 0.82 to 1.00)
    """
    scores = np.asarray(scores_NC, np.float64)
    if scores.ndim == 1:
        scores = np.stack([-scores / 2, scores / 2], axis=1)
    test = HeldOut(np.asarray(labels_N, np.int64), numbered(patients), scores.shape[1], tuple(steps))
    weights_PB = draw_weights(test.num_patients, num_resamples, seed=seed)
    return figures(scores[None], test, weights_PB, metrics)
