"""What a sample of this size could have seen: the smallest gap, and how many patients a planned audit needs.

An absent finding is only worth something where a gap that matters would have been found. The smallest gap that a
two-sided test at level α finds with power 1 − β is (z_{1 − α/2} + z_{1 − β}) · SE, with Student's quantiles where the
standard error is itself estimated from few patients.

References: Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd ed. 1988 (arcsine); Fleiss, Levin &
Paik, Statistical Methods for Rates and Proportions, 3rd ed. 2003 (pooled formula); Hanley & McNeil, Radiology 143
(1982) 29-36 (AUROC); Kish, Survey Sampling, 1965 (design effect).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medclip.errors import MedclipError, Reason

_POWER = 0.8
"""Of `smallest_range`."""


def smallest_gap(
    standard_error: ArrayLike,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    num_tests: int = 1,
    degrees_of_freedom: ArrayLike = math.inf,
) -> NDArray[np.float64]:
    """Return the smallest true difference that would be found with this power.

    Args:
        standard_error: Of the difference, from the patient bootstrap; any shape, NaN where there is none.
        power: Chance of finding it.
        alpha: Two-sided level of the whole family.
        num_tests: Size of the family; the first step of Holm's method needs p ≤ alpha / num_tests.
        degrees_of_freedom: Of the standard error, broadcast with it; infinite for the normal law.

    Returns:
        As large as `standard_error`, in the metric's own unit; it may exceed what the metric can reach, which says that
        nothing could have been found. NaN where the standard error is NaN or 0.

    Raises:
        MedclipError: WRONG_USE for a level or power outside 0 to 1 or a family of none.
    """
    from scipy.stats import t

    _check(power=power, alpha=alpha)
    if num_tests < 1:
        raise MedclipError(Reason.WRONG_USE, f"a family has one test or more, not {num_tests}.")
    se = np.asarray(standard_error, np.float64)
    df = np.maximum(np.asarray(degrees_of_freedom, np.float64), 1.0)
    return np.where(se > 0, (t.isf(alpha / num_tests / 2, df) + t.ppf(power, df)) * se, np.nan)


def smallest_range(null_95: ArrayLike, standard_error: ArrayLike) -> NDArray[np.float64]:
    """Return the smallest true largest-minus-smallest gap that the permutation test would find four times in five.

    Args:
        null_95: 95th percentile of the gap when groups do not differ; of `permutation.gap_test`.
        standard_error: Of the gap, from the patient bootstrap.

    Returns:
        null_95 + z · SE: a gap of that size exceeds the 95th percentile so often. An approximation; it leaves out that
        the found gap is on average larger than the true one, so it errs to the large side.
    """
    from scipy.stats import norm

    return np.asarray(null_95, np.float64) + norm.ppf(_POWER) * np.asarray(standard_error, np.float64)


def two_proportions(
    first: float,
    second: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    formula: Literal["arcsine", "pooled"] = "arcsine",
    design_effect: float = 1.0,
) -> int:
    """Return how many cases each of two groups needs so that this difference of rates is found.

    Args:
        first: Rate of one group, such as a true positive rate.
        second: Rate of the other.
        power: Chance of finding it.
        alpha: Two-sided level.
        formula: "arcsine" (Cohen's h) or "pooled" (pooled variance under no difference).
        design_effect: By how much clustering inflates the variance: 1 + (mean images per patient − 1) · ICC.

    Returns:
        Cases per group (positives, for a true positive rate), rounded up.

    Raises:
        MedclipError: WRONG_USE for rates that are equal or outside 0 to 1, or another formula.

    Example:
        >>> two_proportions(0.8, 0.7), two_proportions(0.8, 0.7, formula="pooled")
        (292, 294)
    """
    from scipy.stats import norm

    _check(first=first, second=second, power=power, alpha=alpha)
    if first == second or design_effect < 1:
        raise MedclipError(Reason.WRONG_USE, "the two rates must differ, and the design effect be 1 or more.")
    z_alpha, z_beta = float(norm.isf(alpha / 2)), float(norm.ppf(power))
    if formula == "arcsine":
        h = 2 * (math.asin(math.sqrt(first)) - math.asin(math.sqrt(second)))
        number = 2 * ((z_alpha + z_beta) / h) ** 2
    elif formula == "pooled":
        mean = (first + second) / 2
        spread = z_alpha * math.sqrt(2 * mean * (1 - mean))
        spread += z_beta * math.sqrt(first * (1 - first) + second * (1 - second))
        number = (spread / (first - second)) ** 2
    else:
        raise MedclipError(Reason.WRONG_USE, f"there is no formula {formula!r}; it is arcsine or pooled.")
    return math.ceil(number * design_effect - 1e-9)


def auroc_standard_error(auroc: ArrayLike, num_positive: ArrayLike, num_negative: ArrayLike) -> NDArray[np.float64]:
    """Return Hanley and McNeil's standard error of an AUROC, for planning: it needs no data.

    Args:
        auroc: Expected AUROC; broadcast with the counts.
        num_positive: Independent positives.
        num_negative: Independent negatives.

    Returns:
        NaN where a count is 0.
    """
    a, m, n = (np.asarray(x, np.float64) for x in (auroc, num_positive, num_negative))
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)
    return np.sqrt(np.where((m > 0) & (n > 0), np.maximum(variance, 0.0), np.nan))


def _check(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 < value < 1:
            raise MedclipError(Reason.WRONG_USE, f"{name} is {value:g}; it lies between 0 and 1.")
