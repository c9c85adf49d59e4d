"""The contrastive loss against golden vectors and closed forms."""

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
from medclip.training.optim import learning_rate


def _unit(n: int, d: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_identical_features_give_the_logarithm_of_the_batch_size(size: int) -> None:
    same = torch.nn.functional.normalize(torch.ones(size, 5), dim=1)
    assert float(clip_loss(same, same, 14.0)) == pytest.approx(math.log(size), abs=1e-5)


def test_orthonormal_matched_pairs_give_the_closed_form() -> None:
    eye = torch.eye(3)
    assert float(clip_loss(eye, eye, 10.0)) == pytest.approx(math.log(1 + 2 * math.exp(-10)), rel=1e-3)
    assert float(clip_loss(eye.double(), eye.double(), 10.0)) == pytest.approx(9.0796e-5, rel=1e-3)


@given(n=st.integers(2, 9), seed=st.integers(0, 10_000))
def test_the_loss_is_symmetric_and_does_not_depend_on_the_order_of_pairs(n: int, seed: int) -> None:
    image, text = _unit(n, 6, seed), _unit(n, 6, seed + 1)
    loss = clip_loss(image, text, 5.0)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(clip_loss(text, image, 5.0), loss)
    torch.testing.assert_close(clip_loss(image[order], text[order], 5.0), loss)


@given(n=st.integers(2, 9), seed=st.integers(0, 10_000))
def test_identity_targets_equal_no_targets(n: int, seed: int) -> None:
    image, text = _unit(n, 6, seed), _unit(n, 6, seed + 1)
    torch.testing.assert_close(clip_loss(image, text, 5.0, torch.eye(n)), clip_loss(image, text, 5.0))


def test_half_precision_features_are_computed_in_float32() -> None:
    image, text = _unit(4, 8, 0).bfloat16(), _unit(4, 8, 1).bfloat16()
    loss = clip_loss(image, text, 100.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, clip_loss(image.float(), text.float(), 100.0))


@pytest.mark.shared
@pytest.mark.parametrize("case", ["small", "mid", "scale100"])
def test_the_loss_and_its_gradients_equal_the_golden_vectors(shared: Path, case: str) -> None:
    golden = np.load(shared / "specs/golden/core_clip_siglip_losses.npz", allow_pickle=False)
    image, text, scale = (
        torch.tensor(golden[f"clip/{case}/{k}"], requires_grad=True) for k in ("image", "text", "scale")
    )
    loss = clip_loss(image, text, scale)
    loss.backward()
    np.testing.assert_allclose(loss.item(), golden[f"clip/{case}/loss"], atol=1e-5, rtol=1e-4)
    for tensor, name in ((image, "image"), (text, "text"), (scale, "scale")):
        np.testing.assert_allclose(tensor.grad, golden[f"clip/{case}/grad_{name}"], atol=1e-5, rtol=1e-3)


@pytest.mark.shared
def test_the_loss_over_gathered_features_equals_the_golden_one(shared: Path) -> None:
    golden = np.load(shared / "specs/golden/core_clip_siglip_losses.npz", allow_pickle=False)
    image, text, scale = (torch.tensor(golden[f"sharded/{k}"]) for k in ("image", "text", "scale"))
    np.testing.assert_allclose(clip_loss(image, text, scale), golden["sharded/full"], atol=1e-5, rtol=1e-4)


@pytest.mark.shared
def test_the_learning_rate_follows_the_golden_schedule(shared: Path) -> None:
    golden = np.load(shared / "specs/golden/core_clip_siglip_losses.npz", allow_pickle=False)
    ours = [learning_rate(int(s), base=5e-4, warmup_steps=2000, total_steps=25800) for s in golden["lr/steps"]]
    np.testing.assert_allclose(ours, golden["lr/values"], rtol=1e-6, atol=1e-12)
