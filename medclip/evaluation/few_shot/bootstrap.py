"""Intervals and p-values of a few-shot comparison: draws of shots, initialisations and test patients vary together.

A figure is a mean over S draws of shots (and I initialisations) on one test set, so it is uncertain in two ways: other
shots would have given another model, and other patients another test. Each replicate draws the shot seeds, the
initialisation seeds and the test patients anew, each with replacement, and the same replicates serve every method, so
that differences are paired.

Two corrections for having few seeds: drawing S out of S seeds gives (S − 1)/S of their variance, so that part is scaled
by √(S/(S − 1)); and the interval is widened by Student's t over the normal quantile, with Satterthwaite's degrees of
freedom for the sum of the variances.

References: Owen, The pigeonhole bootstrap, Ann. Appl. Stat. 1 (2007) 386-411; Field & Welsh, JRSS-B 69 (2007) 369-390;
Satterthwaite, Biometrics Bulletin 2 (1946) 110-114.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.weighted import HeldOut

LEVEL = 0.95
_CHUNK = 4096
_EQUAL = 1e-9
"""Replicates that differ by less are alike: shares of seeds are fractions that do not add up to one exactly."""


@dataclass(frozen=True, eq=False)
class Draws:
    """The replicates. Column 0 of each array is the sample as it is."""

    images_NB: NDArray[np.float64]
    """How often each test image counts, [N, 1 + B]."""
    shots_SB: NDArray[np.float64]
    """Share of each shot seed, [S, 1 + B]; columns add to one."""
    inits_IB: NDArray[np.float64]
    """Share of each initialisation seed, [I, 1 + B]."""
    num_patients: int
    num_redrawn: int
    """Draws of patients in which a class was missing; drawn again."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval."""

    value: float
    low: float | None
    """None where it cannot be told: replicates that are all alike."""
    high: float | None
    p: float
    """Two-sided, of its being zero; for differences."""


def draw(test: HeldOut, num_seeds: int, num_inits: int, *, num_replicates: int = 2000, seed: int = 0) -> Draws:
    """Draw the replicates.

    Args:
        test: The test images.
        num_seeds: S, how many draws of shots there are.
        num_inits: I, how many initialisations for each.
        num_replicates: B.
        seed: Of the draw; the same seed draws the same replicates.

    Raises:
        MedclipError: WRONG_USE when more than nine in ten draws of patients miss a class.
    """
    rng = np.random.default_rng(seed)
    sides = [rows for c in test.measured() for rows in test.sides(c) if len(rows)]
    kept: list[NDArray[np.int64]] = []
    num_kept = num_redrawn = 0
    while num_kept < num_replicates:
        size = min(_CHUNK, num_replicates)
        counts = rng.multinomial(test.num_patients, np.full(test.num_patients, 1 / test.num_patients), size=size)
        images = counts.T[test.patients]
        whole = np.all([images[rows].sum(axis=0) > 0 for rows in sides], axis=0) if sides else np.ones(size, bool)
        num_redrawn += int((~whole).sum())
        if num_redrawn > 9 * num_replicates:
            raise MedclipError(
                Reason.WRONG_USE,
                "a class is missing in nearly every draw of test patients; the test set has too few patients of it.",
                hint="Give more patients, or a larger --test-share.",
            )
        kept.append(images[:, whole])
        num_kept += int(whole.sum())
    drawn = np.concatenate(kept, axis=1)[:, :num_replicates]
    images_NB = np.concatenate([np.ones((len(drawn), 1)), drawn.astype(np.float64)], axis=1)
    return Draws(
        images_NB,
        _shares(rng, num_seeds, num_replicates),
        _shares(rng, num_inits, num_replicates),
        test.num_patients,
        num_redrawn,
    )


def estimate(values_SIB: NDArray[np.float64], draws: Draws, *, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """Turn one metric (or a difference of two) into a mean with its interval.

    Args:
        values_SIB: The metric of each shot seed and initialisation under each weighting, [S, I, 1 + B].
        draws: The replicates.
        bounds: What the metric can be.

    Returns:
        The mean over seeds, its 95 % interval, and the two-sided p-value of its being zero. Where every replicate is
        alike there is no interval; such a difference, if it is one, has the least p-value that there is, 2 / (B + 1).
    """
    point = float(values_SIB[:, :, 0].mean())
    mean_B = values_SIB.mean(axis=(0, 1))
    shots_SB, inits_IB = values_SIB.mean(axis=1), values_SIB.mean(axis=0)
    replicates = mean_B.copy()
    for parts, shares in ((shots_SB, draws.shots_SB), (inits_IB, draws.inits_IB)):
        if len(parts) > 1:
            replicates += np.sqrt(len(parts) / (len(parts) - 1)) * ((shares * parts).sum(axis=0) - mean_B)
    replicates = point + _widening(shots_SB, inits_IB, mean_B, draws.num_patients) * (replicates[1:] - point)
    tail = 1 + min(int((replicates <= _EQUAL).sum()), int((replicates >= -_EQUAL).sum()))
    p = min(1.0, 2 * tail / (len(replicates) + 1))
    if np.ptp(replicates) < _EQUAL:
        return Estimate(point, None, None, p)
    low, high = np.clip(np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]), *bounds)
    return Estimate(point, float(low), float(high), p)


def spread(values_SI: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Give the standard deviation over draws of shots and over initialisations; None where there is only one.

    Over shots: of the means over initialisations. Over initialisations: within each draw of shots, pooled.
    """
    num_seeds, num_inits = values_SI.shape
    shots = float(values_SI.mean(axis=1).std(ddof=1)) if num_seeds > 1 else None
    inits = float(np.sqrt(values_SI.var(axis=1, ddof=1).mean())) if num_inits > 1 else None
    return shots, inits


def _shares(rng: np.random.Generator, count: int, num_replicates: int) -> NDArray[np.float64]:
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=num_replicates).T / count
    return np.concatenate([np.full((count, 1), 1 / count), drawn], axis=1)


def _widening(
    shots_SB: NDArray[np.float64], inits_IB: NDArray[np.float64], mean_B: NDArray[np.float64], num_patients: int
) -> float:
    """Student's quantile over the normal one, with Satterthwaite's degrees of freedom."""
    from scipy.stats import norm, t

    parts = [(float(mean_B[1:].var()), max(1, num_patients - 1))]
    parts += [(float(v[:, 0].var(ddof=1)) / len(v), len(v) - 1) for v in (shots_SB, inits_IB) if len(v) > 1]
    total, spent = sum(v for v, _ in parts), sum(v * v / df for v, df in parts)
    if spent == 0:
        return 1.0
    at = (1 + LEVEL) / 2
    return float(t.ppf(at, total * total / spent) / norm.ppf(at))
