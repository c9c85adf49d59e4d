"""All numbers of the audit for a label, in every cell and every resample.

    weights_PB = draw_weights(cohort.num_patients, 1000, seed=0)
    replicates = evaluate(cohort, label, weights_PB, threshold=0.5)
    replicates.point["auroc"], replicates.drawn["auroc"]        # [G], [G, B]

Values are those of literally repeating the rows of the drawn patients and calling scikit-learn
(tests/statistics/resampling/test_bootstrap.py). A metric is NaN, never 0, where its denominator is empty. Permutations
are evaluated in the same way, with weights of 0 and 1.

Sorting every score costs most where there are most rows, and there the last digits of a resample say nothing. So from
`MANY_ROWS` rows on the scores of resamples are cut into `NUM_BINS` bins, equal scores always in one bin, and each bin
counts as one score (of positives and of negatives, for the calibration). The value of the sample itself is exact, and
what the bins change in it is taken off the resamples. With 200,000 rows a resample of the AUROC is off by less than a
hundredth of its standard error, and of the AUPRC by a twentieth; standard errors are the same to 0.5 %. 2,000 of them
for 13 cells, with cross-group AUROCs and the calibration, take 3 s instead of 35 s.
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
from medclip.statistics.cohort import Cohort, Label, Rows, valid_rows
from medclip.statistics.metrics import calibration as recalibration
from medclip.statistics.metrics.calibration import Fitted, Recalibrated, logits
from medclip.statistics.metrics.catalogue import METRICS, Own
from medclip.statistics.metrics.ranks import Area, Areas, SortedMetrics
from medclip.statistics.metrics.rates import Averaged, Counted, Summed, ratio
from medclip.statistics.resampling.sums import Block, blocks, summing_matrix

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
    if len(rows.patients_n) >= MANY_ROWS:
        if areas or calibration:
            yield Binned(rows, areas, calibration)
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


MANY_ROWS = 50_000
NUM_BINS = 1024


class Binned:
    """The areas and the calibration of all cells of one label."""

    def __init__(self, rows: Rows, areas: Mapping[str, Area], calibration: Mapping[str, recalibration.Fitted]) -> None:
        self._areas, self._calibration = areas, calibration
        self._groups = tuple(np.cumsum([1, *rows.num_groups_A]))
        edges = _edges(rows)
        bin_n = np.searchsorted(edges, rows.rank_n, side="left")
        self._shape = (rows.num_cells, 2, len(edges))
        row_of = rows.truth_n * len(edges) + bin_n
        # Each row is in one group of each attribute: the last of them is what the others leave of everybody.
        self._last = () if rows.weight_n is not None else tuple(last - 1 for last in self._groups[1:])
        summed = [g for g in range(rows.num_cells) if g not in self._last]
        cells = [rows.cells[g] for g in summed]
        all_rows = np.concatenate(cells)
        self._summed = np.array(summed)
        self._matrix = summing_matrix(
            np.concatenate([place * 2 * len(edges) + row_of[cell] for place, cell in enumerate(cells)]),
            len(summed) * 2 * len(edges),
            rows.patients_n[all_rows],
            rows.num_patients,
            None if rows.weight_n is None else rows.weight_n[all_rows],
        )
        sums_G2K1 = self._filled(self._matrix @ np.ones((rows.num_patients, 1)))
        exact, binned = self._exact(rows), self._values(sums_G2K1)
        if calibration:
            self._fit(rows, row_of)
            exact |= {name: self._fitted_3G[fitted.place, :, None] for name, fitted in calibration.items()}
            binned |= self._recalibrated(sums_G2K1)
        self._off = {name: exact[name] - binned[name] for name in (*areas, *calibration)}

    def __call__(self, block: Block) -> Mapping[str, Array]:
        """Return each metric that was asked for, [G, columns of the block]."""
        sums_G2Kb = self._filled(block.sums(self._matrix))
        values = self._values(sums_G2Kb)
        if self._calibration:
            values |= self._recalibrated(sums_G2Kb)
        return {name: values[name] + off for name, off in self._off.items()}

    def _filled(self, sums: NDArray) -> NDArray:
        """Take sums apart, and add the groups that are left of everybody, [G, 2, K, b]."""
        summed = np.asarray(sums).reshape(len(self._summed), *self._shape[1:], -1)
        if not self._last:
            return summed
        filled = np.empty((self._shape[0], *summed.shape[1:]), summed.dtype)
        filled[self._summed] = summed
        for first, last in zip(self._groups, self._last, strict=False):
            filled[last] = summed[0] - filled[first:last].sum(axis=0)
        return filled

    def _fit(self, rows: Rows, row_of: NDArray[np.int64]) -> None:
        """Fit the calibration of each cell, and find what each bin adds to the sums of a resample."""
        logit_n = logits(rows.score_n)
        num = np.bincount(row_of, minlength=2 * self._shape[2])
        mean = np.bincount(row_of, logit_n, 2 * self._shape[2]) / np.maximum(num, 1)
        truth = np.repeat([0.0, 1.0], self._shape[2])
        self._has_logit_2K = recalibration.has_logit(mean).reshape(2, -1)
        self._fitted_3G = np.full((len(recalibration.FIGURES), rows.num_cells), np.nan)
        self._terms: dict[int, Array] = {}
        for g, cell in enumerate(rows.cells):
            weight_n = None if rows.weight_n is None else rows.weight_n[cell]
            fitted = recalibration.fit_all(logit_n[cell], rows.truth_n[cell], weight_n)
            if not np.isnan(fitted[2]):
                self._fitted_3G[:, g], self._terms[g] = fitted, recalibration.terms(fitted, mean, truth)

    def _recalibrated(self, sums_G2Kb: NDArray) -> dict[str, Array]:
        num_cells, width = len(sums_G2Kb), sums_G2Kb.shape[-1]
        moved = np.full((len(recalibration.FIGURES), num_cells, width), np.nan)
        for g, terms in self._terms.items():
            sums_2Kb = sums_G2Kb[g].astype(np.float64)
            counts_22b = [
                (sums_2Kb * of_kind[..., None]).sum(axis=1) for of_kind in (self._has_logit_2K, ~self._has_logit_2K)
            ]
            steps = recalibration.steps(terms @ sums_2Kb.reshape(-1, width))
            present_3b = recalibration.present(np.stack(counts_22b))
            moved[:, g] = np.where(present_3b, self._fitted_3G[:, g, None] + steps, np.nan)
        return {name: moved[fitted.place] for name, fitted in self._calibration.items()}

    def _values(self, sums: NDArray) -> dict[str, Array]:
        """Compute the areas from sums by cell, truth and bin of ascending scores, [G, 2, K, b]."""
        negative, positive = sums[:, 0].astype(np.float64), sums[:, 1].astype(np.float64)
        below = np.cumsum(negative, axis=1)
        negatives, positives = below[:, -1].copy(), positive.sum(axis=1)
        below -= negative / 2
        auprc = None
        if any(area.steps for area in self._areas.values()):
            hits = positives[:, None] - np.cumsum(positive, axis=1) + positive
            called = hits + negatives[:, None] - below + negative / 2
            precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
            auprc = ratio(np.einsum("gkb,gkb->gb", positive, precision), positives)
        values: dict[str, Array] = {}
        within: Areas | None = None
        for name, area in self._areas.items():
            if area.outside is not None:
                values[name] = area.of(_crossed(area.outside, positive, below, positives, negatives))
                values[name][0] = np.nan
                continue
            if within is None:
                won = np.einsum("gkb,gkb->gb", positive, below)
                within = Areas(ratio(won, positives * negatives), auprc, positives, negatives, won)
            values[name] = area.of(within)
        return values

    def _exact(self, rows: Rows) -> dict[str, Array]:
        """Compute the areas of the sample itself, with a bin for each score; cell by cell, for there are many."""
        num = int(rows.rank_n.max()) + 1
        values = {name: np.full((rows.num_cells, 1), np.nan) for name in self._areas}

        def counted(cell: NDArray[np.int64]) -> Array:
            weight_n = None if rows.weight_n is None else rows.weight_n[cell]
            place_n = rows.truth_n[cell] * num + rows.rank_n[cell]
            return np.bincount(place_n, weight_n, 2 * num).astype(np.float64).reshape(1, 2, num, 1)

        everybody = counted(rows.cells[0])
        for g, cell in enumerate(rows.cells):
            both = np.concatenate([everybody, counted(cell) if g else everybody])
            for name, of_cells in self._values(both).items():
                values[name][g] = of_cells[1]
        for name, area in self._areas.items():
            if area.outside is not None:
                values[name][0] = np.nan
        return values


def _edges(rows: Rows) -> NDArray[np.int64]:
    """Return the highest rank of each bin: half of them hold as many rows each, half as many positives.

    What is precise is decided among the highest scores, which rare positives share with few others. Probabilities of 0
    and 1 share a bin with no other.
    """
    logit_n = logits(rows.score_n)
    inside_n = recalibration.has_logit(logit_n)
    edges = [np.array([rows.rank_n.max()])]
    edges += [rows.rank_n[n].max(keepdims=True) for n in (inside_n, ~inside_n & (logit_n < 0)) if n.any()]
    for ranks in (rows.rank_n, rows.rank_n[rows.truth_n]):
        if len(ranks):
            edges.append(np.sort(ranks)[np.linspace(0, len(ranks) - 1, NUM_BINS // 2 + 1).astype(np.int64)])
    return np.unique(np.concatenate(edges))


def _crossed(outside: str, positive: Array, below: Array, positives: Array, negatives: Array) -> Areas:
    """Meet positives of one side with negatives of the other; everybody, the first cell, has no other side."""
    if outside == "negatives":
        below, negatives = below[:1] - below, negatives[:1] - negatives
    else:
        positive, positives = positive[:1] - positive, positives[:1] - positives
    won = np.einsum("gkb,gkb->gb", positive, below)
    return Areas(ratio(won, positives * negatives), None, positives, negatives, won)
