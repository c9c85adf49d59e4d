"""All numbers of the audit for a label, in every cell and every resample.

    weights_PB = draw_weights(cohort.num_patients, 1000, seed=0)
    replicates = evaluate(cohort, label, weights_PB, threshold=0.5)
    replicates.point["auroc"], replicates.drawn["auroc"]        # [G], [G, B]

Values are those of literally repeating the rows of the drawn patients and calling scikit-learn
(tests/statistics/resampling/test_bootstrap.py). A metric is NaN, never 0, where its denominator is empty. Permutations
are evaluated in the same way, with weights of 0 and 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.statistics.cohort import Cohort, Label
from medclip.statistics.metrics import histograms
from medclip.statistics.metrics.calibration_slope import Fitted, Recalibrated
from medclip.statistics.metrics.catalogue import METRICS, Own
from medclip.statistics.metrics.ranks import Area, SortedMetrics
from medclip.statistics.metrics.rates import Averaged, Counted, Summed
from medclip.statistics.resampling.sums import Block, blocks
from medclip.statistics.valid_rows import Rows, valid_rows

Array = NDArray[np.float64]
Part = Callable[[Block], Mapping[str, Array]]


@dataclass(frozen=True, eq=False)
class Replicates:
    """The metrics of one label in each of G cells, in the order of `cells_of`."""

    point: dict[str, Array]
    """Value of the sample itself, [G]."""
    drawn: dict[str, Array]
    """Value in each replicate, [G, B]."""
    n_G: NDArray[np.int64]
    """Rows that have a score and a truth; like the other counts without any weight."""
    n_pos_G: NDArray[np.int64]
    n_neg_G: NDArray[np.int64]
    n_patients_G: NDArray[np.int64]


def metrics_of(label: Label, threshold: float | None) -> tuple[str, ...]:
    """List the metrics that are defined for a label: no rates without a threshold, no calibration of other scores.

    A label with times has those of survival alone; `concordance.at_horizon` makes a binary label of it.
    """
    return tuple(
        name
        for name, metric in METRICS.items()
        if (metric.what == "survival") == (label.time_N is not None)
        and not (metric.needs_threshold and threshold is None)
        and not (metric.needs_probability and not label.probability)
    )


def evaluate(
    cohort: Cohort,
    label: Label,
    weights_PB: NDArray[Any],
    *,
    threshold: float | None = None,
    metrics: Iterable[str] | None = None,
    block_width: int | None = None,
) -> Replicates:
    """Measure one label in every cell of the cohort, in the sample and in every resample.

    Args:
        cohort: Patients and attributes; the label need not be one of its own.
        label: Scores and truths of the cohort's rows. `label.weight_N` multiplies the patients' weights.
        weights_PB: Weight of each patient in each replicate (`medclip.statistics.resampling.weights`). [P, 0]: the
            sample alone.
        threshold: Score from which on a row is called positive.
        metrics: Names of `METRICS`; None: those of `metrics_of`. Named ones that are not defined for the label
            (no threshold, no probabilities, no times) are NaN.
        block_width: Replicates computed at once; results do not depend on it. None: chosen for the cache.

    Returns:
        Points, replicates and counts.

    Raises:
        MedclipError: A metric is not known, the weights are not [patients, replicates], or the label's own values are
            unusable (see `valid_rows`).
    """
    if weights_PB.ndim != 2 or len(weights_PB) != cohort.num_patients:
        shape = " × ".join(map(str, weights_PB.shape))
        message = f"weights are {shape}, but must be patients × replicates with {cohort.num_patients} patients."
        raise MedclipError(Reason.WRONG_USE, message)
    names = metrics_of(label, threshold) if metrics is None else _known(metrics)
    rows = valid_rows(cohort, label)
    replicates = {name: np.full((rows.num_cells, weights_PB.shape[1]), np.nan) for name in names}
    point = {name: np.full(rows.num_cells, np.nan) for name in names}
    defined = frozenset(names) & frozenset(metrics_of(label, threshold))
    parts = list(_parts(rows, label, defined, threshold)) if len(rows.patients_n) else []
    once_P1 = np.ones((len(weights_PB), 1), np.uint8)
    for block in blocks(once_P1, len(rows.patients_n), rows.weight_n is None):
        _fill({name: values[:, None] for name, values in point.items()}, parts, block)
    for block in blocks(weights_PB, len(rows.patients_n), rows.weight_n is None, block_width):
        _fill(replicates, parts, block)
    n_pos_G = np.array([rows.truth_n[cell].sum() for cell in rows.cells], np.int64)
    n_G = np.array([len(cell) for cell in rows.cells], np.int64)
    n_patients_G = np.array([len(np.unique(rows.patients_n[cell])) for cell in rows.cells], np.int64)
    return Replicates(point, replicates, n_G, n_pos_G, n_G - n_pos_G, n_patients_G)


def evaluate_many(
    cohort: Cohort,
    thresholds: Mapping[str, float],
    weights_PB: NDArray[Any],
    *,
    metrics: Iterable[str] | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Replicates]:
    """Measure every label of the cohort; several at a time.

    Args:
        cohort: Cohort that is audited.
        thresholds: Threshold of each label by name; labels without one get no rates.
        weights_PB: Weight of each patient in each replicate; shared by all labels, which pairs them.
        metrics: Names of metrics for every label, as `evaluate` takes them.
        threads: Number of labels at a time; None: as many as there are cores. The results do not depend on it.
        progress: Function called after each label with the number of labels done and that of all.

    Returns:
        The replicates of each label by name, in the cohort's order.
    """
    names = None if metrics is None else tuple(metrics)

    def one(label: Label) -> Replicates:
        return evaluate(cohort, label, weights_PB, threshold=thresholds.get(label.name), metrics=names)

    replicates: dict[str, Replicates] = {}
    with ThreadPoolExecutor(max_workers=threads or os.cpu_count()) as pool:
        waiting = [(label.name, pool.submit(one, label)) for label in cohort.labels]
        for name, result in waiting:
            replicates[name] = result.result()
            if progress is not None:
                progress(len(replicates), len(waiting))
    return replicates


def _known(metrics: Iterable[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(metrics))
    if unknown := [name for name in names if name not in METRICS]:
        hint = did_you_mean(unknown[0], METRICS, "Metrics are")
        raise MedclipError(Reason.WRONG_USE, f"there is no metric {unknown[0]!r}.", hint=hint)
    return names


def _parts(rows: Rows, label: Label, defined: frozenset[str], threshold: float | None) -> Iterable[Part]:
    """Prepare what gives the metrics that are defined for the label."""
    wanted = {name: metric.values for name, metric in METRICS.items() if name in defined}
    areas = {name: values for name, values in wanted.items() if isinstance(values, Area)}
    calibration = {name: values for name, values in wanted.items() if isinstance(values, Fitted)}
    if len(rows.patients_n) >= histograms.MANY_ROWS:
        if areas or calibration:
            yield histograms.Binned(rows, areas, calibration)
    else:
        if areas:
            yield SortedMetrics(rows, areas)
        if calibration:
            yield Recalibrated(rows, calibration)
    if sums := {name: values for name, values in wanted.items() if isinstance(values, Counted | Averaged)}:
        yield Summed(rows, sums, threshold, label.no_finding)
    for name, values in wanted.items():
        if isinstance(values, Own):
            yield _named(name, values.prepare(rows))


def _named(name: str, part: Callable[[Block], Array]) -> Part:
    return lambda block: {name: part(block)}


def _fill(replicates: dict[str, Array], parts: Iterable[Part], block: Block) -> None:
    for part in parts:
        for name, values in part(block).items():
            replicates[name][:, block.start : block.start + block.num] = values[:, : block.num]
