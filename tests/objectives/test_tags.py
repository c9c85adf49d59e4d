"""Tags: both forms against the golden vectors, sums by hand, and that what is unknown is no statement."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medclip.objectives.contrastive import clip_loss
from medclip.objectives.hard_negatives import pairwise_loss
from medclip.objectives.tags import tag_softmax_loss
from medclip.training.steps.supervised import supervised_loss


@pytest.mark.golden
def test_both_forms_and_the_sum_of_all_losses_equal_the_golden_vectors(golden: Path) -> None:
    with np.load(golden / "spec_hqclip.npz") as g:
        logits, labels = torch.tensor(g["tag_logits"], dtype=torch.float32), torch.tensor(g["tag_labels"])
        target = torch.where(labels < 0, torch.nan, labels.float())
        of_each = supervised_loss(logits, target, "multilabel")
        assert of_each.item() == pytest.approx(float(g["stc_masked_bce"]), rel=1e-6)
        assert tag_softmax_loss(logits, labels == 1).item() == pytest.approx(float(g["stc_softmax"]), rel=1e-6)
        names = ("image", "text_long_pos", "text_long_neg")
        image, text, false = (torch.tensor(g[name], dtype=torch.float32) for name in names)
        there = torch.ones(5, 1, dtype=torch.bool)
        words = clip_loss(image, text, 20.0) + pairwise_loss(image, text, false[:, None], there, 20.0)
        assert (words + of_each).item() == pytest.approx(float(g["total_a1_b1"]), rel=1e-6)


def test_nothing_known_is_no_loss_and_no_gradient_and_one_known_tag_is_ln_2() -> None:
    for known in (False, True):
        logits = torch.zeros(2, 3, requires_grad=True)
        target = torch.full((2, 3), torch.nan)
        if known:
            target[0, 1] = 1
        loss = supervised_loss(logits, target, "multilabel")
        loss.backward()
        assert loss.item() == pytest.approx(math.log(2) * known, abs=1e-6)
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert logits.grad.count_nonzero() == known
    logits = torch.full((2, 3), torch.nan, requires_grad=True)
    loss = tag_softmax_loss(logits, torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@given(n=st.integers(1, 6), c=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_the_softmax_form_is_torchs_over_the_images_that_state_something(n: int, c: int, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=chance, requires_grad=True)
    stated = torch.rand(n, c, generator=chance) < 0.4
    rows = stated.any(1)
    loss = tag_softmax_loss(logits, stated)
    if not rows.any():
        assert loss.item() == 0
        return
    shares = stated[rows].float() / stated[rows].sum(1, keepdim=True)
    expected = torch.nn.functional.cross_entropy(logits[rows], shares)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)
    parts = sum(
        tag_softmax_loss(logits[i : i + 1], stated[i : i + 1], num_stating=rows.sum().float()) for i in range(n)
    )
    torch.testing.assert_close(parts, expected)
