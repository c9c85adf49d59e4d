"""Answers in steps of a scale measured: quadratic kappa, Spearman's rho, and pairs put in the right order.

Kappa is of the step with the highest probability. The other two are of a score, the expected step: sum of k * p_k. Of
pairs only those count whose truths differ, i.e. strict pairs, with half a point for equal scores: for two steps that is
the area under the ROC curve. The published code of the ranking adapter takes a triangle of pairs that holds its first
super-diagonal, too, and counts ties as right.

References: Cohen, Psychol. Bull. 70 (1968) 213-220; Spearman, Am. J. Psychol. 15 (1904) 72-101, with mid-ranks of ties;
Harrell et al., JAMA 247 (1982) 2543-2546 (concordance).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from medclip.statistics.metrics.grading_agreement import KAPPA, agreement
from medclip.statistics.metrics.ranks import areas, contest
from medclip.statistics.resampling.sums import blocks

Floats = NDArray[np.float64]
Whole = NDArray[np.integer[Any]]
_MOST_ELEMENTS = 4_000_000
"""Rows times resamples that Spearman's ranks are computed for at once: 32 MB."""


def expected_step(logits_NK: NDArray[np.floating]) -> Floats:
    """Compute the mean step under the probabilities of K steps, float64 [N] from 0 to K − 1.

    Example:
        >>> import numpy as np
        >>> expected_step(np.log([[0.5, 0.5, 1e-9], [0.1, 0.1, 0.8]])).round(2).tolist()
        [0.5, 1.7]
    """
    return softmax(np.asarray(logits_NK, np.float64), axis=1) @ np.arange(logits_NK.shape[1])


def resampled_kappa(predicted_N: Whole, step_N: Whole, patients_N: Whole, weights_PB: NDArray[Any]) -> Floats:
    """Compute Cohen's kappa with quadratic weights in the sample, and then in each resample of patients: [1 + B].

    NaN where all steps of both are one.
    """
    t, p = step_N.astype(np.float64), predicted_N.astype(np.float64)
    off = p - t
    every = [np.ones_like(t), t, p, t * t, p * p, t * p, off == 0, off == 1, off == -1, off > 1, off < -1]
    of_patient = np.stack([np.bincount(patients_N, v, minlength=len(weights_PB)) for v in every])
    drawn = [of_patient @ b.double_Pb[:, : b.num] for b in blocks(weights_PB, len(t), False)]
    sums = np.concatenate([of_patient.sum(axis=1, keepdims=True), *drawn], axis=1)
    return agreement(sums[:, None])[KAPPA][0]


def resampled_spearman(score_N: Floats, step_N: Whole, patients_N: Whole, weights_PB: NDArray[Any]) -> Floats:
    """Compute Spearman's rho in the sample, and then in each resample of patients, with mid-ranks: [1 + B].

    NaN where all scores, or all steps, are alike.
    """
    num = weights_PB.shape[1]
    width = max(1, _MOST_ELEMENTS // max(1, len(score_N)))
    parts = [_rho(score_N, step_N, np.ones((len(score_N), 1)))]
    for start in range(0, num, width):
        parts.append(_rho(score_N, step_N, weights_PB[patients_N, start : start + width].astype(np.float64)))
    return np.concatenate(parts)


def resampled_concordance(score_N: Floats, step_N: Whole, patients_N: Whole, weights_PB: NDArray[Any]) -> Floats:
    """Compute the share of strict pairs in the right order, in the sample and then in each resample: [1 + B].

    NaN where all steps are one.
    """
    rank_N = np.unique(score_N, return_inverse=True)[1]
    steps = np.unique(step_N)
    sides = {k: (rank_N[step_N == k], (patients_N[step_N == k].astype(np.int32), None)) for k in steps.tolist()}
    pairs = [(high, low) for high in sides for low in sides if low < high]
    won_C, num_C = np.zeros(1 + weights_PB.shape[1]), np.zeros(1 + weights_PB.shape[1])
    for high, low in pairs:
        match = contest(*sides[high], *sides[low], len(weights_PB), steps=False)
        once = blocks(np.ones((len(weights_PB), 1), np.uint8), len(rank_N), True)
        start = 0
        for block in (*once, *blocks(weights_PB, len(rank_N), True)):
            measured = areas(match, block, steps=False)
            where = slice(start, start + block.num)
            won_C[where] += measured.won_b[: block.num]
            num_C[where] += (measured.positives_b * measured.negatives_b)[: block.num]
            start += block.num
    return np.divide(won_C, num_C, out=np.full(len(won_C), np.nan), where=num_C > 0)


def _rho(score_N: Floats, step_N: Whole, weights_Nb: Floats) -> Floats:
    """Correlate the weighted mid-ranks of two columns, [b]."""
    total_b = weights_Nb.sum(axis=0)
    one_Nb, two_Nb = (_mid_ranks(values_N, weights_Nb) - total_b / 2 for values_N in (score_N, step_N))
    cross_b, one_b, two_b = (
        (weights_Nb * a * b).sum(axis=0) for a, b in ((one_Nb, two_Nb), (one_Nb, one_Nb), (two_Nb, two_Nb))
    )
    size_b = np.sqrt(one_b * two_b)
    return np.divide(cross_b, size_b, out=np.full(len(size_b), np.nan), where=size_b > 1e-9)


def _mid_ranks(values_N: NDArray[Any], weights_Nb: Floats) -> Floats:
    """Rank rows that count so often each: the weight of all smaller ones and half of that of equal ones, [N, b]."""
    place_N = np.unique(values_N, return_inverse=True)[1]
    order = np.argsort(place_N, kind="stable")
    firsts = np.flatnonzero(np.diff(place_N[order], prepend=-1))
    of_place = np.add.reduceat(weights_Nb[order], firsts, axis=0)
    return (np.cumsum(of_place, axis=0) - of_place / 2)[place_N]
