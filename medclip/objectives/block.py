"""The rows of one rank against the columns of all, in a table of logits that is never held whole.

A contrastive loss of b rows against N columns is a sum over rows once the sums along columns are known, so the gradient
of the logits can be made for a chunk of rows in the forward pass, turned into gradients of the features, and dropped.
Memory is O(N x chunk) for the chunk and O(N x D) for the gradients; nothing of size b x N is kept for the backward
pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medclip.errors import MedclipError, Reason
from medclip.objectives.pairs import Pairs, of_other_source, positives

Walk = Callable[[Sequence[bool]], tuple[Tensor, list[Tensor | None]]]
"""Given which inputs need gradients: the loss, and the gradient of each input (None where it is not needed)."""


class _Walked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, walk: Walk, *inputs: Tensor) -> Tensor:
        value, grads = walk(ctx.needs_input_grad[1:])
        ctx.save_for_backward(*grads)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *(None if saved is None else saved * grads[0] for saved in ctx.saved_tensors)


@contextmanager
def _all_bits(device: torch.device) -> Iterator[None]:
    """Multiply in float32 where a run allows TF32: a scale of 100 would make its error one of the logits."""
    before = torch.get_float32_matmul_precision()
    if device.type != "cuda" or before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def walked(walk: Walk, *inputs: Tensor) -> Tensor:
    """Return the loss of a walk, differentiable once with respect to its inputs. Autocast is off inside the walk.

    Args:
        walk: Function that uses the inputs and makes the loss and its gradients.
        inputs: float32 tensors of one device.
    """
    with torch.autocast(inputs[0].device.type, enabled=False), _all_bits(inputs[0].device):
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            return _Walked.apply(walk, *inputs)  # type: ignore[return-value]
        with torch.no_grad():
            return walk([False] * len(inputs))[0]


def scalar(value: Tensor | float, device: torch.device) -> Tensor:
    """Return a number or a tensor of one element (a parameter, say) as a float32 scalar that keeps its gradient."""
    return torch.as_tensor(value, device=device).float().reshape(())


class FeatureGradients:
    """Adds up, chunk by chunk, the gradients of `scale * rows @ cols.T` with respect to rows, columns and scale.

    Args:
        rows_bD: float32 rows.
        cols_ND: float32 columns.
        needs: Whether rows, columns and scale need a gradient.
    """

    def __init__(self, rows_bD: Tensor, cols_ND: Tensor, needs: Sequence[bool]) -> None:
        self._rows_bD, self._cols_ND = rows_bD, cols_ND
        self._needs = needs[:3]
        # The scale's gradient is the dot product of either side with its unscaled gradient, whichever is made anyway.
        with_rows = needs[0] or (needs[2] and not needs[1])
        self._of_rows = torch.zeros_like(rows_bD, memory_format=torch.contiguous_format) if with_rows else None
        self._of_cols = torch.zeros_like(cols_ND, memory_format=torch.contiguous_format) if needs[1] else None

    def add(self, part: slice, grad_cN: Tensor) -> None:
        """Take up the gradient of the logits of some rows."""
        if self._of_rows is not None:
            torch.mm(grad_cN, self._cols_ND, out=self._of_rows[part])
        if self._of_cols is not None:
            self._of_cols.addmm_(grad_cN.T, self._rows_bD[part])

    def result(self, scale: Tensor) -> list[Tensor | None]:
        """Return the gradients of rows, columns and scale; to be called once."""
        of_scale = None
        if self._needs[2]:
            side, grad = (self._rows_bD, self._of_rows) if self._of_rows is not None else (self._cols_ND, self._of_cols)
            assert grad is not None
            of_scale = (side * grad).sum()
        of_rows = self._of_rows.mul_(scale) if self._of_rows is not None and self._needs[0] else None
        of_cols = self._of_cols.mul_(scale) if self._of_cols is not None else None
        return [of_rows, of_cols, of_scale]


@dataclass(frozen=True, eq=False)
class Block:
    """One rank's b rows and all N columns. No tensor is of size b x N.

    Samples that take no part keep their place, with zeros for features, weights of 0 and pairs that are left out: to
    cut them out, the host would have to wait for a GPU until it knows how many they are.

    Args:
        own_b: int64: the column in which each row's own partner stands.
        row_weights_b: float32. The weights of all ranks' rows add up to the number of ranks, so that the mean over
            ranks of a weighted sum is the weighted mean over the whole batch.
        col_weights_N: float32, the same for columns.
        even: Whether all weights are equal.
        valid: bool [b] and [N]: which rows and columns take part; None where all do.
        positive_keys: int64 [b, K] keys of the rows and [N, K] of the columns; None: only partners are positives.
        ignored_keys: Keys, likewise, of pairs that are neither positives nor negatives.
        sources: int64 [b, 2] and [N, 2] keys of kind and source; None: a pair of two sources is a pair like any other.
    """

    own_b: Tensor
    row_weights_b: Tensor
    col_weights_N: Tensor
    even: bool = True
    valid: tuple[Tensor, Tensor] | None = None
    positive_keys: tuple[Tensor, Tensor] | None = None
    ignored_keys: tuple[Tensor, Tensor] | None = None
    sources: tuple[Tensor, Tensor] | None = None

    def take_rows(self, local_bD: Tensor) -> Tensor:
        """Return the rows, zeros where they take no part."""
        return local_bD if self.valid is None else torch.where(self.valid[0][:, None], local_bD, 0)

    def take_cols(self, whole_ND: Tensor) -> Tensor:
        """Return the columns, zeros where they take no part."""
        return whole_ND if self.valid is None else torch.where(self.valid[1][:, None], whole_ND, 0)

    def parts(self, chunk: int) -> Iterator[slice]:
        """Cut the rows into chunks.

        Raises:
            MedclipError: WRONG_USE for a chunk of no rows.
        """
        if chunk < 1:
            raise MedclipError(Reason.WRONG_USE, f"chunk is {chunk}; at least one row is needed at a time.")
        size = len(self.own_b)
        for start in range(0, size, chunk):
            yield slice(start, min(start + chunk, size))

    def positive(self, part: slice) -> Tensor | None:
        """Mark the positives of some rows: bool [c, N]; None where each row has only its own partner."""
        if self.positive_keys is None:
            return None
        rows, cols = self.positive_keys
        same = positives(rows[part], cols)
        same.scatter_(1, self.own_b[part, None], True)
        return same if self.valid is None else same.logical_and_(self._both_valid(part))

    def pair_weights(self, part: slice) -> Tensor:
        """Return the mean weight of the two samples of each pair: float32 [c, N], or [1] where all are equal."""
        if self.even:
            return self.col_weights_N.max()[None]  # 0 where a sample takes no part
        return (self.row_weights_b[part, None] + self.col_weights_N) / 2

    def left_out(self, part: slice, positive: Tensor | None) -> Tensor | None:
        """Mark the pairs of some rows that are neither positives nor negatives: bool [c, N]; None without any."""
        marked = []
        if self.ignored_keys is not None:
            rows, cols = self.ignored_keys
            marked.append(positives(rows[part], cols))
        if self.sources is not None:
            rows, cols = self.sources
            marked.append(of_other_source(rows[part], cols))
        outside = None if self.valid is None else ~self._both_valid(part)
        if not marked:
            return outside
        same = functools.reduce(torch.logical_or, marked)
        same = same.scatter(1, self.own_b[part, None], False) if positive is None else same & ~positive
        return same if outside is None else same | outside

    def _both_valid(self, part: slice) -> Tensor:
        assert self.valid is not None
        return self.valid[0][part, None] & self.valid[1]


def make_block(pairs: Pairs | None, size: int, rank: int, ranks: int, device: torch.device) -> Block:
    """Lay out one rank's rows against the columns of all ranks.

    Args:
        pairs: Pairs of the whole batch, in the order of ranks.
        size: Number of samples of the whole batch.
        rank: Number of the rank of the rows: samples rank * b to (rank + 1) * b, with b = size // ranks.
        ranks: Number of ranks.
        device: Device of the features.

    Raises:
        MedclipError: WRONG_USE for pairs of another size.
    """
    own_rows = slice(rank * (size // ranks), (rank + 1) * (size // ranks))
    own_N = torch.arange(size, device=device)
    if pairs is None:
        weights_N = torch.full((size,), ranks / max(size, 1), device=device)
        return Block(own_N[own_rows], weights_N[own_rows], weights_N)
    pairs.check(size)
    weights_N = torch.ones(size, device=device) if pairs.weights_B is None else pairs.weights_B.float()
    if pairs.valid_B is not None:
        weights_N = weights_N * pairs.valid_B
    weights_N = weights_N * (ranks / weights_N.sum().clamp_min(1e-30))
    positive, ignored = (k if k is not None and k.shape[1] else None for k in (pairs.positive_BK, pairs.ignored_BK))
    return Block(
        own_b=own_N[own_rows],
        row_weights_b=weights_N[own_rows],
        col_weights_N=weights_N,
        even=pairs.weights_B is None,
        valid=None if pairs.valid_B is None else (pairs.valid_B[own_rows], pairs.valid_B),
        positive_keys=None if positive is None else (positive[own_rows], pairs.of_texts(positive)),
        ignored_keys=None if ignored is None else (ignored[own_rows], ignored),
        sources=None if pairs.sources_B2 is None else (pairs.sources_B2[own_rows], pairs.sources_B2),
    )


def check_features(*features_BD: Tensor) -> None:
    """Raise WRONG_USE if features of the same samples are not all [B, D]."""
    shapes = [list(x.shape) for x in features_BD]
    if len(shapes[0]) != 2 or any(shape != shapes[0] for shape in shapes):
        raise MedclipError(Reason.WRONG_USE, f"features have the shapes {shapes}; expected the same [B, D] for all.")
