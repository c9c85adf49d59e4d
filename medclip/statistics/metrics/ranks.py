"""Areas under the ROC and the precision-recall curve for many resamples: sort once, then cumulate resampled weights.

Between two neighbouring positives the order of the negatives does not matter. So the scores of one comparison are cut
at its positives; the negatives of each piece are summed for all resamples (`medclip.statistics.resampling.sums`),
cumulated, and met with the positives' weights: Σ w⁺·(W⁻ below + ½ W⁻ tied) / (W⁺ W⁻) is the AUROC (Mann–Whitney), and Σ
(w⁺/W⁺)·precision the average precision. Sums of whole weights are exact, so the values are those of literally
repeating rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medclip.statistics.cohort import Rows
from medclip.statistics.metrics.rates import ratio
from medclip.statistics.resampling.sums import Block, blocks, summing_matrix


@dataclass(frozen=True, eq=False)
class Contest:
    """Some positives against some negatives."""

    positive: Any
    """Positives at each of K places of the score, ascending; sparse [K, P]."""
    negative: Any
    """Negatives of each of the U pieces that the positives cut; sparse [U, P]."""
    below_K: NDArray[np.int64]
    """How many pieces lie below each place."""
    through_K: NDArray[np.int64]
    """The same with the piece that is tied with the place, where there is one."""


@dataclass(frozen=True, eq=False)
class Areas:
    """What a contest gave in each replicate of a block; NaN where one side is empty."""

    auroc_b: NDArray[np.float64]
    auprc_b: NDArray[np.float64] | None
    positives_b: NDArray[np.float64]
    negatives_b: NDArray[np.float64]
    won_b: NDArray[np.float64]
    """Weight of the pairs that the positive wins, ties half."""


@dataclass(frozen=True)
class Area:
    """A metric of positives against negatives."""

    of: Callable[[Areas], Any]
    steps: bool = False
    """Whether it is of the precision-recall curve."""
    outside: Literal["positives", "negatives"] | None = None
    """The side that is everybody outside the group; None: both are of the group. Without `steps`."""


def contest(
    rank_p: NDArray[np.int64],
    positive: tuple[NDArray[np.int32], NDArray[np.float64] | None],
    rank_q: NDArray[np.int64],
    negative: tuple[NDArray[np.int32], NDArray[np.float64] | None],
    num_patients: int,
    *,
    steps: bool,
) -> Contest:
    """Cut the scores at the positives.

    Args:
        rank_p: Ranks of the positives' scores.
        positive: Patient, and weight or None, of each positive.
        rank_q: Ranks of the negatives' scores.
        negative: Patient, and weight or None, of each negative.
        num_patients: Patients of the cohort, P.
        steps: Whether each distinct score of a positive keeps its place (needed for average precision); otherwise
            places with no negative between them are one.
    """
    ranks = 1 + max(rank_p.max(initial=-1), rank_q.max(initial=-1))
    is_place_R = np.zeros(ranks, bool)
    is_place_R[rank_p] = True
    before_R = np.cumsum(is_place_R) - is_place_R  # places of positives strictly below each rank
    num_places = int(is_place_R.sum())
    half_q = 2 * before_R[rank_q] + is_place_R[rank_q]  # even: between two places; odd: tied with one
    is_piece_H = np.zeros(2 * num_places + 1, bool)
    is_piece_H[half_q] = True
    before_H = np.r_[0, np.cumsum(is_piece_H)]
    place_p, piece_q = before_R[rank_p], before_H[half_q]
    below, through = before_H[1::2][:num_places], before_H[2::2]
    if not steps and num_places:
        first = np.r_[True, (np.diff(below) != 0) | (np.diff(through) != 0)]
        place_p = (np.cumsum(first) - 1)[place_p]
        below, through = below[first], through[first]
    return Contest(
        positive=summing_matrix(place_p, len(below), positive[0], num_patients, positive[1]),
        negative=summing_matrix(piece_q, int(before_H[-1]), negative[0], num_patients, negative[1]),
        below_K=below,
        through_K=through,
    )


def areas(match: Contest, block: Block, *, steps: bool) -> Areas:
    """Measure one contest in each replicate of a block."""
    weights_Kb = block.sums(match.positive)
    cumulated_Ub = cumulated(block.sums(match.negative))
    below_Kb = cumulated_Ub[match.below_K]
    negatives_b = cumulated_Ub[-1].astype(np.float64)
    # cells without ties (most) need one gather instead of two
    tied = (match.below_K != match.through_K).any()
    twice_Kb = below_Kb + (cumulated_Ub[match.through_K] if tied else below_Kb)
    won_b = np.multiply(weights_Kb, twice_Kb, dtype=np.float64).sum(axis=0) / 2
    if steps:
        reached_Kb = cumulated(weights_Kb).astype(np.float64)
        positives_b = reached_Kb[-1].copy()
        true_Kb = positives_b - reached_Kb[:-1]
        called_Kb = true_Kb + (negatives_b - below_Kb)
        called_Kb[weights_Kb == 0] = 1.0  # nothing is added there; avoids 0/0
        auprc_b = (weights_Kb * (true_Kb / called_Kb)).sum(axis=0)
        auprc_b = ratio(auprc_b, positives_b)
    else:
        positives_b, auprc_b = weights_Kb.sum(axis=0, dtype=np.float64), None
    return Areas(ratio(won_b, positives_b * negatives_b), auprc_b, positives_b, negatives_b, won_b)


def cumulated(sums_Ub: NDArray[Any]) -> NDArray[Any]:
    """Cumulate along the score, with a row of zeros first: [U + 1, b].

    By pieces of about √U rows, each step over all pieces at once: ten times as fast as `numpy.cumsum` along the first
    axis, and other threads may run.
    """
    num_rows, width = sums_Ub.shape
    size = math.isqrt(num_rows) + 1
    padded = np.zeros((-(-num_rows // size) * size + 1, width), sums_Ub.dtype)
    padded[1 : num_rows + 1] = sums_Ub
    parts = padded[1:].reshape(-1, size, width)
    for row in range(1, size):
        parts[:, row] += parts[:, row - 1]
    for part in range(1, len(parts)):
        parts[part] += parts[part - 1, -1]
    return padded[: num_rows + 1]


def auroc(score_N: ArrayLike, positive_N: ArrayLike) -> NDArray[np.float64]:
    """Compute the area under the ROC curve of one or many sets of scores (Mann–Whitney; ties count half).

    Args:
        score_N: Scores, higher for positives; [..., N].
        positive_N: Whether each row is a positive; [N], or as large as the scores.

    Returns:
        [...]; NaN where one class is missing.

    Example:
        >>> float(auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]))
        0.75
    """
    from scipy.stats import rankdata

    positive = np.asarray(positive_N, bool)
    ranks = np.asarray(rankdata(np.asarray(score_N), axis=-1), np.float64)
    num_pos, num_neg = positive.sum(axis=-1), (~positive).sum(axis=-1)
    won = (ranks * positive).sum(axis=-1) - num_pos * (num_pos + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(won / (num_pos * num_neg), np.float64)


def resampled_auroc(
    score_N: NDArray[np.floating[Any]],
    positive_N: NDArray[np.bool_],
    patients_N: NDArray[np.integer[Any]],
    weights_PB: NDArray[Any],
) -> tuple[float, NDArray[np.float64]]:
    """Compute the area under the ROC curve in the sample and in each resample of patients, as `evaluate` does.

    Returns:
        The area, and [B]; NaN where one class is missing.
    """
    if not positive_N.any() or positive_N.all():
        return float("nan"), np.full(weights_PB.shape[1], np.nan)
    rank_N = np.unique(score_N, return_inverse=True)[1]
    sides = [(rank_N[side], (patients_N[side].astype(np.int32), None)) for side in (positive_N, ~positive_N)]
    match = contest(*sides[0], *sides[1], len(weights_PB), steps=False)
    drawn_B = [areas(match, block, steps=False).auroc_b[: block.num] for block in blocks(weights_PB, len(rank_N), True)]
    once = next(blocks(np.ones((len(weights_PB), 1), np.uint8), len(rank_N), True))
    return float(areas(match, once, steps=False).auroc_b[0]), np.concatenate(drawn_B)


class SortedMetrics:
    """The contests of all cells of one label."""

    def __init__(self, rows: Rows, wanted: Mapping[str, Area]) -> None:
        self._num_cells, self._wanted = rows.num_cells, wanted
        self._steps = any(area.steps for area in wanted.values())
        within = any(area.outside is None for area in wanted.values())
        self._within = [_of(rows, cell, cell, self._steps) for cell in rows.cells] if within else []
        self._crossed: dict[str, dict[int, Contest]] = {}
        everybody = rows.cells[0]
        for name, area in wanted.items():
            if area.outside is not None:
                cells = self._crossed[name] = {}
                for g, cell in enumerate(rows.cells[1:], 1):
                    others = np.setdiff1d(everybody, cell, assume_unique=True)
                    pair = (others, cell) if area.outside == "positives" else (cell, others)
                    cells[g] = _of(rows, *pair, steps=False)

    def __call__(self, block: Block) -> Mapping[str, NDArray[np.float64]]:
        """Return each metric that was asked for, [G, columns of the block]."""
        width = block.weights_Pb.shape[1]
        values = {name: np.full((self._num_cells, width), np.nan) for name in self._wanted}
        for g, match in enumerate(self._within):
            measured = areas(match, block, steps=self._steps)
            for name, area in self._wanted.items():
                if area.outside is None:
                    values[name][g] = area.of(measured)
        for name, contests in self._crossed.items():
            for g, match in contests.items():
                values[name][g] = self._wanted[name].of(areas(match, block, steps=False))
        return values


def adjusted(areas: Areas) -> NDArray[np.float64]:
    """Return 1 − ln AP / ln prevalence: 0 at chance, 1 when perfect, whatever the prevalence; NaN without negatives."""
    assert areas.auprc_b is not None
    positives_b, negatives_b = areas.positives_b, areas.negatives_b
    defined = (positives_b > 0) & (negatives_b > 0)
    prevalence_b = np.divide(
        positives_b, positives_b + negatives_b, out=np.full(positives_b.shape, np.nan), where=defined
    )
    return 1.0 - np.log(areas.auprc_b) / np.log(prevalence_b)


def _of(rows: Rows, positives: NDArray[np.int64], negatives: NDArray[np.int64], steps: bool) -> Contest:
    """Set the positives among some rows against the negatives among others."""
    p, q = positives[rows.truth_n[positives]], negatives[~rows.truth_n[negatives]]
    return contest(
        rows.rank_n[p],
        (rows.patients_n[p], rows.values(p)),
        rows.rank_n[q],
        (rows.patients_n[q], rows.values(q)),
        rows.num_patients,
        steps=steps,
    )
