"""Shares of rows, and the difference of two of them, where rows come in patients.

The test is a score test: the variance is that under equal shares, from sums of patients. A group without any case adds
next to nothing to those sums (0 of 100 rows beside 60 of 2,117 had p < 0.001), so that the variance is no smaller than
that of rows which are alike within a patient to the degree that everybody's are. Intervals of shares are Wilson's at
the number of patients, as if the rows of a patient said the same thing: they are rather wide than narrow. The
interval of a difference joins those of the two (MOVER).

References: Rao and Scott, Biometrics 48:577-585 (1992); Donner and Zou, Stat. Methods Med. Res. 21:347-359 (2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medclip.statistics.estimate import LEVEL
from medclip.statistics.resampling.intervals import wilson


@dataclass(frozen=True)
class ShareDifference:
    """A share inside a group, and how it differs from that outside; NaN where one of them is empty."""

    share: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float
    """Two-sided, of equal shares."""


def share_difference(
    case_N: NDArray[np.bool_], inside_N: NDArray[np.bool_], patients_N: NDArray[np.integer]
) -> ShareDifference:
    """Compare the share of cases inside a group with that outside.

    Args:
        case_N: Whether each row is a case.
        inside_N: Whether each row is of the group.
        patients_N: Patient of each row, 0 to P - 1.

    Example:
        >>> case = np.arange(400) % 10 == 0
        >>> even = share_difference(case, np.arange(400) < 200, np.arange(400))
        >>> round(even.share, 2), round(even.difference, 2), round(even.p, 2)
        (0.1, 0.0, 1.0)
    """
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    ends = [_share(case_N[rows], patients_N[rows], z) for rows in (inside_N, ~inside_N)]
    (a, a_low, a_high), (b, b_low, b_high) = ends
    low = a - b - float(np.hypot(a - a_low, b_high - b))
    high = a - b + float(np.hypot(a_high - a, b - b_low))
    return ShareDifference(a, a_low, a_high, a - b, low, high, _p(case_N, inside_N, patients_N))


def _share(case_N: NDArray[np.bool_], patients_N: NDArray[np.integer], z: float) -> tuple[float, float, float]:
    if not len(case_N):
        return float("nan"), float("nan"), float("nan")
    share = float(case_N.mean())
    low, high = wilson(share, float(len(np.unique(patients_N))), z)
    return share, float(low), float(high)


def _p(case_N: NDArray[np.bool_], inside_N: NDArray[np.bool_], patients_N: NDArray[np.integer]) -> float:
    inside, outside = int(inside_N.sum()), int((~inside_N).sum())
    if not inside or not outside:
        return float("nan")
    pooled = case_N.mean()
    difference = case_N[inside_N].mean() - case_N[~inside_N].mean()
    weight_N = np.where(inside_N, 1.0 / inside, -1.0 / outside)
    sum_P = np.bincount(patients_N, weights=weight_N * (case_N - pooled))
    num_patients = len(np.unique(patients_N))
    variance = max(float(np.sum(sum_P**2)), _exchangeable(case_N - pooled, weight_N, patients_N))
    error = float(np.sqrt(variance * num_patients / max(num_patients - 1, 1)))
    if not error:
        return 1.0 if not difference else 0.0
    return float(2 * stats.t.sf(abs(difference) / error, max(num_patients - 1, 1)))


def _exchangeable(
    residual_N: NDArray[np.float64], weight_N: NDArray[np.float64], patients_N: NDArray[np.integer]
) -> float:
    """Return the variance of a weighted sum where any two rows of a patient are correlated alike."""
    variance = float(np.mean(residual_N**2))
    pairs = float(np.sum(np.bincount(patients_N).astype(np.float64) ** 2)) - len(residual_N)
    covariance = 0.0
    if pairs:
        products = float(np.sum(np.bincount(patients_N, weights=residual_N) ** 2) - np.sum(residual_N**2))
        covariance = min(max(products / pairs, 0.0), variance)
    squares = float(np.sum(weight_N**2))
    between = float(np.sum(np.bincount(patients_N, weights=weight_N) ** 2)) - squares
    return max(variance * squares + covariance * between, 0.0)
