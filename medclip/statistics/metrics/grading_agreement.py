"""Agreement of two gradings in ordered classes (density A to D, BI-RADS), in one sample and in many resamples.

With ranks t of the truth and p of the prediction, Cohen's kappa with quadratic weights is

    1 − mean (t − p)² / (var t + var p + (mean t − mean p)²),

which is Lin's concordance of the ranks (Fleiss and Cohen 1973). So all that is needed of a resample are sums over its
rows, of patients as they were drawn.

References: Cohen, Psychol. Bull. 70 (1968) 213-220; Fleiss & Cohen, Educ. Psychol. Meas. 33 (1973) 613-619.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.cohort import Cohort, Ordinal, cell_rows, cells_of
from medclip.statistics.metrics.rates import ratio
from medclip.statistics.resampling.sums import blocks, summing_matrix

Floats = NDArray[np.float64]
KAPPA = "kappa_quadratic"
SHARES = ("exact", "within_one", "one_up", "one_down", "far_up", "far_down")
"""Shares of rows: graded right; at most one class off; one class too high, too low; two or more too high, too low."""
METRICS: Mapping[str, str] = {
    KAPPA: "quadratic weighted kappa",
    "exact": "exact agreement",
    "within_one": "within one class",
    "one_up": "one class too high",
    "one_down": "one class too low",
    "far_up": "two or more classes too high",
    "far_down": "two or more classes too low",
}
"""Names in words."""
FORMULAS: Mapping[str, tuple[str, str]] = {
    KAPPA: (
        "1 - mean (t - p)^2 / (var t + var p + (mean t - mean p)^2) of the ranks t of truths and p of predictions",
        "Cohen, Psychol. Bull. 70:213-220 (1968); Fleiss and Cohen, Educ. Psychol. Meas. 33:613-619 (1973)",
    ),
    "exact": ("rows with p = t / n", "proportion"),
    "within_one": ("rows with |p - t| <= 1 / n", "proportion"),
    "one_up": ("rows with p - t = 1 / n", "proportion"),
    "one_down": ("rows with p - t = -1 / n", "proportion"),
    "far_up": ("rows with p - t >= 2 / n", "proportion"),
    "far_down": ("rows with p - t <= -2 / n", "proportion"),
}
"""Formula and reference of each."""


def ordinal_sums(cohort: Cohort, ordinal: Ordinal, weights_PB: NDArray[Any]) -> Floats:
    """Sum what the measures are made of over every cell.

    Returns:
        float64 [F, G, 1 + B]: features by cell (`cells_of`), in the sample and then in each resample.
    """
    rows = np.flatnonzero(ordinal.valid_N)
    t, p = ordinal.truth_N[rows].astype(np.float64), ordinal.predicted_N[rows].astype(np.float64)
    off = p - t
    features = np.stack(
        [np.ones_like(t), t, p, t * t, p * p, t * p, off == 0, off == 1, off == -1, off > 1, off < -1]
    ).astype(np.float64)
    cells = [cell_rows(cohort, cell)[rows] for cell in cells_of(cohort)]
    cell_k, row_k = np.nonzero(np.stack(cells))
    num, who = len(features), cohort.patients_N[rows]
    place = (np.arange(num)[:, None] * len(cells) + cell_k).ravel()
    matrix = summing_matrix(
        place, num * len(cells), np.tile(who[row_k], num), len(weights_PB), features[:, row_k].ravel()
    )
    once_P1 = np.ones((len(weights_PB), 1), np.uint8)
    parts = [
        np.asarray(block.sums(matrix)[:, : block.num], np.float64)
        for weights in (once_P1, weights_PB)
        for block in blocks(weights, len(rows), False)
    ]
    return np.concatenate(parts, axis=1).reshape(num, len(cells), -1)


def agreement(sums: Floats) -> dict[str, Floats]:
    """Compute every measure from the sums of `ordinal_sums`.

    Returns:
        By the names of `METRICS`, [G, 1 + B]; NaN where nothing is in, and kappa where all ranks are one.
    """
    n, t, p, tt, pp, tp, exact, one_up, one_down, far_up, far_down = sums
    mean_t, mean_p = ratio(t, n), ratio(p, n)
    apart = ratio(tt + pp - 2 * tp, n)
    by_chance = ratio(tt, n) - mean_t**2 + ratio(pp, n) - mean_p**2 + (mean_t - mean_p) ** 2
    by_chance = np.where(by_chance > 1e-12, by_chance, 0.0)  # nothing but rounding, where all ranks are one
    return {
        KAPPA: 1 - ratio(apart, by_chance),
        "exact": ratio(exact, n),
        "within_one": ratio(exact + one_up + one_down, n),
        "one_up": ratio(one_up, n),
        "one_down": ratio(one_down, n),
        "far_up": ratio(far_up, n),
        "far_down": ratio(far_down, n),
    }
