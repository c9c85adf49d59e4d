"""A tiny image-only pack: a ViT of timm with random weights, class and register tokens, and no words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs.card import IMPORTED, Card
from medclip.models.packs.pack import save_pack
from medclip.models.towers.build import build_clip

SIZE_PX, PATCH_PX, WIDTH = 32, 8, 24
TOWER = "vit_tiny_patch16_224"
ARGUMENTS = {
    "img_size": SIZE_PX,
    "patch_size": PATCH_PX,
    "embed_dim": WIDTH,
    "depth": 2,
    "num_heads": 2,
    "init_values": 0.5,
    "reg_tokens": 2,
    "no_embed_class": True,
    "dynamic_img_size": True,
}


def image_only_config(pooling: str = "token", **more: Any) -> dict[str, Any]:
    """Give the `model_cfg` of an image tower alone; `more` changes its arguments."""
    return {
        "embed_dim": 2 * WIDTH if pooling == "token+mean" else WIDTH,
        "vision_cfg": {
            "image_size": SIZE_PX,
            "timm_model_name": TOWER,
            "timm_pool": pooling,
            "timm_model_args": {**ARGUMENTS, **more},
        },
    }


def image_only_pack(
    folder: Path,
    *,
    pooling: str = "token",
    modalities: tuple[str, ...] = (),
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write the pack."""
    config = config or image_only_config(pooling)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_clip(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 0, 0.2)
    card = Card(
        name="tiles", version="1", summary="Random weights.", modalities=modalities, created_from={IMPORTED: "random"}
    )
    size = config["vision_cfg"]["image_size"]
    return save_pack(folder, model, None, Preprocess(size), card, config=config, half=False)
