"""Layers whose weight is U diag(S) Vᵀ, of which S alone learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medclip.adaptation.towers.svd_matmul import Factored, Factors, Form, Merged, cheapest

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
