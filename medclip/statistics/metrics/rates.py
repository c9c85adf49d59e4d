"""Metrics that are ratios of sums: rates at a threshold, observed/expected, Brier score, calibration error.

Rows are summed by patient and by combination of groups (all attributes at once), so that each row is met once however
many attributes there are; the combinations' sums then add up to the cells'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medclip.statistics.resampling.sums import Block, summing_matrix
from medclip.statistics.valid_rows import Rows

NUM_BINS = 15
COUNTED = (
    "prevalence",
    "tpr",
    "fpr",
    "fnr",
    "tnr",
    "ppv",
    "npv",
    "selection_rate",
    "accuracy",
    "f1",
    "underdiagnosis",
    "overdiagnosis",
    "net_benefit",
)
AVERAGED = ("observed_expected", "brier", "ece", "ece_mass")
NAMES = COUNTED + AVERAGED

Array = NDArray[np.float64]


class Summed:
    """The sums of all cells of one label.

    Args:
        rows: The valid rows.
        wanted: Names of metrics, of `NAMES`.
        threshold: Scores of at least this are called positive; None where no metric asks for one.
        no_finding: Whether a positive means a healthy patient (see `Label`).
    """

    def __init__(self, rows: Rows, wanted: frozenset[str], threshold: float | None, no_finding: bool) -> None:
        self._wanted, self._no_finding = wanted, no_finding
        self._odds = np.nan if threshold is None or threshold >= 1 else threshold / (1 - threshold)
        combination_n, cells_GQ = _combinations(rows)
        everything = np.arange(len(rows.patients_n))
        called_n = np.zeros(len(everything), bool) if threshold is None else rows.score_n >= threshold
        outcome_n = 2 * rows.truth_n + called_n
        self._counts = _Sums(cells_GQ, rows, combination_n, [(outcome_n, rows.values(everything))], 4)
        features = [(bin_n, rows.values(everything, value_n)) for bin_n, value_n in _features(rows, wanted)]
        offsets = np.cumsum([0] + [int(bin_n.max(initial=0)) + 1 for bin_n, _ in features])
        self._features = {name: slice(a, b) for name, a, b in zip(_listed(wanted), offsets, offsets[1:], strict=False)}
        shifted = [(bin_n + offset, value) for (bin_n, value), offset in zip(features, offsets, strict=False)]
        self._averages = _Sums(cells_GQ, rows, combination_n, shifted, int(offsets[-1])) if features else None

    def __call__(self, block: Block) -> Mapping[str, Array]:
        """Return each metric that was asked for, [G, columns of the block]."""
        tn, fp, fn, tp = self._counts(block).astype(np.float64)
        values = {name: self._counted(name, tn, fp, fn, tp) for name in COUNTED if name in self._wanted}
        if self._averages is not None:
            sums_FGb = self._averages(block)
            total = tn + fp + fn + tp
            for name, part in self._features.items():
                sums_Gb = np.abs(sums_FGb[part]).sum(axis=0)
                values[name] = ratio(tp + fn, sums_Gb) if name == "observed_expected" else ratio(sums_Gb, total)
        return values

    def _counted(self, name: str, tn: Array, fp: Array, fn: Array, tp: Array) -> Array:
        if name == "net_benefit":
            return ratio(tp - fp * self._odds, tn + fp + fn + tp)
        if name in ("underdiagnosis", "overdiagnosis"):
            name = "fpr" if (name == "underdiagnosis") == self._no_finding else "fnr"
        return _COUNTED[name](tn, fp, fn, tp)


_COUNTED: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "prevalence": lambda tn, fp, fn, tp: ratio(tp + fn, tn + fp + fn + tp),
    "tpr": lambda tn, fp, fn, tp: ratio(tp, tp + fn),
    "fpr": lambda tn, fp, fn, tp: ratio(fp, fp + tn),
    "fnr": lambda tn, fp, fn, tp: ratio(fn, tp + fn),
    "tnr": lambda tn, fp, fn, tp: ratio(tn, fp + tn),
    "ppv": lambda tn, fp, fn, tp: ratio(tp, tp + fp),
    "npv": lambda tn, fp, fn, tp: ratio(tn, tn + fn),
    "selection_rate": lambda tn, fp, fn, tp: ratio(tp + fp, tn + fp + fn + tp),
    "accuracy": lambda tn, fp, fn, tp: ratio(tp + tn, tn + fp + fn + tp),
    "f1": lambda tn, fp, fn, tp: ratio(2 * tp, 2 * tp + fp + fn),
}


def ratio(top: Array, bottom: Array) -> Array:
    """Divide; NaN, never 0, where the denominator is empty."""
    return np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom > 0)


def width_bins(score_n: Array) -> NDArray[np.int64]:
    """Return each probability its bin of equal width, closed on the right: an edge belongs to the lower bin."""
    return np.searchsorted(np.arange(1, NUM_BINS) / NUM_BINS, score_n, side="left")


def mass_bins(score_n: Array) -> NDArray[np.int64]:
    """Return each score its bin of equal mass: edges are quantiles of the sample, equal scores stay together."""
    if not len(score_n):
        return np.zeros(0, np.int64)
    edges = np.quantile(score_n, np.arange(1, NUM_BINS) / NUM_BINS, method="inverted_cdf")
    return np.searchsorted(edges, score_n, side="left")


def _listed(wanted: frozenset[str]) -> list[str]:
    return [name for name in AVERAGED if name in wanted]


def _features(rows: Rows, wanted: frozenset[str]) -> list[tuple[NDArray[np.int64], Array]]:
    """Return bin and value of each row for each averaged metric; its numerator adds up |sum of a bin's values|."""
    off_n = rows.score_n - rows.truth_n
    zero_n = np.zeros(len(off_n), np.int64)
    features: dict[str, Callable[[], tuple[NDArray[np.int64], Array]]] = {
        "observed_expected": lambda: (zero_n, rows.score_n),
        "brier": lambda: (zero_n, off_n**2),
        "ece": lambda: (width_bins(rows.score_n), off_n),
        "ece_mass": lambda: (mass_bins(rows.score_n), off_n),
    }
    return [features[name]() for name in _listed(wanted)]


