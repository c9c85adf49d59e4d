"""Adjusting p-values for how many were looked at, and the smallest gap that a sample could have shown.

Holm holds the chance of one false finding or more in the whole family (for conclusions); Benjamini and Hochberg the
expected share of false ones among the findings (for exploring), where tests are independent or positively dependent.

A p-value that is NaN was not computed: it stays NaN and does not count in the family.

References: Holm, Scand. J. Stat. 6 (1979) 65-70; Benjamini & Hochberg, JRSS-B 57 (1995) 289-300.

An absent finding is only worth something where a gap that matters would have been found. The smallest gap that a
two-sided test at level α finds with power 1 − β is (z_{1 − α/2} + z_{1 − β}) · SE, with Student's quantiles where the
standard error is itself estimated from few patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medclip.errors import MedclipError, Reason

_Floats = NDArray[np.float64]


def holm(p_values: ArrayLike) -> _Floats:
    """Adjust p-values by Holm's step-down method.

    Args:
        p_values: The p-values, [M], each 0 to 1 or NaN.

    Returns:
        [M], in the same order: max over j ≤ i of min(1, (M − j + 1) p_(j)).

    Raises:
        MedclipError: WRONG_USE when a p-value is outside 0 to 1.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    return _adjusted(p_values, lambda p, m: np.maximum.accumulate((m - np.arange(m)) * p))


def benjamini_hochberg(p_values: ArrayLike) -> _Floats:
    """Adjust p-values for the false discovery rate; arguments and errors as in `holm`.

    Returns:
        [M], in the same order: min over j ≥ i of min(1, M p_(j) / j).

    Example:
        >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.005]).round(12).tolist()
        [0.02, 0.04, 0.04, 0.02]
    """
    from scipy.stats import false_discovery_control

    return _adjusted(p_values, lambda p, _: false_discovery_control(p))


def _adjusted(p_values: ArrayLike, rule: Callable[[_Floats, int], _Floats]) -> _Floats:
    given = np.asarray(p_values, np.float64)
    if ((given < 0) | (given > 1)).any():
        raise MedclipError(Reason.WRONG_USE, "a p-value is outside 0 to 1.")
    computed = np.flatnonzero(~np.isnan(given))
    order = computed[np.argsort(given[computed], kind="stable")]
    adjusted = np.full(len(given), np.nan)
    if len(order):
        adjusted[order] = np.minimum(1.0, rule(given[order], len(order)))
    return adjusted


_POWER = 0.8
"""How often the gap would be found."""
_LEVEL = 0.05
"""Of the whole family, two-sided."""


def smallest_gap(
    standard_error: ArrayLike,
    *,
    num_tests: int = 1,
    degrees_of_freedom: ArrayLike = math.inf,
) -> NDArray[np.float64]:
    """Return the smallest true difference that would be found four times in five, at a two-sided level of 5 %.

    Args:
        standard_error: Standard error of the difference, from the patient bootstrap; any shape, NaN where there is
            none.
        num_tests: Size of the family; the first step of Holm's method needs p ≤ 0.05 / num_tests.
        degrees_of_freedom: Degrees of freedom of the standard error, broadcast with it; infinite for the normal law.

    Returns:
        As large as `standard_error`, in the metric's own unit; it may exceed what the metric can reach, which says that
        nothing could have been found. NaN where the standard error is NaN or 0.

    Raises:
        MedclipError: WRONG_USE for a family of none.
    """
    from scipy.stats import t

    if num_tests < 1:
        raise MedclipError(Reason.WRONG_USE, f"a family has one test or more, not {num_tests}.")
    se = np.asarray(standard_error, np.float64)
    df = np.maximum(np.asarray(degrees_of_freedom, np.float64), 1.0)
    return np.where(se > 0, (t.isf(_LEVEL / num_tests / 2, df) + t.ppf(_POWER, df)) * se, np.nan)
