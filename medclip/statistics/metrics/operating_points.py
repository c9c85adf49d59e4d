"""Sensitivity where the specificity is fixed, the reverse, and sensitivity of calling the top tenth.

The threshold is chosen anew in each resample, on the very rows that are measured: the figures are points of the ROC
curve, not the rates of a threshold that somebody could use. For those, choose a threshold on other patients
(`medclip.auditing.thresholds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.cohort import Cohort, Label
from medclip.statistics.metrics.ranks import cumulated
from medclip.statistics.metrics.rates import ratio
from medclip.statistics.resampling.sums import blocks, summing_matrix
from medclip.statistics.valid_rows import Rows, valid_rows

Floats = NDArray[np.float64]
FIXED = 0.9
"""Specificity, or sensitivity, that the other one is measured at."""
TOP = 0.1
"""Share of rows that are called, the highest scores first."""
METRICS: Mapping[str, str] = {
    "tpr_at_tnr": f"sensitivity at a specificity of {FIXED:g}",
    "tnr_at_tpr": f"specificity at a sensitivity of {FIXED:g}",
    "tpr_of_top": f"sensitivity of the top {TOP:.0%}",
}
"""Names in words."""
_ROUNDING = 1e-9


def operating_points(cohort: Cohort, label: Label, weights_PB: NDArray[Any]) -> dict[str, tuple[Floats, Floats]]:
    """Measure points of the ROC curve in every cell of the cohort.

    A specificity counts as reached by the lowest threshold that reaches it, without interpolation; of rows with equal
    scores at the edge of the top tenth the share that fits in is taken, as drawing among them would on average.

    Args:
        cohort: Patients and attributes.
        label: Scores and truths; its row weights count, too.
        weights_PB: Weight of each patient in each replicate.

    Returns:
        By the names of `METRICS`: values of the sample [G] and of the resamples [G, B]; NaN where a side is empty.
    """
    rows = valid_rows(cohort, label)
    names = list(METRICS)
    values_MG1B = np.full((len(names), rows.num_cells, 1 + weights_PB.shape[1]), np.nan)
    for g, cell in enumerate(rows.cells):
        if not len(cell):
            continue
        place_n = np.unique(-rows.rank_n[cell], return_inverse=True)[1]  # the highest score first
        sides = [_summed(rows, cell, place_n, side) for side in (True, False)]
        start = 0
        for weights in (np.ones((len(weights_PB), 1), np.uint8), weights_PB):
            for block in blocks(weights, len(cell), rows.weight_n is None):
                columns = slice(start, start + block.num)
                points = _points(*(cumulated(block.sums(side)).astype(np.float64) for side in sides))
                values_MG1B[:, g, columns] = points[:, : block.num]
                start += block.num
    return {name: (values[:, 0], values[:, 1:]) for name, values in zip(names, values_MG1B, strict=True)}


def _summed(rows: Rows, cell: NDArray[np.int64], place_n: NDArray[np.int64], positive: bool) -> Any:
    side = rows.truth_n[cell] == positive
    own = cell[side]
    return summing_matrix(
        place_n[side], int(place_n.max()) + 1, rows.patients_n[own], rows.num_patients, rows.values(own)
    )


def _points(true_Ub: Floats, false_Ub: Floats) -> Floats:
    """Return the metrics [M, b] of true and false positives after each score, the highest first."""
    tpr_Ub, fpr_Ub = (ratio(side_Ub, np.broadcast_to(side_Ub[-1], side_Ub.shape)) for side_Ub in (true_Ub, false_Ub))
    at_tnr = np.where(fpr_Ub <= 1 - FIXED + _ROUNDING, tpr_Ub, -np.inf).max(axis=0)
    at_tpr = np.where(tpr_Ub >= FIXED - _ROUNDING, 1 - fpr_Ub, -np.inf).max(axis=0)
    called_Ub = true_Ub + false_Ub
    wanted_b = TOP * called_Ub[-1]
    after_b = np.minimum((called_Ub < wanted_b).sum(axis=0), len(called_Ub) - 1)
    columns = np.arange(len(after_b))
    before_b = np.maximum(after_b - 1, 0)
    step_b = called_Ub[after_b, columns] - called_Ub[before_b, columns]
    part_b = np.divide(wanted_b - called_Ub[before_b, columns], step_b, out=np.ones(len(step_b)), where=step_b > 0)
    first, last = tpr_Ub[before_b, columns], tpr_Ub[after_b, columns]
    of_top = first + part_b * (last - first)
    undefined_b = (true_Ub[-1] == 0) | (false_Ub[-1] == 0)
    return np.where(undefined_b, np.nan, np.stack([at_tnr, at_tpr, of_top]))
