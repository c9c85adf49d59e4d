"""Labels dealt anew among patients: what a test of "no difference between the groups" compares with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FEWEST = 10
"""Patients of a stratum; smaller ones join the next."""


def shuffled(
    codes_N: NDArray[np.integer], patients_N: NDArray[np.integer], num: int, *, seed: int
) -> NDArray[np.int64]:
    """Return each patient the labels of another, again and again.

    A patient's rows stay together: where all rows of a patient have one label, they still have one. Labels are
    exchanged between patients with about as many rows (1, 2, 3 to 4, 5 to 8, ...), so that a group keeps its size,
    nearly; a patient with fewer rows than the other takes some of them, one with more goes round.

    Args:
        codes_N: Label of each row.
        patients_N: Patient of each row, 0 to P - 1, every one of them there.
        num: Number of shufflings.
        seed: Seed of the draws.

    Returns:
        int64 [num, N].
    """
    order = np.argsort(patients_N, kind="stable")
    owner = np.asarray(patients_N)[order]
    sizes_P = np.bincount(owner)
    starts_P = np.cumsum(sizes_P) - sizes_P
    place_N = np.arange(len(owner)) - starts_P[owner]
    strata = _strata(sizes_P)
    codes = np.asarray(codes_N, np.int64)[order]
    rng = np.random.default_rng(seed)
    codes_RN = np.empty((num, len(codes)), np.int64)
    for r in range(num):
        source_P = np.empty(len(sizes_P), np.int64)
        for patients in strata:
            source_P[patients] = rng.permutation(patients)
        turn_P = rng.integers(0, sizes_P[source_P])
        whose = source_P[owner]
        codes_RN[r, order] = codes[starts_P[whose] + (place_N + turn_P[owner]) % sizes_P[whose]]
    return codes_RN


def p_value(observed: float, null_R: NDArray[np.floating]) -> float:
    """Return (1 + number of the null that is at least as large) / (1 + number); NaN where nothing was observed."""
    if np.isnan(observed):
        return float("nan")
    return float(1 + np.sum(null_R >= observed - 1e-12)) / (1 + len(null_R))


def _strata(sizes_P: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Divide patients by their number of rows, in steps of two; small strata are joined."""
    steps = np.ceil(np.log2(sizes_P)).astype(int)
    strata: list[NDArray[np.int64]] = []
    for step in np.unique(steps)[::-1]:  # many rows are rare: they join the next smaller
        patients = np.flatnonzero(steps == step)
        if strata and len(strata[-1]) < _FEWEST:
            strata[-1] = np.concatenate([strata[-1], patients])
        else:
            strata.append(patients)
    if len(strata) > 1 and len(strata[-1]) < _FEWEST:
        last = strata.pop()
        strata[-1] = np.concatenate([strata[-1], last])
    return strata
