"""The figures of one labelled set: accuracy and its relatives, with intervals that resample patients."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.estimate import NUM_RESAMPLES, Difference, Estimate
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of

DECIMALS = 4


@dataclass(frozen=True)
class Figure:
    """One figure with its 95 % interval, as shares from 0 to 1, rounded to four decimals."""

    value: float
    low: float | None = None
    """None where the data cannot say: a class of which too few patients are there."""
    high: float | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> Figure:
        """Round an estimate."""
        if not estimate.has_interval:
            return cls(round(estimate.value, DECIMALS))
        return cls(*(round(end, DECIMALS) for end in (estimate.value, estimate.low, estimate.high)))


@dataclass(frozen=True)
class Change:
    """A paired difference of two figures of the same patients."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """Two-sided, of its being 0."""

    @classmethod
    def of(cls, apart: Difference) -> Change:
        """Round a difference."""
        ends = (apart.low, apart.high) if apart.has_interval else ()
        p = None if np.isnan(apart.p) else float(f"{apart.p:.2g}")
        return cls(*(round(end, DECIMALS) + 0.0 for end in (apart.value, *ends)), p=p)


def metric_names(num_classes: int) -> tuple[str, ...]:
    """List the metrics of a set with so many classes."""
    several = ("accuracy", "balanced_accuracy", "macro_f1", "macro_precision")
    return (*several, "auroc", "precision", "recall", "f1") if num_classes == 2 else several


def set_figures(
    labels_N: NDArray[np.int64],
    scores_NC: NDArray[np.floating],
    patients: Sequence[Hashable],
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Figure]:
    """Compute each metric of a set with its interval. The prediction is the class with the highest score, the first
    one among equals; macro means are over the classes that have images.

    Args:
        labels_N: Class indices; at least one.
        scores_NC: One score for each class.
        patients: Keys of what images share; unique ones give intervals over images.
        num_resamples: Resamples of patients.

    Returns:
        Accuracy, balanced_accuracy (macro recall), macro_f1, macro_precision; for two classes also auroc of the second
        score minus the first, and precision, recall and f1 of the second class. A metric that is not defined (the area,
        where one class has no image) is left out.
    """
    names = metric_names(scores_NC.shape[1])
    figures = measured(labels_N, scores_NC, patients, names, num_resamples=num_resamples, seed=0)
    return {name: Figure.of(interval_of(figure)) for name, figure in figures.items()}
