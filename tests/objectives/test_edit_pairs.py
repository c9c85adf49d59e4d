"""Hard negatives over edit pairs: golden vectors, the sum by hand, roles that change places, and who is no negative."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medclip.objectives.contrastive import clip_loss
from medclip.objectives.edit_pairs import edit_pair_loss
from medclip.objectives.hard_negatives import pairwise_loss
from tests.kits.objectives import unit


def halves(size: int) -> Tensor:
    """Keys of `size` pairs: sources first, then their partners."""
    return torch.arange(size).repeat(2)[:, None]


@pytest.mark.golden
def test_it_equals_the_golden_vectors(golden: Path) -> None:
    with np.load(golden / "spec_clipin.npz") as g:
        image, text = (
            torch.tensor(np.concatenate([g[f"{what}_src"], g[f"{what}_edit"]]), dtype=torch.float32)
            for what in ("image", "text")
        )
        scale, size = float(g["logit_scale"]), len(g["image_src"])
        assert clip_loss(image, text, scale).item() == pytest.approx(float(g["clip_loss_2N"]), rel=1e-6)
        symmetric = edit_pair_loss(image, text, halves(size), scale)
        assert symmetric.item() == pytest.approx(float(g["hn_symmetric"]), rel=1e-5)
        there = torch.ones(2 * size, 1, dtype=torch.bool)
        for name, one, other in (("hn_i2t", image, text), ("hn_t2i", text, image)):
            directed = pairwise_loss(one, other, other.roll(size, 0)[:, None], there, scale)
            assert directed.item() == pytest.approx(float(g[name]), rel=1e-5)


def test_the_sum_by_hand() -> None:
    # cosines of image k: 0.5 with its text, 0.4 with the partner's; of the partner's image with text k: 0.45
    image = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    text = torch.tensor([[0.5, 0.45, math.sqrt(1 - 0.4525)], [0.4, 0, math.sqrt(0.84)]])
    one_row = edit_pair_loss(image, text, halves(1), 20.0, weights_B=torch.tensor([1.0, 0]))
    assert one_row.item() == pytest.approx(0.220095, abs=1e-6)


@given(size=st.integers(1, 6), seed=st.integers(0, 10_000), scale=st.floats(0.5, 30))
def test_source_and_edit_may_change_places_and_wrong_texts_cost_what_the_logits_differ(
    size: int, seed: int, scale: float
) -> None:
    image, text, pair = unit(2 * size, 5, seed), unit(2 * size, 5, seed + 1), halves(size)
    right = edit_pair_loss(image, text, pair, scale, chunk=3)
    torch.testing.assert_close(edit_pair_loss(image.roll(size, 0), text.roll(size, 0), pair, scale), right)
    torch.testing.assert_close(edit_pair_loss(text, image, pair, scale), right)
    wrong = edit_pair_loss(image, text.roll(size, 0), pair, scale)
    own, of_text = (image * text).sum(1), (image * text.roll(size, 0)).sum(1)
    of_image = (image.roll(size, 0) * text).sum(1)
    expected = scale * ((own - of_text).mean() + (own - of_image).mean()) / 2
    torch.testing.assert_close(wrong - right, expected, atol=1e-4, rtol=1e-4)


def test_partners_that_say_the_same_and_samples_without_one_take_no_part() -> None:
    image, text = unit(6, 5, 0), unit(6, 5, 1)
    alone = edit_pair_loss(image[:2], text[:2], halves(1), 9.0)
    pair = torch.tensor([0, 0, 1, 1, -1, -1])[:, None]
    same = torch.tensor([-1, -1, 5, 5, -1, -1])[:, None]  # of one patient with one label
    damaged = image.clone()
    damaged[4] = torch.nan
    damaged.requires_grad_()
    loss = edit_pair_loss(damaged, text, pair, 9.0, same_BK=same)
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert damaged.grad is not None
    assert damaged.grad.ne(0).any(1).tolist() == [True, True, False, False, False, False]
    assert edit_pair_loss(image, text, torch.full((6, 1), -1), 9.0).item() == 0


def test_weights_are_those_of_their_rows_however_many_are_searched_at_once() -> None:
    image, text, weights_B = unit(6, 5, 0), unit(6, 5, 1), torch.tensor([0.0, 0, 2, 1, 1, 3])
    at_once, few = (edit_pair_loss(image, text, halves(3), 9.0, weights_B=weights_B, chunk=n) for n in (1024, 2))
    torch.testing.assert_close(few, at_once)
    alone = edit_pair_loss(image, text, torch.tensor([0, 1, -1, 0, 1, -1])[:, None], 9.0, weights_B=weights_B)
    assert at_once != alone, "the sample of weight 3 has a partner that takes no part itself"
