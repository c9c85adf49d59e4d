"""From attention weights to what each token counts: rollout, gradient rollout, gradient-weighted relevance.

References: Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020 (rollout); Chefer, Gur and Wolf,
Generic attention-model explainability, ICCV 2021 (relevance). Plain arrays, one image at a time, float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medclip.explaining.maps import Work, WorkMaps

Array = NDArray[np.floating]
Fusion = Literal["mean", "max", "min"]
Normalisation = Literal["rows", "columns"]
Flow = Callable[[Sequence[Array], Sequence[Array]], NDArray[np.float64]]
"""Attention of each block and its gradient to what each token counts for each other, [N, N]."""


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
        fusion: Name of the way in which heads become one.
        discard: Share of the smallest weights of a block that is left out; the first one always stays.
        normalisation: Normalisation: "rows" of a sum of 1, as the paper has it; "columns" divides column j by the sum
            of row j, as the widely used code of vit-explain does. Without `discard` both are the same.

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
        attention: Weights of each block, as `rollout` takes them.
        gradient: Gradient of the score in the weights: [H, N, N] of each block.
        discard: Share of the smallest weights that is left out, as in `rollout`.
        normalisation: Name of the normalisation, as in `rollout`.
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
        gradient: Gradient of the score in the weights, of the same shapes.
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


def gradient_attention_maps(work: Work) -> WorkMaps:
    """Map images by `relevance`."""
    return _token_maps(work, relevance)


def gradient_rollout_maps(work: Work) -> WorkMaps:
    """Map images by `gradient_rollout`."""
    return _token_maps(work, gradient_rollout)


def rollout_maps(work: Work) -> WorkMaps:
    """Map images by `rollout`: the gradient only says which tokens the tower reads in the end."""
    return _token_maps(work, lambda attention, _: rollout(attention), by_gradient=False)


def _token_maps(work: Work, flow: Flow, *, by_gradient: bool = True) -> WorkMaps:
    """Lay what each token counts on the grid of the patches."""
    traced = work.traced
    height, width = traced.grid
    patches = slice(traced.num_before, traced.num_before + height * width)
    rows = _token_rows(work, flow, by_gradient)
    return [row[patches].reshape(height, width).astype(np.float32) for row in rows], traced.layer


def _token_rows(work: Work, flow: Flow, by_gradient: bool) -> list[NDArray[np.float64]]:
    """Return what each token counts, [T] of each image."""
    attended = work.traced.attended
    weights = [a.weights_BHQK for a in attended]
    tokens = work.traced.tokens_BTC
    assert tokens is not None
    *gradients, pulled = work.gradients([*weights, tokens])
    used = [n for n, g in enumerate(gradients) if g.any() or weights[n].shape[-1] == weights[n].shape[-2]]
    attention = [weights[n].detach().double().cpu().numpy() for n in used]
    gradient = [gradients[n].double().cpu().numpy() for n in used]
    # What each token brings into the pooling: its state times its gradient, which is the weight of a mean pooling.
    brought_BT = (tokens.detach() * pulled).sum(-1).double().cpu().numpy()
    read_BT = pulled.any(-1).cpu().numpy()
    return [
        _row(flow, by_gradient, [a[b] for a in attention], [g[b] for g in gradient], brought_BT[b], read_BT[b])
        for b in range(len(brought_BT))
    ]


def _row(
    flow_of: Flow,
    by_gradient: bool,
    attention: list[NDArray],
    gradient: list[NDArray],
    brought_T: NDArray[np.float64],
    read_T: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return what each token counts for what the tower reads in the end: its class token, a pooling, or all tokens."""
    square = [n for n, a in enumerate(attention) if a.shape[1] == a.shape[2]]
    pools = [n for n in range(len(attention)) if n not in square]
    flow = flow_of([attention[n] for n in square], [gradient[n] for n in square])
    if pools:
        for n in pools:
            block = contribution(attention[n], gradient[n]) if by_gradient else attention[n].mean(axis=0)
            flow = block @ flow
        return flow.sum(axis=0)
    read = np.flatnonzero(read_T)
    if len(read) <= 1:  # a class token, or no gradient at all
        row = int(read[0]) if len(read) else 0
        return flow[row] - np.eye(len(flow))[row]
    weights_T = np.maximum(0.0, brought_T) if by_gradient else np.full(len(flow), 1 / len(flow))
    return weights_T @ flow
