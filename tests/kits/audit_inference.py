"""Small cohorts for the tests of intervals, gaps and tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from medclip.statistics.cohort import Attribute, Cohort, Label


def cohort_of(
    truth: ArrayLike,
    score: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    probability: bool = True,
    **groups: Sequence[str],
) -> Cohort:
    """Make a cohort of one label; each keyword is an attribute with the group of each row."""
    truth_N, score_N = np.asarray(truth, np.float64), np.asarray(score, np.float64)
    patients_N = np.arange(len(truth_N)) if patients is None else np.asarray(patients)
    attributes = []
    for name, of_rows in groups.items():
        names, codes = np.unique(np.asarray(of_rows).astype(str), return_inverse=True)
        attributes.append(Attribute(name, tuple(names.tolist()), codes.astype(np.int16)))
    label = Label("finding", score_N, truth_N, probability=probability)
    return Cohort(patients_N.astype(np.int32), (label,), tuple(attributes))


def index_weights(indices_BN: ArrayLike, num: int) -> np.ndarray:
    """Count how often each of `num` units stands in each row of a published index matrix, [num, B]."""
    return np.stack([np.bincount(row, minlength=num) for row in np.asarray(indices_BN)], axis=1).astype(np.uint16)
