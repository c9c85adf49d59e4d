"""A tiny pack with random weights, built by code."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medclip.adapters.registry import get_adapter
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs.card import Card
from medclip.models.packs.pack import save_pack
from medclip.models.towers.build import build_clip, default_config
from medclip.text.tokenizers.tokenizer import load_tokenizer, train_tokenizer

CAPTIONS = [
    "a chest x-ray with pneumonia",
    "no pneumonia on this radiograph",
    "a fundus photograph",
    "brain mri, glioma",
]
SIZE = 64


def tiny_config(vocab_size: int) -> dict[str, Any]:
    return default_config(
        vocab_size=vocab_size,
        context_length=16,
        embed_dim=24,
        size_px=SIZE,
        image_tower="test_efficientnet",
        text_width=32,
        text_heads=2,
        text_layers=1,
    )


def xray() -> dict[str, str]:
    """The preprocessing that the tiny pack's manifest has to name."""
    return {"xray": get_adapter("xray").preprocessing}


def random_clip(config: dict[str, Any]) -> nn.Module:
    """Random weights, and statistics of batch normalisation that are not the trivial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_clip(config).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return model


@pytest.fixture(scope="session")
def _pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    train_tokenizer(CAPTIONS * 3, folder / "tokenizer", vocab_size=400, context_length=16)
    config = tiny_config(load_tokenizer(folder / "tokenizer").vocab_size)
    card = Card(name="tiny", version="1", summary="Random weights.", modalities=("xray",))
    return save_pack(
        folder / "tiny",
        random_clip(config),
        folder / "tokenizer",
        Preprocess(SIZE, adapters=xray()),
        card,
        config=config,
        extra_files={"train_hashes.txt": b"00\n"},
    )


@pytest.fixture
def pack(_pack: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(_pack, tmp_path / "tiny"))
