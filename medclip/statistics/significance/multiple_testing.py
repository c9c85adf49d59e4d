"""Adjusting p-values for how many were looked at.

Holm holds the chance of one false finding or more in the whole family (for conclusions); Benjamini and Hochberg the
expected share of false ones among the findings (for exploring), where tests are independent or positively dependent.

A p-value that is NaN was not computed: it stays NaN and does not count in the family.

References: Holm, Scand. J. Stat. 6 (1979) 65-70; Benjamini & Hochberg, JRSS-B 57 (1995) 289-300.
"""

from __future__ import annotations

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
