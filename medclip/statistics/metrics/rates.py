"""Metrics that are ratios of sums: rates at a threshold, observed/expected, squared and calibration error.

Rows are summed by patient and by combination of groups (all attributes at once), so that each row is met once however
many attributes there are; the combinations' sums then add up to the cells'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medclip.statistics.cohort import Rows
from medclip.statistics.resampling.sums import Block, summing_matrix

NUM_BINS = 15

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Weights of the rows at a threshold, all of one shape."""

    tn: Array
    fp: Array
    fn: Array
    tp: Array
    positives: Array
    negatives: Array
    rows: Array
    odds: float
    """The threshold over one minus itself; NaN where it is none of a probability."""
    no_finding: bool
    """Whether a positive means a healthy patient (see `Label`)."""


def ratio(top: Array, bottom: Array) -> Array:
    """Divide; NaN, never 0, where the denominator is empty."""
    return np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom > 0)


def _share_of_rows(sums: Array, outcomes: Outcomes) -> Array:
    return ratio(sums, outcomes.rows)


@dataclass(frozen=True)
class Counted:
    """A metric that follows from the outcomes."""

    of: Callable[[Outcomes], Array]


@dataclass(frozen=True)
class Averaged:
    """A metric that follows from sums of the rows' values."""

    of: Callable[[Rows], tuple[NDArray[np.int64], Array]]
    """Bin and value of each row; |sum of a bin's values| is added up over the bins."""
    join: Callable[[Array, Outcomes], Array] = _share_of_rows
    """The metric of these sums."""


class Summed:
    """The sums of all cells of one label.

    Args:
        rows: The valid rows.
        wanted: The metrics by name.
        threshold: Scores of at least this are called positive; None where no metric asks for one.
        no_finding: Whether a positive means a healthy patient (see `Label`).
    """

    def __init__(
        self, rows: Rows, wanted: Mapping[str, Counted | Averaged], threshold: float | None, no_finding: bool
    ) -> None:
        self._counted = {name: one for name, one in wanted.items() if isinstance(one, Counted)}
        self._averaged = {name: one for name, one in wanted.items() if isinstance(one, Averaged)}
        self._odds, self._no_finding = odds(threshold), no_finding
        combination_n, cells_GQ = _combinations(rows)
        everything = np.arange(len(rows.patients_n))
        called_n = np.zeros(len(everything), bool) if threshold is None else rows.score_n >= threshold
        outcome_n = 2 * rows.truth_n + called_n
        self._counts = _Sums(cells_GQ, rows, combination_n, [(outcome_n, rows.values(everything))], 4)
        features = [
            (bin_n, rows.values(everything, value_n))
            for bin_n, value_n in (one.of(rows) for one in self._averaged.values())
        ]
        offsets = np.cumsum([0] + [int(bin_n.max(initial=0)) + 1 for bin_n, _ in features])
        self._features = {name: slice(a, b) for name, a, b in zip(self._averaged, offsets, offsets[1:], strict=False)}
        shifted = [(bin_n + offset, value) for (bin_n, value), offset in zip(features, offsets, strict=False)]
        self._averages = _Sums(cells_GQ, rows, combination_n, shifted, int(offsets[-1])) if features else None

    def __call__(self, block: Block) -> Mapping[str, Array]:
        """Return each metric that was asked for, [G, columns of the block]."""
        tn, fp, fn, tp = self._counts(block).astype(np.float64)
        sums = {"positives": tp + fn, "negatives": fp + tn, "rows": tn + fp + fn + tp}
        outcomes = Outcomes(tn, fp, fn, tp, **sums, odds=self._odds, no_finding=self._no_finding)
        values = {name: one.of(outcomes) for name, one in self._counted.items()}
        if self._averages is not None:
            sums_FGb = self._averages(block)
            for name, part in self._features.items():
                values[name] = self._averaged[name].join(np.abs(sums_FGb[part]).sum(axis=0), outcomes)
        return values


def odds(threshold: float | None) -> float:
    """Return threshold/(1 − threshold); NaN where there is none."""
    return float("nan") if threshold is None or threshold >= 1 else threshold / (1 - threshold)


def width_bins(score_n: Array) -> NDArray[np.int64]:
    """Return each probability its bin of equal width, closed on the right: an edge belongs to the lower bin."""
    return np.searchsorted(np.arange(1, NUM_BINS) / NUM_BINS, score_n, side="left")


def mass_bins(score_n: Array) -> NDArray[np.int64]:
    """Return each score its bin of equal mass: edges are quantiles of the sample, equal scores stay together."""
    if not len(score_n):
        return np.zeros(0, np.int64)
    edges = np.quantile(score_n, np.arange(1, NUM_BINS) / NUM_BINS, method="inverted_cdf")
    return np.searchsorted(edges, score_n, side="left")


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
