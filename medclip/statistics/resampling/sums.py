"""Sums over rows for many resamples at once: one sparse product of rows and patients' weights, block by block.

A sum over the rows of a resample is Σ over patients of (how often the patient was drawn) × (the patient's own sum).
So the rows are summed by patient once, and the product with a block of the weight matrix gives the sums of all its
resamples. While weights are whole numbers and rows count once each, every sum is exact: float32 holds whole numbers
up to 2²⁴, float64 up to 2⁵³.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_SINGLE_EXACT = 2**23
"""Half of what float32 holds exactly, because twice a sum of weights is formed (ties count half)."""
_BLOCK_ELEMENTS = 4_000_000
"""Elements of a block of weights: 16 MB of float32, which stays in the cache while rows are gathered from it."""
_STEP = 8


@dataclass(frozen=True, eq=False)
class Block:
    """Some replicates of the weight matrix."""

    start: int
    num: int
    """How many of its columns are replicates; the others are zero, so that every block is summed in the same order."""
    weights_Pb: NDArray[Any]
    """float32 where its sums are exact, else float64."""

    @cached_property
    def double_Pb(self) -> NDArray[np.float64]:
        """The weights in float64, for values that are no whole numbers."""
        return self.weights_Pb.astype(np.float64)

    def sums(self, matrix: Any) -> NDArray[Any]:
        """Multiply a matrix of `summing_matrix` with the weights, [rows, columns of the block]."""
        return matrix @ (self.double_Pb if matrix.dtype == np.float64 else self.weights_Pb)


def blocks(weights_PB: NDArray[Any], num_rows: int, integral: bool, width: int | None = None) -> Iterator[Block]:
    """Cut the weight matrix into blocks of replicates.

    Args:
        weights_PB: Weight of each patient in each replicate.
        num_rows: Rows that will be summed; with the largest weight it bounds the sums.
        integral: Whether rows count once each, so that sums of whole weights are whole.
        width: Replicates in a block; None: as many as fit in the cache. The results do not depend on it.

    Yields:
        The blocks, in order.
    """
    num_patients, num_replicates = weights_PB.shape
    single = integral and weights_PB.dtype.kind in "ub" and int(weights_PB.max(initial=0)) * num_rows < _SINGLE_EXACT
    kind: Any = np.float32 if single else np.float64
    fitting = min(max(_BLOCK_ELEMENTS // max(num_patients, num_rows // 2, 1), 32), 1024, max(num_replicates, 1))
    padded = math.ceil((width or fitting) / _STEP) * _STEP
    for start in range(0, num_replicates, padded):
        num = min(padded, num_replicates - start)
        block_Pb = np.zeros((num_patients, padded), kind)
        block_Pb[:, :num] = weights_PB[:, start : start + num]
        yield Block(start, num, block_Pb)


def summing_matrix(
    groups_n: NDArray[np.integer[Any]],
    num_groups: int,
    patients_n: NDArray[np.integer[Any]],
    num_patients: int,
    values_n: NDArray[np.float64] | None = None,
) -> Any:
    """Sum rows by group and patient.

    Args:
        groups_n: Group of each row, 0 to num_groups − 1.
        num_groups: Number of sums.
        patients_n: Patient of each row.
        num_patients: Patients of the cohort, P.
        values_n: Values that are summed; None counts rows, exactly.

    Returns:
        A sparse array [num_groups, P] for `Block.sums`; float32 where rows are counted.
    """
    data = np.ones(len(groups_n), np.float32) if values_n is None else np.asarray(values_n, np.float64)
    shape = (num_groups, num_patients)
    return sparse.coo_array((data, (groups_n.astype(np.int32), patients_n.astype(np.int32))), shape=shape).tocsr()


def ratios(
    patients_N: NDArray[np.integer[Any]],
    weights_PB: NDArray[Any],
    tops_KN: NDArray[np.floating[Any]],
    bottoms_KN: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divide sums over rows, in the sample and in each resample of patients.

    Args:
        patients_N: Patient of each row.
        weights_PB: Weight of each patient in each replicate.
        tops_KN: Values that are summed above the line, [K, N].
        bottoms_KN: Values that are summed below the line, [K, N], or [1, N] for all.

    Returns:
        [K] and [K, B]; NaN where the sum below is 0.
    """
    num = len(weights_PB)
    over_PK, under_PK = (
        np.stack([np.bincount(patients_N, row, minlength=num) for row in rows], axis=1)
        for rows in (tops_KN, bottoms_KN)
    )

    def divided(weights_Pb: NDArray[np.float64]) -> NDArray[np.float64]:
        under = under_PK.T @ weights_Pb
        over = over_PK.T @ weights_Pb
        return np.divide(over, under, out=np.full(over.shape, np.nan), where=np.broadcast_to(under > 0, over.shape))

    drawn_KB = np.empty((len(tops_KN), weights_PB.shape[1]))
    for block in blocks(weights_PB, len(patients_N), False):
        drawn_KB[:, block.start : block.start + block.num] = divided(block.double_Pb)[:, : block.num]
    return divided(np.ones((num, 1)))[:, 0], drawn_KB


def means(
    patients_N: NDArray[np.integer[Any]],
    weights_PB: NDArray[Any],
    parts: Sequence[tuple[NDArray[np.bool_], NDArray[Any]]],
    weight_N: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average some values over some rows, in the sample and in each resample of patients.

    Args:
        patients_N: Patient of each row.
        weights_PB: Weight of each patient in each replicate.
        parts: K pairs: whether each row is in, [N], and the values of the rows, [N].
        weight_N: Weight of each row; 1 by default.

    Returns:
        [K] and [K, B]; NaN where nobody is in.
    """
    counted_KN = np.array([mask for mask, _ in parts], np.float64) * (1.0 if weight_N is None else weight_N)
    values_KN = np.array([np.where(mask, value, 0.0) for mask, value in parts], np.float64)
    return ratios(patients_N, weights_PB, counted_KN * values_KN, counted_KN)
