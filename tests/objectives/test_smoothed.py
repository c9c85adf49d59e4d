"""InfoNCE with label smoothing against golden vectors and numbers by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from medclip.errors import MedclipError, Reason
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.smoothed import smoothed_info_nce


@pytest.mark.golden
def test_golden_loss(golden: Path) -> None:
    stored = np.load(golden / "clip_reident.npz")
    first, second = (normalize(torch.from_numpy(stored[f"loss_{n}_raw"]), dim=-1) for n in ("query", "gallery"))
    (name,) = (n for n in stored.files if n.startswith("loss_label_smoothing"))
    smoothing = float(name.removeprefix("loss_label_smoothing").replace("p", "."))
    found = smoothed_info_nce(first, second, float(stored["loss_logit_scale"]), smoothing=smoothing)
    assert float(found) == pytest.approx(float(stored[name]), rel=1e-5)


def test_a_row_of_logits_by_hand() -> None:
    # logits (2, 0, 0), symmetric: every row and column is (2, 0, 0) in some order
    eye = torch.eye(3)
    assert float(smoothed_info_nce(eye, eye, 2.0)) == pytest.approx(0.372878, abs=1e-6)
    assert float(smoothed_info_nce(eye, eye, 2.0, smoothing=0.0)) == pytest.approx(0.239545, abs=1e-6)


def test_without_smoothing_it_is_the_clip_loss() -> None:
    torch.manual_seed(0)
    first, second = normalize(torch.randn(7, 5), dim=-1), normalize(torch.randn(7, 5), dim=-1)
    assert float(smoothed_info_nce(first, second, 9.0, smoothing=0.0)) == pytest.approx(
        float(clip_loss(first, second, 9.0)), rel=1e-6
    )


def test_a_learned_scale_gets_a_gradient() -> None:
    scale = torch.tensor(10.0, requires_grad=True)
    smoothed_info_nce(torch.eye(3), torch.eye(3), scale).backward()
    assert scale.grad is not None
    assert float(scale.grad) > 0  # at this scale the smoothed targets are exceeded


@pytest.mark.parametrize("smoothing", [-0.1, 1.1])
def test_a_smoothing_outside_zero_to_one_is_refused(smoothing: float) -> None:
    with pytest.raises(MedclipError, match="between 0 and 1") as caught:
        smoothed_info_nce(torch.eye(2), torch.eye(2), 1.0, smoothing=smoothing)
    assert caught.value.reason is Reason.WRONG_USE


def test_other_sizes_are_refused() -> None:
    with pytest.raises(MedclipError):
        smoothed_info_nce(torch.eye(2), torch.eye(3), 1.0)
