"""Decision curves: what acting on the score is worth, against acting on everybody and on nobody.

Whoever acts at a probability of t says that one ill patient found is worth (1 − t)/t healthy ones treated in vain. Net
benefit counts in that currency: TP/N − FP/N · t/(1 − t). It needs probabilities that mean what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Cohort, Label, cells_of, valid_rows
from medclip.statistics.metrics.rates import ratio
from medclip.statistics.resampling.intervals import symmetric_interval
from medclip.statistics.resampling.standard_errors import clusters_of, mended
from medclip.statistics.resampling.sums import blocks, summing_matrix

Floats = NDArray[np.float64]

GRID: tuple[float, ...] = tuple(k / 100 for k in range(1, 51))
"""Probabilities at which one may act: 1 % to 50 %."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Net benefit of one label in each of G cells, in the order of `cells_of`; NaN where a cell is empty."""

    grid_T: Floats
    model_GT: Floats
    treat_all_GT: Floats
    """Prevalence − (1 − prevalence) · t/(1 − t). Acting on nobody is worth 0."""
    drawn_GTB: Floats
    """Of the model, in each replicate."""

    def rows(self, cohort: Cohort, label: Label, shown_G: NDArray[np.bool_]) -> list[dict[str, Any]]:
        """Return the rows of the table `decision`, of the cells that may be shown."""
        rows, patients_G = [], clusters_of(cohort, label).any_G
        ends_TG = [
            symmetric_interval(point_G, mended(point_G, drawn_GB, patients_G, patients_G, share=False))
            for point_G, drawn_GB in zip(self.model_GT.T, self.drawn_GTB.swapaxes(0, 1), strict=True)
        ]
        for g in np.flatnonzero(shown_G):
            cell = cells_of(cohort)[g]
            for t, threshold in enumerate(self.grid_T):
                low, high = (float(end_G[g]) for end_G in ends_TG[t])
                rows.append(
                    {
                        "label": label.name,
                        "attribute": cell.attribute,
                        "group": cell.group,
                        "threshold": float(threshold),
                        "net_benefit": float(self.model_GT[g, t]),
                        "low": low,
                        "high": high,
                        "treat_all": float(self.treat_all_GT[g, t]),
                    }
                )
        return rows


def net_benefit(tp: Floats | float, fp: Floats | float, n: Floats | float, threshold: Floats | float) -> Floats:
    """Return TP/N − FP/N · t/(1 − t); NaN where N is 0.

    Reference: Vickers & Elkin, Medical Decision Making 26 (2006) 565-574.
    """
    t = np.asarray(threshold, np.float64)
    top = np.asarray(tp - fp * (t / (1 - t)), np.float64)
    return ratio(top, np.broadcast_to(np.asarray(n, np.float64), top.shape))


def curve(cohort: Cohort, label: Label, weights_PB: NDArray[Any], *, grid: Sequence[float] = GRID) -> Curve:
    """Measure net benefit over thresholds in every cell and every resample of patients.

    Args:
        cohort: Patients and attributes.
        label: Scores that are probabilities, and truths; `weight_N` multiplies the patients' weights.
        weights_PB: Weight of each patient in each replicate.
        grid: Thresholds, rising, above 0 and below 1; a row is acted on at or above it.

    Raises:
        MedclipError: WRONG_USE where the scores are no probabilities, or for a grid that does not rise from above 0 to
            below 1.
    """
    grid_T = np.asarray(grid, np.float64)
    if not label.probability or label.time_N is not None:
        raise MedclipError(Reason.WRONG_USE, f"net benefit needs probabilities, which {label.name!r} does not have.")
    if not len(grid_T) or grid_T[0] <= 0 or grid_T[-1] >= 1 or (np.diff(grid_T) <= 0).any():
        raise MedclipError(Reason.WRONG_USE, "the thresholds of a decision curve rise from above 0 to below 1.")
    rows = valid_rows(cohort, label)
    num_bins = len(grid_T) + 1
    # Each row once in each of its cells, at its place: [cell, how many thresholds it reaches, truth].
    place_n = 2 * np.searchsorted(grid_T, rows.score_n, side="right") + rows.truth_n
    every = np.concatenate(rows.cells)
    cell = np.repeat(np.arange(rows.num_cells), [len(c) for c in rows.cells])
    matrix = summing_matrix(
        cell * 2 * num_bins + place_n[every],
        rows.num_cells * 2 * num_bins,
        rows.patients_n[every],
        rows.num_patients,
        rows.values(every),
    )

    def measured(weights: NDArray[Any]) -> tuple[Floats, Floats]:
        models = np.empty((rows.num_cells, len(grid_T), weights.shape[1]))
        shares = np.empty((rows.num_cells, weights.shape[1]))
        for block in blocks(weights, len(every), rows.weight_n is None):
            sums = block.sums(matrix)[:, : block.num].astype(np.float64)
            sums = sums.reshape(rows.num_cells, num_bins, 2, block.num)
            reached = np.cumsum(sums[:, ::-1], axis=1)[:, ::-1]
            n, positives = reached[:, 0].sum(axis=1), reached[:, 0, 1]
            here = slice(block.start, block.start + block.num)
            shares[:, here] = ratio(positives, n)
            models[:, :, here] = net_benefit(reached[:, 1:, 1], reached[:, 1:, 0], n[:, None], grid_T[:, None])
        return models, shares

    model_GT1, share_G1 = measured(np.ones((rows.num_patients, 1), np.uint8))
    drawn_GTB, _ = measured(weights_PB)
    return Curve(grid_T, model_GT1[..., 0], share_G1 - (1 - share_G1) * grid_T / (1 - grid_T), drawn_GTB)
