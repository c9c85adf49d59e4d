"""Tests of differences: p-values of many looks, the smallest gap that could have been seen, and tests by patient.

Holm holds the chance of one false finding or more in the whole family (for conclusions); Benjamini and Hochberg the
expected share of false ones among the findings (for exploring), where tests are independent or positively dependent. A
p-value that is NaN was not computed: it stays NaN and does not count in the family.

Holm's method takes no account of tests that say nearly the same thing (two groups that are each other's rest, the
sensitivity and the false positive rate of one shift). `step_down` does: it asks how often the largest of such test
statistics would be as large by chance, with their correlation as the resamples have it (maxT). It never adjusts by more
than Holm does.

An absent finding is only worth something where a gap that matters would have been found. The smallest gap that a
two-sided test at level α finds with power 1 − β is (z_{1 − α/2} + z_{1 − β}) · SE, with Student's quantiles where the
standard error is itself estimated from few patients.

Labels are dealt anew among patients, whose rows stay together. The test of two shares of rows is a score test: the
variance is that under equal shares, from sums of patients. A group without any case adds next to nothing to those sums
(0 of 100 rows beside 60 of 2,117 had p < 0.001), so that the variance is no smaller than that of rows which are alike
within a patient to the degree that everybody's are. Intervals of shares are Wilson's at the number of patients, as if
the rows of a patient said the same thing: they are rather wide than narrow. The interval of a difference joins those of
the two (MOVER).

References: Holm, Scand. J. Stat. 6 (1979) 65-70; Westfall & Young, Resampling-Based Multiple Testing, 1993; Romano &
Wolf, Econometrica 73 (2005) 1237-1282; Chernozhukov, Chetverikov & Kato, Ann. Stat. 41 (2013) 2786-2819 (multiplier
draws); Benjamini & Hochberg, JRSS-B 57 (1995) 289-300; Rao and Scott,
Biometrics 48:577-585 (1992); Donner and Zou, Stat. Methods Med. Res. 21:347-359 (2012).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medclip.errors import MedclipError, Reason
from medclip.statistics.estimate import LEVEL
from medclip.statistics.resampling.intervals import wilson

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


@dataclass(frozen=True, eq=False)
class StepDown:
    """A family of tests, adjusted together."""

    adjusted_K: _Floats
    """Adjusted p-values; NaN where p is."""
    num_effective: float
    """As many independent two-sided tests would ask the same of the largest statistic; at least 1."""


_MOST_DRAWS, _FEWEST_DRAWS, _WORK = 10_000, 2_000, 4e10
_DRAWS_AT_ONCE = 500


def step_down(
    p_values: ArrayLike, drawn_KB: NDArray[np.floating], two_sided_K: ArrayLike, *, seed: int = 0
) -> StepDown:
    """Adjust p-values of correlated tests, so that the chance of one false finding or more stays at the level.

    p-values count as those of normal statistics; the null draws are normal as well, with the correlation of the
    resamples, so that neither the skewness of a small group nor the number of resamples limits how small an adjusted p
    can be. In each step the largest statistic left is held against the largest of the same tests in each draw.

    Args:
        p_values: The p-values, [K], each 0 to 1 or NaN.
        drawn_KB: Statistics of each resample, [K, B], all tests in the same resamples, of one-sided tests with the
            sign by which more is more against the hypothesis. Where undefined it stands out by nothing; a test in which
            all resamples are alike is independent of the others.
        two_sided_K: Which p-values are two-sided, [K].
        seed: Seed of the draws.

    Raises:
        MedclipError: WRONG_USE when a p-value is outside 0 to 1.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=400)
        >>> mirrored = step_down([0.02, 0.02], np.array([draws, -draws]), [True, True])
        >>> mirrored.adjusted_K.round(2).tolist(), round(mirrored.num_effective)
        ([0.02, 0.02], 1)
    """
    from scipy.special import ndtr, ndtri

    bounds = holm(p_values)
    tested = np.flatnonzero(~np.isnan(bounds))
    if not len(tested):
        return StepDown(bounds, 1.0)
    p_k, both_k1 = np.asarray(p_values, np.float64)[tested], np.asarray(two_sided_K, bool)[tested, None]
    statistic_k1 = -ndtri(np.where(both_k1[:, 0], p_k / 2, p_k))[:, None]
    order = np.argsort(-statistic_k1[:, 0], kind="stable")
    statistic_k1, both_k1, source = statistic_k1[order], both_k1[order], np.random.default_rng(seed)
    shares_kB = _of_unit_length(drawn_KB[tested[order]], source)
    num_draws = int(np.clip(_WORK / shares_kB.size, _FEWEST_DRAWS, _MOST_DRAWS))
    exceeded_k, largest = np.zeros(len(order)), []
    for start in range(0, num_draws, _DRAWS_AT_ONCE):
        normal_Bm = source.standard_normal((shares_kB.shape[1], min(_DRAWS_AT_ONCE, num_draws - start)))
        statistic_km = shares_kB @ normal_Bm
        statistic_km = np.where(both_k1, np.abs(statistic_km), statistic_km)
        left_km = np.maximum.accumulate(statistic_km[::-1], axis=0)[::-1]
        exceeded_k += (left_km >= statistic_k1).sum(axis=1)
        largest.append(left_km[0])
    adjusted_k = np.maximum.accumulate(np.maximum((1 + exceeded_k) / (1 + num_draws), p_k[order]))
    adjusted_K = np.full(len(bounds), np.nan)
    adjusted_K[tested[order]] = np.minimum(adjusted_k, bounds[tested[order]])
    level = 2 * float(ndtr(-np.quantile(np.concatenate(largest), 1 - _LEVEL)))
    return StepDown(adjusted_K, max(1.0, _LEVEL / level))


def _of_unit_length(drawn_kB: NDArray[np.floating], source: np.random.Generator) -> _Floats:
    """Return resamples without their mean, of length 1: times normal draws these are correlated normal statistics."""
    known_kB = ~np.isnan(drawn_kB)
    filled_kB = np.where(known_kB, drawn_kB, 0.0)
    mean_k1 = filled_kB.sum(axis=1, keepdims=True) / np.maximum(known_kB.sum(axis=1, keepdims=True), 1)
    apart_kB = np.where(known_kB, filled_kB - mean_k1, 0.0)
    alike_k = np.abs(apart_kB).max(axis=1, initial=0.0) < _ALIKE
    apart_kB[alike_k] = source.standard_normal((int(alike_k.sum()), apart_kB.shape[1]))
    return apart_kB / np.linalg.norm(apart_kB, axis=1, keepdims=True)


_ALIKE = 1e-12
_POWER = 0.8
"""How often the gap would be found."""
_LEVEL = 0.05
"""Of the whole family, two-sided."""


def smallest_gap(
    standard_error: ArrayLike,
    *,
    num_tests: float = 1,
    degrees_of_freedom: ArrayLike = math.inf,
) -> NDArray[np.float64]:
    """Return the smallest true difference that would be found four times in five, at a two-sided level of 5 %.

    Args:
        standard_error: Standard error of the difference, from the patient bootstrap; any shape, NaN where there is
            none.
        num_tests: Size of the family, or `StepDown.num_effective`: the smallest p has to be at most 0.05 / num_tests.
        degrees_of_freedom: Degrees of freedom of the standard error, broadcast with it; infinite for the normal law.

    Returns:
        As large as `standard_error`, in the metric's own unit; it may exceed what the metric can reach, which says that
        nothing could have been found. NaN where the standard error is NaN or 0.

    Raises:
        MedclipError: WRONG_USE for a family of none.
    """
    from scipy.stats import t

    if num_tests < 1:
        raise MedclipError(Reason.WRONG_USE, f"a family has one test or more, not {num_tests:g}.")
    se = np.asarray(standard_error, np.float64)
    df = np.maximum(np.asarray(degrees_of_freedom, np.float64), 1.0)
    return np.where(se > 0, (t.isf(_LEVEL / num_tests / 2, df) + t.ppf(_POWER, df)) * se, np.nan)


_FEWEST = 10
"""Patients of a stratum; smaller ones join the next."""


def shuffled(
    codes_N: NDArray[np.integer], patients_N: NDArray[np.integer], num: int, *, seed: int
) -> NDArray[np.int64]:
    """Return each patient the labels of another, again and again.

    A patient's rows stay together: where all rows of a patient have one label, they still have one. Labels are
    exchanged between patients with about as many rows (1, 2, 3 to 4, 5 to 8, ...), so that a group keeps its size,
    nearly; a patient with fewer rows than the other takes some of them, one with more goes round.

    Args:
        codes_N: Label of each row.
        patients_N: Patient of each row, 0 to P - 1, every one of them there.
        num: Number of shufflings.
        seed: Seed of the draws.

    Returns:
        int64 [num, N].
    """
    order = np.argsort(patients_N, kind="stable")
    owner = np.asarray(patients_N)[order]
    sizes_P = np.bincount(owner)
    starts_P = np.cumsum(sizes_P) - sizes_P
    place_N = np.arange(len(owner)) - starts_P[owner]
    strata = _strata(sizes_P)
    codes = np.asarray(codes_N, np.int64)[order]
    rng = np.random.default_rng(seed)
    codes_RN = np.empty((num, len(codes)), np.int64)
    for r in range(num):
        source_P = np.empty(len(sizes_P), np.int64)
        for patients in strata:
            source_P[patients] = rng.permutation(patients)
        turn_P = rng.integers(0, sizes_P[source_P])
        whose = source_P[owner]
        codes_RN[r, order] = codes[starts_P[whose] + (place_N + turn_P[owner]) % sizes_P[whose]]
    return codes_RN


def p_value(observed: float, null_R: NDArray[np.floating]) -> float:
    """Return (1 + number of the null that is at least as large) / (1 + number); NaN where nothing was observed."""
    if np.isnan(observed):
        return float("nan")
    return float(1 + np.sum(null_R >= observed - 1e-12)) / (1 + len(null_R))


def _strata(sizes_P: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Divide patients by their number of rows, in steps of two; small strata are joined."""
    steps = np.ceil(np.log2(sizes_P)).astype(int)
    strata: list[NDArray[np.int64]] = []
    for step in np.unique(steps)[::-1]:  # many rows are rare: they join the next smaller
        patients = np.flatnonzero(steps == step)
        if strata and len(strata[-1]) < _FEWEST:
            strata[-1] = np.concatenate([strata[-1], patients])
        else:
            strata.append(patients)
    if len(strata) > 1 and len(strata[-1]) < _FEWEST:
        last = strata.pop()
        strata[-1] = np.concatenate([strata[-1], last])
    return strata


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
    from scipy.stats import norm

    z = float(norm.ppf((1 + LEVEL) / 2))
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
    from scipy.stats import t

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
    return float(2 * t.sf(abs(difference) / error, max(num_patients - 1, 1)))


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
