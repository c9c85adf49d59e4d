"""The ranking adapter's loss: which of two images has more of it, how much, and whether there is any."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

Ties = Literal["ignore", "upstream"]
WEIGHTS = {"rank": 1.0, "regression": 0.2, "presence": 1.0}
"""The published weights; what is released was trained with rank and regression."""


def pair_ranking_loss(pair_NN: Tensor, target_N: Tensor, *, ties: Ties = "ignore") -> Tensor:
    """Compute the mean binary cross-entropy of "image i has more of it than image j".

    Args:
        pair_NN: Logits, [N, N] with i down and j across; `score_N[:, None] - score_N` where there is no pair head.
        target_N: Amounts, [N].
        ties: "ignore" leaves out i = j and equal amounts; "upstream" counts them as answered with no, which pulls all
            logits down.

    Returns:
        Scalar; 0 where all amounts are equal and ties are ignored.

    Reference: Yu et al., Ranking-aware adapter for text-driven image ordering with CLIP, ICLR 2025.

    Example:
        >>> round(float(pair_ranking_loss(torch.zeros(3, 3), torch.tensor([2.0, 0.0, 1.0]))), 6)
        0.693147
    """
    apart_NN = target_N[:, None] - target_N
    each_NN = binary_cross_entropy_with_logits(pair_NN, (apart_NN > 0).to(pair_NN.dtype), reduction="none")
    if ties == "upstream":
        return each_NN.mean()
    strict_NN = apart_NN != 0
    return torch.where(strict_NN, each_NN, 0.0).sum() / strict_NN.sum().clamp(min=1)


def amount_loss(score_N: Tensor, target_N: Tensor) -> Tensor:
    """Compute ln(1 + the mean smooth absolute error) of scores.

    Args:
        score_N: Scores, [N].
        target_N: Amounts, [N].

    Example:
        >>> round(float(amount_loss(torch.zeros(3), torch.tensor([2.0, 0.0, 1.0]))), 6)
        0.510826
    """
    return torch.log1p(smooth_l1_loss(score_N, target_N))


def ranking_loss(
    score_N: Tensor,
    target_N: Tensor,
    pair_NN: Tensor | None = None,
    *,
    terms: tuple[str, ...] = ("rank", "regression"),
    ties: Ties = "ignore",
) -> Tensor:
    """Add the weighted terms of the ranking adapter.

    Args:
        score_N: Score of each image, [N].
        target_N: Amounts, [N].
        pair_NN: Logits of the pair head, [N, N]; differences of scores where None (the published single head).
        terms: Names of terms, of `WEIGHTS`; "presence" is whether an amount is other than 0.
        ties: Meaning of equal amounts, see `pair_ranking_loss`.

    Returns:
        Scalar.

    Example:
        >>> y = torch.tensor([2.0, 0.0, 1.0])
        >>> round(float(ranking_loss(torch.zeros(3), y, torch.zeros(3, 3), ties="upstream")), 6)
        0.795312
    """
    of_term = {
        "rank": lambda: pair_ranking_loss(
            score_N[:, None] - score_N if pair_NN is None else pair_NN, target_N, ties=ties
        ),
        "regression": lambda: amount_loss(score_N, target_N),
        "presence": lambda: binary_cross_entropy_with_logits(score_N, (target_N != 0).to(score_N.dtype)),
    }
    return torch.stack([WEIGHTS[name] * of_term[name]() for name in terms]).sum()
