"""How often each patient counts in each resample: the one matrix that every interval of the audit is made from.

Patients are drawn, never rows: images of one patient are alike, so an interval from rows is too narrow
(benchmarks/interval_coverage.py shows by how much). All models, labels and groups share the matrix, which pairs their
differences.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

_DRAWN_AT_ONCE = 64
"""Replicates that are drawn before they are written into the columns of the matrix; not seen in the result."""


def draw_weights(num_patients: int, num_replicates: int, *, seed: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Draw patients with replacement, as many as there are, once for each replicate (Efron 1979).

    The first replicates do not depend on how many are asked for, and nothing depends on the number of threads.

    Args:
        num_patients: Number of patients, P.
        num_replicates: Number of resamples to draw, B.
        seed: Seed of the draws; the same one gives the same matrix.

    Returns:
        How often each patient was drawn, [P, B]; uint8, or uint16 where one was drawn more than 255 times.

    Raises:
        MedclipError: There are no patients or no replicates.

    Example:
        >>> draw_weights(5, 3, seed=0).sum(axis=0).tolist()
        [5, 5, 5]
    """
    if num_patients < 1 or num_replicates < 1:
        size = f"{num_patients} patients and {num_replicates} resamples"
        raise MedclipError(Reason.WRONG_USE, f"{size}: at least one of each is needed.")
    rng = np.random.default_rng(seed)
    drawn_PB = np.empty((num_patients, num_replicates), np.uint8)
    for start in range(0, num_replicates, _DRAWN_AT_ONCE):
        stop = min(start + _DRAWN_AT_ONCE, num_replicates)
        counts_bP = np.empty((stop - start, num_patients), np.int64)
        for counts_P in counts_bP:
            counts_P[:] = np.bincount(rng.integers(0, num_patients, num_patients), minlength=num_patients)
        if drawn_PB.dtype == np.uint8 and counts_bP.max() > np.iinfo(np.uint8).max:
            drawn_PB = drawn_PB.astype(np.uint16)
        if counts_bP.max() > np.iinfo(np.uint16).max:
            raise MedclipError(Reason.WRONG_USE, "a patient was drawn more than 65,535 times in one resample.")
        drawn_PB[:, start:stop] = counts_bP.T
    return drawn_PB
