"""Layer-wise relevance propagation, one rule for each operation (hila-chefer/Transformer-Explainability @ c3e578f).

A rule divides the relevance of an operation's outputs among its inputs. LayerNorm, softmax, GELU and dropout hand it on
as it is. Biases take no part, so that its sum is kept to some percent and not to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-9


def safe_divide(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, held away from zero by 1e-9 on b's side, and 0 where b is 0."""
    held = b.clamp(min=_EPS) + b.clamp(max=-_EPS)
    held = held + (held == 0).to(held.dtype) * _EPS
    return a / held * (b != 0).to(a.dtype)


def linear_relevance(relevance: Tensor, x: Tensor, weight: Tensor, alpha: float = 1.0) -> Tensor:
    """Return the relevance of a linear layer's inputs.

    Args:
        relevance: Of its outputs, [..., O].
        x: Its inputs, [..., I].
        weight: [O, I]; its bias is not asked.
        alpha: Weight of what speaks for an output; alpha - 1 is that of what speaks against it.
    """
    rises, falls = weight.clamp(min=0), weight.clamp(max=0)
    positive, negative = x.clamp(min=0), x.clamp(max=0)

    def share(of_positive: Tensor, of_negative: Tensor) -> Tensor:
        sums = positive @ of_positive.T + negative @ of_negative.T
        scaled = safe_divide(relevance, sums)
        return positive * (scaled @ of_positive) + negative * (scaled @ of_negative)

    for_it = share(rises, falls)
    return for_it if alpha == 1 else alpha * for_it - (alpha - 1) * share(falls, rises)


def sum_relevance(relevance: Tensor, a: Tensor, b: Tensor, *, by_image: bool = True) -> tuple[Tensor, Tensor]:
    """Return the relevance of the two terms of a sum; together they have as much as the sum has.

    Args:
        relevance: Of the sum, [B, ...].
        a: One term.
        b: The other.
        by_image: Shares are those of each image; the published code has those of a whole batch.
    """
    scaled = safe_divide(relevance, a + b)
    of_a, of_b = a * scaled, b * scaled
    axes = tuple(range(int(by_image), relevance.ndim))
    sum_a, sum_b, total = (value.sum(axes, keepdim=True) for value in (of_a, of_b, relevance))
    sizes = sum_a.abs() + sum_b.abs()
    shares = (safe_divide(s.abs(), sizes) * total for s in (sum_a, sum_b))
    factors = [safe_divide(share, s) for share, s in zip(shares, (sum_a, sum_b), strict=True)]
    return of_a * factors[0], of_b * factors[1]


def product_relevance(relevance: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the relevance of the two factors of a matrix product a @ b, half of it each."""
    scaled = safe_divide(relevance, a @ b)
    return a * (scaled @ b.transpose(-1, -2)) / 2, b * (a.transpose(-1, -2) @ scaled) / 2


def copy_relevance(x: Tensor, *relevances: Tensor) -> Tensor:
    """Return the relevance of a value that several operations take."""
    return x * torch.stack([safe_divide(relevance, x) for relevance in relevances]).sum(0)
