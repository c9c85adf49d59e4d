"""Softened targets: the reconstructed formulas, label smoothing and InfoNCE as their ends, and pairs of a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from medclip.objectives.contrastive import clip_loss
from medclip.objectives.pairs import Pairs
from medclip.objectives.softened import softened_loss, softened_targets
from tests.kits.objectives import check_golden, unit


@pytest.mark.parametrize("share", ["0.0", "0.05", "0.2"])
def test_targets_and_loss_are_those_of_the_formula(share: str, golden: Path) -> None:
    with np.load(golden / "spec_lightclip.npz") as g:
        image, text = (torch.tensor(g[name], dtype=torch.float32) for name in ("image", "text"))
        eye = torch.eye(5, dtype=torch.bool)
        target = softened_targets(image @ text.T, eye, ~eye, float(share), float(g["soften_scale"]))
        np.testing.assert_allclose(target.numpy(), g[f"target_i2t_a{share}"], atol=1e-6)
        check_golden(
            softened_loss(image, text, float(g["logit_scale"]), float(share), similarity=float(g["soften_scale"])),
            g[f"loss_a{share}"],
        )


@pytest.mark.parametrize("share", ["0.0", "0.1", "0.2"])
@pytest.mark.parametrize("name", ["GS", "LT", "RS", "RT", "GA", "LA"])
def test_alike_others_are_pyramidclips_targets(share: str, name: str, golden: Path) -> None:
    images = {"G": "global_image", "L": "local_image", "R": "roi"}
    texts = {"S": "summary", "T": "text", "A": "attr"}
    with np.load(golden / "spec_pyramidclip_softened.npz") as g:
        image, text = (torch.tensor(g[of], dtype=torch.float32) for of in (images[name[0]], texts[name[1]]))
        value = softened_loss(image, text, float(g["logit_scale"]), float(share), similarity=0.0)
        check_golden(value, g[f"{name}_a{share}"])


def test_the_hand_check_of_a_row() -> None:
    eye = torch.eye(3, dtype=torch.bool)[:1]
    target = softened_targets(torch.tensor([[0.9, 0.2, 0.4]]), eye, ~eye, 0.3, 5.0)
    np.testing.assert_allclose(target.numpy(), [[0.7, 0.080682, 0.219318]], atol=1e-6)


@given(st.integers(2, 8), st.floats(0, 0.9), st.integers(0, 10**6))
def test_alike_others_are_label_smoothing(size: int, share: float, seed: int) -> None:
    image, text = unit(size, 4, seed).float(), unit(size, 4, seed + 1).float()
    value = softened_loss(image, text, 7.0, share, similarity=0.0)
    logits, own = 7.0 * image @ text.T, torch.arange(size)
    smoothing = share * size / (size - 1)
    if smoothing <= 1:
        both = [cross_entropy(z, own, label_smoothing=smoothing) for z in (logits, logits.T)]
        torch.testing.assert_close(value, (both[0] + both[1]) / 2, rtol=1e-4, atol=1e-5)


POSITIVE = torch.tensor([[0], [1], [0], [2], [3], [-1]])
TEXTS = torch.tensor([[0], [1], [-1], [2], [1], [-1]])
PAIRS = {
    "none": None,
    "positives": Pairs(positive_BK=POSITIVE),
    "of texts": Pairs(positive_BK=POSITIVE, text_positive_BK=TEXTS),
    "ignored": Pairs(ignored_BK=POSITIVE),
    "weights": Pairs(weights_B=torch.tensor([1.0, 0, 3, 1, 2, 1])),
    "valid": Pairs(positive_BK=POSITIVE, valid_B=torch.tensor([True, False, True, True, False, True])),
}


@pytest.mark.parametrize("name", PAIRS)
def test_without_a_share_it_is_the_clip_loss_with_its_gradients(name: str) -> None:
    values = []
    for loss in (clip_loss, lambda *of: softened_loss(*of[:3], 0.0, pairs=of[3])):
        image, text = (unit(6, 4, seed).float().requires_grad_() for seed in (0, 1))
        scale = torch.tensor(6.0, requires_grad=True)
        value = loss(image, text, scale, PAIRS[name])
        value.backward()
        values.append((value.detach(), image.grad, text.grad, scale.grad))
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-6)


def test_what_is_left_out_gets_no_share() -> None:
    eye, ignored = torch.eye(3, dtype=torch.bool), torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    target = softened_targets(torch.zeros(3, 3), eye, ~eye & ~ignored, 0.4, 5.0)
    np.testing.assert_allclose(target.numpy(), [[0.6, 0, 0.4], [0, 0.6, 0.4], [0.2, 0.2, 0.6]], atol=1e-6)
    alone = softened_targets(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1) > 0, 0.4, 5.0)
    assert alone.tolist() == [[1.0]]


def test_targets_are_not_moved_by_the_gradient() -> None:
    image, text = unit(5, 4, 0).float().requires_grad_(), unit(5, 4, 1).float()
    (slope,) = torch.autograd.grad(softened_loss(image, text, 7.0, 0.3), image)
    eye, logits = torch.eye(5, dtype=torch.bool), 7.0 * image @ text.T
    cosine = (image @ text.T).detach()
    fixed = [softened_targets(of, eye, ~eye, 0.3, 5.0) for of in (cosine, cosine.T)]
    both = [cross_entropy(z, target) for z, target in zip((logits, logits.T), fixed, strict=True)]
    (expected,) = torch.autograd.grad((both[0] + both[1]) / 2, image)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)
