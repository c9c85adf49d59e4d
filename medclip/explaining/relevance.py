"""From attention weights to what each token counts: rollout, gradient rollout, gradient-weighted relevance.

References: Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020 (rollout); Chefer, Gur and Wolf,
Generic attention-model explainability, ICCV 2021 (relevance). Plain arrays, one image at a time, float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Fusion = Literal["mean", "max", "min"]
Normalisation = Literal["rows", "columns"]


def rollout(
    attention: Sequence[Array],
    *,
    fusion: Fusion = "mean",
    discard: float = 0.0,
    normalisation: Normalisation = "rows",
) -> NDArray[np.float64]:
    """Follow attention through the blocks, whatever is asked of the image.

    Args:
        attention: Weights of each block, first to last: [H, N, N].
        fusion: How heads become one.
        discard: Share of the smallest weights of a block that is left out; the first one always stays.
        normalisation: "rows" of a sum of 1, as the paper has it; "columns" divides column j by the sum of row j, as
            the widely used code of vit-explain does. Without `discard` both are the same.

    Returns:
        [N, N]; row 0 is what flows into the class token.
    """
    fuse = {"mean": np.mean, "max": np.max, "min": np.min}[fusion]
    return _rolled([fuse(np.asarray(a, np.float64), axis=0) for a in attention], discard, normalisation)


def gradient_rollout(
    attention: Sequence[Array],
    gradient: Sequence[Array],
    *,
    discard: float = 0.0,
    normalisation: Normalisation = "rows",
) -> NDArray[np.float64]:
    """Follow attention that raises a score: weights times their gradient, averaged over heads, then what is positive.

    Args:
        attention: As `rollout` takes it.
        gradient: Of the score, in the weights: [H, N, N] of each block.
        discard: As `rollout` takes it.
        normalisation: As `rollout` takes it.
    """
    pairs = zip(attention, gradient, strict=True)
    fused = [np.maximum(0.0, (np.asarray(a, np.float64) * g).mean(axis=0)) for a, g in pairs]
    return _rolled(fused, discard, normalisation)


def _rolled(fused: Sequence[Array], discard: float, normalisation: Normalisation) -> NDArray[np.float64]:
    flow = np.eye(len(fused[0]))
    for block in fused:
        kept = block.copy()
        smallest = np.argsort(kept, axis=None, kind="stable")[: int(kept.size * discard)]
        kept.flat[smallest[smallest != 0]] = 0.0
        mixed = (kept + np.eye(len(kept))) / 2
        sums = mixed.sum(axis=1)
        flow = mixed / (sums[:, None] if normalisation == "rows" else sums[None]) @ flow
    return flow


def contribution(attention: Array, gradient: Array) -> NDArray[np.float64]:
    """Return what a block adds: weights times gradient where positive, then the mean over heads: [Q, K]."""
    return np.maximum(0.0, np.asarray(attention, np.float64) * gradient).mean(axis=0)


def relevance(attention: Sequence[Array], gradient: Sequence[Array], *, start: int = 0) -> NDArray[np.float64]:
    """Compute gradient-weighted relevance: R = I, then R + C·R with C of each block.

    Args:
        attention: Weights, first to last: [H, N, N]; at the end there may be poolings [H, Q, N] that read the tokens.
        gradient: Of the score, in the weights.
        start: First block that counts: 0 for all, -1 for the last alone.

    Returns:
        [N, N]: what column counts for row; after a pooling [Q, N].
    """
    blocks = [contribution(a, g) for a, g in zip(attention, gradient, strict=True)]
    flow = np.eye(blocks[0].shape[1])
    square = [block for block in blocks if block.shape[0] == block.shape[1]]
    for block in square[start % len(square) if square else 0 :]:
        flow = flow + block @ flow
    for block in blocks:
        if block.shape[0] != block.shape[1]:
            flow = block @ flow
    return flow
