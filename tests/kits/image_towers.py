"""Image towers built small with random weights by timm and transformers, and saved by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from timm.layers.mlp import SwiGLUPacked
from timm.models._hub import save_for_hf
from torch import Tensor, nn

GATED = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
"""What UNI2 and Virchow have to be built with in code, as JSON cannot hold a class."""
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def randomised(model: nn.Module) -> Any:
    """Give every parameter values that matter: layer scales of 1e-5 would hide the blocks."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.15
    return model.eval()


def save_timm(folder: Path, name: str, data: dict[str, Any] | None = None, **arguments: Any) -> Any:
    """Build a tower, save it as timm pushes models to the hub, and load it with timm's own loader.

    Layers that JSON cannot hold are left out of the file, and named to timm, as the cards of UNI2 and Virchow say.
    """
    model = randomised(timm.create_model(name, **arguments))
    classes = {key: "left out" for key in GATED if key in arguments}
    save_for_hf(model, str(folder), safe_serialization=True, model_args=classes or None, data_config=data)
    config = json.loads((folder / "config.json").read_text())
    for key in classes:
        del config["model_args"][key]
    (folder / "config.json").write_text(json.dumps(config))
    in_code = {key: value for key, value in arguments.items() if key in GATED}
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **in_code).eval()


def timm_pixels(model: Any, image: Path) -> Tensor:
    """Read an image with the model's own transform of timm; [1, 3, S, S]."""
    transform: Any = create_transform(**resolve_model_data_config(model))
    return transform(Image.open(image).convert("RGB"))[None]


def save_dinov2(
    folder: Path, *, registers: int = 0, table_px: int = 70, image_px: int | None = None, **config: Any
) -> Any:
    """Build a DINOv2 of transformers, and save it with its image processor (as RAD-DINO's, for `image_px`)."""
    from transformers import (
        BitImageProcessor,
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 14,
        "image_size": table_px,
    }
    values: dict[str, Any] = {**sizes, **config}
    model = (
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=registers, **values))
        if registers
        else Dinov2Model(Dinov2Config(**values))
    )
    randomised(model).save_pretrained(folder)
    side = image_px or table_px
    processor = BitImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        do_center_crop=True,
        image_mean=[0.5307] * 3,
        image_std=[0.2583] * 3,
        resample=3,
    )
    processor.save_pretrained(folder)
    return model


def dinov2_pixels(folder: Path, image: Path) -> Tensor:
    """Read an image with the processor that lies in a folder; [1, 3, S, S]."""
    from transformers import BitImageProcessor

    return BitImageProcessor.from_pretrained(folder)(Image.open(image).convert("RGB"), return_tensors="pt")[
        "pixel_values"
    ]


def colour_png(path: Path, height: int = 67, width: int = 90) -> Path:
    """Write an image in colour that is not square."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def embedded(pack: Path, image: Path) -> np.ndarray:
    """Return a pack's vector of an image, [D]: its own resizing, normalisation and tower."""
    from medclip.models.packs.pack import load_model

    model = load_model(pack)
    pixels = model.preprocess.fit(np.asarray(Image.open(image).convert("RGB")))
    return model.encode_image(model.preprocess.together([pixels]))[0]


def unit(features_1D: Tensor) -> np.ndarray:
    """Return features of the norm 1, [D]."""
    return nn.functional.normalize(features_1D[0].detach(), dim=-1).numpy()
