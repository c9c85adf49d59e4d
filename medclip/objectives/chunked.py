"""Losses of a table of logits that is never held whole: gradients are made in the forward pass, chunk by chunk.

A contrastive loss of b rows against N columns is a sum over rows once the sums along columns are known, so the gradient
of the logits can be made for a chunk of rows, turned into gradients of the features, and dropped. Memory is
O(N x chunk) for the chunk and O(N x D) for the gradients; nothing of size b x N is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
