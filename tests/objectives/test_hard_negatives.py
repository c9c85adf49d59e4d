"""Hard-negative identification: golden vectors, sums by hand, a dense form and what masks may not change."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from medclip.objectives.contrastive import clip_loss
from medclip.objectives.hard_negatives import pairwise_loss, row_loss
from medclip.objectives.pairs import Pairs
from tests.kits.objectives import assert_equal_gradients, batches, leaves, relations, unit


def at(*cosines: float) -> Tensor:
    """Unit vectors of those cosines with (1, 0)."""
    return torch.tensor([[c, math.sqrt(1 - c * c)] for c in cosines])


def all_of(size: int, several: int = 1) -> Tensor:
    return torch.ones(size, several, dtype=torch.bool)


def dense_row(image: Tensor, text: Tensor, false: Tensor, scale: Tensor, mask: Tensor, pairs: Pairs | None) -> Tensor:
    positive, ignored, weights, valid = relations(pairs, len(image))
    logits, own = scale * image @ text.T, scale * (false @ image[:, :, None])[..., 0]
    counts = weights * valid * mask.any(1)
    total = sum(
        counts[i]
        * (
            torch.cat([logits[i, valid & ~ignored[i]], own[i, mask[i]]]).logsumexp(0)
            - logits[i, valid & positive[i]].mean()
        )
        for i in counts.nonzero().flatten().tolist()
    )
    return total / counts.sum() if counts.any() else 0 * (image.sum() + text.sum() + false.sum() + scale)


@pytest.mark.golden
def test_both_forms_equal_the_golden_vectors(golden: Path) -> None:
    with np.load(golden / "spec_hqclip.npz") as g:
        names = ("image", "text_long_pos", "text_long_neg")
        image, text, false = (torch.tensor(g[name], dtype=torch.float32) for name in names)
        scale = float(g["logit_scale"])
        features = (image, text, false[:, None], all_of(5), scale)
        assert clip_loss(image, text, scale).item() == pytest.approx(float(g["itc"]), rel=1e-6)
        assert pairwise_loss(*features).item() == pytest.approx(float(g["hni_pairwise"]), rel=1e-6)
        assert row_loss(*features).item() == pytest.approx(float(g["hni_row"]), rel=1e-6)


def test_the_sums_by_hand() -> None:
    image = torch.tensor([[1.0, 0.0]])
    apart = pairwise_loss(image, at(0.5), at(0.4)[:, None], all_of(1), 20.0)
    assert apart.item() == pytest.approx(math.log1p(math.exp(-2)), abs=1e-6)
    equal = pairwise_loss(image, at(0.5), at(0.5)[:, None], all_of(1), 20.0)
    assert equal.item() == pytest.approx(math.log(2), abs=1e-6)
    # of two false texts the mean, and of one image alone the row is that of its true and its false text
    several = pairwise_loss(image, at(0.5), at(0.4, 0.5)[None], all_of(1, 2), 20.0)
    assert several.item() == pytest.approx((0.126928 + 0.693147) / 2, abs=1e-6)
    assert row_loss(image, at(0.5), at(0.4)[:, None], all_of(1), 20.0).item() == pytest.approx(0.126928, abs=1e-6)


def test_true_and_false_logits_have_opposite_gradients_and_change_places() -> None:
    image, text, false = unit(6, 5, 0), unit(6, 5, 1).requires_grad_(), unit(6, 5, 2).requires_grad_()
    loss = pairwise_loss(image, text, false[:, None], all_of(6), 7.0)
    loss.backward()
    assert text.grad is not None
    torch.testing.assert_close(text.grad, -false.grad)  # both are their logit's gradient times scale and image
    swapped = pairwise_loss(image, false, text[:, None], all_of(6), 7.0)
    excess = 7.0 * ((false - text) * image).sum(1).mean()
    torch.testing.assert_close(loss - swapped, excess)


@given(n=st.integers(1, 7), seed=st.integers(0, 10_000), scale=st.floats(0.5, 50))
def test_a_row_is_at_least_image_to_text_and_equals_it_far_from_false_texts(n: int, seed: int, scale: float) -> None:
    image, text, false = (unit(n, 6, seed + k) for k in range(3))
    of_images = cross_entropy(scale * image @ text.T, torch.arange(n)).item()
    assert row_loss(image, text, false[:, None], all_of(n), scale).item() >= of_images - 1e-5
    far = row_loss(image, text, -1e6 * image[:, None], all_of(n), scale).item()
    assert far == pytest.approx(of_images, abs=1e-5, rel=1e-5)


@given(batch=batches(of_texts=True), several=st.integers(1, 3), seed=st.integers(0, 10_000), scale=st.floats(0.1, 60))
def test_the_row_form_and_its_gradients_equal_the_dense_form(
    batch: tuple[int, int, Pairs | None, int], several: int, seed: int, scale: float
) -> None:
    size, width, pairs, chunk = batch
    mask = torch.rand(size, several, generator=torch.Generator().manual_seed(seed)) < 0.6
    false = unit(size * several, width, seed + 2).unflatten(0, (size, several))
    values = (unit(size, width, seed), unit(size, width, seed + 1), false, scale)
    ours, dense = leaves(*values), leaves(*values, dtype=torch.float64)
    loss = row_loss(*ours[:3], mask, ours[3], pairs, chunk=chunk)
    expected = dense_row(*dense, mask, pairs)
    (2 * loss).backward()
    (2 * expected).backward()
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    assert_equal_gradients(ours, dense, atol=3e-5)


def test_the_gradients_of_the_pairwise_form_are_those_of_finite_differences() -> None:
    mask = torch.tensor([[True, True], [True, False], [False, False]])

    def loss(image: Tensor, text: Tensor, false: Tensor, scale: Tensor) -> Tensor:
        return pairwise_loss(image, text, false, mask, scale)

    ours = leaves(unit(3, 4, 0), unit(3, 4, 1), unit(6, 4, 2).unflatten(0, (3, 2)), 3.0)
    loss(*ours).backward()
    for number, tensor in enumerate(ours):
        step = torch.zeros_like(tensor).flatten()
        step[0] = 1e-2
        sides = []
        for sign in (1, -1):
            values = [x.detach().clone() for x in ours]
            values[number] = (values[number].flatten() + sign * step).view_as(tensor)
            sides.append(loss(*values))
        slope = (sides[0] - sides[1]) / 2e-2
        torch.testing.assert_close(tensor.grad.flatten()[0], slope, atol=2e-4, rtol=1e-2)


@pytest.mark.parametrize("form", ["pairwise", "row"])
def test_a_sample_without_false_texts_changes_nothing_even_if_they_are_no_numbers(form: str) -> None:
    image, text, false = unit(4, 6, 0), unit(4, 6, 1), unit(4, 6, 2)[:, None]
    mask = torch.tensor([[True], [False], [True], [False]])
    damaged = false.clone()
    damaged[1] = torch.nan
    image_b = image.clone().requires_grad_()
    if form == "row":
        before, after = row_loss(image, text, false, mask, 9.0), row_loss(image_b, text, damaged, mask, 9.0)
    else:
        other = text.clone()
        other[1] = torch.nan
        before, after = pairwise_loss(image, text, false, mask, 9.0), pairwise_loss(image_b, other, damaged, mask, 9.0)
    after.backward()
    torch.testing.assert_close(before, after)
    assert image_b.grad is not None
    assert not image_b.grad[[1, 3]].any()
    assert image_b.grad[[0, 2]].any()
    nothing = torch.zeros(4, 1, dtype=torch.bool)
    for loss in (pairwise_loss(image, text, false, nothing, 9.0), row_loss(image, text, false, nothing, 9.0)):
        assert loss.item() == 0
