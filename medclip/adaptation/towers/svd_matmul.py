"""Forward and backward of layers whose weight is U diag(S) Vᵀ: four forms with the same result, and what each costs.

With h = Uᵀ g, p = V x and rows of g and x for N tokens, every form gives dL/dS_i = Σ h_i p_i:

- factored: y = U (S ⊙ p); backward through the same two matrices. Keeps p.
- weights: y = W x with W = U diag(S) Vᵀ made once; G = gᵀ x, dS = diag(Uᵀ G V). Keeps x.
- inputs: as before, but from the gradient d of the input, which is needed anyway: V d = S ⊙ h, so
  dS = diag(V (dᵀ x) Vᵀ) / S. A product n x n instead of m x n: a quarter where an MLP widens. Keeps x.
- outputs: as before, but from the output: Uᵀ y = S ⊙ p, so dS = diag(Uᵀ (gᵀ y) U) / S, m x m. Keeps y.

The division is left out for singular values that are small beside the others: their h and p are computed themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Form = Literal["factored", "weights", "inputs", "outputs"]


@dataclass(frozen=True, eq=False)
class Factors:
    """One matrix, decomposed."""

    U: Tensor
    """[m, r]."""
    V: Tensor
    """[r, n]."""
    weak: Tensor
    """int64 [k], the singular values that nothing is divided by."""


def multiplications(
    form: Form,
    tokens: int,
    m: int,
    n: int,
    r: int,
    *,
    weak: int = 0,
    backward: bool = True,
    needs_input: bool = True,
    side: float = 1.0,
    weight_made: bool = False,
) -> float:
    """Count the multiply-adds of one layer in one step.

    Args:
        form: Form in which it is computed.
        tokens: Rows of the input, N.
        m: Outputs.
        n: Inputs.
        r: Rank.
        weak: Singular values that are computed by themselves in the last two forms.
        backward: Whether there is a backward pass.
        needs_input: Whether the gradient of the input is asked for.
        side: Cost of a multiply-add of the products that only dS needs, beside the others': 0.5 in bfloat16.
        weight_made: Whether the merged weight is there already.
    """
    if form == "factored":
        forward = tokens * r * (m + n)
        return forward + (tokens * r * (m + n * needs_input) if backward else 0)
    forward = tokens * m * n + (0 if weight_made else m * n * r)
    if not backward:
        return forward
    if form == "weights":
        return forward + tokens * m * n * needs_input + side * (tokens * m * n + m * n * r)
    width = n if form == "inputs" else m
    dense = tokens * m * n * (needs_input or form == "inputs")
    return forward + dense + side * width * width * (tokens + r) + tokens * weak * (m + n)


def cheapest(tokens: int, m: int, n: int, r: int, **facts: Any) -> Form:
    """Return the form with the fewest multiply-adds; arguments as of `multiplications`."""
    forms: tuple[Form, ...] = ("factored", "weights", "inputs", "outputs")
    return min(forms, key=lambda form: multiplications(form, tokens, m, n, r, **facts))


class Factored(torch.autograd.Function):
    """y = U (S ⊙ (V x)) + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, S: Tensor, U: Tensor, V: Tensor, bias: Tensor | None) -> Tensor:
        """Return y [..., m]; p is kept."""
        p = F.linear(x, V)
        ctx.save_for_backward(p, S, U, V)
        return F.linear(p, U * S, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        """Return the gradients of x and S."""
        p, S, U, V = ctx.saved_tensors
        h = grads[0].to(U.dtype) @ U
        values = (h.flatten(0, -2) * p.flatten(0, -2)).sum(dim=0)
        dx = h @ (S[:, None] * V) if ctx.needs_input_grad[0] else None
        return dx, values, None, None, None


class Merged(torch.autograd.Function):
    """y = W x + b for matrices with the same input, one above the other in W."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        W: Tensor,
        bias: Tensor | None,
        form: Form,
        side: torch.dtype,
        parts: Sequence[Factors],
        *S: Tensor,
    ) -> Tensor:
        """Return y [..., sum of m]."""
        y = F.linear(x, W, bias)
        ctx.form, ctx.side, ctx.parts = form, side, parts
        weak = [x @ f.V[f.weak].T if form in ("inputs", "outputs") and len(f.weak) else None for f in parts]
        # S, U and V, too: autograd then refuses a backward pass through values that have changed since.
        ctx.save_for_backward(
            y if form == "outputs" else x.to(side), W, bias, *S, *(m for f in parts for m in (f.U, f.V)), *weak
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        """Return the gradients of x and of each S."""
        kept, W, bias, S, *others = ctx.saved_tensors
        g = grads[0].to(W.dtype)
        dx = g @ W if ctx.needs_input_grad[0] or ctx.form == "inputs" else None
        if ctx.form == "weights":
            G = _gram(g, kept, ctx.side)
            rows = G.split([len(f.U) for f in ctx.parts])
            values = [_sandwich(f.U.T, part, f.V) for f, part in zip(ctx.parts, rows, strict=True)]
        else:
            (f,) = ctx.parts
            if ctx.form == "inputs":
                assert dx is not None
                scaled = _sandwich(f.V, _gram(dx, kept, ctx.side), f.V)
            else:
                plain = kept if bias is None else kept - bias
                scaled = _sandwich(f.U.T, _gram(g, plain, ctx.side), f.U.T)
            values = [_divided(scaled, S, f, g, others[-1])]
        return (dx if ctx.needs_input_grad[0] else None, None, None, None, None, None, *values)


def _gram(left: Tensor, right: Tensor, side: torch.dtype) -> Tensor:
    """Sum the outer products over all tokens: leftᵀ right."""
    return left.flatten(0, -2).to(side).T @ right.flatten(0, -2).to(side)


def _sandwich(left: Tensor, middle: Tensor, right: Tensor) -> Tensor:
    """Return diag(left middle rightᵀ), [r]."""
    return ((left.to(middle.dtype) @ middle) * right).sum(dim=1)


def _divided(scaled: Tensor, S: Tensor, f: Factors, g: Tensor, p_weak: Tensor | None) -> Tensor:
    values = scaled / S
    if p_weak is None:
        return values
    h_weak = g @ f.U[:, f.weak]
    values[f.weak] = (h_weak.flatten(0, -2) * p_weak.flatten(0, -2)).sum(dim=0)
    return values
