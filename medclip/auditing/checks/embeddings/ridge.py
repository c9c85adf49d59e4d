"""A linear probe that costs one product of matrices for each permutation: ridge regression on held-out patients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from medclip.statistics.metrics.ranks import auroc

FOLDS = 5
_AT_ONCE = 50
"""Permutations computed together."""


def patient_folds(
    codes_N: NDArray[np.integer], patients_N: NDArray[np.integer], count: int, seed: int
) -> list[NDArray]:
    """Divide rows into folds of whole patients with about the same share of each label; test rows of each fold."""
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [test for _, test in folds.split(np.zeros(len(codes_N)), codes_N, patients_N) if len(test)]


class RidgeProbe:
    """Predicts labels from vectors, each row by what other patients taught.

    One-against-rest ridge regression on standardised dimensions. The penalty is the number of training rows: it looks
    at no label, so that every labelling, the true one and the permuted ones, is treated alike.

    Args:
        vectors_ND: Vectors.
        folds: Rows of each fold.
    """

    def __init__(self, vectors_ND: NDArray[np.floating], folds: list[NDArray]) -> None:
        self._parts = []
        every = np.arange(len(vectors_ND))
        for test in folds:
            train = np.setdiff1d(every, test)
            own, others = standardised(vectors_ND[train], vectors_ND[test])
            self._parts.append((train, test, _smoother(own, others)))

    def auroc(self, codes_RN: NDArray[np.integer], num_groups: int) -> NDArray[np.float64]:
        """Return the macro AUROC of held-out predictions for each of R labellings, [R].

        Args:
            codes_RN: R labellings of the rows.
            num_groups: Number of groups; labels are 0 to `num_groups` - 1. With two, one is enough.
        """
        parts = [self._auroc(codes_RN[s : s + _AT_ONCE], num_groups) for s in range(0, len(codes_RN), _AT_ONCE)]
        return np.concatenate(parts)

    def _auroc(self, codes_RN: NDArray[np.integer], num_groups: int) -> NDArray[np.float64]:
        areas: list[NDArray[np.float64]] = []
        for group in range(num_groups if num_groups > 2 else 1):
            truth_NR = (codes_RN == group).T
            predicted_NR = np.full(truth_NR.shape, np.nan)
            for train, test, smoother in self._parts:
                taught = truth_NR[train].astype(np.float64)
                predicted_NR[test] = smoother @ (taught - taught.mean(axis=0))
            areas.append(auroc(predicted_NR.T.round(10), truth_NR.T))
        with np.errstate(invalid="ignore"):
            return np.nanmean(areas, axis=0) if len(areas) > 1 else areas[0]


def standardised(
    train_MD: NDArray[np.floating], test_ND: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both with the mean and standard deviation of the first; dimensions that do not vary are 0."""
    mean, spread = train_MD.mean(axis=0, dtype=np.float64), train_MD.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-9, spread, np.inf)
    return (train_MD - mean) / scale, (test_ND - mean) / scale


def _smoother(train_MD: NDArray[np.float64], test_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix that makes held-out predictions of training labels, [N, M]; the smaller system is solved."""
    rows, dims = train_MD.shape
    if dims <= rows:
        return test_ND @ np.linalg.solve(train_MD.T @ train_MD + rows * np.eye(dims), train_MD.T)
    return np.linalg.solve(train_MD @ train_MD.T + rows * np.eye(rows), train_MD @ test_ND.T).T
