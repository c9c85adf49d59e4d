"""Means over rows with the patients resampled, and what can be said about them: interval and p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.metrics.rates import ratio
from medclip.statistics.resampling.intervals import LEVEL
from medclip.statistics.resampling.standard_errors import MOST_UNDEFINED
from medclip.statistics.resampling.sums import blocks, summing_matrix

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval, and the two-sided p of its being 0; NaN where there is none."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    p: float = float("nan")

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high < 0

    def __str__(self) -> str:
        """Write "0.14 (95 % interval 0.10 to 0.18)"."""
        if np.isnan(self.low):
            return f"{_short(self.value)} (no interval)"
        return f"{_short(self.value)} (95 % interval {_short(self.low)} to {_short(self.high)})"


def _short(number: float) -> str:
    return f"{number:.2f}".replace("-0.00", "0.00").replace("-", "−")


def estimate(value: float, drawn_B: Floats, num_patients: int, least_variance: float = 0.0) -> Estimate:
    """Give value ± t · SE, with the bootstrap's SE times c/(c − 1) and Student's t for the c patients who can move it.

    Args:
        value: The figure on the sample itself.
        drawn_B: The figure in each replicate; NaN where it is not defined.
        num_patients: c.
        least_variance: Taken where the bootstrap's is smaller: with few events it is too small by chance.

    Returns:
        Without interval and p where more than a tenth of the replicates is undefined, or there are fewer than two
        patients or replicates.

    Reference: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 12.
    """
    from scipy.stats import t

    known = drawn_B[~np.isnan(drawn_B)]
    if np.isnan(value) or len(known) < max(2, (1 - MOST_UNDEFINED) * len(drawn_B)) or num_patients < 2:
        return Estimate(value)
    error = float(np.sqrt(max(known.var(ddof=1) * num_patients / (num_patients - 1), least_variance)))
    if error < 1e-12:
        return Estimate(value, value, value, 1.0 if abs(value) < 1e-12 else 2 / (1 + len(drawn_B)))
    half = float(t.ppf((1 + LEVEL) / 2, num_patients - 1)) * error
    return Estimate(value, value - half, value + half, float(2 * t.sf(abs(value) / error, num_patients - 1)))


def means(
    patients_N: NDArray[np.int32],
    weights_PB: NDArray[Any],
    parts: Sequence[tuple[NDArray[np.bool_], NDArray[Any]]],
    weight_N: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Give the mean of some values over some rows, in the sample and in each resample of patients.

    Args:
        patients_N: Patient of each row.
        weights_PB: How often each patient counts in each replicate.
        parts: K pairs: which rows, [N], and their values, [N].
        weight_N: How much each row counts; once by default.

    Returns:
        [K] and [K, B]; NaN where nobody is in.
    """
    rows = [np.flatnonzero(mask) for mask, _ in parts]
    number = np.repeat(np.arange(len(parts)), [len(r) for r in rows])
    every = np.concatenate(rows)
    weight = np.ones(len(every)) if weight_N is None else weight_N[every]
    value = np.concatenate([np.asarray(v, np.float64)[r] for (_, v), r in zip(parts, rows, strict=True)])
    both = np.concatenate([2 * number, 2 * number + 1])
    sums = np.concatenate([weight * value, weight])
    matrix = summing_matrix(both, 2 * len(parts), np.tile(patients_N[every], 2), len(weights_PB), sums)

    def measured(weights: NDArray[Any]) -> Floats:
        found = np.empty((len(parts), weights.shape[1]))
        for block in blocks(weights, len(every), False):
            summed = block.sums(matrix)[:, : block.num]
            found[:, block.start : block.start + block.num] = ratio(summed[0::2], summed[1::2])
        return found

    return measured(np.ones((len(weights_PB), 1), np.uint8))[:, 0], measured(weights_PB)
