"""Rows of the audit's table `embeddings`, and the groups and intervals they are made of.

Exact counts of groups that are shown would give away those of groups that are not, by subtraction; so counts in notes
are rounded, and values have four digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.cohort import CONFLICT, MISSING, Attribute
from medclip.statistics.resampling.intervals import percentile

FEWEST_PATIENTS = 10
"""Of a group, unless asked otherwise; smaller ones are left out, and named."""
What = Literal["probe", "reident", "drift", "centroid"]


def row(
    model: str,
    what: What,
    attribute: str,
    name: str,
    value: float = math.nan,
    span: tuple[float, float] = (math.nan, math.nan),
    *,
    p: float = math.nan,
    note: str = "",
) -> dict[str, Any]:
    """Make one row; `span` is the interval (low, high), NaN where there is none. Values keep four digits."""
    return {
        "model": model,
        "what": what,
        "attribute": attribute,
        "name": name,
        "value": _four_digits(value),
        "low": _four_digits(span[0]),
        "high": _four_digits(span[1]),
        "p": float(p),
        "note": note,
    }


def about(count: int) -> str:
    """Write a count to the nearest ten, or to two digits from a thousand.

    Example:
        >>> about(727), about(12_345)
        ('about 730', 'about 12,000')
    """
    step = 10 if count < 1000 else 10 ** (len(str(count)) - 2)
    return f"about {step * round(count / step):,}"


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")


def mean_span(
    values_N: NDArray[np.floating], patients_N: NDArray[np.integer], weights_PB: NDArray[np.integer]
) -> tuple[float, tuple[float, float]]:
    """Give the mean of values with the interval of a bootstrap of patients; patients without values may be drawn.

    Args:
        values_N: One value for each row, float [N], no NaN.
        patients_N: Patient of each row, 0 to P - 1.
        weights_PB: How often each patient was drawn in each replicate.
    """
    if not len(values_N):
        return math.nan, (math.nan, math.nan)
    sums_P = np.bincount(patients_N, values_N, minlength=len(weights_PB))
    counts_P = np.bincount(patients_N, minlength=len(weights_PB)).astype(float)
    there = counts_P > 0
    weights = weights_PB[there].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn_B = (sums_P[there] @ weights) / (counts_P[there] @ weights)
    return float(np.mean(values_N)), percentile(drawn_B)


def whole_patients(patients_N: NDArray[np.integer], most: int, seed: int) -> NDArray[np.int64]:
    """Draw whole patients until another would make more than `most` rows; all rows where they fit.

    Returns:
        Rows in their order, int64.
    """
    if len(patients_N) <= most:
        return np.arange(len(patients_N))
    _, codes_N = np.unique(patients_N, return_inverse=True)
    counts_P = np.bincount(codes_N)
    order = np.random.default_rng(seed).permutation(len(counts_P))
    taken = order[np.cumsum(counts_P[order]) <= most]
    return np.flatnonzero(np.isin(codes_N, taken))


@dataclass(frozen=True, eq=False)
class Grouped:
    """The rows of the groups that are large enough, with their vectors."""

    vectors_nD: NDArray[np.float32]
    patients_n: NDArray[np.int64]
    """Numbered anew, 0 to P - 1."""
    codes_n: NDArray[np.int64]
    """Group of each row: index into `groups`."""
    groups: tuple[str, ...]
    note: str
    """Which groups were left out, and how many rows were drawn; "" where there is nothing to say."""


def grouped(
    vectors_ND: NDArray[np.floating],
    patients_N: NDArray[np.integer],
    attribute: Attribute,
    *,
    most: int,
    seed: int,
    fewest: int,
) -> Grouped:
    """Take the groups with enough patients who have embeddings; rows that state nothing, or two things, are left out.

    Args:
        vectors_ND: Unit vectors; rows of NaN are left out.
        patients_N: Patient of each row.
        attribute: The groups.
        most: Rows above which whole patients are drawn.
        seed: Of that draw.
        fewest: Patients that a group needs.
    """
    there_N = ~np.isnan(vectors_ND).any(axis=1)
    taken, left = [], []
    for g, name in enumerate(attribute.groups):
        rows_N = there_N & (attribute.codes_N == g)
        if name not in (MISSING, CONFLICT) and len(np.unique(patients_N[rows_N])) >= fewest:
            taken.append(g)
        elif (attribute.codes_N == g).any():
            left.append(name)
    rows = np.flatnonzero(there_N & np.isin(attribute.codes_N, taken))
    drawn = rows[whole_patients(patients_N[rows], most, seed)]
    said = []
    if left:
        said.append(f"Left out (fewer than {fewest} patients, or not stated): {', '.join(left)}.")
    if len(drawn) < len(rows):
        said.append(f"Drawn by patient: {about(len(drawn))} of {about(len(rows))} rows.")
    _, patients_n = np.unique(patients_N[drawn], return_inverse=True)
    codes_n = np.searchsorted(np.array(taken, np.int64), attribute.codes_N[drawn])
    names = tuple(attribute.groups[g] for g in taken)
    return Grouped(np.asarray(vectors_ND[drawn], np.float32), patients_n, codes_n, names, " ".join(said))
