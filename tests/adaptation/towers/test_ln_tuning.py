from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from medclip.adaptation.towers.ln_tuning import alignment, groups_of, slerp, slerp_within, uniformity
from tests.kits.adapt_golden_text import load


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)


@pytest.mark.golden
def test_losses_and_gradients_equal_the_reference(golden: Path) -> None:
    g = load(golden / "ln_tuning.npz")
    z, W, b = (torch.tensor(g[k], requires_grad=True) for k in ("z", "W", "b"))
    labels = torch.tensor(g["labels"])
    w_ce, w_uniform, w_align = (float(w) for w in g["weights"])
    ce, align, uniform = cross_entropy(z @ W.T + b, labels), alignment(z, labels), uniformity(z)
    total = w_ce * ce + w_uniform * uniform + w_align * align
    for name, value in (("ce", ce), ("alignment", align), ("uniformity", uniform), ("total", total)):
        close(value, g[name])
    total.backward()
    for name, tensor in (("grad_z", z), ("grad_W", W), ("grad_b", b)):
        assert tensor.grad is not None
        close(tensor.grad, g[name])
    close(alignment(z, labels, alpha=1.0), g["align_alpha1"])
    close(uniformity(z, t=3.0), g["uniform_t3"])
    close(alignment(z, torch.arange(len(z))), g["align_single_class_pairs"])


@pytest.mark.golden
def test_slerp_equals_the_reference(golden: Path) -> None:
    g = load(golden / "ln_tuning.npz")
    a, b, t = (torch.tensor(g[f"slerp_{k}"]) for k in ("A", "B", "t"))
    close(slerp(a, b, t), g["slerp_out"])
    close(slerp(a, b, 0.5), g["slerp_half"])
    close(slerp(a, a, t), g["slerp_self"])


def test_hand_examples() -> None:
    two = torch.eye(2)
    assert float(alignment(two, torch.tensor([0, 0]))) == pytest.approx(2.0)
    assert float(uniformity(two)) == pytest.approx(-4.0)
    three = torch.eye(3)
    assert float(alignment(three, torch.zeros(3, dtype=torch.int64))) == pytest.approx(2.0)
    assert float(uniformity(three)) == pytest.approx(-4.0)
    antipodal = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert float(alignment(antipodal, torch.tensor([0, 0]))) == pytest.approx(4.0)
    assert float(uniformity(antipodal)) == pytest.approx(-8.0)
    half = slerp(two[:1], two[1:], 0.5)
    torch.testing.assert_close(half, torch.full((1, 2), math.sqrt(0.5)))
    torch.testing.assert_close(slerp(two[:1], two[1:], 0.0), two[:1])


@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from([1.0, 1e-2, 1e-3, 1e-4, 1e-6, 0.0]))
def test_every_point_on_the_way_has_norm_one_and_a_finite_gradient(seed: int, t: float, apart: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = normalize(torch.randn(3, 5, generator=generator), dim=-1).requires_grad_()
    b = a.detach() + apart * torch.randn(3, 5, generator=generator)
    made = slerp(a, b, t)
    torch.testing.assert_close(made.norm(dim=-1), torch.ones(3), atol=1e-5, rtol=0)
    made.sum().backward()
    assert a.grad is not None
    assert bool(torch.isfinite(a.grad).all())


def test_half_precision_features_are_computed_in_single_precision() -> None:
    a = torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16)
    assert slerp(a, a, 0.3).dtype == torch.float32
    assert bool(torch.isfinite(slerp(a, a, 0.3)).all())
    assert alignment(a.repeat(2, 1), torch.zeros(2)).dtype == torch.float32


def test_a_batch_of_one_costs_nothing_and_has_gradients() -> None:
    z = torch.tensor([[1.0, 0.0]], requires_grad=True)
    total = uniformity(z) + alignment(z, torch.tensor([0]))
    assert float(total.detach()) == 0.0
    total.backward()
    assert z.grad is not None
    assert z.grad.abs().max() == 0


def test_features_move_only_within_their_group() -> None:
    groups = torch.tensor([0, 0, 1, 1, 2])
    z = torch.eye(5)
    made = slerp_within(z, groups, (0.0, 1.0), torch.Generator().manual_seed(3))
    assert torch.equal(made[4], z[4])
    for row, group in enumerate(groups.tolist()):
        assert float(made[row][groups != group].abs().max()) < 1e-6
    torch.testing.assert_close(made.norm(dim=-1), torch.ones(5))
    again = slerp_within(z, groups, (0.0, 1.0), torch.Generator().manual_seed(3))
    assert torch.equal(made, again)


def test_units_are_grouped_by_what_they_show_and_unknown_ones_stand_alone() -> None:
    assert groups_of(torch.tensor([2, 0, 2])).tolist() == [2, 0, 2]
    nan = float("nan")
    found = groups_of(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [nan, 0.0], [nan, 0.0]])).tolist()
    assert found[0] == found[2]
    assert len(set(found)) == 4
