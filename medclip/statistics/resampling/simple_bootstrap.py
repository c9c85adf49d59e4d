"""Confidence intervals that resample patients, never rows.

Images of one patient are not independent, so an interval over rows is too narrow. Each replicate draws patients with
replacement and takes all their images along (the cluster bootstrap); the interval is the percentile interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medclip.errors import MedclipError, Reason

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
Metrics = Callable[[NDArray[Any], NDArray[Any]], Mapping[str, float]]


@dataclass(frozen=True)
class Interval:
    """A figure with its percentile interval."""

    value: float
    low: float
    high: float
    num_patients: int
    num_rows: int
    num_dropped: int = 0
    """Replicates in which the metric was undefined (a class was not drawn); they are redrawn, and counted here."""


def patient_bootstrap(
    metric: Metric,
    labels: ArrayLike,
    scores: ArrayLike,
    patients: Sequence[Any],
    *,
    num_replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Give a metric with its patient-clustered percentile bootstrap interval.

    Args:
        metric: `metric(labels, scores) -> float`; may return NaN or raise ValueError where it is undefined.
        labels: [N] or [N, C].
        scores: [N] or [N, C].
        patients: Patient key of each row, length N. Unique keys give the ordinary row bootstrap.
        num_replicates: Number of replicates.
        level: Coverage.
        seed: Seed of the draw; the same seed draws the same patients, so that two models compared on the same rows are
            compared on the same replicates.

    Raises:
        MedclipError: WRONG_USE when lengths differ or more than nine in ten replicates are undefined.

    Reference: Field & Welsh, Bootstrapping clustered data, JRSS-B 69 (2007) 369-390.
    """
    drawn = patient_bootstrap_all(
        lambda y, s: {"value": metric(y, s)},
        labels,
        scores,
        patients,
        num_replicates=num_replicates,
        level=level,
        seed=seed,
    )
    return drawn["value"]


def patient_bootstrap_all(
    metrics: Metrics,
    labels: ArrayLike,
    scores: ArrayLike,
    patients: Sequence[Any],
    *,
    num_replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Give several metrics with their intervals over the same replicates, as `patient_bootstrap` does for one.

    Args:
        metrics: `metrics(labels, scores) -> {name: float}`, the same names each time. A replicate in which any of them
            is NaN or ValueError is raised is drawn again.
        labels: [N] or [N, C].
        scores: [N] or [N, C].
        patients: Patient key of each row, length N.
        num_replicates: Number of replicates.
        level: Coverage.
        seed: Seed of the draw.

    Raises:
        MedclipError: WRONG_USE when lengths differ or more than nine in ten replicates are undefined.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    _, cluster = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    if not len(labels) == len(scores) == len(cluster):
        raise MedclipError(
            Reason.WRONG_USE, f"{len(labels)} labels, {len(scores)} scores and {len(cluster)} patient keys."
        )
    num_patients = int(cluster.max()) + 1
    order = np.argsort(cluster, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(cluster))[:-1])
    rng = np.random.default_rng(seed)
    values: list[dict[str, float]] = []
    dropped = 0
    while len(values) < num_replicates:
        drawn = rng.integers(0, num_patients, num_patients)
        rows = order[drawn] if num_patients == len(order) else np.concatenate([rows_of[p] for p in drawn])
        found = _evaluate(metrics, labels[rows], scores[rows])
        if found is None:
            dropped += 1
            if dropped > 9 * num_replicates:
                raise MedclipError(
                    Reason.WRONG_USE, "the metric is undefined in nearly every replicate; too few patients per class."
                )
            continue
        values.append(found)
    intervals = {}
    for name, value in metrics(labels, scores).items():
        low, high = np.quantile([v[name] for v in values], [(1 - level) / 2, (1 + level) / 2])
        intervals[name] = Interval(float(value), float(low), float(high), num_patients, len(labels), dropped)
    return intervals


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve (ties count half), NaN when one class is missing. Equals the Mann-Whitney statistic."""
    from scipy.stats import rankdata

    y = np.asarray(labels).astype(bool)
    positives, negatives = int(y.sum()), int((~y).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = rankdata(np.asarray(scores))
    return float((ranks[y].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def macro_auroc(labels: ArrayLike, scores_NC: ArrayLike) -> float:
    """Mean one-against-rest AUROC over classes; labels are indices [N], scores [N, C]. NaN if a class is missing."""
    y, s = np.asarray(labels), np.asarray(scores_NC)
    return float(np.mean([auroc(y == c, s[:, c]) for c in range(s.shape[1])]))


def balanced_accuracy(labels: ArrayLike, scores_NC: ArrayLike) -> float:
    """Mean recall over classes; labels are class indices [N], scores [N, C]. NaN if a class is missing."""
    y, s = np.asarray(labels), np.asarray(scores_NC)
    predicted = s.argmax(axis=1)
    recalls = [float((predicted[y == c] == c).mean()) if (y == c).any() else float("nan") for c in range(s.shape[1])]
    return float(np.mean(recalls))


def _evaluate(metrics: Metrics, labels: NDArray[Any], scores: NDArray[Any]) -> dict[str, float] | None:
    try:
        found = {name: float(value) for name, value in metrics(labels, scores).items()}
    except ValueError:
        return None
    return None if any(np.isnan(value) for value in found.values()) else found
