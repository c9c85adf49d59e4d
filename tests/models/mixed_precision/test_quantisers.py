"""Simulated bits are those of RepQ-ViT's code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from medclip.models.mixed_precision.quantisers import (
    Uniform,
    clip_channels,
    fit_log_sqrt2,
    fit_uniform,
    spread_scale,
)


@pytest.fixture(scope="module")
def values(golden: Path) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in np.load(golden / "quant_lrp.npz").items()}


@pytest.mark.shared
@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize(("name", "channel_dim"), [("tensor", None), ("channel", 2)])
def test_evenly_spaced_values_are_those_of_the_published_code(
    bits: int, name: str, channel_dim: int | None, values: dict[str, Tensor]
):
    fitted = fit_uniform(values["x"], bits, channel_dim)
    torch.testing.assert_close(fitted(values["x"]), values[f"u{bits}_{name}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(fitted.step, values[f"u{bits}_{name}_delta"], atol=1e-5, rtol=0)
    torch.testing.assert_close(fitted.zero, values[f"u{bits}_{name}_zp"])


@pytest.mark.shared
def test_attention_after_softmax_has_powers_of_the_root_of_a_half(values: dict[str, Tensor]):
    fitted = fit_log_sqrt2(values["softmax"], 4)
    torch.testing.assert_close(fitted(values["softmax"]), values["logsqrt2_4"], atol=1e-5, rtol=0)
    torch.testing.assert_close(fitted.largest, values["logsqrt2_4_delta"])
    assert fitted(torch.zeros(3)).tolist() == [0, 0, 0]


def layers(values: dict[str, Tensor]) -> tuple[nn.LayerNorm, nn.Linear]:
    norm, linear = nn.LayerNorm(6), nn.Linear(6, 5)
    with torch.no_grad():
        for parameter, name in (
            (norm.weight, "ln_w"), (norm.bias, "ln_b"), (linear.weight, "fc_w"), (linear.bias, "fc_b"),
        ):  # fmt: skip
            parameter.copy_(values[name])
    return norm, linear


@pytest.mark.shared
@torch.no_grad()
def test_scales_of_channels_move_into_the_next_layer_as_in_the_published_code(values: dict[str, Tensor]):
    norm, linear = layers(values)
    new_norm, new_linear, one = spread_scale(norm, linear, values["act_delta"], values["act_zp"])
    for value, name in (
        (new_norm.weight, "rep_ln_w"), (new_norm.bias, "rep_ln_b"), (new_linear.weight, "rep_fc_w"),
        (new_linear.bias, "rep_fc_b"), (new_linear(new_norm(values["x"])), "y_reparam"), (one.step, "target_delta"),
        (one.zero, "target_zp"),
    ):  # fmt: skip
        torch.testing.assert_close(value, values[name], atol=1e-5, rtol=0)
    torch.testing.assert_close(new_linear(new_norm(values["x"])), values["y_fp"], atol=1e-5, rtol=0)


@given(seed=st.integers(0, 2**16))
@torch.no_grad()
def test_the_function_stays_whatever_the_scales_are(seed: int):
    random = torch.Generator().manual_seed(seed)
    norm, linear = nn.LayerNorm(6).double(), nn.Linear(6, 5).double()
    x = torch.randn(4, 6, generator=random, dtype=torch.float64)
    step = torch.rand(6, generator=random, dtype=torch.float64) + 0.05
    zero = torch.randint(0, 16, (6,), generator=random).double()
    new_norm, new_linear, _ = spread_scale(norm, linear, step, zero)
    torch.testing.assert_close(new_linear(new_norm(x)), linear(norm(x)))


def test_by_hand_four_values_in_two_bits_are_exact():
    uniform = Uniform(2, torch.tensor(1.0), torch.tensor(0.0))
    assert uniform(torch.tensor([0.0, 1.0, 2.0, 3.0, 1.4, 9.0])).tolist() == [0, 1, 2, 3, 1, 3]


def test_more_bits_are_never_less_exact_and_eight_are_close():
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    errors = [float((fit_uniform(x, bits)(x) - x).square().mean()) for bits in (4, 6, 8)]
    assert errors[0] > errors[1] > errors[2]
    eight = fit_uniform(x, 8)(x)
    assert nn.functional.cosine_similarity(eight.flatten(), x.flatten(), dim=0) >= 0.999


def test_a_constant_channel_stays_finite():
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 2.0
    assert torch.isfinite(fit_uniform(x, 4, 1)(x)).all()


def test_the_extremes_of_channels_are_held_within_those_of_most():
    low, high = torch.tensor([-9.0, -1, -1, -1, -2]), torch.tensor([1.0, 1, 8, 1, 2])
    kept_low, kept_high = clip_channels(low, high, 0.75)
    assert kept_low.tolist() == [-2, -1, -1, -1, -2]
    assert kept_high.tolist() == [1, 1, 2, 1, 2]
    assert all(map(torch.equal, clip_channels(low, high, 1.0), (low, high)))
