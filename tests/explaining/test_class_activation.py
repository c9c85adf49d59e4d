"""Grad-CAM, Score-CAM and gScoreCAM against the golden vectors and small sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medclip.explaining.class_activation import gradient_weights, score_weights, weighted_map
from medclip.explaining.maps import scaled


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "explainability.npz"))


def _tensor(vectors: dict[str, np.ndarray], name: str) -> torch.Tensor:
    return torch.from_numpy(vectors[name])


def _check(vectors: dict[str, np.ndarray], name: str, weights: torch.Tensor, activation: torch.Tensor) -> None:
    np.testing.assert_allclose(weights, vectors[f"{name}_weights"][0], atol=1e-6)
    np.testing.assert_allclose(scaled(weighted_map(weights, activation).numpy()), vectors[f"{name}_map"][0], atol=1e-5)


@pytest.mark.golden
def test_grad_cam(vectors: dict[str, np.ndarray]):
    activation = _tensor(vectors, "cam_act")[0]
    _check(vectors, "gradcam", gradient_weights(_tensor(vectors, "cam_grad")[0]), activation)


@pytest.mark.golden
@pytest.mark.parametrize(("name", "channels"), [("scorecam", None), ("gscorecam_k4", 4), ("gscorecam_k12", 12)])
def test_score_cam_and_gscore_cam(vectors: dict[str, np.ndarray], name: str, channels: int | None):
    activation, gradient, image = (_tensor(vectors, f"cam_{key}")[0] for key in ("act", "grad", "image"))
    weight_PC, category = _tensor(vectors, "cam_W"), int(vectors["cam_category"])
    weights = score_weights(
        activation,
        image,
        lambda images: (images.flatten(1) @ weight_PC)[:, category],
        gradient_CHW=None if channels is None else gradient,
        num_channels=channels,
    )
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    _check(vectors, name, weights, activation)


def test_gscore_cam_of_all_channels_is_score_cam_and_left_out_channels_may_weigh_nothing():
    generator = torch.Generator().manual_seed(0)
    activation, gradient, image = (torch.randn(n, 8, 8, generator=generator) for n in (6, 6, 3))

    def score(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).sum(1)

    plain = score_weights(activation, image, score)
    torch.testing.assert_close(
        score_weights(activation, image, score, gradient_CHW=gradient, num_channels=6), plain, atol=1e-4, rtol=0
    )
    few = score_weights(activation, image, score, gradient_CHW=gradient, num_channels=2, unselected="mask")
    assert int((few > 0).sum()) <= 2
    assert float(few.sum()) == pytest.approx(1, abs=1e-6)


def test_grad_cam_of_a_linear_head_on_averages_is_the_heads_weights():
    activation = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    head = torch.tensor([1.0, -2.0, 0.5, 3.0])
    (gradient,) = torch.autograd.grad((activation.mean(dim=(1, 2)) * head).sum() + 7, activation)
    weights = gradient_weights(gradient)
    torch.testing.assert_close(weights, head / 15)
    expected = torch.einsum("c,chw->hw", head, activation.detach()).clamp_min(0) / 15
    torch.testing.assert_close(weighted_map(weights, activation.detach()), expected)
