"""Simulated low-bit numbers, and scales that fit (RepQ-ViT, zkkli/RepQ-ViT @ a160561).

No processor that medclip runs on multiplies four-bit or six-bit numbers faster: these say what bits cost in exactness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PERCENTILES = (0.999, 0.9999, 0.99999)
"""Shares of the values that a scale may span; the one of the least squared error is taken."""
_LEAST_STEP = 1e-8
_MOST_VALUES = 2**24
"""torch.quantile refuses more; every so-manieth value stands for them then."""


@dataclass(frozen=True, eq=False)
class Uniform:
    """Evenly spaced values: q = clip(round(x / step) + zero, 0, 2^bits - 1)."""

    bits: int
    step: Tensor
    zero: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the values that are left of x, in its own unit."""
        levels = (torch.round(x / self.step) + self.zero).clamp(0, 2**self.bits - 1)
        return (levels - self.zero) * self.step


@dataclass(frozen=True, eq=False)
class LogSqrt2:
    """Values of attention after softmax: powers of 1 / √2 of the largest, and 0 below the last."""

    bits: int
    largest: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the values that are left of x."""
        exponents = torch.round(-2 * (x / self.largest).log2())
        levels = exponents.clamp(0, 2**self.bits - 1)
        odd = 1 + (levels % 2) * (math.sqrt(2) - 1)
        return torch.where(exponents >= 2**self.bits, 0.0, self.largest * 2 ** -torch.ceil(levels / 2) * odd)


def fit_uniform(x: Tensor, bits: int, channel_dim: int | None = None) -> Uniform:
    """Fit evenly spaced values by a search over `PERCENTILES`.

    Args:
        x: Weights, or activations of a calibration batch.
        bits: For each value.
        channel_dim: Axis with a scale of its own for each place; one scale for all where None.
    """
    rows = x.reshape(1, -1) if channel_dim is None else x.movedim(channel_dim, 0).flatten(1)
    steps, zeros, least = None, None, None
    for share in PERCENTILES:
        low, high = _quantile(rows, 1 - share), _quantile(rows, share)
        step = ((high - low) / (2**bits - 1)).clamp(min=_LEAST_STEP)
        zero = torch.round(-low / step)
        error = (Uniform(bits, step, zero)(rows) - rows).square().mean(dim=1, keepdim=True)
        if steps is None or zeros is None or least is None:
            steps, zeros, least = step, zero, error
            continue
        better = error < least
        steps, zeros = torch.where(better, step, steps), torch.where(better, zero, zeros)
        least = torch.where(better, error, least)
    assert steps is not None
    assert zeros is not None
    if channel_dim is None:
        return Uniform(bits, steps[0, 0], zeros[0, 0])
    shape = [1] * x.ndim
    shape[channel_dim] = -1
    return Uniform(bits, steps.reshape(shape), zeros.reshape(shape))


def fit_log_sqrt2(x: Tensor, bits: int) -> LogSqrt2:
    """Fit powers of 1 / √2 to values from 0 to 1."""
    candidates = [LogSqrt2(bits, _quantile(x.reshape(1, -1), share)[0, 0]) for share in PERCENTILES]
    return min(candidates, key=lambda candidate: float((candidate(x) - x).square().mean()))


def clip_channels(low_C: Tensor, high_C: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Hold the extremes of channels within those of a share of the channels: LRP-QViT's step before `spread_scale`.

    Args:
        low_C: Least value of each channel.
        high_C: Largest value of each.
        share: κ, from 0.9 to 1; 1 leaves them as they are.
    """
    return low_C.clamp(min=torch.quantile(low_C, 1 - share)), high_C.clamp(max=torch.quantile(high_C, share))


def spread_scale(
    norm: nn.LayerNorm, linear: nn.Linear, step_C: Tensor, zero_C: Tensor
) -> tuple[nn.LayerNorm, nn.Linear, Uniform]:
    """Move the scales of channels out of a LayerNorm's output and into the linear layer after it; the function stays.

    Args:
        norm: The LayerNorm, affine.
        linear: The layer that takes its output.
        step_C: Step of each channel.
        zero_C: Zero of each channel.

    Returns:
        Another LayerNorm and linear layer of the same function, and the one step and zero that fits all channels of
        what is between them (its `bits` are 8).
    """
    step, zero = step_C.mean(), zero_C.mean()
    ratio_C = step_C / step
    shift_C = -zero_C * step_C / ratio_C + zero * step
    of_weights = {"dtype": linear.weight.dtype, "device": linear.weight.device}
    new_norm = nn.LayerNorm(list(norm.normalized_shape), eps=norm.eps, **of_weights)
    new_linear = nn.Linear(linear.in_features, linear.out_features, **of_weights)
    with torch.no_grad():
        new_norm.weight.copy_(norm.weight / ratio_C)
        new_norm.bias.copy_(norm.bias / ratio_C - shift_C)
        new_linear.weight.copy_(linear.weight * ratio_C)
        bias = 0 if linear.bias is None else linear.bias
        new_linear.bias.copy_(bias + new_linear.weight @ shift_C)
    return new_norm, new_linear, Uniform(8, step, zero)


def _quantile(rows: Tensor, share: float) -> Tensor:
    stride = -(-rows.numel() // _MOST_VALUES)
    return torch.quantile(rows[:, ::stride], share, dim=1, keepdim=True)
