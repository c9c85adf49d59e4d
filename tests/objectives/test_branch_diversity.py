"""ACMIL's diversity of branches: what it is at its ends, and that it pulls branches apart."""

import pytest
import torch

from medclip.objectives.branch_diversity import branch_diversity


def test_branches_that_coincide_have_a_loss_of_one():
    one = torch.randn(1, 30, generator=torch.Generator().manual_seed(0))
    assert branch_diversity(one.expand(5, -1)).item() == pytest.approx(1, abs=1e-6)


def test_one_branch_has_a_loss_of_zero_and_a_gradient():
    attention = torch.randn(1, 30, requires_grad=True)
    loss = branch_diversity(attention)
    loss.backward()
    assert loss.item() == 0
    assert attention.grad is not None
    assert not attention.grad.any()


def test_branches_on_different_patches_have_nearly_none():
    attention = torch.full((3, 9), -20.0)
    attention[torch.arange(3), torch.arange(3)] = 20.0
    assert branch_diversity(attention).item() == pytest.approx(0, abs=1e-6)


def test_it_is_the_mean_over_pairs_of_the_cosine_of_shares():
    attention = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))
    shares = attention.softmax(dim=-1)
    pairs = [
        torch.nn.functional.cosine_similarity(shares[i], shares[j], dim=0) for i in range(4) for j in range(i + 1, 4)
    ]
    assert branch_diversity(attention).item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)