def _combinations(rows: Rows) -> tuple[NDArray[np.int64], Any]:
    """Number the combinations of groups that occur; say which combinations make up each cell, sparse [G, Q]."""
    num_rows = len(rows.patients_n)
    code_n, first = np.zeros(num_rows, np.int64), np.zeros(min(num_rows, 1), np.int64)
    for codes_n, num_groups in zip(rows.codes_An, rows.num_groups_A, strict=True):
        _, first, code_n = np.unique(code_n * num_groups + codes_n, return_index=True, return_inverse=True)
    num_combinations = len(first)
    every = np.arange(num_combinations)
    starts = 1 + np.cumsum([0, *rows.num_groups_A])
    cell = [np.zeros(num_combinations, np.int64)]
    cell += [start + codes_n[first] for start, codes_n in zip(starts, rows.codes_An, strict=False)]
    columns = np.tile(every, len(cell))
    ones = np.ones(len(columns), np.float32)
    shape = (rows.num_cells, num_combinations)
    return code_n, sparse.coo_array((ones, (np.concatenate(cell), columns)), shape=shape).tocsr()


class _Sums:
    """Sums of values by cell and bin, through the combinations that occur."""

    def __init__(
        self,
        cells_GQ: Any,
        rows: Rows,
        combination_n: NDArray[np.int64],
        features: list[tuple[NDArray[np.int64], Array | None]],
        num_bins: int,
    ) -> None:
        joined_n = np.concatenate([combination_n * num_bins + bin_n for bin_n, _ in features])
        valued = [value for _, value in features if value is not None]
        present, row_n = np.unique(joined_n, return_inverse=True)
        patients_n = np.tile(rows.patients_n, len(features))
        values_n = np.concatenate(valued) if valued else None
        self._by_combination = summing_matrix(row_n, len(present), patients_n, rows.num_patients, values_n)
        # [bin × G + cell, combination × bin that occurs]
        cells = cells_GQ[:, present // num_bins].tocoo()
        bins = (present % num_bins)[cells.col]
        shape = (num_bins * rows.num_cells, len(present))
        self._to_cells = sparse.coo_array(
            (cells.data, (bins * rows.num_cells + cells.row, cells.col)), shape=shape
        ).tocsr()
        self._shape = (num_bins, rows.num_cells)

    def __call__(self, block: Block) -> NDArray[Any]:
        sums_Rb = block.sums(self._by_combination)
        return (self._to_cells @ sums_Rb).reshape(*self._shape, sums_Rb.shape[1])
