"""Rows of the audit's table `embeddings`, and the groups and intervals they are made of.

Exact counts of groups that are shown would give away those of groups that are not, by subtraction; so counts in notes
are rounded, and values have four digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.cohort import CONFLICT, MISSING, Attribute
from medclip.statistics.estimate import Estimate
from medclip.statistics.resampling.resampled import interval_of, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import ratios

FEWEST_PATIENTS = 10
"""Of a group, unless asked otherwise; smaller ones are left out, and named."""
What = Literal["probe", "reident", "drift", "centroid"]


def row(
    what: What,
    attribute: str,
    name: str,
    measured: Estimate | float = math.nan,
    *,
    p: float = math.nan,
    note: str = "",
) -> dict[str, Any]:
    """Make one row, without the model's name, with the interval where there is one. Values keep four digits."""
    estimate = measured if isinstance(measured, Estimate) else Estimate(measured)
    return {
        "what": what,
        "attribute": attribute,
        "name": name,
        "value": _four_digits(estimate.value),
        "low": _four_digits(estimate.low),
        "high": _four_digits(estimate.high),
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


def estimated_mean(
    values_N: NDArray[np.floating], patients_N: NDArray[np.integer], weights_PB: NDArray[np.integer]
) -> Estimate:
    """Average values between 0 and 1, with the interval of a rate; patients without values may be drawn.

    Values between the two, such as precisions, vary less than right and wrong do: the floor of a rate is taken only
    where no patient differs.

    Args:
        values_N: One value for each row, float [N], no NaN.
        patients_N: Patient of each row, 0 to P - 1.
        weights_PB: Weight of each patient in each replicate.
    """
    if not len(values_N):
        return Estimate(math.nan)
    (value,), (drawn_B,) = ratios(patients_N, weights_PB, np.asarray(values_N)[None], np.ones((1, len(values_N))))
    figure = share(float(value), drawn_B, cases=len(values_N), patients=effective_patients(patients_N))
    if figure.bootstrap > 0 and not np.isin(values_N, (0, 1)).all():
        figure = replace(figure, lift=0.0)
    return interval_of(figure)


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
        attribute: Attribute whose groups are taken.
        most: Number of rows above which whole patients are drawn.
        seed: Seed of the draw.
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
    notes = []
    if left:
        notes.append(f"Left out (fewer than {fewest} patients, or not stated): {', '.join(left)}.")
    if len(drawn) < len(rows):
        notes.append(f"Drawn by patient: {about(len(drawn))} of {about(len(rows))} rows.")
    _, patients_n = np.unique(patients_N[drawn], return_inverse=True)
    codes_n = np.searchsorted(np.array(taken, np.int64), attribute.codes_N[drawn])
    names = tuple(attribute.groups[g] for g in taken)
    return Grouped(np.asarray(vectors_ND[drawn], np.float32), patients_n, codes_n, names, " ".join(notes))
