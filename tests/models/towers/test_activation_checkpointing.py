"""Activations that are computed again give the same gradients."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from medclip.models.towers.build import build_clip
from medclip.models.towers.layers import lock_text, recompute_activations
from tests.kits.layouts import BPE_TEXT, VIT, bert_folder, bert_text

TEXT = BPE_TEXT | {"context_length": 12, "vocab_size": 60}


@pytest.mark.parametrize("kind", ["clip", "custom", "bert", "locked_bert", "timm"])
def test_gradients_are_the_same_with_less_kept(tmp_path: Path, kind: str) -> None:
    vision = {"timm_model_name": "test_vit", "timm_pool": "", "image_size": 160} if kind == "timm" else VIT
    text = bert_text(bert_folder(tmp_path / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    plain: Any = build_clip(
        {
            "embed_dim": 16,
            "vision_cfg": vision,
            "text_cfg": text if "bert" in kind else TEXT,
            "custom_text": kind == "custom",
        }
    )
    if kind == "locked_bert":
        lock_text(plain, unlocked_layers=2)
    saving = copy.deepcopy(plain)
    recompute_activations(saving)
    kept = [_gradients(model, vision["image_size"]) for model in (plain, saving)]
    for name, gradient in kept[0][0].items():
        torch.testing.assert_close(kept[1][0][name], gradient)
    assert kept[0][0].keys() == kept[1][0].keys()
    assert kept[1][1] < kept[0][1]


def _gradients(model: Any, size: int) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients by name, and how many values autograd saved."""
    saved = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += tensor.numel()
        return tensor

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, size, size, generator=generator)
    tokens = torch.randint(1, 60, (2, 12), generator=generator)
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        image, text = model.encode_image(images), model.encode_text(tokens)
        loss = (image * text).sum()
    loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, saved
