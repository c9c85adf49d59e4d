"""A lens: a fixed number of learned latents look at tokens of any number and kind, and come out as tokens of a ViT.

Perceiver (Jaegle et al., ICML 2021) as in ViT-Lens (Lei et al., CVPR 2024): each round is cross-attention from the
latents to the tokens, a gated feed-forward layer, and blocks of self-attention among the latents, which are not pooled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


@dataclass(frozen=True)
class LensShape:
    """How large a lens is; the published ones of ViT-L have 256 latents of 1,024, 16 heads of 64 among them."""

    latents: int
    """Latents that come out, N."""
    width: int
    """Of a latent, D: that of the ViT behind it."""
    token_width: int
    """Of the tokens that it looks at, C."""
    depth: int = 2
    """Rounds."""
    self_per_cross: int = 1
    """Blocks of self-attention in a round."""
    cross_heads: int = 1
    """Heads that look at tokens."""
    latent_heads: int = 16
    """Heads among latents."""
    head_dim: int = 64
    """Width of a head."""
    tied: bool = False
    """Whether all rounds but the first share their weights."""

    def to_config(self) -> dict[str, Any]:
        """Return the values as a config has them."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> LensShape:
        """Read the values back.

        Raises:
            ValueError: They are of another form; the message says which.
        """
        fields = cls.__dataclass_fields__
        for name, value in values.items():
            right = (
                type(value) is bool if name == "tied" else type(value) is int and value >= (name != "self_per_cross")
            )
            if name not in fields or not right:
                raise ValueError(f"{name} is {str(value)[:60]!r}")
        if lacking := [name for name in ("latents", "width", "token_width") if name not in values]:
            raise ValueError(f"{lacking[0]} is not stated")
        return cls(**values)


class PerceiverLens(nn.Module):
    """Latents that look at tokens.

    Args:
        shape: Shape of the lens.
    """

    def __init__(self, shape: LensShape) -> None:
        super().__init__()
        self.shape = shape
        self.latents = nn.Parameter(torch.randn(shape.latents, shape.width) * 0.02)
        self.layers = nn.ModuleList(_round(shape) for _ in range(min(shape.depth, 2) if shape.tied else shape.depth))

    def forward(self, tokens_BLC: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """Return the latents [B, N, D].

        Args:
            tokens_BLC: Tokens with their positions in them; their order does not matter.
            mask_BL: bool, False for a token that nobody looks at; None looks at all.
        """
        latents_BND = self.latents.expand(len(tokens_BLC), -1, -1)
        for n in range(self.shape.depth):
            cross, feed, others = self.layers[min(n, len(self.layers) - 1)].children()
            latents_BND = latents_BND + cross(latents_BND, tokens_BLC, mask_BL)
            latents_BND = latents_BND + feed(latents_BND)
            for block in others.children():
                attend, then = block.children()
                latents_BND = latents_BND + attend(latents_BND)
                latents_BND = latents_BND + then(latents_BND)
        return latents_BND


def _round(shape: LensShape) -> nn.ModuleList:
    def attention(heads: int, context: int | None) -> _PreNorm:
        return _PreNorm(shape.width, _Attention(shape.width, context or shape.width, heads, shape.head_dim), context)

    def feed() -> _PreNorm:
        return _PreNorm(shape.width, _FeedForward(shape.width))

    blocks = (nn.ModuleList([attention(shape.latent_heads, None), feed()]) for _ in range(shape.self_per_cross))
    return nn.ModuleList([attention(shape.cross_heads, shape.token_width), feed(), nn.ModuleList(blocks)])


class _PreNorm(nn.Module):
    def __init__(self, width: int, fn: nn.Module, context: int | None = None) -> None:
        super().__init__()
        self.fn, self.norm = fn, nn.LayerNorm(width)
        self.norm_context = None if context is None else nn.LayerNorm(context)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        if self.norm_context is None or context is None:
            return self.fn(self.norm(x))
        return self.fn(self.norm(x), self.norm_context(context), mask)


class _Attention(nn.Module):
    def __init__(self, width: int, context: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self._heads = heads
        self.to_q = nn.Linear(width, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(context, 2 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, width)

    def forward(self, x_BND: Tensor, context_BLC: Tensor | None = None, mask_BL: Tensor | None = None) -> Tensor:
        key, value = self.to_kv(x_BND if context_BLC is None else context_BLC).chunk(2, dim=-1)
        query, key, value = (t.unflatten(2, (self._heads, -1)).transpose(1, 2) for t in (self.to_q(x_BND), key, value))
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        mixed_BHNC = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_out(mixed_BHNC.transpose(1, 2).flatten(2))


class _Gated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * gelu(gate)


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, 8 * width), _Gated(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def fourier_positions(positions_X: Tensor, bands: int, max_frequency: float) -> Tensor:
    """Return sines and cosines of places in [-1, 1], and the places themselves: [X, 2 * bands + 1].

    Frequencies lie evenly from 1 to half of `max_frequency`.
    """
    angles_XF = positions_X[:, None] * torch.linspace(1.0, max_frequency / 2, bands) * math.pi
    return torch.cat([angles_XF.sin(), angles_XF.cos(), positions_X[:, None]], dim=1)
