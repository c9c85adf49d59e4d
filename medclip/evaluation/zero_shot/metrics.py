"""The figures of one labelled set: accuracy and its relatives, with intervals that resample patients."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError
from medclip.statistics.resampling.simple_bootstrap import Interval, auroc, patient_bootstrap_all

DECIMALS = 4


@dataclass(frozen=True)
class Figure:
    """One figure with its 95 % interval, as shares from 0 to 1, rounded to four decimals."""

    value: float
    low: float | None = None
    """None where the data cannot say: a class with fewer than two patients, or replicates that are all alike."""
    high: float | None = None
    exact: bool = False
    """No error was seen: the lower end is the exact one (Clopper and Pearson), since a bootstrap draws no errors that
    did not happen."""


def set_metrics(
    labels_N: NDArray[np.int64], scores_NC: NDArray[np.floating], present: Sequence[int]
) -> dict[str, float]:
    """Compute all metrics of a set. The prediction is the class with the highest score, the first one among equals.

    Args:
        labels_N: Class indices.
        scores_NC: One score for each class.
        present: Classes that have images; macro means are over these.

    Returns:
        accuracy, balanced_accuracy (macro recall), macro_f1, macro_precision; for two classes also auroc of the
        second score minus the first, and precision, recall and f1 of the second class. As in scikit-learn, with 0 for
        the precision of a class that is never predicted. All NaN where a class of `present` has no image.
    """
    num_classes = scores_NC.shape[1]
    predicted = scores_NC.argmax(axis=1)
    pairs = np.bincount(labels_N * num_classes + predicted, minlength=num_classes**2).astype(np.float64)
    confusion = pairs.reshape(num_classes, num_classes)
    hits, of_class, said = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    chosen = list(present)
    if not of_class[chosen].all():
        return dict.fromkeys(metric_names(num_classes), float("nan"))
    recall = hits / np.maximum(of_class, 1)
    precision = hits / np.maximum(said, 1)
    f1 = 2 * hits / np.maximum(of_class + said, 1)
    values = {
        "accuracy": hits.sum() / len(labels_N),
        "balanced_accuracy": recall[chosen].mean(),
        "macro_f1": f1[chosen].mean(),
        "macro_precision": precision[chosen].mean(),
    }
    if num_classes == 2:
        values["auroc"] = auroc(labels_N == 1, scores_NC[:, 1] - scores_NC[:, 0])
        values |= {"precision": precision[1], "recall": recall[1], "f1": f1[1]}
    return {name: float(value) for name, value in values.items()}


def metric_names(num_classes: int) -> tuple[str, ...]:
    """List the metrics of a set with so many classes."""
    several = ("accuracy", "balanced_accuracy", "macro_f1", "macro_precision")
    return (*several, "auroc", "precision", "recall", "f1") if num_classes == 2 else several


def set_figures(
    labels_N: NDArray[np.int64],
    scores_NC: NDArray[np.floating],
    patients: Sequence[Hashable],
    *,
    num_replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Figure]:
    """Give each metric with its patient-clustered percentile interval.

    Args:
        labels_N: Class indices; at least one.
        scores_NC: One score for each class.
        patients: What images share; unique ones give intervals over images.
        num_replicates: Bootstrap replicates.
        seed: Seed of the draw.

    Returns:
        Name to figure. A metric that is not defined (the area, where one class has no image) is left out.
    """
    present = sorted(set(labels_N.tolist()))
    values = {n: v for n, v in set_metrics(labels_N, scores_NC, present).items() if not np.isnan(v)}

    def metrics(labels: NDArray[np.int64], scores: NDArray[np.floating]) -> dict[str, float]:
        found = set_metrics(labels, scores, present)
        return {name: found[name] for name in values}

    alone = {name: Figure(round(value, DECIMALS)) for name, value in values.items()}
    whose = np.asarray(patients)
    if min(len(set(whose[labels_N == c].tolist())) for c in present) < 2:
        return alone
    try:
        drawn = patient_bootstrap_all(metrics, labels_N, scores_NC, patients, num_replicates=num_replicates, seed=seed)
    except MedclipError:  # some class is missing in nearly every replicate
        return alone
    figures = {n: alone[n] if i.low == i.high else _rounded(i) for n, i in drawn.items()}
    if values["accuracy"] == 1.0:
        low = round(0.025 ** (1 / len(set(patients))), DECIMALS)
        figures["accuracy"] = Figure(1.0, low, 1.0, exact=True)
    return figures


def _rounded(interval: Interval) -> Figure:
    return Figure(round(interval.value, DECIMALS), round(interval.low, DECIMALS), round(interval.high, DECIMALS))
