"""What a sample of this size could have seen: the smallest gap.

An absent finding is only worth something where a gap that matters would have been found. The smallest gap that a
two-sided test at level α finds with power 1 − β is (z_{1 − α/2} + z_{1 − β}) · SE, with Student's quantiles where the
standard error is itself estimated from few patients.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medclip.errors import MedclipError, Reason

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
