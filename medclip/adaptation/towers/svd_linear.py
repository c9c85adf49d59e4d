"""Layers whose weight is U diag(S) Vᵀ, of which S alone learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
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


WEAK = {torch.float32: 1e-3, torch.float64: 1e-6, torch.bfloat16: 5e-2}
"""Singular values below this share of their root mean square are never divided by, by the precision of the products."""

LARGE = 256
"""Rows from which a wide matrix is transposed before it is decomposed."""


class SVDLinear(nn.Module):
    """y = U (S ⊙ (V x)) + b with U [m, r], V [r, n] and b frozen, S [r] trainable.

    Which of the forms of `svd_products` is computed depends on sizes and on the number of tokens; all give the same.

    Args:
        dense: The layer that is decomposed. Its weight is taken out of it; `merge` gives it back.
        rank: Rank r, at most min(m, n).
    """

    def __init__(self, dense: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        weight = dense.weight.detach().flatten(1)
        exact = weight if weight.dtype == torch.float64 else weight.float()
        left, values, right = _svd(exact)
        self.U = nn.Parameter(left[:, :rank].to(weight.dtype).contiguous(), requires_grad=False)
        self.S = nn.Parameter(values[:rank].to(weight.dtype).clone())
        self.V = nn.Parameter(right[:rank].to(weight.dtype).contiguous(), requires_grad=False)
        self.bias = None if dense.bias is None else nn.Parameter(dense.bias.detach().clone(), requires_grad=False)
        self.out_features, self.in_features = weight.shape
        self.side: torch.dtype = weight.dtype
        """Precision of the products that only the gradient of S needs."""
        self._shape = dense.weight.shape
        dense.weight = None  # type: ignore[assignment]
        dense.bias = None  # type: ignore[assignment]
        self._emptied = (dense,)
        self._made: tuple[Any, Any] = (None, None)
        self._factors: tuple[Any, Any] = (None, None)
        self._seen: tuple[Any, Any] = (None, None)
        self._edition = 0
        self.train(dense.training)

    @property
    def weight(self) -> Tensor:
        """U diag(S) Vᵀ, [m, n]; gradients flow to S."""
        return (self.U * self.S) @ self.V

    def forward(self, x: Tensor) -> Tensor:
        """Return float [..., m] of float [..., n]."""
        form = self.form(x)
        if form == "factored":
            return Factored.apply(x, self.S, self.U, self.V, self.bias)
        return _merged([self], x, form)

    def form(self, x: Tensor) -> Form:
        """Choose how to compute the output of `x`, by the number of multiply-adds."""
        return cheapest(
            x.numel() // self.in_features,
            self.out_features,
            self.in_features,
            len(self.S),
            weak=len(self.factors.weak),
            backward=torch.is_grad_enabled() and self.S.requires_grad,
            needs_input=x.requires_grad,
            side=0.5 if self.side == torch.bfloat16 else 1.0,
        )

    @property
    def factors(self) -> Factors:
        """The matrices, and which singular values are small."""
        key = (self.edition, self.side)
        if self._factors[0] != key:
            S = self.S.detach()
            weak = (S.abs() <= WEAK[self.side] * S.square().mean().sqrt()).nonzero().flatten()
            self._factors = (key, Factors(self.U, self.V, weak))
        return self._factors[1]

    @property
    def edition(self) -> int:
        """A number that rises when anything of the layer has changed: what was made of an older one is stale.

        Optimizers count up the version of what they change; what is written through `.data` counts nothing, for which
        the singular values are compared with a copy. U, V and the bias never learn, and are not compared.
        """
        parts = [p for p in (self.S, self.U, self.V, self.bias) if p is not None]
        state = [(p.data_ptr(), p._version, p.dtype, p.device) for p in parts]
        if self._seen[0] != state or not torch.equal(self.S.detach(), self._seen[1]):
            self._seen = (state, self.S.detach().clone())
            self._edition += 1
        return self._edition

    def merge(self) -> nn.Linear | nn.Conv2d:
        """Return the layer that was decomposed, with the weight of now."""
        dense: Any = self._emptied[0]
        dense.weight = nn.Parameter(self.weight.detach().reshape(self._shape), requires_grad=False)
        dense.bias = self.bias
        return dense.train(self.training)


class SVDConv(SVDLinear):
    """The same for a pointwise convolution (1 x 1, without groups): a linear layer at every place."""

    def __init__(self, dense: nn.Conv2d, rank: int) -> None:
        super().__init__(dense, rank)
        self.stride = dense.stride

    def forward(self, x_BCHW: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return float [B, m, H, W] of float [B, n, H, W], channels last in memory."""
        down, right = self.stride
        x = x_BCHW if down == right == 1 else x_BCHW[:, :, ::down, ::right]
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def project_together(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Return the outputs of layers with the same input side by side, [..., sum of m].

    One product for all where each of them would be computed with its merged weight.
    """
    decomposed = [layer for layer in layers if isinstance(layer, SVDLinear)]
    if len(decomposed) == len(layers) and all(layer.form(x) != "factored" for layer in decomposed):
        return _merged(decomposed, x, "weights")
    return torch.cat([layer(x) for layer in layers], dim=-1)


def _merged(layers: Sequence[SVDLinear], x: Tensor, form: Form) -> Tensor:
    weight, bias = _made(layers)
    if not (torch.is_grad_enabled() and any(layer.S.requires_grad for layer in layers)):
        return F.linear(x, weight, bias)
    parts = [layer.factors for layer in layers]
    return Merged.apply(x, weight, bias, form, layers[0].side, parts, *(layer.S for layer in layers))


@torch.no_grad()
def _made(layers: Sequence[SVDLinear]) -> tuple[Tensor, Tensor | None]:
    """Return the merged weights and biases one above the other; made once for each S, kept at the first layer."""
    key = [(id(layer), layer.edition) for layer in layers]
    holder = layers[0]
    if holder._made[0] != key:
        holder._made = (None, None)
        weight = layers[0].U.new_empty(sum(layer.out_features for layer in layers), layers[0].in_features)
        for layer, rows in zip(layers, weight.split([layer.out_features for layer in layers]), strict=True):
            torch.mm(layer.U * layer.S, layer.V, out=rows)
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        holder._made = (key, (weight, torch.cat(biases) if biases else None))
    return holder._made[1]


def _svd(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose the tall one of a large matrix and its transpose: LAPACK takes twice as long for a wide one."""
    tall = weight.shape[0] >= weight.shape[1] or weight.shape[0] < LARGE
    left, values, right = torch.linalg.svd(weight if tall else weight.T, full_matrices=False)
    return (left, values, right) if tall else (right.T, values, left.T)
