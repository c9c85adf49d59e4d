"""How often each patient counts in each resample: the one matrix that every interval of the audit is made from.

Patients are drawn, never rows: images of one patient are alike, so an interval from rows is too narrow
(benchmarks/interval_coverage.py shows by how much). All models, labels and groups share the matrix, which pairs their
differences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medclip.errors import MedclipError, Reason

_DRAWN_AT_ONCE = 64
"""Replicates that are drawn before they are written into the columns of the matrix; not seen in the result."""


def draw_weights(
    num_patients: int, num_replicates: int, *, seed: int, strata_P: ArrayLike | None = None
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Draw patients with replacement, as many as there are, once for each replicate (Efron 1979).

    The first replicates do not depend on how many are asked for, and nothing depends on the number of threads.

    Args:
        num_patients: How many patients there are, P.
        num_replicates: How many resamples to draw, B.
        seed: The same seed gives the same matrix.
        strata_P: Stratum of each patient (any values that can be sorted): each stratum keeps its number of patients.

    Returns:
        How often each patient was drawn, [P, B]; uint8, or uint16 where one was drawn more than 255 times.

    Raises:
        MedclipError: There are no patients or no replicates, or `strata_P` has another length.

    Example:
        >>> draw_weights(5, 3, seed=0).sum(axis=0).tolist()
        [5, 5, 5]
    """
    if num_patients < 1 or num_replicates < 1:
        asked = f"{num_patients} patients and {num_replicates} resamples"
        raise MedclipError(Reason.WRONG_USE, f"{asked}: at least one of each is needed.")
    strata = np.zeros(num_patients, np.int64) if strata_P is None else np.asarray(strata_P)
    if strata.shape != (num_patients,):
        raise MedclipError(Reason.WRONG_USE, f"{strata.shape} strata for {num_patients} patients: one each is needed.")
    _, stratum = np.unique(strata, return_inverse=True)
    members = [np.flatnonzero(stratum == s) for s in range(stratum.max() + 1)]
    rng = np.random.default_rng(seed)
    drawn_PB = np.empty((num_patients, num_replicates), np.uint8)
    for start in range(0, num_replicates, _DRAWN_AT_ONCE):
        stop = min(start + _DRAWN_AT_ONCE, num_replicates)
        counts_bP = np.empty((stop - start, num_patients), np.int64)
        for counts_P in counts_bP:
            chosen = np.concatenate([rows[rng.integers(0, len(rows), len(rows))] for rows in members])
            counts_P[:] = np.bincount(chosen, minlength=num_patients)
        if drawn_PB.dtype == np.uint8 and counts_bP.max() > np.iinfo(np.uint8).max:
            drawn_PB = drawn_PB.astype(np.uint16)
        if counts_bP.max() > np.iinfo(np.uint16).max:
            raise MedclipError(Reason.WRONG_USE, "a patient was drawn more than 65,535 times in one resample.")
        drawn_PB[:, start:stop] = counts_bP.T
    return drawn_PB


def index_weights(indices_BN: ArrayLike, num: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Count how often each of `num` units stands in each row of an index matrix.

    For resamples that were drawn elsewhere: published index matrices, another library's generator.

    Args:
        indices_BN: Indices of the units drawn, one row a resample.
        num: How many units there are.

    Returns:
        How often each unit was drawn, [num, B].

    Raises:
        MedclipError: An index is outside 0 to num − 1.
    """
    indices = np.atleast_2d(np.asarray(indices_BN, np.int64))
    if indices.size and not 0 <= indices.min() <= indices.max() < num:
        raise MedclipError(Reason.WRONG_USE, f"indices are outside 0 to {num - 1}.")
    counts_BN = np.stack([np.bincount(row, minlength=num) for row in indices])
    kind: Any = np.uint8 if counts_BN.max(initial=0) <= np.iinfo(np.uint8).max else np.uint16
    return np.ascontiguousarray(counts_BN.T).astype(kind)


def jackknife_weights(num_patients: int, num_blocks: int = 200) -> NDArray[np.uint8]:
    """Leave each block of patients out once, for the acceleration of a BCa interval (Efron 1987).

    Patients are dealt to blocks in turn. With as many blocks as patients this is the ordinary jackknife; a few hundred
    blocks estimate the skewness as well and cost less.

    Args:
        num_patients: How many patients there are, P.
        num_blocks: At most this many blocks, J; fewer where there are fewer patients.

    Returns:
        1 where the patient counts and 0 where its block is left out, [P, J].

    Raises:
        MedclipError: There are fewer than two patients or blocks.
    """
    blocks = min(num_blocks, num_patients)
    if blocks < 2:
        raise MedclipError(Reason.WRONG_USE, "a jackknife needs at least two patients and two blocks.")
    return (np.arange(num_patients)[:, None] % blocks != np.arange(blocks)).astype(np.uint8)
