"""Rates of small groups, drawn towards the mean of all groups by how little they know (empirical Bayes).

With few cases a rate swings widely, so the best and the worst of many small groups (age × sex × race) are mostly
chance. The rates are taken to come from one beta distribution, fitted to the groups by its marginal posterior mode
under the weak hyperprior (a + b)^−5/2; each group's rate is then its posterior mean, (s + a) / (n + a + b), with the
equal-tailed interval of its posterior. The interval takes the fitted distribution for known, so with a handful of
groups it is somewhat narrow.

These are for reading many small cells side by side. They are not unbiased for a single group and no test is made of
them.

References: Kleinman, JASA 68 (1973) 46-54; Morris, JASA 78 (1983) 47-55; Gelman et al., Bayesian Data Analysis, 3rd
ed. 2013, ch. 5 (hyperprior).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medclip.errors import MedclipError, Reason

_Floats = NDArray[np.float64]
_LARGEST = 1e6
"""Prior worth of so many cases: groups that do not differ beyond chance all get the mean."""


@dataclass(frozen=True, eq=False)
class Shrunk:
    """Rates of G groups after shrinkage."""

    rate_G: _Floats
    """NaN for a group without cases."""
    low_G: _Floats
    high_G: _Floats
    prior_mean: float
    """Rate towards which all are drawn."""
    prior_cases: float
    """How many cases the prior is worth; a group of that many moves half way."""


def beta_binomial(
    successes_G: ArrayLike, totals_G: ArrayLike, *, level: float = 0.95, design_effect: float = 1.0
) -> Shrunk:
    """Shrink the rates of groups towards each other.

    Args:
        successes_G: [G], such as true positives; may be fractions (weights).
        totals_G: [G], such as positives; 0 for a group without cases.
        level: Coverage of the intervals.
        design_effect: By how much several images per patient inflate the variance; both counts are divided by it.

    Returns:
        With fewer than two groups that have cases, a uniform prior (rate ½, worth two cases).

    Raises:
        MedclipError: WRONG_USE for counts below 0, more successes than cases, or a design effect below 1.
    """
    from scipy.stats import beta

    if design_effect < 1:
        raise MedclipError(Reason.WRONG_USE, f"a design effect is 1 or more, not {design_effect:g}.")
    s, n = np.asarray(successes_G, np.float64), np.asarray(totals_G, np.float64)
    if s.shape != n.shape or not ((s >= 0) & (s <= n)).all():
        raise MedclipError(Reason.WRONG_USE, "each group needs a number of successes between 0 and its cases.")
    s, n = s / design_effect, n / design_effect
    mean, cases = _prior(s[n > 0], n[n > 0])
    a, b = s + mean * cases, n - s + (1 - mean) * cases
    rate, low, high = a / (a + b), beta.ppf((1 - level) / 2, a, b), beta.ppf((1 + level) / 2, a, b)
    rate, low, high = (np.where(n > 0, x, np.nan) for x in (rate, low, high))
    return Shrunk(rate, low, high, mean, cases)


def _prior(s: _Floats, n: _Floats) -> tuple[float, float]:
    """Mean and worth of the beta prior. The hyperprior keeps the mean off 0 and 1, and the worth finite."""
    from scipy.optimize import minimize
    from scipy.special import betaln, expit, logit

    if len(n) < 2:
        return 0.5, 2.0

    def loss(at: _Floats) -> float:
        mean, cases = expit(at[0]), np.exp(at[1])
        a, b = mean * cases, (1 - mean) * cases
        hyperprior = np.log(mean) + np.log1p(-mean) - np.log(cases) / 2  # of (logit mean, log cases)
        return -float((betaln(s + a, n - s + b) - betaln(a, b)).sum() + hyperprior)

    start = logit((s.sum() + 0.5) / (n.sum() + 1))
    bounds = [(-12.0, 12.0), (0.0, np.log(_LARGEST))]
    tries = [
        minimize(loss, np.array([start, np.log(c)]), bounds=bounds, method="L-BFGS-B") for c in (2.0, 50.0, 5000.0)
    ]
    best = min(tries, key=lambda one: one.fun)
    return float(expit(best.x[0])), float(np.exp(best.x[1]))
