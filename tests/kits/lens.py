"""A pack of images that a lens can stand in front of: a tiny vision transformer with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs.card import IMPORTED, Card
from medclip.models.packs.pack import save_pack
from medclip.models.towers.build import build_clip, default_config
from medclip.text.tokenizers.tokenizer import train_tokenizer
from tests.kits.signal_shards import CAPTIONS

SIZE_PX = 160


def vit_pack(folder: Path, *, words: bool = True) -> Path:
    """Write the pack of a dual encoder, or of its image tower alone; returns its folder."""
    config: dict[str, Any] = {
        "vision_cfg": {"image_size": SIZE_PX, "timm_model_name": "test_vit", "timm_pool": "mean"},
        "embed_dim": 64,
    }
    texts = folder.with_name(f"{folder.name}-tokenizer")
    if words:
        tokenizer = train_tokenizer([*CAPTIONS, "a ct scan"] * 20, texts, vocab_size=300, context_length=24)
        config = default_config(
            vocab_size=tokenizer.vocab_size,
            context_length=24,
            embed_dim=16,
            size_px=SIZE_PX,
            image_tower="test_vit",
            text_width=16,
            text_heads=2,
            text_layers=1,
        )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_clip(config).eval()
    card = Card(name="vit", version="1", summary="Random weights.", created_from={IMPORTED: "random"})
    preprocess = Preprocess(SIZE_PX)
    return save_pack(folder, model, texts if words else None, preprocess, card, config=config)


def lens_of(pack: Path, **more: Any) -> dict[str, Any]:
    """Return the section `model.lens` of a small lens in front of a pack."""
    return {"trunk": str(pack), "depth": 1, "latent_heads": 2, "head_dim": 8, "token_width": 16, **more}
