"""The rows that count for one label, and the cells they are in, ready to be summed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Cohort, Label


@dataclass(frozen=True, eq=False)
class Rows:
    """The n valid rows of a label, in the order of the cohort."""

    num_patients: int
    """Patients of the whole cohort, P: the rows of the weight matrix."""
    patients_n: NDArray[np.int32]
    score_n: NDArray[np.float64]
    rank_n: NDArray[np.int64]
    """Dense rank of the score: equal scores share a rank, so that comparing ranks is comparing scores."""
    truth_n: NDArray[np.bool_]
    weight_n: NDArray[np.float64] | None
    time_n: NDArray[np.float64] | None
    codes_An: NDArray[np.int64]
    """Group of each row in each attribute."""
    num_groups_A: tuple[int, ...]
    cells: tuple[NDArray[np.int64], ...]
    """Indices of the rows of each cell, in the order of `cells_of`, each ascending."""

    @property
    def num_cells(self) -> int:
        """Cells of the cohort, G, with everybody first."""
        return len(self.cells)

    def values(self, rows: NDArray[np.int64], values: NDArray[np.float64] | None = None) -> NDArray[np.float64] | None:
        """Multiply values by the rows' own weights; None means that each row counts once."""
        if self.weight_n is None:
            return values
        return self.weight_n[rows] if values is None else values * self.weight_n[rows]


def valid_rows(cohort: Cohort, label: Label) -> Rows:
    """Take the rows that have a score and a truth (and a time, for a label with times).

    Raises:
        MedclipError: A truth is not 0 or 1, or a row's weight is negative or not a number.
    """
    if len(label.score_N) != len(cohort.patients_N):
        counted = f"{len(label.score_N)} scores for {len(cohort.patients_N)} rows"
        raise MedclipError(Reason.WRONG_USE, f"{counted}: one each is needed.", where=label.name)
    valid = label.valid_N if label.time_N is None else label.valid_N & ~np.isnan(label.time_N)
    truth = label.truth_N[valid]
    if not np.isin(truth, (0.0, 1.0)).all():
        raise MedclipError(Reason.WRONG_USE, "truths must be 0, 1 or missing.", where=label.name)
    weight = None if label.weight_N is None else np.asarray(label.weight_N, np.float64)[valid]
    if weight is not None and not (np.isfinite(weight) & (weight >= 0)).all():
        raise MedclipError(Reason.WRONG_USE, "weights of rows must be numbers of at least 0.", where=label.name)
    score = np.asarray(label.score_N, np.float64)[valid]
    codes_An = np.stack([np.zeros(len(score)), *(a.codes_N[valid] for a in cohort.attributes)])[1:].astype(np.int64)
    num_groups_A = tuple(len(a.groups) for a in cohort.attributes)
    cells = [np.arange(len(score))]
    for codes, num_groups in zip(codes_An, num_groups_A, strict=True):
        order = np.argsort(codes, kind="stable")
        cells += np.split(order, np.searchsorted(codes[order], np.arange(1, num_groups)))
    return Rows(
        num_patients=cohort.num_patients,
        patients_n=cohort.patients_N[valid],
        score_n=score,
        rank_n=np.unique(score, return_inverse=True)[1].astype(np.int64),
        truth_n=truth == 1,
        weight_n=weight,
        time_n=None if label.time_N is None else np.asarray(label.time_N, np.float64)[valid],
        codes_An=codes_An,
        num_groups_A=num_groups_A,
        cells=tuple(cells),
    )
